//! The VPC's DNS server: private names answered here, all others by the host's resolvers.
//!
//! It must answer at once, whatever is asked: cloud-init loses 25 seconds on a server that is
//! silent. Without a way to the outside every foreign name is NXDOMAIN.

mod forward;
mod server;
mod zone;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::config::DNS_LINK_LOCAL;
use super::error::{FabricError, Result};
use super::network::Network;
pub(super) use server::Server;

/// Sockets of one address.
type Pair = (UdpSocket, TcpListener);

/// Binds the server's addresses, in the network namespace of the calling thread.
pub(super) fn bind(network: &Network) -> Result<Vec<Pair>> {
    let addresses = [network.dns_address(), DNS_LINK_LOCAL];
    addresses
        .into_iter()
        .map(|address| {
            let address = SocketAddr::from((address, 53));
            let make = || {
                let pair = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
                pair.0.set_nonblocking(true)?;
                pair.1.set_nonblocking(true)?;
                Ok(pair)
            };
            make().map_err(|source| FabricError::Listen { address, source })
        })
        .collect()
}

/// Starts the server at these sockets.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    server: &Arc<Server>,
    sockets: Vec<Pair>,
) -> Result<()> {
    let poll = || FabricError::io("poll a DNS socket");
    for (udp, tcp) in sockets {
        let udp = tokio::net::UdpSocket::from_std(udp).map_err(poll())?;
        let tcp = tokio::net::TcpListener::from_std(tcp).map_err(poll())?;
        tasks.spawn(server::serve_udp(Arc::clone(server), udp));
        tasks.spawn(server::serve_tcp(Arc::clone(server), tcp));
    }
    Ok(())
}
