//! The process that stays in the host's network.
//!
//! It is the first process of its own process namespace and does nothing but answer
//! [`Request`]s. It ends when its socket does, that is when the supervisor is gone for whatever
//! reason, and with it the kernel ends every program that it started, even those that clear
//! their parent-death signal (as `pasta` does by changing its credentials).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{
    Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setresgid, setresuid, setsid,
};

use super::host::{Reply, Request, receive, send};
use super::veth;

/// User and group `nobody`, as `pasta` itself uses when root starts it.
pub(super) const NOBODY: u32 = 65534;

/// Answers requests until the supervisor is gone. Never returns.
pub(super) fn run(socket: OwnedFd) -> ! {
    let status = match prepare(&socket).and_then(|()| serve(&socket)) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    exit_child(status)
}

/// Ends a forked child without running what the parent has registered for its own end.
pub(super) fn exit_child(status: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// Lets go of everything that came from the supervisor but the socket: a descriptor kept open
/// here (a lock, a pipe) could make somebody wait for us.
fn prepare(socket: &OwnedFd) -> io::Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    drop(null);
    let kept = u32::try_from(socket.as_raw_fd()).map_err(io::Error::other)?;
    close_range(3, kept - 1)?;
    close_range(kept + 1, u32::MAX)?;
    // A terminal's Ctrl-C is the supervisor's business.
    setsid()?;
    std::env::set_current_dir("/")?;
    nix::sys::prctl::set_name(c"cumulet-host")?;
    Ok(())
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: closes descriptors that no object of this process owns any more: it has just been
    // forked, goes on only here, and uses nothing but its socket and 0 to 2.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn serve(socket: &OwnedFd) -> io::Result<()> {
    while let Some((request, fds)) = receive::<Request>(socket.as_fd())? {
        let (reply, fd) = match answer(request, fds) {
            Ok(fd) => (Reply::Done, fd),
            Err(Refused::Errno(error)) => (Reply::Errno(error as i32), None),
            Err(Refused::Message(message)) => (Reply::Failed(message), None),
        };
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        send(socket.as_fd(), &reply, &fds)?;
        // Collect what has ended; the rest is collected when we end.
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {
        }
    }
    Ok(())
}

enum Refused {
    Errno(Errno),
    Message(String),
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        Self::Errno(error)
    }
}

impl From<veth::Refused> for Refused {
    fn from(refused: veth::Refused) -> Self {
        match refused {
            veth::Refused::Taken => Self::Errno(Errno::EEXIST),
            veth::Refused::Message(message) => Self::Message(message),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Message(error.to_string())
    }
}

fn answer(request: Request, fds: Vec<OwnedFd>) -> Result<Option<OwnedFd>, Refused> {
    match request {
        Request::Listen { address } => Ok(Some(listen_on(address)?)),
        Request::Socket { ipv6, stream } => {
            let family = if ipv6 {
                AddressFamily::Inet6
            } else {
                AddressFamily::Inet
            };
            let kind = if stream {
                SockType::Stream
            } else {
                SockType::Datagram
            };
            Ok(Some(socket(
                family,
                kind,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                None,
            )?))
        }
        Request::Veth(slot) => {
            let netns = fds.into_iter().next().ok_or(Errno::EBADF)?;
            Ok(Some(veth::build(slot, &netns)?))
        }
        Request::Reach(slot) => {
            let netns = fds.into_iter().next().ok_or(Errno::EBADF)?;
            veth::reach(slot, &netns)?;
            Ok(None)
        }
        Request::Lead { slot, new, gone } => {
            veth::lead(slot, &new, &gone)?;
            Ok(None)
        }
        Request::Spawn { command, as_nobody } => Ok(Some(spawn(&command, as_nobody, fds)?)),
    }
}

/// As `TcpListener::bind`, but IPv6 addresses take no IPv4 connections.
fn listen_on(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::MAXALLOWABLE)?;
    Ok(OwnedFd::from(TcpListener::from(fd)))
}

fn spawn(command: &[String], as_nobody: bool, fds: Vec<OwnedFd>) -> io::Result<OwnedFd> {
    let (program, arguments) = command.split_first().ok_or(Errno::EINVAL)?;
    let (reader, writer) = io::pipe()?;
    let mut fds = fds.into_iter();
    let mut child = Command::new(program);
    child
        .args(arguments)
        .stdin(fds.next().map_or_else(Stdio::null, Stdio::from))
        .stdout(fds.next().map_or_else(Stdio::null, Stdio::from))
        .stderr(writer);
    // SAFETY: after fork, in the child, only system calls that are safe there.
    unsafe {
        child.pre_exec(move || {
            if as_nobody {
                become_nobody()?;
            }
            Ok(())
        });
    }
    child.spawn()?;
    Ok(reader.into())
}

/// Gives up root for good.
pub(super) fn become_nobody() -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}
