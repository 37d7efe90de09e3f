//! The identity document, verified as the EC2 user guide tells: with the `openssl` program.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use cumulet_imds::view::InstanceView;
use cumulet_imds::{Identity, Keys};

use crate::client::{Service, keys};

fn openssl(folder: &Path, line: &str) -> Output {
    let output = Command::new("openssl")
        .args(line.split(' '))
        .current_dir(folder)
        .output();
    output.expect("the openssl program (Debian package openssl)")
}

/// Fetches the four files and puts them and the certificate where the commands find them.
fn fetched(service: &Service, certificate: &Keys) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let get = |name: &str| service.get(&format!("/latest/dynamic/instance-identity/{name}"));
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("document", &get("document").body);
    for name in ["pkcs7", "rsa2048"] {
        let text = get(name).text();
        write(
            name,
            format!("-----BEGIN PKCS7-----\n{text}\n-----END PKCS7-----\n").as_bytes(),
        );
    }
    let signature = get("signature").text().replace('\n', "");
    write(
        "signature",
        &base64::engine::general_purpose::STANDARD
            .decode(signature)
            .unwrap(),
    );
    write(
        "certificate",
        certificate.identity().certificate_pem().as_bytes(),
    );
    folder
}

#[test]
fn d3_openssl_verifies_pkcs7_and_rsa2048() {
    let service = Service::start(InstanceView::example());
    let folder = fetched(&service, &keys());
    let document = fs::read(folder.path().join("document")).unwrap();
    for name in ["pkcs7", "rsa2048"] {
        let line = format!("smime -verify -in {name} -inform PEM -certfile certificate -noverify");
        let output = openssl(folder.path(), &line);
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.stdout, document, "{name}");
        // The newer program too, and with the certificate as the only trusted one.
        let line = format!(
            "cms -verify -in {name} -inform PEM -certfile certificate -CAfile certificate -purpose any"
        );
        let output = openssl(folder.path(), &line);
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn d3_openssl_verifies_the_signature() {
    let service = Service::start(InstanceView::example());
    let folder = fetched(&service, &keys());
    let key = openssl(folder.path(), "x509 -pubkey -noout -in certificate");
    assert!(
        key.status.success(),
        "{}",
        String::from_utf8_lossy(&key.stderr)
    );
    fs::write(folder.path().join("key"), key.stdout).unwrap();
    let verify = "dgst -sha256 -verify key -signature signature document";
    let output = openssl(folder.path(), verify);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "Verified OK"
    );
    fs::write(folder.path().join("document"), b"{}").unwrap();
    assert!(!openssl(folder.path(), verify).status.success());
}

#[test]
fn d3_another_installations_certificate_does_not_verify() {
    let service = Service::start(InstanceView::example());
    let other = Keys::new([1; 32], Identity::generate().unwrap());
    let folder = fetched(&service, &other);
    for name in ["pkcs7", "rsa2048"] {
        let line = format!("smime -verify -in {name} -inform PEM -certfile certificate -noverify");
        assert!(!openssl(folder.path(), &line).status.success(), "{name}");
    }
}

#[test]
fn d3_signatures_follow_the_document_and_stay_the_same() {
    let service = Service::start(InstanceView::example());
    let get = || {
        service
            .get("/latest/dynamic/instance-identity/rsa2048")
            .text()
    };
    let first = get();
    assert_eq!(first, get());
    assert!(first.lines().all(|line| line.len() <= 64) && !first.ends_with('\n'));
    let view = InstanceView {
        instance_type: "t3.large".into(),
        ..InstanceView::example()
    };
    service.set(crate::client::HERE, Some(view));
    assert_ne!(first, get());
    let folder = fetched(&service, &keys());
    let line = "smime -verify -in rsa2048 -inform PEM -certfile certificate -noverify";
    let output = openssl(folder.path(), line);
    assert!(String::from_utf8_lossy(&output.stdout).contains("t3.large"));
}
