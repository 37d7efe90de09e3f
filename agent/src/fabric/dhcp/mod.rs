//! A subnet's DHCP server (RFC 2131): each port has one address, for ever.
//!
//! The packet filter lets a port ask only in the name of its own MAC address, so `chaddr` can be
//! trusted here. Answers find a guest without an address by the fixed neighbour entries.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;

use dhcproto::v4::{DhcpOption, Flags, HType, Message, MessageType, NodeType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use hickory_proto::rr::Name;
use ipnet::Ipv4Net;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, sockopt};
use tokio::net::UdpSocket;

use super::config::MacAddr;
use super::error::{FabricError, Result};
use super::network::{Network, Port, Subnet};
use super::vpc::Current;

/// Lease time in seconds, as on EC2.
const LEASE_SECONDS: u32 = 3600;
/// Shortest message that every client accepts: BOOTP's (RFC 1542 §2.1).
const MESSAGE_MIN: usize = 300;
/// Longest message that we read; Ethernet frames of the VPC carry no more.
const MESSAGE_MAX: usize = 9216;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// The server of one subnet.
#[derive(Debug)]
pub(super) struct Server {
    bridge: String,
    network: Current,
}

/// Whom an answer is for.
struct Client<'a> {
    network: &'a Network,
    subnet: &'a Subnet,
    port: &'a Port,
}

impl Server {
    /// The server on this bridge; it follows the network's changes.
    pub(super) fn new(bridge: &str, network: Current) -> Self {
        Self {
            bridge: bridge.to_owned(),
            network,
        }
    }

    /// Answers until the task is dropped.
    pub(super) async fn run(self, socket: UdpSocket) {
        let mut buffer = vec![0; MESSAGE_MAX];
        loop {
            let length = match socket.recv_from(&mut buffer).await {
                Ok((length, _)) => length,
                Err(error) => {
                    tracing::debug!(%error, "DHCP: cannot receive");
                    continue;
                }
            };
            let Some((bytes, to)) = self.answer_bytes(&buffer[..length]) else {
                continue;
            };
            if let Err(error) = socket.send_to(&bytes, SocketAddr::V4(to)).await {
                tracing::warn!(%to, %error, "DHCP: cannot answer");
            }
        }
    }

    /// The answer to a datagram and where it goes; `None` for what needs none.
    fn answer_bytes(&self, request: &[u8]) -> Option<(Vec<u8>, SocketAddrV4)> {
        let request = Message::from_bytes(&essence(request)?).ok()?;
        let (reply, to) = self.answer(&request)?;
        let mut bytes = reply.to_vec().ok()?;
        if bytes.len() < MESSAGE_MIN {
            bytes.resize(MESSAGE_MIN, 0);
        }
        Some((bytes, to))
    }

    fn answer(&self, request: &Message) -> Option<(Message, SocketAddrV4)> {
        // Relayed requests (giaddr) cannot come from a guest's own interface.
        if request.opcode() != Opcode::BootRequest
            || request.htype() != HType::Eth
            || request.hlen() != 6
            || request.giaddr() != Ipv4Addr::UNSPECIFIED
        {
            return None;
        }
        let mac = MacAddr(request.chaddr().try_into().ok()?);
        let network = self.network.get();
        let subnet = network.subnet(&self.bridge)?;
        let port = network
            .ports
            .iter()
            .find(|port| port.mac == mac && port.bridge == self.bridge)?;
        let client = Client {
            network: &network,
            subnet,
            port,
        };
        let kind = client.decide(request)?;
        tracing::debug!(%mac, ip = %port.ip, request = ?request.opts().msg_type(), reply = ?kind, "DHCP");
        let mut reply = Message::new_with_id(
            request.xid(),
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            &mac.0,
        );
        reply
            .set_opcode(Opcode::BootReply)
            .set_flags(request.flags());
        reply.opts_mut().insert(DhcpOption::MessageType(kind));
        reply
            .opts_mut()
            .insert(DhcpOption::ServerIdentifier(subnet.gateway()));
        if kind == MessageType::Nak {
            reply.set_flags(Flags::default().set_broadcast());
            return Some((reply, SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT)));
        }
        let inform = request.opts().msg_type() == Some(MessageType::Inform);
        reply.set_ciaddr(request.ciaddr());
        if !inform {
            reply.set_yiaddr(port.ip);
            reply
                .opts_mut()
                .insert(DhcpOption::AddressLeaseTime(LEASE_SECONDS));
            reply
                .opts_mut()
                .insert(DhcpOption::Renewal(LEASE_SECONDS / 2));
            reply
                .opts_mut()
                .insert(DhcpOption::Rebinding(LEASE_SECONDS / 8 * 7));
        }
        client.add_options(request, &mut reply);
        let unicast = inform || request.ciaddr() == port.ip || !request.flags().broadcast();
        let to = if unicast {
            port.ip
        } else {
            Ipv4Addr::BROADCAST
        };
        Some((reply, SocketAddrV4::new(to, CLIENT_PORT)))
    }
}

impl Client<'_> {
    /// What to say, if anything.
    fn decide(&self, request: &Message) -> Option<MessageType> {
        let (port, options) = (self.port, request.opts());
        match options.msg_type()? {
            MessageType::Discover => Some(MessageType::Offer),
            MessageType::Request => {
                if let Some(DhcpOption::ServerIdentifier(server)) =
                    options.get(OptionCode::ServerIdentifier)
                    && *server != self.subnet.gateway()
                {
                    return None;
                }
                let wanted = match options.get(OptionCode::RequestedIpAddress) {
                    Some(DhcpOption::RequestedIpAddress(address)) => *address,
                    _ => request.ciaddr(),
                };
                Some(if wanted == port.ip {
                    MessageType::Ack
                } else {
                    MessageType::Nak
                })
            }
            MessageType::Inform if request.ciaddr() == port.ip => Some(MessageType::Ack),
            MessageType::Decline => {
                tracing::warn!(ip = %port.ip, "a guest says that its address is in use by another");
                None
            }
            // A released address stays the port's.
            _ => None,
        }
    }

    /// The options that the client asks for, or all when it does not say.
    fn add_options(&self, request: &Message, reply: &mut Message) {
        let (network, subnet) = (self.network, self.subnet);
        let asked = match request.opts().get(OptionCode::ParameterRequestList) {
            Some(DhcpOption::ParameterRequestList(codes)) => Some(codes),
            _ => None,
        };
        let gateway = subnet.gateway();
        let mut options = vec![
            DhcpOption::SubnetMask(subnet.cidr.netmask()),
            DhcpOption::Router(vec![gateway]),
            DhcpOption::Hostname(self.port.hostname.clone()),
            DhcpOption::InterfaceMtu(network.mtu),
            DhcpOption::BroadcastAddr(subnet.cidr.broadcast()),
        ];
        let set = &network.options;
        let some = |list: &[Ipv4Addr]| Some(list.to_vec()).filter(|list| !list.is_empty());
        options.extend(some(&set.dns).map(DhcpOption::DomainNameServer));
        options.extend(some(&set.ntp).map(DhcpOption::NtpServers));
        options.extend(some(&set.netbios).map(DhcpOption::NetBiosNameServers));
        let node = set.netbios_node.map(NodeType::from);
        options.extend(node.map(DhcpOption::NetBiosNodeType));
        if let Some(domain) = &set.domain {
            options.push(DhcpOption::DomainName(domain.clone()));
            let search = Name::from_ascii(format!("{domain}.")).ok();
            options.extend(search.map(|name| DhcpOption::DomainSearch(vec![name])));
        }
        // RFC 3442: whoever takes this one ignores the router option, so the router is here too.
        let default = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
        options.push(DhcpOption::ClasslessStaticRoute(vec![(default, gateway)]));
        for option in options {
            if asked.is_none_or(|codes| codes.contains(&OptionCode::from(&option))) {
                reply.opts_mut().insert(option);
            }
        }
    }
}

/// Bytes of a message before its options: BOOTP's fields and the magic cookie (RFC 2131 §2).
const HEADER: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// A message reduced to the options that the server looks at, well-formed and each once.
///
/// The guest chooses the bytes, and dhcproto 0.15 panics on some options of a wrong length
/// (seen: an `assert!` on option lengths); what is left here it reads safely.
fn essence(message: &[u8]) -> Option<Vec<u8>> {
    let (header, mut rest) = message.split_at_checked(HEADER)?;
    if !header.ends_with(&COOKIE) {
        return None;
    }
    let mut kept = header.to_vec();
    let mut seen = Vec::new();
    while let [code, after @ ..] = rest {
        let (pad, end) = (u8::from(OptionCode::Pad), u8::from(OptionCode::End));
        if *code == pad {
            rest = after;
            continue;
        }
        if *code == end {
            break;
        }
        let (length, after) = after.split_first()?;
        let (value, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        let fits = match OptionCode::from(*code) {
            OptionCode::MessageType => value.len() == 1,
            OptionCode::RequestedIpAddress | OptionCode::ServerIdentifier => value.len() == 4,
            OptionCode::ParameterRequestList => true,
            _ => continue,
        };
        if !fits || seen.contains(code) {
            return None;
        }
        seen.push(*code);
        kept.extend([*code, *length]);
        kept.extend(value);
    }
    kept.push(u8::from(OptionCode::End));
    Some(kept)
}

/// The server's socket: on the bridge only, able to broadcast. Made in the network namespace of the calling thread.
pub(super) fn socket(bridge: &str) -> Result<std::net::UdpSocket> {
    let make = || -> io::Result<std::net::UdpSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = nix::sys::socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        // Before it is bound: other subnets' servers have the same address and port.
        setsockopt(&fd, sockopt::BindToDevice, &bridge.into())?;
        setsockopt(&fd, sockopt::Broadcast, &true)?;
        let any = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT));
        bind(fd.as_raw_fd(), &any)?;
        Ok(fd.into())
    };
    make().map_err(FabricError::io("open the DHCP server's socket"))
}

#[cfg(test)]
mod tests;
