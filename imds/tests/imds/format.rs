//! Section 3: the shape of answers.

use std::io::Write as _;

use cumulet_imds::view::{InstanceView, PublicKey};

use crate::client::{Reply, Service};
use crate::views::open;

#[test]
fn f1_a_leafs_headers_in_order() {
    let service = Service::start(InstanceView::example());
    let reply = service.get("/latest/meta-data/instance-id");
    assert_eq!(reply.status_line, "HTTP/1.1 200 OK");
    assert_eq!(
        reply.names(),
        [
            "X-Aws-Ec2-Metadata-Token-Ttl-Seconds",
            "Content-Type",
            "Accept-Ranges",
            "Last-Modified",
            "Content-Length",
            "Date",
            "Server",
            "Connection"
        ]
    );
    assert_eq!(reply.header("Content-Type"), Some("text/plain"));
    assert_eq!(reply.header("Accept-Ranges"), Some("none"));
    assert_eq!(
        reply.header("Last-Modified"),
        Some("Thu, 01 Jan 2026 00:00:00 GMT")
    );
    assert_eq!(reply.header("Content-Length"), Some("19"));
    assert_eq!(reply.header("Server"), Some("EC2ws"));
    assert_eq!(reply.header("Connection"), Some("close"));
    let date = httpdate::parse_http_date(reply.header("Date").unwrap()).unwrap();
    assert!(date > std::time::SystemTime::UNIX_EPOCH);
}

#[test]
fn f2_closes_after_each_answer_whatever_the_client_hoped() {
    let service = Service::start(open());
    let headers = [
        "Connection: keep-alive",
        "Accept-Encoding: gzip, deflate",
        "Accept: */*",
    ];
    // `raw` reads to the end of the connection: it returns only because the service closes.
    let reply = service.ask("GET", "/latest/meta-data/ami-id", &headers);
    assert_eq!(reply.header("Connection"), Some("close"));
    assert_eq!(reply.header("Content-Encoding"), None);

    // Two requests in one go: the second is not answered on this connection.
    let request = crate::client::request("GET", "/latest/meta-data/ami-id", &headers);
    let reply = service.raw(format!("{request}{request}"));
    assert_eq!(reply.text(), "ami-0123456789abcdef0");

    let old = service.raw("GET /latest/meta-data/ami-id HTTP/1.0\r\n\r\n");
    assert_eq!(
        (old.status, old.text().as_str()),
        (200, "ami-0123456789abcdef0")
    );

    // A request may come in pieces.
    let mut stream = service.connect();
    for byte in request.bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(Reply::read(stream).status, 200);
}

#[test]
fn f3_user_data_is_an_octet_stream() {
    let service = Service::start(open());
    let reply = service.ask("GET", "/latest/user-data", &[]);
    assert_eq!(
        reply.header("Content-Type"),
        Some("application/octet-stream")
    );
    assert_eq!(
        reply.header("Last-Modified"),
        Some("Thu, 01 Jan 2026 00:00:00 GMT")
    );
}

#[test]
fn f4_listings_have_no_line_end_at_the_end() {
    let service = Service::start(open());
    for path in [
        "/",
        "/latest/",
        "/latest/meta-data/",
        "/latest/dynamic/instance-identity/",
    ] {
        let text = service.ask("GET", path, &[]).text();
        assert!(
            !text.ends_with('\n') && !text.contains('\r') && !text.contains("\n\n"),
            "{path}"
        );
    }
    let names = service.ask("GET", "/latest/meta-data/", &[]).lines();
    assert!(names.contains(&"placement/".to_owned()) && names.contains(&"ami-id".to_owned()));
}

#[test]
fn f5_not_found_is_ec2s_page() {
    let service = Service::start(open());
    let reply = service.ask("GET", "/latest/meta-data/nothing", &[]);
    assert_eq!(reply.status_line, "HTTP/1.1 404 Not Found");
    assert_eq!(reply.header("Content-Type"), Some("text/html"));
    let text = reply.text();
    assert!(
        text.starts_with("<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<!DOCTYPE html PUBLIC")
    );
    assert!(text.contains("XHTML 1.0 Transitional"));
    assert!(text.contains("<title>404 - Not Found</title>"));
    assert!(text.contains("<h1>404 - Not Found</h1>"));
    for path in [
        "/nothing",
        "/latest/meta-data/ami-id/deeper",
        "/latest/api",
        "/latest/user-data/x",
    ] {
        assert_eq!(service.ask("GET", path, &[]).status, 404, "{path}");
    }
}

#[test]
fn f6_error_bodies() {
    let service = Service::start(InstanceView::example());
    assert_eq!(service.ask("GET", "/", &[]).body, b"");
    assert!(
        service
            .ask("PUT", "/latest/api/token", &[])
            .text()
            .contains("400 - Bad Request")
    );
    let forbidden = service.ask("PUT", "/1.0/api/token", &[]);
    assert!(forbidden.text().contains("<h1>403 - Forbidden</h1>"));
}

#[test]
fn f7_a_slash_after_a_leaf_is_forgiven() {
    let service = Service::start(open());
    let path = "/latest/meta-data/placement/availability-zone/";
    assert_eq!(service.ask("GET", path, &[]).text(), "us-east-1a");
    assert_eq!(service.ask("GET", &format!("{path}/"), &[]).status, 404);
    assert_eq!(service.ask("GET", "/latest/user-data/", &[]).status, 200);
}

#[test]
fn f8_a_directory_without_its_slash_is_listed() {
    let service = Service::start(open());
    for path in [
        "/latest",
        "/latest/meta-data",
        "/latest/dynamic/instance-identity",
    ] {
        let without = service.ask("GET", path, &[]);
        let with = service.ask("GET", &format!("{path}/"), &[]);
        assert_eq!((without.status, without.body), (200, with.body), "{path}");
    }
    assert_eq!(
        service
            .ask("GET", "/latest/meta-data/tags/instance", &[])
            .text(),
        "Name\nempty"
    );
}

#[test]
fn f9_paths_with_other_meanings_name_nothing() {
    let service = Service::start(open());
    let long = format!("/latest/meta-data/{}", "a".repeat(3000));
    for path in [
        "//latest/meta-data/ami-id",
        "/latest//meta-data/ami-id",
        "/latest/meta-data//",
        "/latest/meta-data/./ami-id",
        "/latest/dynamic/../meta-data/ami-id",
        "/latest/dynamic/%2e%2e/meta-data/ami-id",
        "/latest/dynamic/%2E./meta-data/ami-id",
        "/latest/meta-data/tags%2Finstance/Name",
        "/latest/meta-data%2fami-id",
        "/latest/meta-data/%61mi%2did/%00",
        "/latest/meta-data/ami-id%00",
        "/latest/meta-data/ami-id%0a",
        "/latest/meta-data/ami-id%",
        "/latest/meta-data/ami-id%zz",
        "/latest/meta-data/%ff",
        "/latest/meta-data/ami-id%2500",
        "/latest/meta-data/tags/instance/..",
        "/latest\\meta-data",
        &long,
    ] {
        let reply = service.ask("GET", path, &[]);
        assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
        assert!(!reply.text().contains("ami-0"), "{path}");
    }
    // Decoded once, an escaped name is still that name.
    assert_eq!(
        service
            .ask("GET", "/latest/meta-data/%61mi%2did", &[])
            .status,
        200
    );
}

#[test]
fn f10_a_query_is_ignored() {
    let service = Service::start(open());
    let reply = service.ask("GET", "/latest/meta-data/ami-id?x=/../y&z", &[]);
    assert_eq!(reply.text(), "ami-0123456789abcdef0");
}

#[test]
fn f11_lists_have_one_value_a_line() {
    let mut view = open();
    let primary = &mut view.interfaces[0];
    primary.private_ipv4s.push("172.31.16.11".parse().unwrap());
    primary.security_groups.push(("sg-2".into(), "web".into()));
    primary.ipv6s = vec![
        "2001:db8::1".parse().unwrap(),
        "2001:db8::2".parse().unwrap(),
    ];
    primary.vpc_cidrs.push("10.0.0.0/16".into());
    let service = Service::start(view);
    let mac = "/latest/meta-data/network/interfaces/macs/02:12:34:56:78:9a";
    let get = |name: &str| service.ask("GET", &format!("{mac}/{name}"), &[]).text();
    assert_eq!(get("local-ipv4s"), "172.31.16.10\n172.31.16.11");
    assert_eq!(get("security-groups"), "default\nweb");
    assert_eq!(get("security-group-ids"), "sg-0123456789abcdef0\nsg-2");
    assert_eq!(get("ipv6s"), "2001:db8::1\n2001:db8::2");
    assert_eq!(get("vpc-ipv4-cidr-blocks"), "172.31.0.0/16\n10.0.0.0/16");
    assert_eq!(get("vpc-ipv4-cidr-block"), "172.31.0.0/16");
    assert_eq!(get("public-ipv4s"), "203.0.113.25");
    assert_eq!(get("ipv4-associations/"), "203.0.113.25");
    assert_eq!(get("ipv4-associations/203.0.113.25"), "172.31.16.10");
    let top = service
        .ask("GET", "/latest/meta-data/security-groups", &[])
        .text();
    assert_eq!(top, "default\nweb");
}

#[test]
fn f12_a_public_key_ends_with_a_line_end() {
    let mut view = open();
    view.public_keys.push(PublicKey {
        name: "two\n1=x".into(),
        openssh: "ssh-rsa B b".into(),
    });
    let service = Service::start(view);
    let get =
        |path: &str| service.ask("GET", &format!("/latest/meta-data/public-keys/{path}"), &[]);
    assert_eq!(get("").text(), "0=my-key\n1=two 1=x");
    assert_eq!(get("1/openssh-key").text(), "ssh-rsa B b\n");
    assert_eq!(get("0").text(), "openssh-key");
}
