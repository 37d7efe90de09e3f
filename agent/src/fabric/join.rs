//! Entering a VPC's network that another process owns: [`join`].

use std::fs::File;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use nix::sched::{CloneFlags, setns};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::config::Publish;
use super::enter::{self, Listening};
use super::error::{FabricError, Result};
use super::links::{Links, Plug};
use super::{publish, tap};

/// The process is in a VPC's network. Give this to [`Branch::start`].
#[derive(Debug)]
pub struct Joined {
    published: Vec<Listening>,
}

/// Takes this process out of the host's network into a VPC's.
///
/// To be called early in the supervisor's `main`, before any thread or async runtime exists. Sockets bound to host
/// addresses, as `publish` asks, are made on the way. `user` owns the network; root does not enter it.
///
/// # Errors
/// [`FabricError::NotSingleThreaded`]; [`FabricError::PortBusy`] and [`FabricError::Listen`] for a published port;
/// [`FabricError::Namespace`] when the kernel forbids it.
pub fn join(user: &File, net: &File, publish: &[Publish]) -> Result<Joined> {
    enter::require_one_thread()?;
    let published = publish.iter().map(|publish| listen(*publish));
    let published = published.collect::<Result<_>>()?;
    if !enter::has_cap_sys_admin()? {
        setns(user, CloneFlags::CLONE_NEWUSER)
            .map_err(|error| enter::namespace("user", error.into()))?;
    }
    setns(net, CloneFlags::CLONE_NEWNET)
        .map_err(|error| enter::namespace("network", error.into()))?;
    Ok(Joined { published })
}

fn listen(publish: Publish) -> Result<Listening> {
    let address = publish.host;
    let socket = TcpListener::bind(address).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => FabricError::PortBusy { address },
        _ => FabricError::Listen { address, source },
    })?;
    let host = socket
        .local_addr()
        .map_err(FabricError::io("read a socket's address"))?;
    Ok(Listening {
        socket,
        publish: Publish { host, ..publish },
    })
}

/// A guest's part of a VPC's network.
#[derive(Debug)]
pub struct Branch {
    links: Links,
    tasks: Mutex<JoinSet<()>>,
}

impl Branch {
    /// Carries published ports from now on. Runs on the caller's tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses a socket.
    pub fn start(joined: Joined) -> Result<Self> {
        let links = Links::connect()?;
        let mut tasks = JoinSet::new();
        for listening in joined.published {
            publish::spawn(&mut tasks, listening)?;
        }
        Ok(Self {
            links,
            tasks: Mutex::new(tasks),
        })
    }

    /// Makes a tap device and plugs it in, as [`super::Fabric::open_tap`] does.
    ///
    /// # Errors
    /// [`FabricError::Tap`] when `/dev/net/tun` cannot be used or the tap is still open; what the kernel refused.
    pub async fn open_tap(&self, plug: &Plug) -> Result<OwnedFd> {
        let tap = tap::open(&plug.tap)?;
        self.links.plug(plug).await?;
        Ok(tap)
    }

    /// Connects to a guest's TCP port, as its gateway.
    ///
    /// # Errors
    /// As `TcpStream::connect`; no time limit but the kernel's (about two minutes).
    pub async fn dial(&self, address: SocketAddrV4) -> Result<TcpStream> {
        super::dial(address).await
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.abort_all();
    }
}
