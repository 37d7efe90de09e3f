//! `cumulet console`: the serial console, joined or only watched.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use cumulet_vmm::control::{Command as VmmCommand, Reply, Request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::args::ConsoleArgs;
use super::logs;
use super::output::Output;
use super::ssh::running;
use crate::error::{Context, Error, Result};
use crate::state::{Home, InstanceDir, connect_socket};
use crate::supervise;
use crate::supervise::protocol::VMM_SOCKET;

/// Ctrl-].
const ESCAPE: u8 = 0x1d;
/// What EC2's GetConsoleOutput gives.
const EC2_LIMIT: u64 = 64 * 1024;
/// How long a VMM may take to be there again after a reboot.
const REBOOT: Duration = Duration::from_secs(30);

/// `cumulet console`.
pub(super) fn command(home: &Home, output: Output, args: &ConsoleArgs) -> Result<u8> {
    let dir = home.find(&args.instance)?;
    if args.log {
        return log(&dir, output);
    }
    running(&dir)?;
    if args.follow {
        join(&dir, false)?;
    } else {
        interactive(&dir, output)?;
    }
    Ok(0)
}

fn log(dir: &InstanceDir, output: Output) -> Result<u8> {
    let bytes = supervise::log_tail(dir, EC2_LIMIT)
        .context(|| format!("cannot read the console log of {}", dir.id()))?;
    logs::print_once(dir, output, &bytes);
    Ok(0)
}

/// The console in this terminal until Ctrl-] or the instance's end.
pub(super) fn interactive(dir: &InstanceDir, output: Output) -> Result<()> {
    output.note(&format!("console of {}; Ctrl-] leaves it", dir.id()));
    let ended = join(dir, true)?;
    output.note(if ended {
        "\nthe instance has ended"
    } else {
        "\nleft the console"
    });
    Ok(())
}

/// Whether the instance ended, rather than the user having left.
fn join(dir: &InstanceDir, write: bool) -> Result<bool> {
    let raw = if write { Raw::enter() } else { None };
    let mut replay = true;
    let left = loop {
        let Some(stream) = connect(dir, replay)? else {
            break false;
        };
        let left = pump(stream, write).context(|| "the console broke")?;
        if left {
            break true;
        }
        // A reboot starts a new machine; its output follows on.
        replay = false;
    };
    drop(raw);
    Ok(!left)
}

/// The VMM's console stream; `None` when the instance has ended.
fn connect(dir: &InstanceDir, replay: bool) -> Result<Option<BufReader<UnixStream>>> {
    let end = Instant::now() + REBOOT;
    loop {
        if let Ok(stream) = connect_socket(dir.path(), VMM_SOCKET)
            && let Some(console) = ask(stream, replay)?
        {
            return Ok(Some(console));
        }
        if dir.holder()?.is_none() {
            return Ok(None);
        }
        if Instant::now() >= end {
            return Err(
                Error::wrong_state(format!("the machine of {} does not answer", dir.id()))
                    .mend("it may be rebooting: try again"),
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// `None` when the VMM ended before it answered.
fn ask(mut stream: UnixStream, replay: bool) -> Result<Option<BufReader<UnixStream>>> {
    let doing = || "cannot ask the VMM for its console";
    let request = Request {
        id: 1,
        command: VmmCommand::Console { replay },
    };
    let mut line = serde_json::to_vec(&request).context(doing)?;
    line.push(b'\n');
    if stream.write_all(&line).is_err() {
        return Ok(None);
    }
    let mut stream = BufReader::new(stream);
    let mut text = String::new();
    match stream.read_line(&mut text) {
        Ok(0) | Err(_) => return Ok(None),
        Ok(_) => {}
    }
    let reply: Reply = serde_json::from_str(&text).context(doing)?;
    match reply.error {
        None => Ok(Some(stream)),
        Some(error) => Err(Error::internal(format!("{}: {error}", doing()))),
    }
}

/// Copies both ways until the user leaves (true) or the VMM ends (false).
fn pump(mut from_guest: BufReader<UnixStream>, write: bool) -> io::Result<bool> {
    let mut to_guest = from_guest.get_ref().try_clone()?;
    let stdin = io::stdin();
    let mut out = io::stdout().lock();
    let mut listen = write;
    loop {
        if from_guest.buffer().is_empty() {
            let mut fds = vec![PollFd::new(from_guest.get_ref().as_fd(), PollFlags::POLLIN)];
            if listen {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
            let (guest, keys) = (ready(0), ready(1));
            if keys {
                match read_keys(&mut to_guest)? {
                    Keys::Leave => return Ok(true),
                    Keys::Over => listen = false,
                    Keys::Sent => {}
                    Keys::GuestGone => return Ok(false),
                }
            }
            if !guest {
                continue;
            }
        }
        let bytes = match from_guest.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            return Ok(false);
        }
        out.write_all(bytes)?;
        out.flush()?;
        let used = bytes.len();
        from_guest.consume(used);
    }
}

enum Keys {
    Sent,
    Leave,
    Over,
    GuestGone,
}

fn read_keys(to_guest: &mut UnixStream) -> io::Result<Keys> {
    let mut keys = [0; 256];
    // Straight from the descriptor: a buffered reader would keep bytes that poll cannot see.
    let count = match nix::unistd::read(io::stdin().as_fd(), &mut keys) {
        Ok(count) => count,
        Err(nix::Error::EINTR) => return Ok(Keys::Sent),
        Err(error) => return Err(error.into()),
    };
    let Some(typed) = keys.get(..count).filter(|typed| !typed.is_empty()) else {
        return Ok(Keys::Over);
    };
    let escape = typed.iter().position(|key| *key == ESCAPE);
    let wanted = &typed[..escape.unwrap_or(typed.len())];
    if to_guest.write_all(wanted).is_err() {
        return Ok(Keys::GuestGone);
    }
    Ok(if escape.is_some() {
        Keys::Leave
    } else {
        Keys::Sent
    })
}

/// The terminal in raw mode while it lives.
struct Raw(Termios);

impl Raw {
    /// `None` when standard input is no terminal.
    fn enter() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}
