//! Section 4: versions and `meta-data/`.

use cumulet_imds::view::InstanceView;

use crate::client::{HERE, Service};
use crate::views::{full, open};

/// Reads values of `meta-data/` without a token.
struct Metadata(Service);

impl Metadata {
    fn of(view: InstanceView) -> Self {
        Self(Service::start(view))
    }

    fn get(&self, path: &str) -> String {
        let reply = self.0.ask("GET", &format!("/latest/meta-data/{path}"), &[]);
        assert_eq!(reply.status, 200, "{path}");
        reply.text()
    }

    fn absent(&self, path: &str) {
        let reply = self.0.ask("GET", &format!("/latest/meta-data/{path}"), &[]);
        assert_eq!(reply.status, 404, "{path}");
    }

    fn all(&self, expected: &[(&str, &str)]) {
        for (path, value) in expected {
            assert_eq!(self.get(path), *value, "{path}");
        }
    }
}

#[test]
fn v1_the_root_lists_the_versions() {
    let service = Service::start(open());
    let versions = service.ask("GET", "/", &[]).lines();
    assert_eq!(versions.first().map(String::as_str), Some("1.0"));
    assert_eq!(versions.last().map(String::as_str), Some("latest"));
    assert!(versions.is_sorted());
    for version in ["2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23"] {
        assert!(versions.iter().any(|v| v == version), "{version}");
    }
    for version in versions {
        assert_eq!(
            service.ask("GET", &format!("/{version}/"), &[]).status,
            200,
            "{version}"
        );
    }
}

#[test]
fn v2_a_version_lists_its_three_parts() {
    let service = Service::start(open());
    assert_eq!(
        service.ask("GET", "/latest/", &[]).text(),
        "dynamic\nmeta-data\nuser-data"
    );
    service.set(
        HERE,
        Some(InstanceView {
            user_data: None,
            ..open()
        }),
    );
    assert_eq!(
        service.ask("GET", "/latest/", &[]).text(),
        "dynamic\nmeta-data"
    );
}

#[test]
fn v3_versions_show_the_same_tree_and_unknown_ones_nothing() {
    let service = Service::start(open());
    let latest = service.ask("GET", "/latest/meta-data/", &[]).text();
    for version in ["2021-03-23", "2018-09-24", "2016-09-02", "2009-04-04"] {
        let path = format!("/{version}/meta-data/");
        assert_eq!(service.ask("GET", &path, &[]).text(), latest, "{version}");
    }
    for version in ["2099-01-01", "LATEST", "0", "2021-3-23"] {
        assert_eq!(
            service.ask("GET", &format!("/{version}/"), &[]).status,
            404,
            "{version}"
        );
    }
}

#[test]
fn m1_what_has_no_value_is_absent() {
    let mut view = open();
    view.public_keys.clear();
    view.options.instance_tags = false;
    view.interfaces[0].public_ipv4 = None;
    let metadata = Metadata::of(view);
    let names = [
        "ami-id",
        "ami-launch-index",
        "ami-manifest-path",
        "block-device-mapping/",
        "events/",
        "hibernation/",
        "hostname",
        "instance-action",
        "instance-id",
        "instance-life-cycle",
        "instance-type",
        "local-hostname",
        "local-ipv4",
        "mac",
        "metrics/",
        "network/",
        "placement/",
        "profile",
        "reservation-id",
        "security-groups",
        "services/",
        "system",
    ];
    assert_eq!(metadata.get("").split('\n').collect::<Vec<_>>(), names);
    for path in [
        "ancestor-ami-ids",
        "autoscaling/",
        "autoscaling/target-lifecycle-state",
        "events/recommendations/",
        "iam/",
        "iam/info",
        "iam/security-credentials/",
        "identity-credentials/",
        "ipv6",
        "kernel-id",
        "placement/group-name",
        "placement/host-id",
        "placement/partition-number",
        "product-codes",
        "public-hostname",
        "public-ipv4",
        "public-keys/",
        "ramdisk-id",
        "spot/",
        "spot/instance-action",
        "tags/",
        "tags/instance/Name",
        "network/interfaces/macs/02:12:34:56:78:9a/public-ipv4s",
        "network/interfaces/macs/02:12:34:56:78:9a/ipv6s",
        "network/interfaces/macs/02:12:34:56:78:9a/ipv4-associations/",
        "network/interfaces/macs/02:12:34:56:78:9A/mac",
    ] {
        metadata.absent(path);
    }
}

#[test]
fn m2_what_every_instance_has() {
    let metadata = Metadata::of(open());
    metadata.all(&[
        ("ami-id", "ami-0123456789abcdef0"),
        ("ami-launch-index", "0"),
        ("ami-manifest-path", "(unknown)"),
        ("block-device-mapping/", "ami\nebs1\nroot"),
        ("block-device-mapping/ami", "sda1"),
        ("block-device-mapping/root", "/dev/sda1"),
        ("block-device-mapping/ebs1", "sdf"),
        ("events/", "maintenance/"),
        ("events/maintenance/history", "[]"),
        ("events/maintenance/scheduled", "[]"),
        ("hibernation/configured", "false"),
        ("hostname", "ip-172-31-16-10.ec2.internal"),
        ("instance-action", "none"),
        ("instance-id", "i-0123456789abcdef0"),
        ("instance-life-cycle", "on-demand"),
        ("instance-type", "t3.micro"),
        ("local-hostname", "ip-172-31-16-10.ec2.internal"),
        ("local-ipv4", "172.31.16.10"),
        ("mac", "02:12:34:56:78:9a"),
        (
            "metrics/vhostmd",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
        ),
        ("profile", "default-hvm"),
        (
            "public-hostname",
            "ec2-203-0-113-25.compute-1.amazonaws.com",
        ),
        ("public-ipv4", "203.0.113.25"),
        ("reservation-id", "r-0123456789abcdef0"),
        ("security-groups", "default"),
        ("services/domain", "amazonaws.com"),
        ("services/partition", "aws"),
        ("system", "nitro"),
    ]);
    let full = Metadata::of(full());
    full.all(&[
        ("ancestor-ami-ids", "ami-1\nami-2"),
        ("block-device-mapping/ephemeral0", "sdb"),
        ("block-device-mapping/swap", "sda3"),
        ("instance-life-cycle", "spot"),
        ("ipv6", "2001:db8::a"),
        ("kernel-id", "aki-1"),
        ("product-codes", "3iplms73etrdhxdepv72l6ywj"),
        ("ramdisk-id", "ari-1"),
        ("identity-credentials/ec2/", "info\nsecurity-credentials/"),
        (
            "identity-credentials/ec2/security-credentials/",
            "ec2-instance",
        ),
    ]);
    let info = full.get("identity-credentials/ec2/info");
    assert!(info.contains("\"AccountId\" : \"123456789012\""), "{info}");
    let mut hibernating = open();
    hibernating.hibernation_configured = true;
    assert_eq!(
        Metadata::of(hibernating).get("hibernation/configured"),
        "true"
    );
}

#[test]
fn m3_every_interface_by_its_mac() {
    let metadata = Metadata::of(full());
    metadata.all(&[
        ("network/", "interfaces/"),
        ("network/interfaces/", "macs/"),
        (
            "network/interfaces/macs/",
            "02:12:34:56:78:9a/\n02:12:34:56:78:9b/",
        ),
    ]);
    let first = "network/interfaces/macs/02:12:34:56:78:9a";
    let names = "device-number\ninterface-id\nipv4-associations/\nipv6s\nlocal-hostname\n\
        local-ipv4s\nmac\nnetwork-card\nnetwork-card-index\nowner-id\npublic-hostname\n\
        public-ipv4s\nsecurity-group-ids\nsecurity-groups\nsubnet-id\nsubnet-ipv4-cidr-block\n\
        subnet-ipv6-cidr-blocks\nvpc-id\nvpc-ipv4-cidr-block\nvpc-ipv4-cidr-blocks\n\
        vpc-ipv6-cidr-blocks";
    assert_eq!(metadata.get(&format!("{first}/")), names);
    for (name, value) in [
        ("device-number", "0"),
        ("interface-id", "eni-0123456789abcdef0"),
        ("local-hostname", "ip-172-31-16-10.ec2.internal"),
        ("mac", "02:12:34:56:78:9a"),
        ("owner-id", "123456789012"),
        (
            "public-hostname",
            "ec2-203-0-113-25.compute-1.amazonaws.com",
        ),
        ("subnet-id", "subnet-0123456789abcdef0"),
        ("subnet-ipv4-cidr-block", "172.31.16.0/20"),
        ("subnet-ipv6-cidr-blocks", "2001:db8::/64"),
        ("vpc-id", "vpc-0123456789abcdef0"),
        ("vpc-ipv6-cidr-blocks", "2001:db8::/56"),
    ] {
        assert_eq!(metadata.get(&format!("{first}/{name}")), value, "{name}");
    }
    metadata.all(&[(
        "network/interfaces/macs/02:12:34:56:78:9b/device-number",
        "1",
    )]);
    metadata.absent("network/interfaces/macs/02:12:34:56:78:9b/public-ipv4s");
}

#[test]
fn m4_placement() {
    let metadata = Metadata::of(open());
    metadata.all(&[
        (
            "placement/",
            "availability-zone\navailability-zone-id\nregion",
        ),
        ("placement/availability-zone", "us-east-1a"),
        ("placement/availability-zone-id", "use1-az1"),
        ("placement/region", "us-east-1"),
    ]);
    Metadata::of(full()).all(&[
        ("placement/group-name", "group"),
        ("placement/host-id", "h-1"),
        ("placement/partition-number", "3"),
    ]);
}

#[test]
fn m5_public_keys() {
    Metadata::of(open()).all(&[
        ("public-keys/", "0=my-key"),
        ("public-keys/0/", "openssh-key"),
        (
            "public-keys/0/openssh-key",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGV4YW1wbGU= my-key\n",
        ),
    ]);
}

#[test]
fn m6_role_credentials() {
    let metadata = Metadata::of(full());
    assert_eq!(metadata.get("iam/security-credentials/"), "web-role");
    let expected = r#"{
  "Code" : "Success",
  "LastUpdated" : "2026-01-01T00:00:00Z",
  "Type" : "AWS-HMAC",
  "AccessKeyId" : "ASIAIOSFODNN7EXAMPLE",
  "SecretAccessKey" : "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  "Token" : "IQoJb3JpZ2luX2VjE==",
  "Expiration" : "2026-01-01T06:00:00Z"
}"#;
    assert_eq!(metadata.get("iam/security-credentials/web-role"), expected);
    let info: serde_json::Value = serde_json::from_str(&metadata.get("iam/info")).unwrap();
    assert_eq!(info["Code"], "Success");
    assert_eq!(
        info["InstanceProfileArn"],
        "arn:aws:iam::123456789012:instance-profile/web"
    );
    assert_eq!(info["InstanceProfileId"], "AIPABCDEFGHIJKLMN123");
    metadata.absent("iam/security-credentials/other-role");
    // Views get logged; secrets must not.
    let logged = format!("{:?}", full());
    assert!(
        !logged.contains("wJalr") && !logged.contains("IQoJ"),
        "{logged}"
    );
}

#[test]
fn m7_instance_tags() {
    let mut view = open();
    for key in [
        "a/b",
        "with space",
        "..",
        "_index",
        "new\nline",
        "ok:@=+,._-1",
        "größe",
    ] {
        view.tags.insert(key.into(), format!("value of {key}"));
    }
    let metadata = Metadata::of(view.clone());
    // What could not be asked for is not listed.
    metadata.all(&[
        ("tags/", "instance/"),
        ("tags/instance/", "Name\nempty\ngröße\nok:@=+,._-1"),
        ("tags/instance/Name", "web server 1"),
        ("tags/instance/empty", ""),
        ("tags/instance/ok:@=+,._-1", "value of ok:@=+,._-1"),
        (
            "tags/instance/ok%3A%40%3D%2B%2C._-1",
            "value of ok:@=+,._-1",
        ),
        ("tags/instance/gr%C3%B6%C3%9Fe", "value of größe"),
    ]);
    metadata.absent("tags/instance/a/b");
    metadata.absent("tags/instance/missing");
    view.tags.insert("Name".into(), "renamed".into());
    metadata.0.set(HERE, Some(view.clone()));
    assert_eq!(metadata.get("tags/instance/Name"), "renamed");
    view.options.instance_tags = false;
    metadata.0.set(HERE, Some(view));
    metadata.absent("tags/instance/Name");
}

#[test]
fn m8_spot_interruption() {
    Metadata::of(full()).all(&[
        (
            "spot/instance-action",
            "{\"action\":\"terminate\",\"time\":\"2017-09-18T08:22:00Z\"}",
        ),
        (
            "spot/instance-action/",
            "{\"action\":\"terminate\",\"time\":\"2017-09-18T08:22:00Z\"}",
        ),
        ("spot/termination-time", "2017-09-18T08:22:00Z"),
    ]);
    let mut stopping = full();
    stopping.extras.spot_interruption.as_mut().unwrap().action = "stop".into();
    Metadata::of(stopping).absent("spot/termination-time");
}

#[test]
fn m9_rebalance_and_auto_scaling() {
    Metadata::of(full()).all(&[
        (
            "events/recommendations/rebalance",
            "{\"noticeTime\":\"2020-11-05T16:02:10Z\"}",
        ),
        ("autoscaling/target-lifecycle-state", "InService"),
    ]);
}

#[test]
fn m10_scheduled_maintenance() {
    let text = Metadata::of(full()).get("events/maintenance/scheduled");
    let events: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        events,
        serde_json::json!([{
            "NotBefore": "21 Jan 2019 09:00:43 GMT",
            "Code": "system-reboot",
            "Description": "scheduled reboot",
            "EventId": "instance-event-0d59937288b749b32",
            "NotAfter": "21 Jan 2019 09:13:20 GMT",
            "State": "active",
        }])
    );
}
