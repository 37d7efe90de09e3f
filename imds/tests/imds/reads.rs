//! Section 2: who may read.

use cumulet_imds::view::{InstanceView, MetadataOptions};

use crate::client::{HERE, Service};

const LEAF: &str = "/latest/meta-data/instance-id";

fn with_options(change: impl FnOnce(&mut MetadataOptions)) -> InstanceView {
    let mut view = InstanceView::example();
    change(&mut view.options);
    view
}

fn version_1() -> InstanceView {
    with_options(|options| options.tokens_required = false)
}

#[test]
fn g1_no_token_is_unauthorized_when_tokens_are_required() {
    let service = Service::start(InstanceView::example());
    for path in ["/", "/latest/", LEAF, "/latest/user-data", "/nothing", "//"] {
        let reply = service.ask("GET", path, &[]);
        assert_eq!(reply.status_line, "HTTP/1.1 401 Unauthorized", "{path}");
        assert_eq!(reply.header("Content-Length"), Some("0"), "{path}");
        assert_eq!(reply.header("Content-Type"), Some("text/plain"), "{path}");
        assert_eq!(reply.header("Server"), Some("EC2ws"), "{path}");
        assert_eq!(reply.header("Connection"), Some("close"), "{path}");
        assert_eq!(reply.body, b"", "{path}");
    }
}

#[test]
fn g2_a_bad_token_is_unauthorized() {
    let service = Service::start(InstanceView::example());
    let token = service.token();
    let doubled = format!("X-aws-ec2-metadata-token: {token}\r\nX-aws-ec2-metadata-token: {token}");
    assert_eq!(service.ask("GET", LEAF, &[&doubled]).status, 401);
    for bad in [
        "",
        "x",
        &token[..55],
        &token[..20],
        &token.to_lowercase(),
        &format!("{token}A"),
    ] {
        let header = format!("X-aws-ec2-metadata-token: {bad}");
        assert_eq!(service.ask("GET", LEAF, &[&header]).status, 401, "{bad:?}");
    }
}

#[test]
fn g3_version_1_needs_no_token_and_says_nothing_of_one() {
    let service = Service::start(version_1());
    let reply = service.ask("GET", LEAF, &[]);
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (200, "i-0123456789abcdef0")
    );
    assert_eq!(reply.header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"), None);
}

#[test]
fn g4_a_bad_token_is_refused_even_where_none_is_needed() {
    let service = Service::start(version_1());
    assert_eq!(
        service
            .ask("GET", LEAF, &["X-aws-ec2-metadata-token: x"])
            .status,
        401
    );
    assert_eq!(service.get(LEAF).status, 200);
}

#[test]
fn g5_a_good_token_shows_its_remaining_time() {
    let service = Service::start(InstanceView::example());
    let reply = service.get(LEAF);
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (200, "i-0123456789abcdef0")
    );
    let left = reply
        .header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds")
        .unwrap();
    assert!((1..=600).contains(&left.parse::<u32>().unwrap()), "{left}");
}

#[test]
fn g6_a_forwarded_read_is_not_refused() {
    let service = Service::start(version_1());
    assert_eq!(
        service
            .ask("GET", LEAF, &["X-Forwarded-For: 10.0.0.1"])
            .status,
        200
    );
}

#[test]
fn g7_a_disabled_endpoint_forbids_everything() {
    let service = Service::start(with_options(|options| options.enabled = false));
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60";
    assert_eq!(service.ask("PUT", "/latest/api/token", &[ttl]).status, 403);
    for path in ["/", LEAF, "/latest/user-data", "/nothing"] {
        assert_eq!(service.ask("GET", path, &[]).status, 403, "{path}");
    }
}

#[test]
fn g8_head_is_get_without_the_body() {
    let service = Service::start(version_1());
    for path in [LEAF, "/latest/meta-data/", "/latest/user-data"] {
        let get = service.ask("GET", path, &[]);
        let head = service.ask("HEAD", path, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(
            head.header("Content-Length"),
            Some(get.body.len().to_string().as_str())
        );
        assert_eq!(head.names(), get.names());
    }
    let strict = Service::start(InstanceView::example());
    assert_eq!(strict.ask("HEAD", LEAF, &[]).status, 401);
}

#[test]
fn g9_other_methods_on_data_are_not_allowed() {
    let service = Service::start(version_1());
    for method in ["POST", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let reply = service.ask(method, LEAF, &[]);
        assert_eq!((reply.status, reply.body.len()), (405, 0), "{method}");
        assert_eq!(reply.header("Allow"), Some("GET, HEAD"), "{method}");
    }
}

#[test]
fn g10_changed_options_count_at_once() {
    let service = Service::start(version_1());
    assert_eq!(service.ask("GET", LEAF, &[]).status, 200);
    service.set(HERE, Some(InstanceView::example()));
    assert_eq!(service.ask("GET", LEAF, &[]).status, 401);
    service.set(HERE, Some(with_options(|options| options.enabled = false)));
    assert_eq!(service.ask("GET", LEAF, &[]).status, 403);
    service.set(HERE, Some(version_1()));
    assert_eq!(service.ask("GET", LEAF, &[]).status, 200);
}
