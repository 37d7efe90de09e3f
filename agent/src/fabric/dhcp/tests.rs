//! The server's answers, message by message.

use proptest::prelude::*;

use super::super::config::{FabricConfig, PortConfig, private_hostname};
use super::*;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const IP: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);

fn server() -> Server {
    server_with(|_| {})
}

/// The server of a network with options of its own.
fn server_with(change: impl Fn(&mut Network)) -> Server {
    let port = PortConfig {
        mac: MAC,
        ip: IP,
        hostname: private_hostname(IP),
    };
    let config = FabricConfig {
        ports: vec![port],
        ..FabricConfig::default()
    };
    let mut network = config.network();
    change(&mut network);
    Server::new("vpc0", Current::fixed(network))
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
fn netbios_is_told_when_the_option_set_has_it() {
    let asked = |codes: Vec<u8>| {
        let codes = codes.into_iter().map(OptionCode::from).collect();
        let list = DhcpOption::ParameterRequestList(codes);
        request(MessageType::Discover, vec![list]).to_vec().unwrap()
    };
    let reply = |server: &Server, request: &[u8]| {
        let (bytes, _) = server.answer_bytes(request).unwrap();
        Message::from_bytes(&bytes).unwrap()
    };
    let name_server = Ipv4Addr::new(10, 0, 0, 5);
    for node in [1, 2, 4, 8] {
        let server = server_with(|network| {
            network.options.netbios = vec![name_server];
            network.options.netbios_node = Some(node);
        });
        let told = reply(&server, &asked(vec![44, 46]));
        assert_eq!(
            told.opts().get(OptionCode::NetBiosNameServers),
            Some(&DhcpOption::NetBiosNameServers(vec![name_server]))
        );
        assert_eq!(
            told.opts().get(OptionCode::NetBiosNodeType),
            Some(&DhcpOption::NetBiosNodeType(NodeType::from(node)))
        );
        let silent = reply(&server, &asked(vec![1]));
        assert!(!silent.opts().contains(OptionCode::NetBiosNodeType));
    }
    let without = reply(&server(), &asked(vec![44, 46]));
    assert!(!without.opts().contains(OptionCode::NetBiosNameServers));
    assert!(!without.opts().contains(OptionCode::NetBiosNodeType));
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
