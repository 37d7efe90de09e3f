//! The instance's network and its metadata service.

use std::net::SocketAddrV4;
use std::sync::{Arc, PoisonError, RwLock};

use cumulet_imds::Keys;
use cumulet_imds::server;
use cumulet_imds::view::InstanceView;

use super::view;
use crate::cloud::net::private_domain;
use crate::error::{Context, Error, Kind, Result};
use crate::fabric::{
    EnterConfig, Entered, Fabric, FabricConfig, FabricError, PortConfig, Publish, enter,
    private_hostname,
};
use crate::state::Home;
use crate::state::record::Record;

/// Leaves the host's network. Must be called while the process has one thread.
pub(super) fn leave_host(record: &Record) -> Result<Entered> {
    let publish = record
        .network
        .publish
        .iter()
        .map(|port| Publish {
            host: SocketAddrV4::new(port.address, port.host).into(),
            guest: SocketAddrV4::new(record.network.private_ip, port.guest),
        })
        .collect();
    enter(&EnterConfig {
        publish,
        uplink: record.network.uplink,
    })
    .map_err(|error| translate(&error))
}

/// What the metadata service says now.
pub(super) type LiveView = Arc<RwLock<Arc<InstanceView>>>;

/// Makes the metadata service say what the record says.
pub(super) fn update(live: &LiveView, record: &Record) -> Result<()> {
    let view = Arc::new(view::of(record)?);
    *live.write().unwrap_or_else(PoisonError::into_inner) = view;
    Ok(())
}

/// Builds the network and serves the metadata on it.
pub(super) async fn start(
    home: &Home,
    record: &Record,
    entered: Entered,
) -> Result<(Fabric, LiveView)> {
    let mac = record
        .network
        .mac
        .parse()
        .map_err(|error: String| Error::internal(error))?;
    let config = FabricConfig {
        ports: vec![PortConfig {
            mac,
            ip: record.network.private_ip,
            hostname: private_hostname(record.network.private_ip),
        }],
        ..ranges(record)?
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
    Ok((fabric, live))
}

/// The VPC and subnet of an instance of the agent's; the default ones of any other.
fn ranges(record: &Record) -> Result<FabricConfig> {
    let Some(place) = &record.place else {
        return Ok(FabricConfig::default());
    };
    let range = |text: &str| {
        text.parse()
            .context(|| format!("the record of {} is damaged: {text}", record.instance_id))
    };
    Ok(FabricConfig {
        vpc: range(&place.vpc_cidr)?,
        subnet: range(&place.subnet_cidr)?,
        domain: private_domain(&place.region),
        ..FabricConfig::default()
    })
}

/// The fabric's errors in the user's terms.
pub(super) fn translate(error: &FabricError) -> Error {
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
