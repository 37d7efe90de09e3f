//! F9 and section 5 against guests that mean harm: nothing panics, nothing leaks, others go on.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cumulet_imds::server::Config;
use cumulet_imds::view::InstanceView;
use cumulet_imds::{Moment, respond};
use proptest::prelude::*;

use crate::client::{HANG, Service, keys};

/// Reads to the end of a connection, reset or not.
fn rest(mut stream: std::net::TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(failure) = stream.read_to_end(&mut bytes) {
        assert_ne!(
            failure.kind(),
            std::io::ErrorKind::WouldBlock,
            "still open after {HANG:?}"
        );
    }
    bytes
}

fn still_serves(service: &Service) {
    assert_eq!(
        service.get("/latest/meta-data/ami-id").text(),
        "ami-0123456789abcdef0"
    );
}

#[test]
fn s4_a_header_with_line_breaks_is_a_bad_request() {
    let service = Service::start(InstanceView::example());
    let header = "X-aws-ec2-metadata-token: <?xml version=\"1.0\"?>\n<!DOCTYPE html>\n <x>";
    let reply = service.ask("GET", "/latest/meta-data/ami-id", &[header]);
    assert_eq!(reply.status, 400);
}

#[test]
fn n5_an_endless_head_is_cut_off() {
    let service = Service::start(InstanceView::example());
    for line in [
        "X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        let mut stream = service.connect();
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        for _ in 0..100_000 {
            if stream.write_all(line.as_bytes()).is_err() {
                break;
            }
        }
        let answer = String::from_utf8_lossy(&rest(stream)).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    still_serves(&service);
}

#[test]
fn n5_an_endless_body_is_cut_off() {
    let service = Service::start(InstanceView::example());
    let start = "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\n\
                 X-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
    for length in [
        "Content-Length: 99999999999\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut stream = service.connect();
        stream
            .write_all(format!("{start}{length}").as_bytes())
            .unwrap();
        let chunk = format!("1000\r\n{}\r\n", "b".repeat(4096));
        for _ in 0..10_000 {
            if stream.write_all(chunk.as_bytes()).is_err() {
                break;
            }
        }
        let answer = rest(stream);
        assert!(!answer.windows(5).any(|w| w == b"AQAEA"), "{length}");
    }
    still_serves(&service);
}

#[test]
fn n5_a_silent_connection_is_closed() {
    let config = Config {
        head_time: Duration::from_millis(50),
        connection_time: Duration::from_millis(200),
        ..Config::default()
    };
    let service = Service::with(InstanceView::example(), keys(), config);
    rest(service.connect());
    let mut half = service.connect();
    half.write_all(b"GET /latest/ HT").unwrap();
    rest(half);
    let mut body = service.connect();
    body.write_all(b"PUT /latest/api/token HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel")
        .unwrap();
    assert_eq!(rest(body), b"");
    still_serves(&service);
}

#[test]
fn n5_too_many_connections_of_one_instance_leave_the_others_alone() {
    let config = Config {
        connections_per_instance: 3,
        ..Config::default()
    };
    let service = Service::with(InstanceView::example(), keys(), config);
    let neighbour = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
    let view = InstanceView {
        instance_id: "i-2".into(),
        ..InstanceView::example()
    };
    service.set(neighbour, Some(view));
    let held: Vec<_> = (0..3).map(|_| service.connect()).collect();
    let mut refused = 0;
    for _ in 0..5 {
        refused += usize::from(rest(service.connect()).is_empty());
    }
    assert_eq!(refused, 5);
    let request = crate::client::request("GET", "/", &[]);
    assert_eq!(service.raw_from(neighbour, &request).status, 401);
    drop(held);
    // The service notices the closed connections in its own time.
    let start = std::time::Instant::now();
    loop {
        let mut stream = service.connect();
        let _ = stream.write_all(request.as_bytes());
        if rest(stream).starts_with(b"HTTP/1.1 401") {
            break;
        }
        assert!(start.elapsed() < HANG, "no connection is accepted any more");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn weird_request() -> impl Strategy<Value = Vec<u8>> {
    let method = "GET|PUT|HEAD|POST|CONNECT|[A-Z]{0,9}|\\PC{0,4}";
    let path =
        "/latest/api/token|/latest/meta-data/ami-id|/latest/user-data|\\PC{0,40}|[/.%0-9a-f]{0,40}";
    let header = "X-aws-ec2-metadata-token: [ -~]{0,60}|X-aws-ec2-metadata-token-ttl-seconds: [ -~]{0,9}\
        |Content-Length: [0-9-]{0,3}|Transfer-Encoding: [a-z]{0,8}|Host:|[ -~]{0,30}: [ -~]{0,30}|\\PC{0,30}";
    let text = (
        method,
        path,
        proptest::collection::vec(header, 0..6),
        "HTTP/1\\.[0-9]|\\PC{0,8}",
    )
        .prop_map(|(method, path, headers, version)| {
            let mut text = format!("{method} {path} {version}\r\n");
            for header in headers {
                text += &header;
                text += "\r\n";
            }
            (text + "\r\n").into_bytes()
        });
    prop_oneof![text, proptest::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    /// Bytes of any kind over the wire: no data without a token, and the service goes on.
    #[test]
    fn f9_any_bytes(requests in proptest::collection::vec(weird_request(), 1..4)) {
        static SERVICE: std::sync::OnceLock<Service> = std::sync::OnceLock::new();
        let service = SERVICE.get_or_init(|| {
            let config = Config { head_time: Duration::from_millis(50), ..Config::default() };
            let config = Config { connection_time: Duration::from_secs(1), ..config };
            Service::with(InstanceView::example(), keys(), config)
        });
        for request in requests {
            let mut stream = service.connect();
            let _ = stream.write_all(&request);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let answer = rest(stream);
            prop_assert!(!answer.windows(6).any(|w| w == b"ami-01"));
            prop_assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."));
        }
        still_serves(service);
    }

    /// Any path and token against the core, with and without tokens required.
    #[test]
    fn f9_any_head(
        method in "GET|PUT|HEAD|POST|[A-Z]{1,9}",
        path in "/[!-~]{0,60}|/latest/[a-z./%0-9-]{0,60}|(/[a-z%2e.]{0,6}){0,9}",
        token in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
        ttl in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..8)),
        required in any::<bool>(),
        seconds in any::<u64>(),
    ) {
        let mut request = http::Request::builder().method(method.as_str()).uri(path);
        for (name, value) in [("x-aws-ec2-metadata-token", &token), ("x-aws-ec2-metadata-token-ttl-seconds", &ttl)] {
            if let Some(value) = value {
                request = request.header(name, value.as_slice());
            }
        }
        let Ok(request) = request.body(()) else {
            return Ok(());
        };
        let mut view = InstanceView::example();
        view.options.tokens_required = required;
        let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds % 9_000_000_000);
        let head = request.into_parts().0;
        let answer = respond(&head, &view, &keys(), Moment { now, nonce: [0; 6] });
        prop_assert!([200, 400, 401, 403, 404, 405].contains(&answer.status().as_u16()));
        if (required || token.is_some()) && head.method == http::Method::GET {
            prop_assert_ne!(answer.status(), 200);
        }
    }
}
