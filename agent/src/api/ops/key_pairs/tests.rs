//! Keys made by OpenSSH 9, fingerprints by OpenSSL and OpenSSH.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::api::shapes::common::TagInput;
use crate::cloud::Identity;

const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDbaprQo2W4cfbiGhp/VHpnHcLa6jci/YAhBBVH9UigXHaUaBesOO8yXyzLlEsfxf4JoIc9bQjpYxXoK0bl4zTLA/N0j2FYdp59842Sfu5mJJ1mF5HHtpc7VGtxxe/G5A5mOFnRZLcdutWOmCZ8NjZFhY6+yTf/aUzqlNfG5LQHQ5kd7O5oVyCWI9+R95t51+arwCvxOa6tI5WhFJcuh2C23HTN1NTOT8XGbxW91UzrULpKKk4q8JgGormx2v0sthrMrh638KyB98MfuvBvJVxGE23XKbW5S7XPqT+P+xLYS/bPWJ4UOaTlOyDjK5/uGYUfKljsAEE30ye+kBVj4R3h";
const RSA_DER: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA22qa0KNluHH24hoaf1R6Zx3C2uo3Iv2AIQQVR/VIoFx2lGgXrDjvMl8sy5RLH8X+CaCHPW0I6WMV6CtG5eM0ywPzdI9hWHaeffONkn7uZiSdZheRx7aXO1RrccXvxuQOZjhZ0WS3HbrVjpgmfDY2RYWOvsk3/2lM6pTXxuS0B0OZHezuaFcgliPfkfebedfmq8Ar8TmurSOVoRSXLodgttx0zdTUzk/Fxm8VvdVM61C6SipOKvCYBqK5sdr9LLYazK4et/CsgffDH7rwbyVcRhNt1ym1uUu1z6k/j/sS2Ev2z1ieFDmk5Tsg4yuf7hmFHypY7ABBN9MnvpAVY+Ed4QIDAQAB";
const RSA_SSH2: &str = "---- BEGIN SSH2 PUBLIC KEY ----\nComment: \"a: \\\ngoes on\"\nAAAAB3NzaC1yc2EAAAADAQABAAABAQDbaprQo2W4cfbiGhp/VHpnHcLa6jci/YAhBBVH9U\nigXHaUaBesOO8yXyzLlEsfxf4JoIc9bQjpYxXoK0bl4zTLA/N0j2FYdp59842Sfu5mJJ1m\nF5HHtpc7VGtxxe/G5A5mOFnRZLcdutWOmCZ8NjZFhY6+yTf/aUzqlNfG5LQHQ5kd7O5oVy\nCWI9+R95t51+arwCvxOa6tI5WhFJcuh2C23HTN1NTOT8XGbxW91UzrULpKKk4q8JgGormx\n2v0sthrMrh638KyB98MfuvBvJVxGE23XKbW5S7XPqT+P+xLYS/bPWJ4UOaTlOyDjK5/uGY\nUfKljsAEE30ye+kBVj4R3h\n---- END SSH2 PUBLIC KEY ----";
const RSA_MD5: &str = "de:3c:f0:6a:2d:fd:fb:a8:a7:40:51:e7:e5:6e:10:2a";
const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA+q0q+cCE3YVxXGwwetykOLu9ehjLiutEgAss53Y1Vt";
const ED25519_SHA256: &str = "6DMGhDakXf7jSmbNTg4RXJsVO3cBMLufvdUMLJkffTo=";
const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBP1EuMJMdXQbVliNv0XWIMa0D00G2r45RFd3bb0cOY/oJFoHjlRroj1hEg1NVQZJE4sFc7pWxT/GTfGishrs2GQ=";

struct World {
    _folder: tempfile::TempDir,
    cloud: Cloud,
    call: Call,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::open(folder.path(), Identity::default()).unwrap();
        let call = Call {
            region: "us-east-1".into(),
            account: "123456789012".into(),
            access_key: "AKIATEST".into(),
            request_id: "r".into(),
            dry_run: false,
        };
        Self {
            _folder: folder,
            cloud,
            call,
        }
    }

    fn create(&self, request: CreateKeyPairRequest) -> Result<CreateKeyPairResult, ApiError> {
        create_key_pair(&self.cloud, &self.call, request)
    }

    fn import(&self, name: &str, key: &str) -> Result<ImportKeyPairResult, ApiError> {
        let request = ImportKeyPairRequest {
            key_name: name.into(),
            public_key_material: Blob(key.into()),
            tag_specifications: Vec::new(),
        };
        import_key_pair(&self.cloud, &self.call, request)
    }

    fn delete(
        &self,
        name: Option<&str>,
        id: Option<&str>,
    ) -> Result<DeleteKeyPairResult, ApiError> {
        let request = DeleteKeyPairRequest {
            key_name: name.map(Into::into),
            key_pair_id: id.map(Into::into),
        };
        delete_key_pair(&self.cloud, &self.call, request)
    }

    fn list(&self) -> Vec<KeyPairInfo> {
        let request = DescribeKeyPairsRequest {
            include_public_key: Some(true),
            ..Default::default()
        };
        let result = describe_key_pairs(&self.cloud, &self.call, request);
        result.unwrap().key_pairs
    }
}

fn named(name: &str, key_type: Option<&str>) -> CreateKeyPairRequest {
    CreateKeyPairRequest {
        key_name: name.into(),
        key_type: key_type.map(Into::into),
        ..Default::default()
    }
}

fn tagged(kind: &str, tags: &[(&str, &str)]) -> Vec<TagSpecification> {
    vec![TagSpecification {
        resource_type: Some(kind.into()),
        tags: tags
            .iter()
            .map(|(key, value)| TagInput {
                key: (*key).into(),
                value: Some((*value).into()),
            })
            .collect(),
    }]
}

#[test]
fn an_rsa_pair_is_made_as_ec2_makes_it() {
    let world = World::new();
    let made = world.create(named("web", None)).unwrap();
    let pem = made.key_material.text.clone();
    assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
    assert!(pem.ends_with("-----END RSA PRIVATE KEY-----\n"));
    assert_eq!(made.key_fingerprint.len(), 20 * 3 - 1);
    let kept = &world.list()[0];
    assert_eq!(kept.key_type, "rsa");
    assert!(kept.public_key.as_deref().unwrap().ends_with(" web"));
    // The public half belongs to the private one.
    let (_, der) = pkcs1::der::pem::decode_vec(pem.as_bytes()).unwrap();
    let private = pkcs1::RsaPrivateKey::try_from(&*der).unwrap();
    let line = kept.public_key.as_deref().unwrap();
    let public = ssh_key::PublicKey::from_openssh(line).unwrap();
    let modulus = &public.key_data().rsa().unwrap().n;
    assert_eq!(
        modulus.as_positive_bytes().unwrap(),
        private.modulus.as_bytes()
    );
    assert!(!format!("{made:?}").contains("BEGIN"));
    assert!(!serde_json::to_string(&made).unwrap().contains("BEGIN"));
}

#[test]
fn an_ed25519_pair_is_made_as_ec2_makes_it() {
    let world = World::new();
    let made = world.create(named("web", Some("ed25519"))).unwrap();
    let key = ssh_key::PrivateKey::from_openssh(&made.key_material.text).unwrap();
    let kept = &world.list()[0];
    assert_eq!(kept.key_type, "ed25519");
    let line = kept.public_key.as_deref().unwrap();
    let public = ssh_key::PublicKey::from_openssh(line).unwrap();
    assert_eq!(public.key_data(), key.public_key().key_data());
    let digest = Sha256::digest(public.to_bytes().unwrap());
    assert_eq!(made.key_fingerprint, STANDARD.encode(digest));
}

#[test]
fn keys_are_imported_in_every_form() {
    let world = World::new();
    let der_lines: Vec<&str> = RSA_DER
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    for (name, key, fingerprint, line) in [
        ("a", RSA, RSA_MD5, RSA),
        ("b", &format!("{RSA} me@here\n"), RSA_MD5, RSA),
        ("c", RSA_DER, RSA_MD5, RSA),
        ("d", &der_lines.join("\n"), RSA_MD5, RSA),
        ("e", RSA_SSH2, RSA_MD5, RSA),
        ("f", ED25519, ED25519_SHA256, ED25519),
    ] {
        assert_eq!(
            world.import(name, key).unwrap().key_fingerprint,
            fingerprint,
            "{name}"
        );
        let kept = world.list().pop().unwrap();
        assert_eq!(kept.public_key.unwrap(), format!("{line} {name}"));
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let world = World::new();
    let small = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAACQDbaprQo2W4cQ==";
    let private = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----";
    for key in [
        "",
        "x",
        "ssh-rsa AAAA",
        small,
        ECDSA,
        private,
        "MIIB",
        &"A".repeat(20_000),
    ] {
        let error = world.import("web", key).unwrap_err();
        assert_eq!(error.code, "InvalidKey.Format", "{key:.40}");
    }
    assert_eq!(world.list(), []);
}

#[test]
fn a_name_is_taken_once() {
    let world = World::new();
    world.import("web", ED25519).unwrap();
    for error in [
        world.import("web", RSA).unwrap_err(),
        world.create(named("web", None)).unwrap_err(),
    ] {
        assert_eq!(error.code, "InvalidKeyPair.Duplicate");
    }
    for name in ["", " ", "ä", &"x".repeat(256)] {
        let error = world.import(name, ED25519).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue");
    }
}

#[test]
fn types_and_forms_that_there_are_not_are_refused() {
    let world = World::new();
    let mut ppk = named("web", None);
    ppk.key_format = Some("ppk".into());
    assert_eq!(world.create(ppk).unwrap_err().code, "UnsupportedOperation");
    let mut der = named("web", None);
    der.key_format = Some("der".into());
    for request in [der, named("web", Some("dsa"))] {
        assert_eq!(
            world.create(request).unwrap_err().code,
            "InvalidParameterValue"
        );
    }
}

#[test]
fn tags_are_kept_and_checked() {
    let world = World::new();
    let mut request = named("web", Some("ed25519"));
    request.tag_specifications = tagged("key-pair", &[("Name", "x")]);
    let made = world.create(request).unwrap();
    assert_eq!((&*made.tags[0].key, &*made.tags[0].value), ("Name", "x"));
    let many: Vec<String> = (0..51).map(|number| number.to_string()).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|key| (&**key, "")).collect();
    for (specifications, code) in [
        (tagged("instance", &[]), "InvalidParameterValue"),
        (
            tagged("key-pair", &[("aws:x", "")]),
            "InvalidParameterValue",
        ),
        (tagged("key-pair", &[("", "")]), "InvalidParameterValue"),
        (
            tagged("key-pair", &[("a", ""), ("a", "")]),
            "InvalidParameterValue",
        ),
        (
            tagged("key-pair", &[("a", &"x".repeat(257))]),
            "InvalidParameterValue",
        ),
        (tagged("key-pair", &many), "TagLimitExceeded"),
        (vec![TagSpecification::default()], "InvalidParameterValue"),
    ] {
        let mut request = named("other", Some("ed25519"));
        request.tag_specifications = specifications;
        assert_eq!(world.create(request).unwrap_err().code, code);
    }
    assert_eq!(world.list().len(), 1);
}

#[test]
fn deleting_what_is_not_there_is_no_failure() {
    let world = World::new();
    let id = world.import("web", ED25519).unwrap().key_pair_id;
    world.import("db", ED25519).unwrap();
    let gone = world.delete(None, Some(&id)).unwrap();
    assert_eq!(gone.key_pair_id, Some(id.clone()));
    assert!(
        world
            .delete(Some("db"), None)
            .unwrap()
            .key_pair_id
            .is_some()
    );
    for again in [
        world.delete(None, Some(&id)),
        world.delete(Some("db"), None),
    ] {
        assert_eq!(
            again.unwrap(),
            DeleteKeyPairResult {
                done: true,
                key_pair_id: None
            }
        );
    }
    assert_eq!(
        world.delete(None, None).unwrap_err().code,
        "MissingParameter"
    );
    let both = world.delete(Some("web"), Some(&id)).unwrap_err();
    assert_eq!(both.code, "InvalidParameterCombination");
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut world = World::new();
    world.import("web", ED25519).unwrap();
    world.call.dry_run = true;
    for code in [
        world.import("db", ED25519).unwrap_err().code,
        world.create(named("db", None)).unwrap_err().code,
        world.delete(Some("web"), None).unwrap_err().code,
    ] {
        assert_eq!(code, "DryRunOperation");
    }
    let taken = world.create(named("web", None)).unwrap_err();
    assert_eq!(
        taken.code, "InvalidKeyPair.Duplicate",
        "it says what would happen"
    );
    assert_eq!(world.list().len(), 1);
}

proptest! {
    #[test]
    fn no_blob_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..RSA_DER.len()) {
        let _ = material::import(&bytes);
        let _ = material::import(&RSA_DER.as_bytes()[..cut]);
        let _ = material::import(&RSA.as_bytes()[..cut.min(RSA.len())]);
    }
}
