//! The VPC's DNS server: private names answered here, all others by the host's resolvers.
//!
//! It must answer at once, whatever is asked: cloud-init loses 25 seconds on a server that is
//! silent. Without a way to the outside every foreign name is NXDOMAIN.

mod forward;
mod server;
mod zone;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::FabricConfig;
use super::error::{FabricError, Result};
use super::host::HostSide;
use super::links::dns_addresses;
use super::uplink::UplinkState;

/// Binds the server's addresses and starts it.
pub(super) async fn spawn(
    tasks: &mut JoinSet<()>,
    config: &FabricConfig,
    host: Arc<HostSide>,
    uplink: watch::Receiver<UplinkState>,
) -> Result<()> {
    let forwarder = forward::Forwarder::new(host, uplink);
    let server = Arc::new(server::Server::new(zone::Zone::new(config), forwarder));
    for address in dns_addresses(config) {
        let (udp, tcp) = bind(address).await?;
        tasks.spawn(server::serve_udp(Arc::clone(&server), udp));
        tasks.spawn(server::serve_tcp(Arc::clone(&server), tcp));
    }
    Ok(())
}

async fn bind(address: Ipv4Addr) -> Result<(UdpSocket, TcpListener)> {
    let address = SocketAddr::from((address, 53));
    let refused = |source| FabricError::Listen { address, source };
    let udp = UdpSocket::bind(address).await.map_err(refused)?;
    let tcp = TcpListener::bind(address).await.map_err(refused)?;
    Ok((udp, tcp))
}
