//! T12: the IP TTL of real packets, seen with a raw socket.
//!
//! A raw socket needs CAP_NET_RAW, so the test runs itself again in a user and network namespace
//! of its own when it has to.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use cumulet_imds::view::InstanceView;
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{HANG, Service};

const INSIDE: &str = "CUMULET_TEST_OWN_NAMESPACE";

#[test]
fn t12_the_hop_limit_is_the_ttl_of_put_answers_only() {
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP));
    if raw.is_err() && std::env::var_os(INSIDE).is_none() {
        return again_in_a_namespace();
    }
    let raw = raw.expect("a raw socket");
    raw.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut view = InstanceView::example();
    for hop_limit in [1, 2, 64, 7] {
        view.options.hop_limit = hop_limit;
        let service = Service::start(view.clone());
        let put = || drop(service.token());
        // SYN-ACK and the bare ACK of the request leave before the request is understood.
        assert_eq!(
            ttls(&raw, &service, &put),
            BTreeSet::from([(true, hop_limit), (false, 64)])
        );
        let bad = || drop(service.ask("PUT", "/latest/api/token", &[]));
        assert_eq!(
            ttls(&raw, &service, &bad),
            BTreeSet::from([(true, hop_limit), (false, 64)])
        );
        let get = || drop(service.ask("GET", "/", &[]));
        assert_eq!(
            ttls(&raw, &service, &get),
            BTreeSet::from([(true, 64), (false, 64)])
        );
    }
}

/// What the service sent while `action` ran: (part of the answer: data or FIN?, TTL).
fn ttls(raw: &Socket, service: &Service, action: &dyn Fn()) -> BTreeSet<(bool, u8)> {
    while packet(raw).is_some() {}
    action();
    let mut seen = BTreeSet::new();
    let mut finished = false;
    let start = Instant::now();
    while !finished {
        assert!(start.elapsed() < HANG, "no FIN seen, only {seen:?}");
        let Some(packet) = packet(raw) else { continue };
        // IPv4 and TCP headers, RFC 791 §3.1 and RFC 9293 §3.1.
        let tcp = &packet[usize::from(packet[0] & 0xf) * 4..];
        if u16::from_be_bytes([tcp[0], tcp[1]]) != service.address.port() {
            continue;
        }
        let data = tcp.len() > usize::from(tcp[12] >> 4) * 4;
        let fin = tcp[13] & 1 != 0;
        seen.insert((data || fin, packet[8]));
        finished = fin;
    }
    seen
}

fn packet(raw: &Socket) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = vec![0; 65_536];
    let length = (&*raw).read(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn again_in_a_namespace() {
    let name = "hop_limit::t12_the_hop_limit_is_the_ttl_of_put_answers_only";
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "ip link set lo up && exec '{}' --exact {name}",
        program.display()
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", &script])
        .env(INSIDE, "1")
        .output()
        .expect("the unshare program");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "neither a raw socket nor a user namespace: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
