//! The DNS server as a guest meets it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use cumulet_agent::fabric::{DNS_LINK_LOCAL, EnterConfig, UplinkMode, UplinkState};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::cases::{closed, on_fabric};
use crate::guest::Guest;

const SERVER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
/// A hang guard for sockets.
const PATIENCE: Duration = Duration::from_secs(60);

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("name"), kind));
    message.to_vec().expect("encode")
}

/// Response code, whether truncated, and the data.
type Answer = (ResponseCode, bool, Vec<String>);

fn read_answer(bytes: &[u8]) -> Answer {
    let answer = Message::from_vec(bytes).expect("decode");
    assert_eq!(answer.metadata.id, 4711);
    let data = answer
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    (
        answer.metadata.response_code,
        answer.metadata.truncation,
        data,
    )
}

fn by_udp(server: Ipv4Addr, name: &str, kind: RecordType) -> Answer {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    // Connected: an answer from another address than the one asked would not arrive.
    socket.connect((server, 53)).expect("connect");
    socket.send(&query(name, kind)).expect("send");
    let mut bytes = [0; 4096];
    let length = socket
        .recv(&mut bytes)
        .unwrap_or_else(|error| panic!("{server} {name}: {error}"));
    read_answer(&bytes[..length])
}

fn by_tcp(server: Ipv4Addr, name: &str, kind: RecordType) -> Answer {
    let address = SocketAddr::from((server, 53));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let question = query(name, kind);
    let length = u16::try_from(question.len()).expect("short");
    stream
        .write_all(&[&length.to_be_bytes()[..], &question].concat())
        .expect("send");
    read_answer(&read_framed(&mut stream))
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("length");
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).expect("message");
    bytes
}

pub(crate) fn private_names() {
    on_fabric(&closed(), 2, async |fabric| {
        let guest = Guest::with_address(&fabric, 0).await;
        let some = |text: &str| (ResponseCode::NoError, false, vec![text.to_owned()]);
        let none = || (ResponseCode::NXDomain, false, Vec::new());
        let cases = [
            (
                "ip-172-31-0-11.ec2.internal.",
                RecordType::A,
                some("172.31.0.11"),
            ),
            (
                "11.0.31.172.in-addr.arpa.",
                RecordType::PTR,
                some("ip-172-31-0-11.ec2.internal."),
            ),
            (
                "instance-data.ec2.internal.",
                RecordType::A,
                some("169.254.169.254"),
            ),
            ("nothing.ec2.internal.", RecordType::A, none()),
            // No uplink: unknown at once, and nobody is asked.
            ("debian.org.", RecordType::A, none()),
        ];
        for server in [SERVER, DNS_LINK_LOCAL] {
            for (name, kind, expected) in cases.clone() {
                let both = guest
                    .run(move || (by_udp(server, name, kind), by_tcp(server, name, kind)))
                    .await;
                assert_eq!(both, (expected.clone(), expected), "{server} {name}");
            }
        }
    });
}

pub(crate) fn forwarding() {
    let config = EnterConfig {
        uplink: UplinkMode::Pasta,
        ..EnterConfig::default()
    };
    on_fabric(&config, 1, async |fabric| {
        assert_eq!(
            fabric.uplink_settled().await,
            UplinkState::Up(UplinkMode::Pasta)
        );
        let guest = Guest::with_address(&fabric, 0).await;
        let short = guest
            .run(|| by_udp(SERVER, "short.example.", RecordType::A))
            .await;
        assert_eq!(
            short,
            (ResponseCode::NoError, false, vec!["203.0.113.5".to_owned()])
        );
        // A long answer: truncated by UDP, whole by TCP.
        let long = guest
            .run(|| by_udp(SERVER, "long.example.", RecordType::A))
            .await;
        assert_eq!(long, (ResponseCode::NoError, true, Vec::new()));
        let long = guest
            .run(|| by_tcp(SERVER, "long.example.", RecordType::A))
            .await;
        assert_eq!((long.0, long.2.len()), (ResponseCode::NoError, 100));
        // A resolver that says nothing is not waited for.
        let silent = guest
            .run(|| by_udp(SERVER, "silent.example.", RecordType::A))
            .await;
        assert_eq!(silent, (ResponseCode::ServFail, false, Vec::new()));
    });
}

/// The played host's resolver, at its loopback.
pub(crate) fn play_resolver() {
    let udp = UdpSocket::bind("127.0.0.1:53").expect("bind");
    let tcp = TcpListener::bind("127.0.0.1:53").expect("bind");
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut bytes).expect("receive");
            if let Some(answer) = resolve(&bytes[..length], false) {
                udp.send_to(&answer, client).expect("answer");
            }
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.expect("accept");
            if let Some(answer) = resolve(&read_framed(&mut stream), true) {
                let length = u16::try_from(answer.len()).expect("fits");
                stream
                    .write_all(&[&length.to_be_bytes()[..], &answer].concat())
                    .expect("answer");
            }
        }
    });
}

fn resolve(question: &[u8], whole: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).expect("a well-formed query");
    let name = question.queries[0].name().clone();
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.add_queries(question.queries);
    let mut add = |last: u8| {
        let data = RData::A(A(Ipv4Addr::new(203, 0, 113, last)));
        answer.add_answer(Record::from_rdata(name.clone(), 60, data));
    };
    match name.to_ascii().as_str() {
        "short.example." => add(5),
        "long.example." if whole => (0..100).for_each(add),
        "long.example." => answer.metadata.truncation = true,
        "silent.example." => return None,
        other => panic!("'{other}' must not reach the host's resolver"),
    }
    Some(answer.to_vec().expect("encode"))
}
