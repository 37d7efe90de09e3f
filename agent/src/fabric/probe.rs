//! Whether guests answer ARP, which is EC2's instance status check (EC2 user guide, "Status checks for Amazon EC2
//! instances"): the subnet's router asks an instance's primary interface for its address.
//!
//! What answers must have passed its port's filter, so nobody can answer for another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::config::{GATEWAY_MAC, MacAddr};
use super::error::{FabricError, Result};
use super::links::Links;
use super::network::Network;
use super::vpc::Current;

/// What is known of a guest's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reachability {
    /// It has not answered since its interface was plugged in.
    Initializing,
    /// It answers.
    Passed,
    /// It has answered before, and does not any more.
    Failed {
        /// Since it is known.
        since: SystemTime,
    },
}

/// The answers of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Index of its tap: another one whenever the instance is started.
    pub tap: u32,
    /// What is known.
    pub state: Reachability,
}

/// How often guests are asked.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Pause between two questions to a guest that has not answered yet.
    pub starting: Duration,
    /// Pause between two questions to a guest that answers. EC2 checks every minute.
    pub passed: Duration,
    /// Pause between two questions to a guest that has stopped answering.
    pub failing: Duration,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// So many questions in a row without an answer make [`Reachability::Failed`].
    pub misses: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            starting: Duration::from_secs(2),
            passed: Duration::from_secs(60),
            failing: Duration::from_secs(5),
            patience: Duration::from_secs(2),
            misses: 3,
        }
    }
}

/// One instance under watch.
#[derive(Debug)]
struct Watched {
    tap: u32,
    state: Reachability,
    missed: u32,
    due: Instant,
}

impl Watched {
    fn new(tap: u32) -> Self {
        Self {
            tap,
            state: Reachability::Initializing,
            missed: 0,
            due: Instant::now(),
        }
    }

    /// A question was answered, or not.
    fn learn(&mut self, answered: bool, pace: &Pace) {
        let pause = if answered {
            self.missed = 0;
            self.state = Reachability::Passed;
            pace.passed
        } else if self.state == Reachability::Initializing {
            pace.starting
        } else {
            self.missed = self.missed.saturating_add(1);
            if self.state == Reachability::Passed && self.missed >= pace.misses {
                let since = SystemTime::now();
                self.state = Reachability::Failed { since };
            }
            pace.failing
        };
        self.due = Instant::now() + pause;
    }
}

/// What is known of a VPC's instances, by instance.
pub(super) type Known = Arc<Mutex<BTreeMap<String, Answers>>>;

/// A question: who has this address?
#[derive(Debug, Clone, Copy)]
struct Question {
    bridge: u32,
    gateway: Ipv4Addr,
    mac: MacAddr,
    ip: Ipv4Addr,
}

/// Asks the instances of one VPC.
#[derive(Debug)]
pub(super) struct Prober {
    network: Current,
    links: Links,
    socket: AsyncFd<OwnedFd>,
    pace: Pace,
    known: Known,
    watched: HashMap<String, Watched>,
}

impl Prober {
    /// A prober with the links and the [`socket`] of the VPC's namespace.
    ///
    /// # Errors
    /// When the socket cannot be waited for.
    pub(super) fn new(
        network: Current,
        links: Links,
        socket: OwnedFd,
        pace: Pace,
        known: Known,
    ) -> Result<Self> {
        // SAFETY: an owned descriptor stays open, and is not replaced, as long as the `AsyncFd` has it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let refused = FabricError::io("wait for ARP answers");
        let socket = socket.map_err(|error| refused(error.into()))?;
        Ok(Self {
            network,
            links,
            socket,
            pace,
            known,
            watched: HashMap::new(),
        })
    }

    /// Asks until the task is dropped.
    pub(super) async fn run(mut self) {
        loop {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "cannot ask whether guests answer");
            }
            // What is not plugged in yet is looked for as often as what has not answered yet.
            let network = self.network.get();
            let due = self.watched.values().map(|watched| watched.due).min();
            let plugged = |id| self.watched.contains_key(id);
            let waits = !primary(&network).all(|(id, _)| plugged(id));
            let look = waits.then(|| Instant::now() + self.pace.starting);
            let next = due.into_iter().chain(look).min();
            // A round that failed is not repeated at once.
            let next = next.map(|next| next.max(Instant::now() + self.pace.starting / 2));
            tokio::select! {
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                changed = self.network.changed() => if !changed { return },
            }
        }
    }

    /// Looks what is plugged in and asks those whose turn it is.
    async fn round(&mut self) -> Result<()> {
        let network = self.network.get();
        let taps = self.links.taps().await?;
        let mut before = std::mem::take(&mut self.watched);
        for (id, port) in primary(&network) {
            if let Some(&tap) = taps.get(&port.tap) {
                let known = before.remove(id).filter(|watched| watched.tap == tap);
                let watched = known.unwrap_or_else(|| Watched::new(tap));
                self.watched.insert(id.to_owned(), watched);
            }
        }
        self.publish();
        let now = Instant::now();
        let due = |id: &str| self.watched.get(id).is_some_and(|one| one.due <= now);
        let mut asked = Vec::new();
        let mut questions = Vec::new();
        let mut bridges: HashMap<&str, Option<u32>> = HashMap::new();
        for (id, port) in primary(&network).filter(|(id, _)| due(id)) {
            asked.push((id, port.ip));
            let Some(subnet) = network.subnet(&port.bridge) else {
                continue;
            };
            let bridge = match bridges.get(port.bridge.as_str()) {
                Some(known) => *known,
                None => self.links.find(&port.bridge).await?,
            };
            bridges.insert(&port.bridge, bridge);
            questions.extend(bridge.map(|bridge| Question {
                bridge,
                gateway: subnet.gateway(),
                mac: port.mac,
                ip: port.ip,
            }));
        }
        if asked.is_empty() {
            return Ok(());
        }
        let answered = self.ask(&questions).await?;
        for (id, ip) in asked {
            if let Some(watched) = self.watched.get_mut(id) {
                let before = watched.state;
                watched.learn(answered.contains(&ip), &self.pace);
                if watched.state != before {
                    tracing::info!(instance = id, state = ?watched.state, "instance status");
                }
            }
        }
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let now = self.watched.iter().map(|(id, watched)| {
            let Watched { tap, state, .. } = *watched;
            (id.clone(), Answers { tap, state })
        });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = now.collect();
    }

    /// Asks all at once; the addresses that have answered.
    async fn ask(&self, questions: &[Question]) -> Result<HashSet<Ipv4Addr>> {
        // Answers to questions of before say nothing of now.
        while receive(self.socket.get_ref()).is_ok() {}
        for question in questions {
            // An interface that is just going down does not answer either.
            if let Err(error) = send(self.socket.get_ref(), question) {
                tracing::debug!(%error, ip = %question.ip, "cannot ask");
            }
        }
        let mut waiting: HashSet<(Ipv4Addr, MacAddr)> = questions
            .iter()
            .map(|question| (question.ip, question.mac))
            .collect();
        let mut answered = HashSet::new();
        let deadline = Instant::now() + self.pace.patience;
        while !waiting.is_empty() {
            let received = self.socket.async_io(Interest::READABLE, receive);
            match timeout_at(deadline, received).await {
                Ok(Ok(sender)) => {
                    if let Some(sender) = sender.filter(|sender| waiting.remove(sender)) {
                        answered.insert(sender.0);
                    }
                }
                Ok(Err(error)) => {
                    return Err(FabricError::io("receive ARP answers")(error));
                }
                Err(_) => break,
            }
        }
        Ok(answered)
    }
}

/// The primary interfaces of instances.
fn primary(network: &Network) -> impl Iterator<Item = (&str, &super::network::Port)> {
    let ports = network.ports.iter().filter(|port| port.primary);
    ports.filter_map(|port| Some((port.instance.as_deref()?, port)))
}

/// Length of an ARP packet for IPv4 over Ethernet (RFC 826).
const ARP: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

impl Question {
    fn bytes(&self) -> Vec<u8> {
        let (from, to) = (self.gateway.octets(), self.ip.octets());
        let parts: [&[u8]; 6] = [
            &ETHERNET_IPV4,
            &REQUEST,
            &GATEWAY_MAC.0,
            &from,
            &[0; 6],
            &to,
        ];
        parts.concat()
    }
}

/// Whose answer a packet is.
fn sender(packet: &[u8]) -> Option<(Ipv4Addr, MacAddr)> {
    let rest = packet.strip_prefix(&ETHERNET_IPV4)?.strip_prefix(&REPLY)?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let (ip, _) = rest.split_first_chunk::<4>()?;
    Some((Ipv4Addr::from(*ip), MacAddr(*mac)))
}

fn protocol() -> u16 {
    u16::try_from(libc::ETH_P_ARP).unwrap_or(0).to_be()
}

/// A socket for ARP packets without their Ethernet headers (packet(7)), in the network namespace of the calling thread.
/// What arrives at a bridge's port reaches it only through the bridge, behind the filter.
pub(super) fn socket() -> Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: makes a socket.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol())) };
    if fd < 0 {
        return Err(FabricError::io("open a packet socket")(
            io::Error::last_os_error(),
        ));
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a question to the guest itself, as a kernel does that checks a neighbour it knows.
fn send(socket: &OwnedFd, question: &Question) -> io::Result<()> {
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    to.sll_protocol = protocol();
    to.sll_ifindex = i32::try_from(question.bridge).map_err(io::Error::other)?;
    to.sll_halen = 6;
    for (byte, own) in to.sll_addr.iter_mut().zip(question.mac.0) {
        *byte = own;
    }
    let bytes = question.bytes();
    let length = libc::socklen_t::try_from(size_of_val(&to)).map_err(io::Error::other)?;
    // SAFETY: packet and address are valid and as long as said.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const to).cast(),
            length,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Receives a packet: whose answer it is, if it is one.
fn receive(socket: &OwnedFd) -> io::Result<Option<(Ipv4Addr, MacAddr)>> {
    let mut packet = [0; ARP];
    let length = nix::sys::socket::recv(
        socket.as_raw_fd(),
        &mut packet,
        nix::sys::socket::MsgFlags::empty(),
    )?;
    Ok(packet.get(..length).and_then(sender))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_silences_in_a_row_make_a_failure_but_only_after_an_answer() {
        let pace = Pace::default();
        let mut guest = Watched::new(7);
        for _ in 0..10 {
            guest.learn(false, &pace);
        }
        assert_eq!(guest.state, Reachability::Initializing);
        guest.learn(true, &pace);
        assert_eq!(guest.state, Reachability::Passed);
        guest.learn(false, &pace);
        guest.learn(false, &pace);
        guest.learn(true, &pace);
        guest.learn(false, &pace);
        guest.learn(false, &pace);
        assert_eq!(guest.state, Reachability::Passed);
        guest.learn(false, &pace);
        let failed = guest.state;
        assert!(matches!(failed, Reachability::Failed { .. }), "{failed:?}");
        guest.learn(false, &pace);
        assert_eq!(guest.state, failed, "since the first");
        guest.learn(true, &pace);
        assert_eq!(guest.state, Reachability::Passed);
    }

    #[test]
    fn answers_are_told_from_questions_and_junk() {
        let (mac, ip) = (MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 10));
        let question = Question {
            bridge: 1,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            mac,
            ip,
        };
        let bytes = question.bytes();
        assert_eq!(bytes.len(), ARP);
        assert_eq!(sender(&bytes), None);
        let gateway = question.gateway.octets();
        let parts: [&[u8]; 6] = [
            &ETHERNET_IPV4,
            &REPLY,
            &mac.0,
            &ip.octets(),
            &GATEWAY_MAC.0,
            &gateway,
        ];
        let answer = parts.concat();
        assert_eq!(sender(&answer), Some((ip, mac)));
        for length in 0..18 {
            assert_eq!(sender(&answer[..length]), None);
        }
    }
}
