//! Running one command inside L1 for a client: its own session and cgroup, output streamed, killed when the client
//! goes away.

use super::proto::{self, Exec, Exit, kind};
use anyhow::{Context as _, Result};
use nix::pty::{Winsize, openpty};
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setsid, setuid};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PATH: &str = "/opt/cumulet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A cgroup that holds one command and everything it ever starts, wherever that is reparented to.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/sys/fs/cgroup/exec-{number}"));
        fs::create_dir(&dir)
            .with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        Ok(Self(dir))
    }

    /// Command lines of what still runs in it.
    fn members(&self) -> Vec<String> {
        let pids = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        pids.lines()
            .filter_map(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                // Empty for the dead that nobody has collected yet.
                (!line.is_empty()).then(|| line.trim_end().to_owned())
            })
            .collect()
    }

    fn kill(&self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Refused while something runs in it, which is right: a daemon may outlive the command that started it.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where the child's input goes and its output comes from.
struct Pipes {
    input: File,
    outputs: Vec<(u8, File)>,
    terminal: Option<File>,
}

/// Serves one `Exec` request.
pub(crate) fn serve(stream: TcpStream, request: &Exec) -> Result<()> {
    let group = Arc::new(Group::new()?);
    let (mut child, pipes) = start(request, &group)?;
    let writer = Arc::new(Mutex::new(stream.try_clone()?));
    let (ended, ends) = mpsc::channel();
    let outputs = pipes.outputs.len();
    for (kind, output) in pipes.outputs {
        let (writer, ended) = (Arc::clone(&writer), ended.clone());
        std::thread::spawn(move || pump(output, kind, &writer, &ended));
    }
    let feeding = Arc::clone(&group);
    let reader = stream.try_clone()?;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let feeder_done = Arc::clone(&done);
    std::thread::spawn(move || {
        feed(reader, pipes.input, pipes.terminal);
        // The client has closed: if the command still runs nobody wants it any more.
        if !feeder_done.load(Ordering::SeqCst) {
            feeding.kill();
        }
    });
    let status = child.wait()?;
    let mut leftovers = Vec::new();
    if request.reap {
        // What is just ending is no leftover.
        for _ in 0..50 {
            leftovers = group.members();
            if leftovers.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    if request.reap {
        group.kill();
    }
    // A process left behind may hold the output open: what it prints later is not this command's.
    for _ in 0..outputs {
        if ends.recv_timeout(Duration::from_secs(2)).is_err() {
            break;
        }
    }
    done.store(true, Ordering::SeqCst);
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    proto::send_json(&mut *writer, kind::DONE, &Exit { code, leftovers })?;
    // Wakes the feeder, which otherwise waits for a client that may be slow to close.
    let _ = stream.shutdown(std::net::Shutdown::Both);
    Ok(())
}

fn pump(mut output: File, kind: u8, writer: &Mutex<TcpStream>, ended: &Sender<()>) {
    let mut buffer = [0; 32 << 10];
    // A terminal whose last user has gone reads as an error, not as an end.
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if proto::send(&mut *writer, kind, &[&buffer[..count]]).is_err() {
            break;
        }
    }
    let _ = ended.send(());
}

/// Passes the client's input on until the client closes.
fn feed(mut reader: TcpStream, input: File, terminal: Option<File>) {
    let mut input = Some(input);
    while let Ok(Some(frame)) = proto::receive(&mut reader) {
        match frame.kind {
            kind::DATA => {
                // A command that does not read its input is free not to.
                if let Some(to) = &mut input
                    && to.write_all(&frame.payload).is_err()
                {
                    input = None;
                }
            }
            kind::END => input = None,
            kind::RESIZE => {
                if let (Some(terminal), [r1, r0, c1, c0]) = (&terminal, frame.payload.as_slice()) {
                    let size = winsize(
                        u16::from_be_bytes([*r1, *r0]),
                        u16::from_be_bytes([*c1, *c0]),
                    );
                    // SAFETY: the descriptor is open and the ioctl only reads the struct it is given.
                    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
                }
            }
            _ => return,
        }
    }
}

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn start(request: &Exec, group: &Group) -> Result<(Child, Pipes)> {
    let (program, arguments) = request.argv.split_first().context("no command given")?;
    let user = match request.user.as_deref() {
        None => None,
        Some(name) => {
            Some(User::from_name(name)?.with_context(|| format!("L1 has no user {name:?}"))?)
        }
    };
    let home = user
        .as_ref()
        .map_or_else(|| PathBuf::from("/root"), |u| u.dir.clone());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", &home)
        .env("USER", user.as_ref().map_or("root", |u| &u.name))
        .env("LANG", "C.UTF-8")
        .env("RUST_BACKTRACE", "1")
        .current_dir(request.cwd.as_ref().unwrap_or(&home));
    if let Some(user) = &user {
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", user.uid));
    }
    command.envs(request.env.iter().map(|(key, value)| (key, value)));
    let terminal = match request.tty {
        Some((rows, columns)) => {
            let pair = openpty(Some(&winsize(rows, columns)), None)?;
            command
                .stdin(pair.slave.try_clone()?)
                .stdout(pair.slave.try_clone()?)
                .stderr(pair.slave.try_clone()?);
            if let Some(user) = &user {
                nix::unistd::fchown(&pair.slave, Some(user.uid), None)?;
            }
            Some(pair)
        }
        None => {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            None
        }
    };
    let procs = File::options()
        .write(true)
        .open(group.0.join("cgroup.procs"))?;
    let identity = user
        .map(|user| anyhow::Ok((CString::new(user.name)?, user.uid, user.gid)))
        .transpose()?;
    let has_terminal = terminal.is_some();
    // SAFETY: only system calls between fork and exec: a write to an open descriptor, setsid, an ioctl, set*id
    // (initgroups reads /etc/group; the agent's other threads hold no lock of the C library's that it needs).
    unsafe {
        command.pre_exec(move || enter(&procs, has_terminal, identity.as_ref()));
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("L1 cannot start {program:?}"))?;
    // The slave ends that `command` holds must close, or the terminal never ends.
    drop(command);
    let pipes = match terminal {
        Some(pair) => {
            let master = File::from(pair.master);
            Pipes {
                input: master.try_clone()?,
                outputs: vec![(kind::OUT, master.try_clone()?)],
                terminal: Some(master),
            }
        }
        None => Pipes {
            input: OwnedFd::from(child.stdin.take().context("no standard input")?).into(),
            outputs: vec![
                (
                    kind::OUT,
                    OwnedFd::from(child.stdout.take().context("no standard output")?).into(),
                ),
                (
                    kind::ERR,
                    OwnedFd::from(child.stderr.take().context("no standard error")?).into(),
                ),
            ],
            terminal: None,
        },
    };
    Ok((child, pipes))
}

/// In the child, before exec: joins the cgroup, leads a session (on the terminal), becomes the user.
fn enter(
    mut procs: &File,
    terminal: bool,
    identity: Option<&(CString, Uid, Gid)>,
) -> std::io::Result<()> {
    procs.write_all(b"0")?;
    setsid()?;
    if terminal {
        // SAFETY: descriptor 0 is the terminal; the ioctl takes no pointer.
        let done = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        nix::errno::Errno::result(done)?;
    }
    if let Some((name, uid, gid)) = identity {
        initgroups(name, *gid)?;
        setgid(*gid)?;
        setuid(*uid)?;
    }
    Ok(())
}
