//! Section 4: dynamic data and user data.

use cumulet_imds::view::InstanceView;

use crate::client::{HERE, Service};
use crate::views::{full, open};

#[test]
fn d1_dynamic_data() {
    let service = Service::start(open());
    let get = |path: &str| {
        service
            .ask("GET", &format!("/latest/dynamic/{path}"), &[])
            .text()
    };
    assert_eq!(get(""), "fws/\ninstance-identity/");
    assert_eq!(
        get("instance-identity/"),
        "document\npkcs7\nrsa2048\nsignature"
    );
    assert_eq!(get("fws/instance-monitoring"), "disabled");
    service.set(HERE, Some(full()));
    assert_eq!(get("fws/instance-monitoring"), "enabled");
}

#[test]
fn d2_the_identity_document() {
    let service = Service::start(full());
    let reply = service.ask("GET", "/latest/dynamic/instance-identity/document", &[]);
    let text = reply.text();
    assert!(
        text.starts_with("{\n  \"accountId\" : \"123456789012\",\n"),
        "{text}"
    );
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("instanceId", "i-0123456789abcdef0"),
        ("region", "us-east-1"),
        ("availabilityZone", "us-east-1a"),
        ("pendingTime", "2026-01-01T00:00:00Z"),
        ("privateIp", "172.31.16.10"),
        ("kernelId", "aki-1"),
        ("ramdiskId", "ari-1"),
        ("version", "2017-09-30"),
    ] {
        assert_eq!(document[key], value, "{key}");
    }
    assert_eq!(
        document["marketplaceProductCodes"][0],
        "3iplms73etrdhxdepv72l6ywj"
    );
    assert_eq!(document.as_object().unwrap().len(), 15);
}

#[test]
fn u1_user_data_byte_for_byte() {
    let service = Service::start(open());
    let every_byte: Vec<u8> = (0..=255).cycle().take(16 * 1024).collect();
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\r\n\r\n\0".to_vec();
    for data in [
        every_byte,
        gzip,
        Vec::new(),
        b"\n".to_vec(),
        b"#!/bin/sh\r\n".to_vec(),
    ] {
        service.set(
            HERE,
            Some(InstanceView {
                user_data: Some(data.clone()),
                ..open()
            }),
        );
        let reply = service.ask("GET", "/latest/user-data", &[]);
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.header("Content-Length"),
            Some(data.len().to_string().as_str())
        );
        assert!(reply.body == data, "{} bytes differ", data.len());
    }
    service.set(
        HERE,
        Some(InstanceView {
            user_data: None,
            ..open()
        }),
    );
    assert_eq!(service.ask("GET", "/latest/user-data", &[]).status, 404);
}

#[test]
fn u2_changed_user_data_is_served() {
    let service = Service::start(open());
    service.set(
        HERE,
        Some(InstanceView {
            user_data: Some(b"new".to_vec()),
            ..open()
        }),
    );
    assert_eq!(service.ask("GET", "/latest/user-data", &[]).text(), "new");
}
