//! Leaving the host's network: [`enter`].

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork};

use super::config::{EnterConfig, Publish, UplinkMode};
use super::error::{FabricError, Result};
use super::host::HostSide;
use super::host_process::{NOBODY, become_nobody, exit_child};
use super::tools;

/// The process is inside its own, still empty network. Give this to [`super::Fabric::start`].
#[derive(Debug)]
pub struct Entered {
    pub(super) host: HostSide,
    pub(super) published: Vec<Listening>,
    pub(super) namespaces: Namespaces,
    pub(super) uplink: UplinkMode,
}

/// A published port whose host side listens already.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) socket: TcpListener,
    pub(super) publish: Publish,
}

/// What a program on the host needs to attach to our network.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// Our network namespace.
    pub(super) net: OwnedFd,
    /// The user namespace that owns it, when the host side is not in it already.
    pub(super) user: Option<OwnedFd>,
    /// We are root on the host.
    pub(super) root: bool,
}

impl Entered {
    /// The published ports with the host addresses really bound (port 0 replaced).
    #[must_use]
    pub fn published(&self) -> Vec<Publish> {
        self.published
            .iter()
            .map(|listening| listening.publish)
            .collect()
    }
}

/// Takes this process out of the host's network into a new, empty one.
///
/// To be called early in the supervisor's `main`, before any thread or async runtime exists.
/// An ordinary user gets a user namespace of their own, in which they are `root` (files still
/// belong to them); root stays root and only changes the network. Programs started from now on
/// are inside too. Sockets bound to host addresses, as `config.publish` asks, are made on the way.
///
/// Nothing of the host changes. Everything made here ends with this process and its children.
///
/// # Errors
/// [`FabricError::MissingTool`] when `nft` or the uplink's program is not installed,
/// [`FabricError::NotSingleThreaded`], [`FabricError::Namespace`] when the kernel forbids it,
/// [`FabricError::PortBusy`] and [`FabricError::Listen`] for a published port.
pub fn enter(config: &EnterConfig) -> Result<Entered> {
    enter_beside(config, None)
}

/// As [`enter`], but an ordinary user goes into `user`, the user namespace of networks that are there already, and so
/// may use those, too.
///
/// # Errors
/// As [`enter`].
pub fn enter_beside(config: &EnterConfig, user: Option<BorrowedFd<'_>>) -> Result<Entered> {
    require_one_thread()?;
    tools::check(config.uplink)?;
    let root = has_cap_sys_admin()?;
    if config.uplink == UplinkMode::Veth && !root {
        return Err(FabricError::Uplink {
            mode: UplinkMode::Veth,
            message: "only root can change the host's network; use 'pasta'".to_owned(),
        });
    }
    match user {
        _ if root => {}
        Some(user) => setns(user, CloneFlags::CLONE_NEWUSER)
            .map_err(|error| namespace("user", error.into()))?,
        None => unshare_user()?,
    }
    let host = HostSide::spawn()?;
    let mut published = Vec::with_capacity(config.publish.len());
    for publish in &config.publish {
        published.push(listen(&host, *publish)?);
    }
    let user = if root {
        enter_namespace_of_nobody()?
    } else {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| namespace("network", error.into()))?;
        None
    };
    let net = open_namespace("/proc/self/ns/net")?;
    let namespaces = Namespaces { net, user, root };
    Ok(Entered {
        host,
        published,
        namespaces,
        uplink: config.uplink,
    })
}

/// A process with threads may not change its user namespace (user_namespaces(7)).
pub(super) fn require_one_thread() -> Result<()> {
    let threads = fs::read_dir("/proc/self/task")
        .map_err(FabricError::io("read /proc/self/task"))?
        .count();
    if threads == 1 {
        Ok(())
    } else {
        Err(FabricError::NotSingleThreaded { threads })
    }
}

/// Binds a published port on the host.
pub(super) fn listen(host: &HostSide, publish: Publish) -> Result<Listening> {
    let socket = host.listen(publish.host)?;
    let bound: SocketAddr = socket
        .local_addr()
        .map_err(FabricError::io("read a socket's address"))?;
    Ok(Listening {
        socket,
        publish: Publish {
            host: bound,
            ..publish
        },
    })
}

/// Whether we may make namespaces without a user namespace of our own (capabilities(7)).
pub(super) fn has_cap_sys_admin() -> Result<bool> {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status")
        .map_err(FabricError::io("read /proc/self/status"))?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    Ok(Uid::effective().is_root() && effective & (1 << CAP_SYS_ADMIN) != 0)
}

/// A user namespace in which the caller is root and nobody else exists.
fn unshare_user() -> Result<()> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| namespace("user", error.into()))?;
    for (file, text) in [
        // user_namespaces(7): without this an unprivileged process may not write gid_map.
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| namespace("user", error))?;
    }
    Ok(())
}

/// As root: enters a network namespace that belongs to a user namespace of `nobody`.
///
/// Root may do everything in it, and `pasta`, which should not run as root, may attach to it as
/// `nobody`. Where user namespaces are forbidden: a plain network namespace, and no such uplink.
fn enter_namespace_of_nobody() -> Result<Option<OwnedFd>> {
    match make_namespace_of_nobody() {
        Ok((net, user)) => {
            setns(&net, CloneFlags::CLONE_NEWNET)
                .map_err(|error| namespace("network", error.into()))?;
            Ok(Some(user))
        }
        Err(error) => {
            tracing::debug!(%error, "no user namespace for nobody, so no unprivileged uplink");
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|error| namespace("network", error.into()))?;
            Ok(None)
        }
    }
}

fn make_namespace_of_nobody() -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut made, mut tell_made) = io::pipe()?;
    let (mut done, tell_done) = io::pipe()?;
    // SAFETY: the process has one thread (checked by `enter`).
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            drop((made, tell_done));
            let result = become_nobody()
                .and_then(|()| unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET));
            if result.is_ok() && tell_made.write_all(b".").is_ok() {
                // Keeps the namespaces alive until the parent has opened them.
                let _ = done.read(&mut [0]);
            }
            exit_child(0)
        }
        ForkResult::Parent { child } => child,
    };
    drop((tell_made, done));
    let opened = made
        .read_exact(&mut [0])
        .and_then(|()| open_namespaces_of(child));
    drop(tell_done);
    waitpid(child, None)?;
    opened
}

fn open_namespaces_of(child: Pid) -> io::Result<(OwnedFd, OwnedFd)> {
    fs::write(format!("/proc/{child}/uid_map"), format!("0 {NOBODY} 1"))?;
    fs::write(format!("/proc/{child}/gid_map"), format!("0 {NOBODY} 1"))?;
    let net = fs::File::open(format!("/proc/{child}/ns/net"))?;
    let user = fs::File::open(format!("/proc/{child}/ns/user"))?;
    Ok((net.into(), user.into()))
}

fn open_namespace(path: &str) -> Result<OwnedFd> {
    Ok(fs::File::open(path)
        .map_err(FabricError::io(format!("open {path}")))?
        .into())
}

/// Explains a refused namespace.
pub(super) fn namespace(kind: &'static str, source: io::Error) -> FabricError {
    let is_one = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    let is_zero = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    let hint = if is_zero("/proc/sys/kernel/unprivileged_userns_clone") {
        "allow it with 'sysctl kernel.unprivileged_userns_clone=1' as root"
    } else if is_zero("/proc/sys/user/max_user_namespaces")
        || is_zero("/proc/sys/user/max_net_namespaces")
    {
        "allow it with 'sysctl user.max_user_namespaces=10000 user.max_net_namespaces=10000' as root"
    } else if is_one("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
        "AppArmor forbids it to ordinary users: 'sysctl kernel.apparmor_restrict_unprivileged_userns=0' as root, or run as root"
    } else if source.raw_os_error() == Some(libc::ENOSPC) {
        "the limit on namespaces (/proc/sys/user/max_*_namespaces) is reached"
    } else {
        "the kernel or the container around us forbids it; run as root, or outside of the container"
    };
    FabricError::Namespace {
        kind,
        hint: hint.to_owned(),
        source,
    }
}
