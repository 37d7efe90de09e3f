//! The network around instances: a network namespace with one VPC subnet in it.
//!
//! ```text
//!  host's network            supervisor's network namespace
//! ┌──────────────┐ sockets  ┌──────────────────────────────────────────────────────┐
//! │ cumulet-host ├─────────►│ publish, DNS upstream                                │
//! │ pasta ═══════╪══════════╪═ up0 ─ NAT ─ router ─ vpc0 (bridge) ─ tap0 ─ VMM      │
//! └──────────────┘          │              .1 gateway, .2 DNS, DHCP,               │
//!                           │              169.254.169.254 IMDS, .253 DNS          │
//!                           └──────────────────────────────────────────────────────┘
//! ```
//!
//! Use, in the supervisor process of a run:
//! 1. [`enter`], first thing in `main`, while there is one thread and no async runtime;
//! 2. [`Fabric::start`] on the runtime;
//! 3. [`Fabric::take_imds_listener`] and serve it; [`Fabric::open_tap`] for each port and give the
//!    descriptor to the VMM;
//! 4. [`Fabric::dial`] to talk to a guest, [`Fabric::publish`] to let the host's programs do so.
//!
//! Everything is gone when the process and its children (VMMs) are, however they end: the
//! namespace dies with its last process, and the host side is tied to the supervisor.
//! `docs/fabric.md` tells how and why.

mod config;
mod conntrack;
mod dhcp;
mod dns;
mod enter;
mod error;
mod host;
mod host_process;
mod join;
mod links;
pub mod network;
mod probe;
mod publish;
mod rules;
mod shared;
mod sysctl;
mod tap;
mod tools;
mod uplink;
mod veth;
mod vpc;
mod wire;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use config::{
    DNS_LINK_LOCAL, EnterConfig, FabricConfig, IMDS_ADDRESS, MAX_PORTS, MacAddr, PUBLIC_POOL,
    PortConfig, Publish, UplinkMode, VPC_MTU, private_hostname,
};
pub use enter::{Entered, enter, enter_beside};
pub use error::{FabricError, Result};
pub use join::{Branch, Joined, join};
pub use links::Plug;
pub use probe::{Answers, Pace, Reachability};
pub use shared::Shared;
pub use uplink::UplinkState;

use host::HostSide;
use links::Links;
use vpc::Vpc;

/// Name of the bridge of a run without the agent.
const BRIDGE: &str = "vpc0";
/// Name of the interface that leads outside.
const UPLINK: &str = "up0";

/// A running fabric. Dropping it ends its servers; links and rules stay until the process ends.
#[derive(Debug)]
pub struct Fabric {
    config: FabricConfig,
    host: Arc<HostSide>,
    vpc: Mutex<Vpc>,
    links: Links,
    uplink: watch::Receiver<UplinkState>,
    published: Mutex<Vec<Publish>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Fabric {
    /// Builds the network inside and starts its servers on the caller's tokio runtime.
    ///
    /// # Errors
    /// [`FabricError::Config`] for a wrong configuration, otherwise what the kernel or `nft`
    /// refused.
    pub async fn start(entered: Entered, config: FabricConfig) -> Result<Self> {
        config.validate()?;
        let network = config.network();
        let published = entered.published();
        let host = Arc::new(entered.host);
        let net = entered
            .namespaces
            .net
            .try_clone()
            .map_err(FabricError::io("copy a descriptor"))?;
        vpc::prepare(&net, &network)?;
        let mut tasks = JoinSet::new();
        let uplink = uplink::spawn(&mut tasks, &host, entered.namespaces, entered.uplink);
        let vpc = Vpc::start(net, network, Arc::clone(&host), uplink.clone()).await?;
        let links = Links::connect()?;
        for listening in entered.published {
            publish::spawn(&mut tasks, listening)?;
        }
        Ok(Self {
            config,
            host,
            vpc: Mutex::new(vpc),
            links,
            uplink,
            published: Mutex::new(published),
            tasks: Mutex::new(tasks),
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &FabricConfig {
        &self.config
    }

    /// The socket that listens at `169.254.169.254:80`, for the metadata server; `None` the
    /// second time. A connection's peer address is the port's own: the filter drops all others.
    #[must_use]
    pub fn take_imds_listener(&self) -> Option<TcpListener> {
        let mut vpc = self.vpc.lock().unwrap_or_else(PoisonError::into_inner);
        TcpListener::from_std(vpc.take_imds_listener()?).ok()
    }

    /// Makes the tap device of the port with this address and plugs it in.
    ///
    /// The descriptor (`IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`) is close-on-exec; the device lives
    /// as long as it is open somewhere. So give it to the VMM and close it here: a VMM's end
    /// unplugs its cable, and for the next VMM a new device is made.
    ///
    /// # Errors
    /// [`FabricError::Config`] when no port has this address, [`FabricError::Tap`] when
    /// `/dev/net/tun` cannot be used or the port's tap is still open.
    pub async fn open_tap(&self, ip: Ipv4Addr) -> Result<OwnedFd> {
        let network = {
            let vpc = self.vpc.lock().unwrap_or_else(PoisonError::into_inner);
            vpc.network()
        };
        let port = network.ports.iter().find(|port| port.ip == ip);
        let port = port.ok_or_else(|| FabricError::Config {
            message: format!("no port has address {ip}"),
        })?;
        let tap = tap::open(&port.tap)?;
        self.links
            .plug(&Plug {
                tap: port.tap.clone(),
                bridge: port.bridge.clone(),
                mac: port.mac,
                mtu: network.mtu,
            })
            .await?;
        Ok(tap)
    }

    /// How it stands with the way to the outside, now and whenever it changes.
    #[must_use]
    pub fn uplink(&self) -> watch::Receiver<UplinkState> {
        self.uplink.clone()
    }

    /// Waits until it is known whether guests have a way to the outside.
    pub async fn uplink_settled(&self) -> UplinkState {
        let mut uplink = self.uplink.clone();
        match uplink
            .wait_for(|state| *state != UplinkState::Starting)
            .await
        {
            Ok(state) => state.clone(),
            Err(_) => UplinkState::Down("the fabric has ended".to_owned()),
        }
    }

    /// Connects to a guest's TCP port from inside, as its gateway.
    ///
    /// # Errors
    /// As `TcpStream::connect`; no time limit but the kernel's (about two minutes).
    pub async fn dial(&self, address: SocketAddrV4) -> Result<TcpStream> {
        dial(address).await
    }

    /// All published ports, with the host addresses really bound.
    #[must_use]
    pub fn published(&self) -> Vec<Publish> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Publishes one more guest port; returns the host's address (port 0 replaced).
    ///
    /// # Errors
    /// [`FabricError::PortBusy`], [`FabricError::Listen`].
    pub fn publish(&self, publish: Publish) -> Result<SocketAddr> {
        let listening = enter::listen(&self.host, publish)?;
        let bound = listening.publish.host;
        publish::spawn(
            &mut self.tasks.lock().unwrap_or_else(PoisonError::into_inner),
            listening,
        )?;
        Ok(bound)
    }
}

async fn dial(address: SocketAddrV4) -> Result<TcpStream> {
    TcpStream::connect(address)
        .await
        .map_err(FabricError::io(format!("connect to {address}")))
}
