//! The instance's network: one of its own with a metadata service, or its place in a VPC of the agent's.

use std::fs::File;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cumulet_imds::Keys;
use cumulet_imds::server;
use cumulet_imds::view::InstanceView;
use tokio::net::TcpStream;

use super::view;
use crate::error::{Context, Error, Kind, Result};
use crate::fabric::network::{bridge_name, tap_name};
use crate::fabric::{
    self, Branch, EnterConfig, Entered, Fabric, FabricConfig, FabricError, Joined, Plug,
    PortConfig, Publish, UplinkState, VPC_MTU, enter, private_hostname,
};
use crate::router::Client;
use crate::state::Home;
use crate::state::record::{Place, Record};

/// How long the VPCs' router may be away.
const REPLACED: Duration = Duration::from_secs(20);
/// How often it is looked whether it is back.
const LOOK: Duration = Duration::from_millis(500);

/// The process has left the host's network.
pub(super) enum Left {
    /// Into one that it owns.
    Own(Entered),
    /// Into that of a VPC.
    Vpc(Joined, Client),
}

/// Leaves the host's network. Must be called while the process has one thread.
pub(super) fn leave_host(home: &Home, record: &Record) -> Result<Left> {
    let publish: Vec<Publish> = record
        .network
        .publish
        .iter()
        .map(|port| Publish {
            host: SocketAddrV4::new(port.address, port.host).into(),
            guest: SocketAddrV4::new(record.network.private_ip, port.guest),
        })
        .collect();
    match &record.place {
        Some(place) => {
            let (router, user, net) = find(home, &place.vpc_id)?;
            let joined = fabric::join(&user, &net, &publish).map_err(|error| translate(&error))?;
            Ok(Left::Vpc(joined, router))
        }
        None => enter(&EnterConfig {
            publish,
            uplink: record.network.uplink,
        })
        .map(Left::Own)
        .map_err(|error| translate(&error)),
    }
}

/// The VPC's network. A router that was killed just now is replaced by the agent within seconds.
fn find(home: &Home, vpc: &str) -> Result<(Client, File, File)> {
    let limit = Instant::now() + REPLACED;
    loop {
        let found = Client::connect(home).and_then(|mut router| {
            let (user, net) = router.find(vpc)?;
            Ok((router, user, net))
        });
        match found {
            Err(error) if Instant::now() < limit => {
                tracing::warn!(%error, "waits for the network of the VPC");
                std::thread::sleep(LOOK);
            }
            found => return found,
        }
    }
}

/// What the metadata service says now.
type LiveView = Arc<RwLock<Arc<InstanceView>>>;

/// A running instance's network.
#[derive(Debug)]
pub(super) enum Net {
    /// Of its own.
    Own(Fabric, LiveView),
    /// A place in a VPC, and a connection to the VPC's router.
    Vpc(Branch, Mutex<Client>),
}

impl Left {
    /// Builds what is to be built.
    pub(super) async fn start(self, home: &Home, record: &Record) -> Result<Net> {
        match self {
            Self::Own(entered) => start(home, record, entered).await,
            Self::Vpc(joined, router) => {
                let branch = Branch::start(joined).map_err(|error| translate(&error))?;
                Ok(Net::Vpc(branch, Mutex::new(router)))
            }
        }
    }
}

/// Builds the network and serves the metadata on it.
async fn start(home: &Home, record: &Record, entered: Entered) -> Result<Net> {
    let config = FabricConfig {
        ports: vec![PortConfig {
            mac: mac(&record.network.mac)?,
            ip: record.network.private_ip,
            hostname: private_hostname(record.network.private_ip),
        }],
        ..FabricConfig::default()
    };
    let fabric = Fabric::start(entered, config)
        .await
        .map_err(|error| translate(&error))?;
    let listener = fabric
        .take_imds_listener()
        .ok_or_else(|| Error::internal("the metadata listener was already taken"))?;
    let keys =
        Keys::open(&home.imds_keys()).context(|| "cannot open the keys of the metadata service")?;
    let live: LiveView = Arc::new(RwLock::new(Arc::new(view::of(record)?)));
    let served = Arc::clone(&live);
    let address = record.network.private_ip;
    tokio::spawn(async move {
        let lookup = move |client| {
            let view = served.read().unwrap_or_else(PoisonError::into_inner);
            (client == address).then(|| Arc::clone(&view))
        };
        let config = server::Config::default();
        match server::serve(listener, lookup, Arc::new(keys), config).await {}
    });
    Ok(Net::Own(fabric, live))
}

impl Net {
    /// Plugs the instance in: a tap an interface, the primary one first.
    pub(super) async fn open_taps(&self, record: &Record) -> Result<Vec<OwnedFd>> {
        let failed = |error: FabricError| translate(&error);
        match self {
            Self::Own(fabric, _) => {
                let tap = fabric.open_tap(record.network.private_ip).await;
                Ok(vec![tap.map_err(failed)?])
            }
            Self::Vpc(branch, _) => {
                let mut taps = Vec::new();
                for plug in plugs(record)? {
                    taps.push(branch.open_tap(&plug).await.map_err(failed)?);
                }
                Ok(taps)
            }
        }
    }

    /// Whether others are in it.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Vpc(..))
    }

    /// MTU in bytes.
    pub(super) fn mtu(&self) -> u16 {
        match self {
            Self::Own(fabric, _) => fabric.config().mtu,
            Self::Vpc(..) => VPC_MTU,
        }
    }

    /// Connects to a TCP port of the guest.
    pub(super) async fn dial(&self, address: SocketAddrV4) -> fabric::Result<TcpStream> {
        match self {
            Self::Own(fabric, _) => fabric.dial(address).await,
            Self::Vpc(branch, _) => branch.dial(address).await,
        }
    }

    /// Makes the metadata service say what the record says. A VPC's router reads the record itself.
    pub(super) fn update(&self, record: &Record) -> Result<()> {
        if let Self::Own(_, live) = self {
            let view = Arc::new(view::of(record)?);
            *live.write().unwrap_or_else(PoisonError::into_inner) = view;
        }
        Ok(())
    }

    /// How it stands with the way to the outside.
    pub(super) fn uplink(&self) -> UplinkState {
        match self {
            Self::Own(fabric, _) => fabric.uplink().borrow().clone(),
            Self::Vpc(_, router) => {
                let mut router = router.lock().unwrap_or_else(PoisonError::into_inner);
                // A router that is gone is replaced by the agent.
                router.uplink().unwrap_or(UplinkState::Starting)
            }
        }
    }
}

fn mac(text: &str) -> Result<fabric::MacAddr> {
    text.parse().map_err(|error: String| Error::internal(error))
}

/// Where the taps of an instance of the agent's are plugged in.
fn plugs(record: &Record) -> Result<Vec<Plug>> {
    let plug = |eni: &str, subnet: &str, address: &str| -> Result<Plug> {
        Ok(Plug {
            tap: tap_name(eni),
            bridge: bridge_name(subnet),
            mac: mac(address)?,
            mtu: VPC_MTU,
        })
    };
    let Some(place) = &record.place else {
        return Ok(Vec::new());
    };
    let Place {
        subnet_id,
        interfaces,
        ..
    } = place;
    let network = &record.network;
    let first = plug(&network.interface_id, subnet_id, &network.mac);
    let more = interfaces
        .iter()
        .map(|one| plug(&one.interface_id, &one.subnet_id, &one.mac));
    std::iter::once(first).chain(more).collect()
}

/// The fabric's errors in the user's terms.
pub(crate) fn translate(error: &FabricError) -> Error {
    let (kind, code) = match error {
        FabricError::PortBusy { .. } => (Kind::Conflict, "PortBusy"),
        FabricError::MissingTool { .. } => (Kind::Host, "MissingTool"),
        FabricError::Namespace { .. } => (Kind::Host, "NamespaceRefused"),
        FabricError::Tap { .. } => (Kind::Host, "TapRefused"),
        FabricError::Listen { .. } => (Kind::Host, "ListenRefused"),
        FabricError::Uplink { .. } => (Kind::Host, "UplinkRefused"),
        _ => (Kind::Internal, "InternalError"),
    };
    let mut out = Error::new(kind, code, error.to_string());
    if let Some(cause) = std::error::Error::source(error) {
        out = out.because(cause);
    }
    out
}
