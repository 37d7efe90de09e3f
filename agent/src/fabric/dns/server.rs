//! DNS over UDP and TCP (RFC 1035 §4.2).

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::forward::{Forwarder, Transport};
use super::zone::{Decision, Zone};
use crate::fabric::host::HostSide;
use crate::fabric::network::Network;
use crate::fabric::uplink::UplinkState;

/// Most queries on their way to the host's resolvers at once; more are told to try later.
const FORWARDED_MAX: usize = 128;
/// Most TCP connections at once on one address.
const CONNECTIONS_MAX: usize = 64;
/// How long a TCP connection may be idle (RFC 7766 §6.2.3 asks for seconds).
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Largest UDP query read; a longer one is no query that a resolver sends.
const QUERY_MAX: usize = 4096;
/// Pause after a failed accept or receive, so that it is not tried in a tight loop.
const PAUSE: Duration = Duration::from_millis(100);

/// The server: private names and the way to the others.
#[derive(Debug)]
pub(in crate::fabric) struct Server {
    zone: RwLock<Arc<Zone>>,
    forwarder: Forwarder,
    slots: Semaphore,
}

impl Server {
    /// The server of a network. Without an uplink it knows the private names only.
    pub(in crate::fabric) fn new(
        network: &Network,
        host: Arc<HostSide>,
        uplink: watch::Receiver<UplinkState>,
    ) -> Self {
        Self {
            zone: RwLock::new(Arc::new(Zone::new(network))),
            forwarder: Forwarder::new(host, uplink),
            slots: Semaphore::new(FORWARDED_MAX),
        }
    }

    /// Takes the names of the network as it is now.
    pub(in crate::fabric) fn follow(&self, network: &Network) {
        let zone = Arc::new(Zone::new(network));
        *self.zone.write().unwrap_or_else(PoisonError::into_inner) = zone;
    }

    fn decide(&self, query: &[u8]) -> Decision {
        let zone = Arc::clone(&self.zone.read().unwrap_or_else(PoisonError::into_inner));
        zone.decide(query)
    }

    /// The answer to a query that has to be forwarded.
    async fn forwarded(
        &self,
        query: &[u8],
        transport: Transport,
        no_such_name: Vec<u8>,
        failure: Vec<u8>,
    ) -> Vec<u8> {
        if !self.forwarder.available() {
            return no_such_name;
        }
        let Ok(_slot) = self.slots.try_acquire() else {
            return failure;
        };
        self.forwarder
            .ask(query, transport)
            .await
            .unwrap_or(failure)
    }
}

/// Answers datagrams until the task is dropped.
pub(super) async fn serve_udp(server: Arc<Server>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut forwarded = JoinSet::new();
    let mut buffer = vec![0; QUERY_MAX];
    loop {
        while forwarded.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // A guest's ICMP error for an earlier answer comes back here.
                tracing::debug!(%error, "DNS: cannot receive");
                sleep(PAUSE).await;
                continue;
            }
        };
        match server.decide(&buffer[..length]) {
            Decision::Answer(bytes) => send(&socket, &bytes, client).await,
            Decision::Forward { failure, .. } if forwarded.len() >= FORWARDED_MAX => {
                send(&socket, &failure, client).await;
            }
            Decision::Forward {
                no_such_name,
                failure,
            } => {
                let query = buffer[..length].to_vec();
                let (server, socket) = (Arc::clone(&server), Arc::clone(&socket));
                forwarded.spawn(async move {
                    let answer = server
                        .forwarded(&query, Transport::Udp, no_such_name, failure)
                        .await;
                    send(&socket, &answer, client).await;
                });
            }
            Decision::Ignore => {}
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], client: std::net::SocketAddr) {
    if let Err(error) = socket.send_to(bytes, client).await {
        tracing::debug!(%client, %error, "DNS: cannot answer");
    }
}

/// Answers connections until the task is dropped.
pub(super) async fn serve_tcp(server: Arc<Server>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                let server = Arc::clone(&server);
                connections.spawn(async move {
                    if let Err(error) = converse(&server, stream).await {
                        tracing::debug!(%client, %error, "DNS: connection broke");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "DNS: cannot accept");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One connection: queries one after the other, each behind its length.
async fn converse(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let Some(query) = timeout(IDLE_MAX, read_message(&mut stream)).await?? else {
            return Ok(());
        };
        let answer = match server.decide(&query) {
            Decision::Answer(bytes) => bytes,
            Decision::Forward {
                no_such_name,
                failure,
            } => {
                server
                    .forwarded(&query, Transport::Tcp, no_such_name, failure)
                    .await
            }
            Decision::Ignore => return Ok(()),
        };
        timeout(IDLE_MAX, write_message(&mut stream, &answer)).await??;
    }
}

/// Reads a message behind its length; `None` when the connection has ended in between.
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes a message behind its length, in one piece.
pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    stream.write_all(&bytes).await
}
