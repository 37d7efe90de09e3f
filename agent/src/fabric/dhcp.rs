//! The subnet's DHCP server (RFC 2131): each port has one address, for ever.
//!
//! The packet filter lets a port ask only in the name of its own MAC address, so `chaddr` can be
//! trusted here. Answers find a guest without an address by the fixed neighbour entries.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use dhcproto::v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use hickory_proto::rr::Name;
use ipnet::Ipv4Net;
use tokio::net::UdpSocket;

use super::BRIDGE;
use super::config::{FabricConfig, MacAddr, PortConfig};
use super::error::{FabricError, Result};

/// Lease time in seconds, as on EC2.
const LEASE_SECONDS: u32 = 3600;
/// Shortest message that every client accepts: BOOTP's (RFC 1542 §2.1).
const MESSAGE_MIN: usize = 300;
/// Longest message that we read; Ethernet frames of the VPC carry no more.
const MESSAGE_MAX: usize = 9216;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// What the server knows.
#[derive(Debug)]
pub(super) struct Server {
    config: FabricConfig,
    search: Option<Name>,
    ports: HashMap<MacAddr, PortConfig>,
}

impl Server {
    pub(super) fn new(config: &FabricConfig) -> Self {
        let ports = config
            .ports
            .iter()
            .map(|port| (port.mac, port.clone()))
            .collect();
        let search = Name::from_ascii(format!("{}.", config.domain)).ok();
        Self {
            config: config.clone(),
            search,
            ports,
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
        let port = self.ports.get(&mac)?;
        let kind = self.decide(request, port)?;
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
            .insert(DhcpOption::ServerIdentifier(self.config.gateway()));
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
        self.add_options(request, port, &mut reply);
        let unicast = inform || request.ciaddr() == port.ip || !request.flags().broadcast();
        let to = if unicast {
            port.ip
        } else {
            Ipv4Addr::BROADCAST
        };
        Some((reply, SocketAddrV4::new(to, CLIENT_PORT)))
    }

    /// What to say, if anything.
    fn decide(&self, request: &Message, port: &PortConfig) -> Option<MessageType> {
        let options = request.opts();
        match options.msg_type()? {
            MessageType::Discover => Some(MessageType::Offer),
            MessageType::Request => {
                if let Some(DhcpOption::ServerIdentifier(server)) =
                    options.get(OptionCode::ServerIdentifier)
                    && *server != self.config.gateway()
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
    fn add_options(&self, request: &Message, port: &PortConfig, reply: &mut Message) {
        let config = &self.config;
        let asked = match request.opts().get(OptionCode::ParameterRequestList) {
            Some(DhcpOption::ParameterRequestList(codes)) => Some(codes),
            _ => None,
        };
        let gateway = config.gateway();
        let mut options = vec![
            DhcpOption::SubnetMask(config.subnet.netmask()),
            DhcpOption::Router(vec![gateway]),
            DhcpOption::DomainNameServer(vec![config.dns()]),
            DhcpOption::Hostname(port.hostname.clone()),
            DhcpOption::DomainName(config.domain.clone()),
            DhcpOption::InterfaceMtu(config.mtu),
            DhcpOption::BroadcastAddr(config.subnet.broadcast()),
        ];
        options.extend(
            self.search
                .clone()
                .map(|name| DhcpOption::DomainSearch(vec![name])),
        );
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

/// The server's socket: on the bridge only, able to broadcast.
pub(super) fn socket() -> Result<UdpSocket> {
    let make = || -> io::Result<UdpSocket> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
        nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::BindToDevice,
            &BRIDGE.into(),
        )?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    make().map_err(FabricError::io("open the DHCP server's socket"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::private_hostname;
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const IP: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 10);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);

    fn server() -> Server {
        let port = PortConfig {
            mac: MAC,
            ip: IP,
            hostname: private_hostname(IP),
        };
        Server::new(&FabricConfig {
            ports: vec![port],
            ..FabricConfig::default()
        })
    }

    fn request(kind: MessageType, options: Vec<DhcpOption>) -> Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(7, none, none, none, none, &MAC.0);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        for option in options {
            message.opts_mut().insert(option);
        }
        message
    }

    /// Through bytes and back, as on the wire.
    fn ask(message: &Message) -> Option<(Message, SocketAddrV4)> {
        let (bytes, to) = server().answer_bytes(&message.to_vec().unwrap())?;
        assert!(bytes.len() >= MESSAGE_MIN);
        Some((Message::from_bytes(&bytes).unwrap(), to))
    }

    #[test]
    fn discover_is_offered_the_ports_address() {
        // What dhclient asks for in cloud-init 22.4.2.
        let asked = [1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42]
            .map(OptionCode::from)
            .to_vec();
        let (reply, to) = ask(&request(
            MessageType::Discover,
            vec![DhcpOption::ParameterRequestList(asked)],
        ))
        .unwrap();
        assert_eq!(reply.opts().msg_type(), Some(MessageType::Offer));
        assert_eq!((reply.xid(), reply.yiaddr()), (7, IP));
        assert_eq!(to, SocketAddrV4::new(IP, 68));
        for option in [
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 240, 0)),
            DhcpOption::BroadcastAddr(Ipv4Addr::new(172, 31, 15, 255)),
            DhcpOption::Router(vec![GATEWAY]),
            DhcpOption::DomainName("ec2.internal".into()),
            DhcpOption::DomainNameServer(vec![Ipv4Addr::new(172, 31, 0, 2)]),
            DhcpOption::DomainSearch(vec![Name::from_ascii("ec2.internal.").unwrap()]),
            DhcpOption::Hostname("ip-172-31-0-10".into()),
            DhcpOption::InterfaceMtu(9001),
            DhcpOption::ClasslessStaticRoute(vec![("0.0.0.0/0".parse().unwrap(), GATEWAY)]),
            DhcpOption::AddressLeaseTime(3600),
            DhcpOption::ServerIdentifier(GATEWAY),
        ] {
            assert_eq!(reply.opts().get(OptionCode::from(&option)), Some(&option));
        }
    }

    #[test]
    fn only_what_is_asked_for_comes() {
        let asked = vec![OptionCode::SubnetMask, OptionCode::Router];
        let (reply, _) = ask(&request(
            MessageType::Discover,
            vec![DhcpOption::ParameterRequestList(asked)],
        ))
        .unwrap();
        assert!(reply.opts().contains(OptionCode::Router));
        assert!(!reply.opts().contains(OptionCode::ClasslessStaticRoute));
        assert!(!reply.opts().contains(OptionCode::InterfaceMtu));
    }

    #[test]
    fn request_for_own_address_is_acknowledged() {
        let wanted = |address| vec![DhcpOption::RequestedIpAddress(address)];
        let (reply, _) = ask(&request(MessageType::Request, wanted(IP))).unwrap();
        assert_eq!(reply.opts().msg_type(), Some(MessageType::Ack));
        let mut renew = request(MessageType::Request, vec![]);
        renew
            .set_ciaddr(IP)
            .set_flags(Flags::default().set_broadcast());
        let (reply, to) = ask(&renew).unwrap();
        assert_eq!(
            (reply.opts().msg_type(), to.ip()),
            (Some(MessageType::Ack), &IP)
        );
    }

    #[test]
    fn request_for_another_address_is_refused() {
        for address in [
            Ipv4Addr::new(172, 31, 0, 11),
            Ipv4Addr::new(192, 168, 0, 2),
            Ipv4Addr::UNSPECIFIED,
        ] {
            let message = request(
                MessageType::Request,
                vec![DhcpOption::RequestedIpAddress(address)],
            );
            let (reply, to) = ask(&message).unwrap();
            assert_eq!(reply.opts().msg_type(), Some(MessageType::Nak));
            assert_eq!(
                (reply.yiaddr(), *to.ip()),
                (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)
            );
        }
    }

    #[test]
    fn broadcast_is_honoured() {
        let mut message = request(MessageType::Discover, vec![]);
        message.set_flags(Flags::default().set_broadcast());
        assert_eq!(*ask(&message).unwrap().1.ip(), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn inform_gets_options_without_lease() {
        let mut message = request(MessageType::Inform, vec![]);
        assert!(ask(&message).is_none());
        message.set_ciaddr(IP);
        let (reply, _) = ask(&message).unwrap();
        assert_eq!(
            (reply.opts().msg_type(), reply.yiaddr()),
            (Some(MessageType::Ack), Ipv4Addr::UNSPECIFIED)
        );
        assert!(!reply.opts().contains(OptionCode::AddressLeaseTime));
    }

    #[test]
    fn others_and_the_unanswerable_get_silence() {
        assert!(ask(&request(MessageType::Release, vec![])).is_none());
        assert!(ask(&request(MessageType::Decline, vec![])).is_none());
        assert!(ask(&request(MessageType::Offer, vec![])).is_none());
        let elsewhere = DhcpOption::ServerIdentifier(Ipv4Addr::new(172, 31, 0, 9));
        assert!(ask(&request(MessageType::Request, vec![elsewhere])).is_none());
        let mut stranger = request(MessageType::Discover, vec![]);
        stranger.set_chaddr(&[2, 0, 0, 0, 0, 9]);
        assert!(ask(&stranger).is_none());
        let mut relayed = request(MessageType::Discover, vec![]);
        relayed.set_giaddr(GATEWAY);
        assert!(ask(&relayed).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = server().answer_bytes(&bytes);
        }

        #[test]
        fn any_options_are_survived(options in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = request(MessageType::Discover, vec![]).to_vec().unwrap();
            bytes.truncate(HEADER);
            bytes.extend(options);
            let _ = server().answer_bytes(&bytes);
        }

        #[test]
        fn any_damage_to_a_request_is_survived(at in 0usize..300, value: u8, cut in 0usize..300) {
            let mut bytes = request(MessageType::Request, vec![
                DhcpOption::ParameterRequestList(vec![OptionCode::Router, OptionCode::DomainSearch]),
                DhcpOption::Hostname("x".into()),
            ]).to_vec().unwrap();
            let length = bytes.len();
            bytes[at % length] = value;
            bytes.truncate(length - cut % length);
            let _ = server().answer_bytes(&bytes);
        }
    }
}
