//! Questions for the host's resolvers.
//!
//! The sockets are the host's own, made for each question by the host-side process: so the
//! resolvers are asked as any program of the host asks them, those on its loopback too
//! (systemd-resolved's 127.0.0.53), while no guest can send anything but a well-formed query there.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream as StdTcpStream, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::host::HostSide;
use super::super::uplink::UplinkState;
use super::server::{read_message, write_message};

/// How long one resolver may take. Two of them stay below the five seconds of a guest's own
/// resolver (resolv.conf(5), `timeout`).
const PATIENCE: Duration = Duration::from_secs(2);
/// How many resolvers are asked, as many as resolv.conf(5) names at most.
const RESOLVERS_MAX: usize = 3;
/// Longest datagram.
const ANSWER_MAX: usize = 65_535;

/// How a question came, and so how it goes on: a long answer needs TCP on both legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Asks the host's resolvers.
#[derive(Debug)]
pub(super) struct Forwarder {
    host: Arc<HostSide>,
    uplink: watch::Receiver<UplinkState>,
}

impl Forwarder {
    pub(super) fn new(host: Arc<HostSide>, uplink: watch::Receiver<UplinkState>) -> Self {
        Self { host, uplink }
    }

    /// Whether asking makes sense: a guest without the outside has no use for foreign addresses.
    pub(super) fn available(&self) -> bool {
        matches!(
            *self.uplink.borrow(),
            UplinkState::Starting | UplinkState::Up(_)
        )
    }

    /// The first resolver's answer, with the query's own id; `None` when there is none in time.
    pub(super) async fn ask(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let (id, rest) = query.split_at_checked(2)?;
        // Our own random id and, with a fresh socket each time, a random port: an answer cannot
        // be forged by guessing what the guest chose.
        let own_id: [u8; 2] = rand::random();
        let own_query = [&own_id[..], rest].concat();
        for resolver in resolvers() {
            let asked = self.ask_one(resolver, &own_query, transport);
            match timeout(PATIENCE, asked)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            {
                Ok(mut answer) => {
                    answer[..2].copy_from_slice(id);
                    return Some(answer);
                }
                Err(error) => tracing::debug!(%resolver, %error, "DNS: no answer"),
            }
        }
        None
    }

    async fn ask_one(
        &self,
        resolver: SocketAddr,
        query: &[u8],
        transport: Transport,
    ) -> io::Result<Vec<u8>> {
        let ipv6 = resolver.is_ipv6();
        let socket = self
            .host
            .socket(ipv6, transport == Transport::Tcp)
            .map_err(io::Error::other)?;
        match transport {
            Transport::Udp => {
                let socket = UdpSocket::from_std(StdUdpSocket::from(socket))?;
                socket.connect(resolver).await?;
                socket.send(query).await?;
                let mut answer = vec![0; ANSWER_MAX];
                loop {
                    let length = socket.recv(&mut answer).await?;
                    if answers(query, &answer[..length]) {
                        answer.truncate(length);
                        return Ok(answer);
                    }
                }
            }
            Transport::Tcp => {
                let socket = TcpSocket::from_std_stream(StdTcpStream::from(socket));
                let mut stream = socket.connect(resolver).await?;
                write_message(&mut stream, query).await?;
                read_message(&mut stream)
                    .await?
                    .filter(|answer| answers(query, answer))
                    .ok_or_else(|| io::ErrorKind::InvalidData.into())
            }
        }
    }
}

/// Whether this is a response (QR bit, RFC 1035 §4.1.1) to this query.
fn answers(query: &[u8], answer: &[u8]) -> bool {
    answer.len() >= 12 && answer[..2] == query[..2] && answer[2] & 0x80 != 0
}

/// The host's resolvers now: a laptop changes them as it moves.
fn resolvers() -> Vec<SocketAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    parse_resolvers(&text)
}

fn parse_resolvers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words
                .next()
                .filter(|word| *word == "nameserver")
                .and_then(|_| words.next())?;
            // Link-local IPv6 resolvers with a scope are the host's interface's, and left out.
            address.parse::<IpAddr>().ok()
        })
        .map(|address| SocketAddr::new(address, 53))
        .take(RESOLVERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_resolv_conf_says() {
        let text = "# comment\nsearch lan\nnameserver 127.0.0.53\n nameserver\t2001:db8::1 # x\n\
                    nameserver fe80::1%eth0\nnameservers 1.2.3.4\nnameserver\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n";
        let found: Vec<String> = parse_resolvers(text)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["127.0.0.53:53", "[2001:db8::1]:53", "192.0.2.1:53"]);
        assert!(parse_resolvers("").is_empty());
    }

    #[test]
    fn only_responses_with_our_id_count() {
        let query = [7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let mut answer = query;
        assert!(!answers(&query, &answer));
        answer[2] |= 0x80;
        assert!(answers(&query, &answer));
        answer[0] = 9;
        assert!(!answers(&query, &answer));
        assert!(!answers(&query, &answer[..2]));
    }
}
