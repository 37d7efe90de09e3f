//! The supervisor's end of the host side: requests to the process that stayed in the host's network.
//!
//! A process that has left the host's network cannot open a socket there any more. So one small
//! process stays behind ([`super::host_process`]) and hands sockets over a Unix socket pair:
//! a socket belongs to the network namespace in which it was made, whoever uses it later.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use serde::{Deserialize, Serialize};

use super::error::{FabricError, Result};
use super::host_process;
use super::veth::Slot;

/// Longest message of the protocol in bytes.
pub(super) const MESSAGE_MAX: usize = 16 * 1024;
/// Most file descriptors with one message.
pub(super) const FDS_MAX: usize = 2;

/// What the supervisor asks of the host side.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// A listening TCP socket; its descriptor comes with the reply.
    Listen {
        /// Where.
        address: SocketAddr,
    },
    /// A fresh socket, neither bound nor connected.
    Socket {
        /// IPv6 instead of IPv4.
        ipv6: bool,
        /// TCP instead of UDP.
        stream: bool,
    },
    /// Start a program that gives a namespace its way out. With the request come the network
    /// namespace (its standard input) and, unless ours, the user namespace (standard output).
    /// With the reply comes the reading end of its standard error, which ends with it.
    Spawn {
        /// Program and arguments.
        command: Vec<String>,
        /// Run as user and group `nobody`.
        as_nobody: bool,
    },
    /// Make a veth pair and the host's rules for it; with the request comes the network namespace.
    /// With the reply comes a pipe that ends with the rules. `EEXIST` when the slot is taken.
    Veth(Slot),
    /// Make a veth pair through which this host reaches public addresses; with the request comes the router's network
    /// namespace. `EEXIST` when the slot is taken.
    Reach(Slot),
    /// Lead addresses through the pair of this slot, or no longer.
    Lead {
        /// Which pair.
        slot: Slot,
        /// Those that are to be led.
        new: Vec<Ipv4Addr>,
        /// Those that are not any more.
        gone: Vec<Ipv4Addr>,
    },
}

/// The host side's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Done.
    Done,
    /// The kernel refused with this error number.
    Errno(i32),
    /// It failed with this message.
    Failed(String),
}

/// The connection to the host-side process, which ends when this is dropped or the supervisor dies.
#[derive(Debug)]
pub(super) struct HostSide {
    socket: Mutex<OwnedFd>,
}

impl HostSide {
    /// Forks the host-side process. The caller has one thread only.
    pub(super) fn spawn() -> Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(io::Error::from)
        .map_err(FabricError::io("make a socket pair"))?;
        // SAFETY: the process has one thread (checked by `enter`), so the child may go on with
        // ordinary code: no lock can be held by a thread that does not exist in it.
        match unsafe { fork() }
            .map_err(io::Error::from)
            .map_err(FabricError::io("fork"))?
        {
            ForkResult::Child => {
                drop(ours);
                host_process::exit_child(fork_into_pid_namespace(theirs))
            }
            ForkResult::Parent { child } => {
                drop(theirs);
                match waitpid(child, None) {
                    Ok(WaitStatus::Exited(_, 0)) => Ok(Self {
                        socket: Mutex::new(ours),
                    }),
                    Ok(WaitStatus::Exited(_, code)) => Err(FabricError::Namespace {
                        kind: "process",
                        hint: "the kernel or a container forbids it".to_owned(),
                        source: io::Error::from_raw_os_error(code),
                    }),
                    other => Err(FabricError::HostProcess {
                        message: format!("{other:?}"),
                    }),
                }
            }
        }
    }

    /// A TCP socket listening on the host.
    pub(super) fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        match self.call(&Request::Listen { address }, &[])? {
            (Reply::Done, fds) => Ok(TcpListener::from(one(fds)?)),
            (Reply::Errno(libc::EADDRINUSE), _) => Err(FabricError::PortBusy { address }),
            (Reply::Errno(code), _) => Err(FabricError::Listen {
                address,
                source: io::Error::from_raw_os_error(code),
            }),
            (Reply::Failed(message), _) => Err(FabricError::HostProcess { message }),
        }
    }

    /// A fresh socket of the host's network.
    pub(super) fn socket(&self, ipv6: bool, stream: bool) -> Result<OwnedFd> {
        match self.call(&Request::Socket { ipv6, stream }, &[])? {
            (Reply::Done, fds) => one(fds),
            (Reply::Errno(code), _) => Err(FabricError::io("open a socket on the host")(
                io::Error::from_raw_os_error(code),
            )),
            (Reply::Failed(message), _) => Err(FabricError::HostProcess { message }),
        }
    }

    /// Starts a program; the pipe returned ends when it does.
    pub(super) fn start(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<OwnedFd, String> {
        match self.call(request, fds).map_err(|error| error.to_string())? {
            (Reply::Done, fds) => one(fds).map_err(|error| error.to_string()),
            (Reply::Errno(code), _) => Err(io::Error::from_raw_os_error(code).to_string()),
            (Reply::Failed(message), _) => Err(message),
        }
    }

    /// Makes a veth pair in this slot; `None` when the slot is taken.
    pub(super) fn veth(
        &self,
        slot: Slot,
        netns: BorrowedFd<'_>,
    ) -> Result<Option<OwnedFd>, String> {
        match self
            .call(&Request::Veth(slot), &[netns])
            .map_err(|error| error.to_string())?
        {
            (Reply::Done, fds) => one(fds).map(Some).map_err(|error| error.to_string()),
            (Reply::Errno(libc::EEXIST), _) => Ok(None),
            (Reply::Errno(code), _) => Err(io::Error::from_raw_os_error(code).to_string()),
            (Reply::Failed(message), _) => Err(message),
        }
    }

    /// Makes the host's way to public addresses in this slot; false when the slot is taken.
    pub(super) fn reach(&self, slot: Slot, netns: BorrowedFd<'_>) -> Result<bool> {
        match self.call(&Request::Reach(slot), &[netns])? {
            (Reply::Done, _) => Ok(true),
            (Reply::Errno(libc::EEXIST), _) => Ok(false),
            (reply, _) => Err(failed(&reply)),
        }
    }

    /// Leads the new addresses through the pair of this slot, and those that are gone no longer.
    pub(super) fn lead(&self, slot: Slot, new: Vec<Ipv4Addr>, gone: Vec<Ipv4Addr>) -> Result<()> {
        match self.call(&Request::Lead { slot, new, gone }, &[])? {
            (Reply::Done, _) => Ok(()),
            (reply, _) => Err(failed(&reply)),
        }
    }

    fn call(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let gone = |error: io::Error| FabricError::HostProcess {
            message: error.to_string(),
        };
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        send(socket.as_fd(), request, fds).map_err(gone)?;
        receive(socket.as_fd())
            .map_err(gone)?
            .ok_or_else(|| FabricError::HostProcess {
                message: "it has ended".to_owned(),
            })
    }
}

fn failed(reply: &Reply) -> FabricError {
    let message = match reply {
        Reply::Errno(code) => io::Error::from_raw_os_error(*code).to_string(),
        Reply::Failed(message) => message.clone(),
        Reply::Done => "it is done".to_owned(),
    };
    FabricError::HostProcess { message }
}

fn one(fds: Vec<OwnedFd>) -> Result<OwnedFd> {
    fds.into_iter()
        .next()
        .ok_or_else(|| FabricError::HostProcess {
            message: "it sent no file descriptor".to_owned(),
        })
}

/// Runs in the first child: makes a process namespace and forks the host side as its first
/// process. When that one ends, however it ends, the kernel kills all that it started.
/// Returns the exit status, 0 or an error number.
fn fork_into_pid_namespace(socket: OwnedFd) -> i32 {
    if let Err(error) = nix::sched::unshare(CloneFlags::CLONE_NEWPID) {
        return error as i32;
    }
    // SAFETY: still one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => host_process::run(socket),
        Ok(ForkResult::Parent { .. }) => 0,
        Err(error) => error as i32,
    }
}

/// Sends one message with descriptors.
pub(super) fn send<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MESSAGE_MAX || fds.len() > FDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    loop {
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&body)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message with descriptors (close-on-exec); `None` when the other end is gone.
pub(super) fn receive<M: for<'de> Deserialize<'de>>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut body = vec![0; MESSAGE_MAX];
    let mut control = cmsg_space!([RawFd; FDS_MAX]);
    let mut fds = Vec::new();
    let length = loop {
        let mut parts = [IoSliceMut::new(&mut body)];
        match recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Ok(message) => {
                for part in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = part {
                        // SAFETY: the kernel has just made these descriptors for us; nobody
                        // else owns them.
                        fds.extend(
                            raw.into_iter()
                                .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                        );
                    }
                }
                break message.bytes;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&body[..length])?, fds)))
}
