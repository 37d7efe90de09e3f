//! Requests and answers: both methods, every refusal, STS, limits, the end of the server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cumulet_agent::api::server::ServerConfig;
use time::OffsetDateTime;

use crate::client::Server;

const REGIONS: &str = "Action=DescribeRegions&Version=2016-11-15";

#[test]
fn both_methods_are_served() {
    let server = Server::start();
    let posted = server.post(REGIONS);
    let got = server.get(REGIONS);
    for reply in [&posted, &got] {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.body.contains(
            "<DescribeRegionsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">"
        ));
        assert!(reply.body.contains("<regionName>us-east-1</regionName>"));
        assert!(reply.head.contains("content-type: text/xml;charset=utf-8"));
        assert!(reply.head.contains("server: amazonec2"));
        let id = reply.text("requestId");
        assert_eq!(id.len(), 36);
        assert!(reply.head.contains(&format!("x-amzn-requestid: {id}")));
    }
    assert_ne!(posted.text("requestId"), got.text("requestId"));
}

#[test]
fn a_presigned_request_needs_no_header() {
    let server = Server::start();
    let host = server.address.to_string();
    let mut signer = Server::signer();
    signer.at -= time::Duration::minutes(10);
    for (seconds, expected) in [(3600, 200), (60, 400)] {
        let query = signer.presigned(&host, REGIONS, seconds);
        let reply = server.send("GET", &format!("/?{query}"), &[], "");
        assert_eq!(reply.status, expected, "{reply:?}");
    }
}

#[test]
fn the_region_is_the_signatures() {
    let server = Server::start();
    let mut signer = Server::signer();
    signer.region = "eu-north-1".into();
    let form = "Action=DescribeAvailabilityZones&Version=2016-11-15&ZoneId.1=eun1-az2";
    let reply = server.post_as(&signer, form);
    assert_eq!(reply.text("zoneName"), "eu-north-1b");
}

#[test]
fn each_fault_of_a_signature_has_its_own_error() {
    let server = Server::start();
    let host = server.address.to_string();
    let none = server.send("POST", "/", &[], REGIONS);
    assert_eq!(none.error(), (403, "MissingAuthenticationToken"));

    let mut wrong = Server::signer();
    wrong.secret = "another".into();
    assert_eq!(
        server.post_as(&wrong, REGIONS).error(),
        (403, "SignatureDoesNotMatch")
    );

    let mut unknown = Server::signer();
    unknown.id = "AKIAUNKNOWN".into();
    assert_eq!(
        server.post_as(&unknown, REGIONS).error(),
        (401, "AuthFailure")
    );

    for minutes in [-6, 6] {
        let mut skewed = Server::signer();
        skewed.at += time::Duration::minutes(minutes);
        assert_eq!(
            server.post_as(&skewed, REGIONS).error(),
            (400, "RequestExpired")
        );
    }

    let headers = Server::signer().headers("POST", &host, "", REGIONS);
    let changed = server.send("POST", "/", &headers, &format!("{REGIONS}&DryRun=true"));
    assert_eq!(changed.error(), (403, "SignatureDoesNotMatch"));

    let mut scope = Server::signer();
    scope.service = "s3".into();
    assert_eq!(
        server.post_as(&scope, REGIONS).error(),
        (403, "SignatureDoesNotMatch")
    );

    let bearer = [("Authorization".to_owned(), "Bearer x".to_owned())];
    let reply = server.send("POST", "/", &bearer, REGIONS);
    assert_eq!(reply.error(), (400, "IncompleteSignature"));

    let old = format!("{REGIONS}&SignatureVersion=2&AWSAccessKeyId=x&Signature=x");
    let reply = server.send("POST", "/", &[], &old);
    assert_eq!(reply.error(), (401, "AuthFailure"));
    assert!(reply.text("Message").contains("Signature Version 2"));
    assert_eq!(reply.text("RequestID").len(), 36);
}

#[test]
fn what_is_asked_must_be_known() {
    let server = Server::start();
    for (form, status, code) in [
        ("Action=MakeCoffee&Version=2016-11-15", 400, "InvalidAction"),
        (
            "Action=CreateIpam&Version=2016-11-15",
            400,
            "UnsupportedOperation",
        ),
        (
            "Action=DescribeRegions&Version=2016-11-15&Colour=red",
            400,
            "UnknownParameter",
        ),
        (
            "Action=DescribeRegions&Version=2016-11-15&Filter.1.Colour=red",
            400,
            "UnknownParameter",
        ),
        (
            "Action=DescribeRegions&Version=2016-11-15&AllRegions=maybe",
            400,
            "InvalidParameterValue",
        ),
        (
            "Action=DescribeRegions&Version=2016-11-15&DryRun=true",
            412,
            "DryRunOperation",
        ),
        (
            "Action=DescribeRegions&Version=2016-11-15&DryRun=x",
            400,
            "InvalidParameterValue",
        ),
        (
            "Action=DescribeRegions&Version=2026-11-15",
            400,
            "NoSuchVersion",
        ),
        ("Action=DescribeRegions", 400, "MissingParameter"),
        ("Version=2016-11-15", 400, "MissingAction"),
        (
            "Action=DescribeRegions&Version=2016-11-15&Version=2016-11-15",
            400,
            "MalformedQueryString",
        ),
        (
            "Action=DescribeRegions&Version=2016-11-15&..=x",
            400,
            "MalformedQueryString",
        ),
        (
            "Action=DescribeRegions&Version=2016-11-15&RegionName.1=%ff",
            400,
            "MalformedQueryString",
        ),
        (
            "Action=DeleteKeyPair&Version=2016-11-15",
            400,
            "MissingParameter",
        ),
    ] {
        assert_eq!(server.post(form).error(), (status, code), "{form}");
    }
    let older = server.post("Action=DescribeRegions&Version=2014-10-01");
    assert_eq!(older.status, 200);
}

#[test]
fn sts_says_who_calls_in_its_own_form() {
    let server = Server::start();
    let who = "Action=GetCallerIdentity&Version=2011-06-15";
    let mut signer = Server::signer();
    signer.service = "sts".into();
    let reply = server.post_as(&signer, who);
    assert_eq!(reply.text("Account"), "123456789012");
    assert_eq!(reply.text("Arn"), "arn:aws:iam::123456789012:root");
    assert!(
        reply
            .body
            .contains("xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"")
    );

    let mut other = signer.clone();
    (other.id, other.secret) = ("OTHER".into(), "s".into());
    assert_eq!(server.post_as(&other, who).text("Account"), "999999999999");

    let role = server.post_as(&signer, "Action=AssumeRole&Version=2011-06-15");
    assert_eq!(role.error(), (400, "InvalidAction"));
    assert!(role.body.contains("<ErrorResponse "));
    signer.id = "AKIAUNKNOWN".into();
    let unknown = server.post_as(&signer, who);
    assert_eq!(unknown.error(), (403, "InvalidClientTokenId"));
    let mixed = server.post(who);
    assert_eq!(mixed.error(), (403, "SignatureDoesNotMatch"));
}

#[test]
fn large_bodies_and_other_methods_and_paths_are_refused() {
    let server = Server::start();
    let large = format!("{REGIONS}&X={}", "x".repeat(1024 * 1024));
    // The bytes that were not read may turn the end of the connection into a reset; the answer is sent all the same.
    assert_eq!(server.post(&large).error(), (413, "RequestEntityTooLarge"));
    let host = server.address.to_string();
    let headers = Server::signer().headers("PUT", &host, "", REGIONS);
    let put = server.send("PUT", "/", &headers, REGIONS);
    assert_eq!(put.error(), (400, "InvalidRequest"));
    let headers = Server::signer().headers("GET", &host, REGIONS, REGIONS);
    let both = server.send("GET", &format!("/?{REGIONS}"), &headers, REGIONS);
    assert_eq!(both.error(), (400, "InvalidRequest"));
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::with(ServerConfig {
        body_time: Duration::from_millis(200),
        ..ServerConfig::default()
    });
    let mut tcp = TcpStream::connect(server.address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    tcp.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
        .unwrap();
    let mut reply = String::new();
    let _ = tcp.read_to_string(&mut reply);
    assert!(reply.contains("RequestTimeout"), "{reply}");
}

#[test]
fn the_end_waits_for_nobody_who_is_idle() {
    let mut server = Server::start();
    let idle = TcpStream::connect(server.address).unwrap();
    assert_eq!(server.post(REGIONS).status, 200);
    server.end.take().unwrap().send(()).unwrap();
    let serving = server.serving.take().unwrap();
    let ended = server
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(5), serving).await });
    ended.unwrap().unwrap();
    drop(idle);
    TcpStream::connect(server.address).unwrap_err();
}

#[test]
fn a_panic_costs_its_own_request() {
    static BROKEN: AtomicBool = AtomicBool::new(true);
    fn clock() -> OffsetDateTime {
        assert!(!BROKEN.load(Ordering::Relaxed), "the clock is broken");
        OffsetDateTime::now_utc()
    }
    let server = Server::with(ServerConfig {
        clock,
        ..ServerConfig::default()
    });
    let broken = server.post(REGIONS);
    assert_eq!(broken.error(), (500, "InternalError"));
    assert!(!broken.body.contains("clock"), "what broke is for the log");
    BROKEN.store(false, Ordering::Relaxed);
    assert_eq!(server.post(REGIONS).status, 200);
}
