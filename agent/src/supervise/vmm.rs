//! The VMM as a child process, and its control socket.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use cumulet_vmm::config::VmConfig;
use cumulet_vmm::control::{Command as VmmCommand, EndReason, Event, Reply, Request};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::protocol::VMM_SOCKET;
use crate::error::{Context, Error, Result};
use crate::state::{InstanceDir, OwnerLock, connect_socket};

/// Lines of the VMM's standard error that are kept for messages.
const LAST_LINES: usize = 20;
/// Most bytes of its standard error that go to `vmm.log`.
const LOG_LIMIT: usize = 1 << 20;

/// The VMM's program: beside our own, else in PATH.
///
/// # Errors
/// When there is none.
pub fn find_vmm() -> Result<PathBuf> {
    const NAME: &str = "cumulet-vmm";
    let beside = env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(|folder| folder.join(NAME)));
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(env::split_paths(&path).map(|folder| folder.join(NAME)))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Error::host(
                "VmmNotFound",
                "the program `cumulet-vmm` is neither beside `cumulet` nor in PATH",
            )
            .mend("build it (`cargo build --release -p cumulet-vmm`) and put both into one folder")
        })
}

/// Why a VMM process is no more.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// It said so itself.
    Told(EndReason),
    /// It was killed or crashed.
    Died(String),
}

/// A running VMM.
#[derive(Debug)]
pub(super) struct Vmm {
    child: Child,
    errors: JoinHandle<Vec<String>>,
    dir: InstanceDir,
}

impl Vmm {
    /// Starts a VMM. It shares the instance's lock, so that the instance counts as alive until
    /// supervisor *and* VMM have ended, and dies with us.
    ///
    /// To be called on the main thread: "dies with us" (PR_SET_PDEATHSIG) means the thread that
    /// forked.
    pub(super) async fn spawn(
        dir: &InstanceDir,
        config: &VmConfig,
        inherit: &[OwnedFd],
        lock: &OwnerLock,
    ) -> Result<Self> {
        let program = find_vmm()?;
        let mut fds: Vec<RawFd> = inherit.iter().map(AsRawFd::as_raw_fd).collect();
        fds.push(lock.as_fd().as_raw_fd());
        let mut command = Command::new(&program);
        command
            .args(["--config", "-", "--die-with-parent"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let own = getpid();
        // SAFETY: between fork and exec only fcntl is called, on descriptors that are open, prctl and
        // getppid.
        unsafe {
            command.pre_exec(move || {
                keep_over_exec(&fds)?;
                die_with(own)
            });
        }
        let mut child = command
            .spawn()
            .context(|| format!("cannot start {}", program.display()))?;
        let text = serde_json::to_vec(config).context(|| "cannot write the VMM's configuration")?;
        let log = open_log(&dir.file("vmm.log"))?;
        let errors = match child.stderr.take() {
            Some(stderr) => tokio::spawn(collect(BufReader::new(stderr).lines(), log)),
            None => return Err(Error::internal("the VMM has no standard error")),
        };
        if let Some(mut stdin) = child.stdin.take() {
            // A VMM that ended at once says why on its standard error, not here.
            let _ = stdin.write_all(&text).await;
        }
        Ok(Self {
            child,
            errors,
            dir: dir.clone(),
        })
    }

    /// Process id.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn wait(&mut self) -> End {
        let status = match self.child.wait().await {
            Ok(status) => status,
            Err(error) => return End::Died(format!("it cannot be waited for: {error}")),
        };
        let lines = (&mut self.errors).await.unwrap_or_default();
        understand(status, &lines)
    }

    /// Ends it at once, flushing its disks if it still listens.
    pub(super) async fn quit(&mut self) {
        let asked = tokio::time::timeout(
            std::time::Duration::from_secs(30),
            self.ask(VmmCommand::Quit),
        );
        if !matches!(asked.await, Ok(Ok(_))) {
            self.kill();
        }
    }

    /// Kills it.
    pub(super) fn kill(&mut self) {
        let _ = self.child.start_kill();
    }

    /// One command over a connection of its own.
    pub(super) async fn ask(&self, command: VmmCommand) -> Result<Option<Value>> {
        let mut control = Control::connect(&self.dir)?;
        control.ask(command).await
    }
}

fn keep_over_exec(fds: &[RawFd]) -> io::Result<()> {
    for fd in fds {
        // SAFETY: clearing FD_CLOEXEC touches no memory; a bad descriptor is an error.
        if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes the calling process die with its parent `parent`. The VMM asks for that itself; asked for
/// here too, there is no moment at which we could die unnoticed.
fn die_with(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(Errno::ESRCH.into())
    }
}

fn open_log(path: &std::path::Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .context(|| format!("cannot write {}", path.display()))
}

/// What the last VMM wrote to its standard error, without the line for programs.
pub(super) fn log(dir: &InstanceDir) -> Option<String> {
    let text = std::fs::read_to_string(dir.file("vmm.log")).ok()?;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| serde_json::from_str::<EndReason>(line).is_err())
        .collect();
    Some(lines.join("\n"))
}

async fn collect(
    mut lines: Lines<BufReader<tokio::process::ChildStderr>>,
    mut log: File,
) -> Vec<String> {
    let mut last = Vec::new();
    let mut written = 0;
    while let Ok(Some(line)) = lines.next_line().await {
        written += line.len() + 1;
        if written <= LOG_LIMIT {
            let _ = writeln!(log, "{line}");
        }
        if last.len() == LAST_LINES {
            last.remove(0);
        }
        last.push(line);
    }
    last
}

fn understand(status: ExitStatus, lines: &[String]) -> End {
    if let Some(signal) = status.signal() {
        return End::Died(format!("the VMM was killed by signal {signal}"));
    }
    let told = lines
        .iter()
        .rev()
        .find_map(|line| serde_json::from_str::<EndReason>(line).ok());
    match told {
        Some(reason) => End::Told(reason),
        None => {
            let code = status.code().unwrap_or(-1);
            let last = lines.last().map_or("it said nothing", String::as_str);
            End::Died(format!("the VMM ended with status {code}: {last}"))
        }
    }
}

/// A connection to a VMM's control socket.
#[derive(Debug)]
pub(super) struct Control {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    next_id: u64,
}

impl Control {
    pub(super) fn connect(dir: &InstanceDir) -> Result<Self> {
        let doing = || format!("cannot reach the VMM of {}", dir.id());
        let stream = connect_socket(dir.path(), VMM_SOCKET).context(doing)?;
        stream.set_nonblocking(true).context(doing)?;
        let (reader, writer) = UnixStream::from_std(stream).context(doing)?.into_split();
        Ok(Self {
            lines: BufReader::new(reader).lines(),
            writer,
            next_id: 1,
        })
    }

    /// Sends a command and waits for its reply, passing over events.
    pub(super) async fn ask(&mut self, command: VmmCommand) -> Result<Option<Value>> {
        let name = format!("{command:?}");
        let doing = || format!("the VMM did not answer {name}");
        let id = self.next_id;
        self.next_id += 1;
        let mut line = serde_json::to_vec(&Request { id, command }).context(doing)?;
        line.push(b'\n');
        self.writer.write_all(&line).await.context(doing)?;
        while let Some(line) = self.lines.next_line().await.context(doing)? {
            let Ok(reply) = serde_json::from_str::<Reply>(&line) else {
                continue;
            };
            if reply.id != id {
                continue;
            }
            return match reply.error {
                Some(error) => Err(Error::internal(format!("the VMM refused {name}: {error}"))),
                None => Ok(reply.result),
            };
        }
        Err(Error::internal(doing()))
    }

    /// The next event; `None` when the VMM has ended.
    pub(super) async fn event(&mut self) -> Option<Event> {
        while let Ok(Some(line)) = self.lines.next_line().await {
            if let Ok(event) = serde_json::from_str(&line) {
                return Some(event);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_counts() {
        let lines = vec![
            "something".to_owned(),
            r#"{"reason":"guest_poweroff"}"#.to_owned(),
        ];
        let end = understand(ExitStatus::from_raw(0), &lines);
        assert!(
            matches!(end, End::Told(EndReason::GuestPoweroff)),
            "{end:?}"
        );
        let killed = understand(ExitStatus::from_raw(9), &lines);
        assert!(
            matches!(killed, End::Died(ref why) if why.contains("signal 9")),
            "{killed:?}"
        );
        let silent = understand(ExitStatus::from_raw(1 << 8), &[]);
        assert!(
            matches!(silent, End::Died(ref why) if why.contains("status 1")),
            "{silent:?}"
        );
    }
}
