//! Section 1: tokens.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cumulet_imds::server::Config;
use cumulet_imds::view::InstanceView;
use cumulet_imds::{Identity, Keys, Moment, respond};

use crate::client::{Service, keys};

const TTL: &str = "X-aws-ec2-metadata-token-ttl-seconds: 21600";
const TOKEN_PATH: &str = "/latest/api/token";

#[test]
fn t1_put_gives_a_token() {
    let service = Service::start(InstanceView::example());
    let reply = service.ask("PUT", TOKEN_PATH, &[TTL]);
    assert_eq!(reply.status_line, "HTTP/1.1 200 OK");
    assert_eq!(
        reply.names(),
        [
            "X-Aws-Ec2-Metadata-Token-Ttl-Seconds",
            "Content-Type",
            "Content-Length",
            "Date",
            "Server",
            "Connection"
        ]
    );
    assert_eq!(
        reply.header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"),
        Some("21600")
    );
    assert_eq!(reply.header("Content-Type"), Some("text/plain"));
    assert_eq!(reply.header("Content-Length"), Some("56"));
    assert_eq!(reply.header("Server"), Some("EC2ws"));
    assert_eq!(reply.header("Connection"), Some("close"));
    let token = reply.text();
    assert_eq!(token.len(), 56);
    assert!(
        token.starts_with("AQAEA") && token.ends_with("=="),
        "{token}"
    );
    assert!(
        token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)),
        "{token}"
    );
}

/// Asks the pure core at a time of the test's choice.
fn at(seconds: f64, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let head = request.body(()).unwrap().into_parts().0;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let moment = Moment {
        now: now + Duration::from_secs_f64(seconds),
        nonce: [1; 6],
    };
    let answer = respond(&head, &InstanceView::example(), &keys(), moment);
    (
        answer.status().as_u16(),
        String::from_utf8(answer.body().to_vec()).unwrap(),
    )
}

#[test]
fn t2_a_token_of_one_second_works_for_one_second() {
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "1");
    let (status, token) = at(0.0, "PUT", TOKEN_PATH, &[ttl]);
    assert_eq!(status, 200);
    let read = |seconds| {
        at(
            seconds,
            "GET",
            "/latest/meta-data/ami-id",
            &[("x-aws-ec2-metadata-token", &token)],
        )
        .0
    };
    assert_eq!(read(0.0), 200);
    assert_eq!(read(0.9), 200);
    assert_eq!(read(1.0), 401);
    assert_eq!(read(3600.0), 401);
}

#[test]
fn t3_a_bad_ttl_is_a_bad_request() {
    let service = Service::start(InstanceView::example());
    for value in [
        "0",
        "21601",
        "-1",
        "abc",
        "",
        "+5",
        "1.5",
        "0x10",
        "99999999999999999999",
        "1 2",
    ] {
        let header = format!("X-aws-ec2-metadata-token-ttl-seconds: {value}");
        let reply = service.ask("PUT", TOKEN_PATH, &[&header]);
        assert_eq!(reply.status, 400, "{value:?}");
        assert!(reply.text().contains("400 - Bad Request"), "{value:?}");
    }
    assert_eq!(service.ask("PUT", TOKEN_PATH, &[]).status, 400);
    assert_eq!(service.ask("PUT", TOKEN_PATH, &[TTL, TTL]).status, 400);
}

#[test]
fn t4_a_forwarded_put_gets_no_token() {
    let service = Service::start(InstanceView::example());
    let reply = service.ask("PUT", TOKEN_PATH, &[TTL, "X-Forwarded-For: x"]);
    assert_eq!(reply.status, 403);
    assert_eq!(reply.header("Content-Type"), Some("text/html"));
    assert!(reply.text().contains("403 - Forbidden"));
    assert!(!reply.text().contains("AQAEA"));
    assert_eq!(
        service
            .ask("PUT", TOKEN_PATH, &["x-forwarded-for: x"])
            .status,
        403
    );
}

#[test]
fn t5_no_token_from_a_dated_path() {
    let service = Service::start(InstanceView::example());
    for version in ["2021-03-23", "1.0", "2009-04-04", "2099-01-01"] {
        let reply = service.ask("PUT", &format!("/{version}/api/token"), &[TTL]);
        assert_eq!(reply.status, 403, "{version}");
    }
}

#[test]
fn t6_other_methods_on_the_token_are_not_allowed() {
    let service = Service::start(InstanceView::example());
    for method in ["GET", "HEAD", "POST", "DELETE", "PATCH", "BREW"] {
        let reply = service.ask(method, TOKEN_PATH, &[]);
        assert_eq!(reply.status_line, "HTTP/1.1 405 Not Allowed", "{method}");
        assert_eq!(reply.header("Allow"), Some("OPTIONS, PUT"), "{method}");
        assert_eq!(reply.header("Content-Length"), Some("0"), "{method}");
        assert_eq!(reply.header("Content-Type"), Some("text/plain"), "{method}");
    }
    assert_eq!(
        service.ask("OPTIONS", TOKEN_PATH, &[]).header("Allow"),
        Some("OPTIONS, PUT")
    );
}

#[test]
fn t7_the_body_of_a_put_does_not_matter() {
    let service = Service::start(InstanceView::example());
    let start = format!("PUT {TOKEN_PATH} HTTP/1.1\r\nHost: x\r\n{TTL}\r\n");
    let bodies = [
        "\r\n",
        "Content-Length: 0\r\n\r\n",
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let reply = service.raw(format!("{start}{body}"));
        assert_eq!((reply.status, reply.body.len()), (200, 56), "{body:?}");
    }
}

#[test]
fn t8_header_names_in_any_case_and_spaces_around_the_ttl() {
    let service = Service::start(InstanceView::example());
    for header in [
        "x-aws-ec2-metadata-token-ttl-seconds: 60",
        "X-AWS-EC2-METADATA-TOKEN-TTL-SECONDS:60",
        "X-aws-ec2-Metadata-Token-TTL-seconds: \t 60  ",
    ] {
        assert_eq!(
            service.ask("PUT", TOKEN_PATH, &[header]).status,
            200,
            "{header:?}"
        );
    }
}

#[test]
fn t9_every_put_gives_another_token_and_all_are_good() {
    let service = Service::start(InstanceView::example());
    let tokens: Vec<String> = (0..20).map(|_| service.token()).collect();
    let mut distinct = tokens.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), tokens.len());
    for token in tokens {
        let header = format!("X-aws-ec2-metadata-token: {token}");
        assert_eq!(
            service
                .ask("GET", "/latest/meta-data/ami-id", &[&header])
                .status,
            200
        );
    }
}

#[test]
fn t10_another_instance_cannot_use_a_token() {
    let service = Service::start(InstanceView::example());
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let view = InstanceView {
        instance_id: "i-0fffffffffffffff0".into(),
        ..InstanceView::example()
    };
    service.set(other, Some(view));
    let token = service.token();
    let header = format!("X-aws-ec2-metadata-token: {token}");
    let request = crate::client::request("GET", "/latest/meta-data/instance-id", &[&header]);
    assert_eq!(service.raw(&request).text(), "i-0123456789abcdef0");
    assert_eq!(service.raw_from(other, &request).status, 401);
}

#[test]
fn t11_a_token_survives_a_restart_of_the_service() {
    let service = Service::start(InstanceView::example());
    let header = format!("X-aws-ec2-metadata-token: {}", service.token());
    drop(service);
    // Another process would read the same secret; the identity key does not matter to tokens.
    let again = Arc::new(Keys::new([42; 32], Identity::generate().unwrap()));
    let service = Service::with(InstanceView::example(), again, Config::default());
    assert_eq!(
        service
            .ask("GET", "/latest/meta-data/ami-id", &[&header])
            .status,
        200
    );
    let other = Arc::new(Keys::new([43; 32], Identity::generate().unwrap()));
    let service = Service::with(InstanceView::example(), other, Config::default());
    assert_eq!(
        service
            .ask("GET", "/latest/meta-data/ami-id", &[&header])
            .status,
        401
    );
}

#[test]
fn t13_a_slash_after_token_is_forgiven() {
    let service = Service::start(InstanceView::example());
    assert_eq!(service.ask("PUT", "/latest/api/token/", &[TTL]).status, 200);
}

#[test]
fn t14_put_elsewhere_gives_no_data() {
    let service = Service::start(InstanceView::example());
    for path in [
        "/",
        "/latest",
        "/latest/meta-data/ami-id",
        "/latest/user-data",
        "/latest/api",
        "/x",
    ] {
        let reply = service.ask("PUT", path, &[TTL]);
        assert_eq!((reply.status, reply.body.len()), (405, 0), "{path}");
    }
}
