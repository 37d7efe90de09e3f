//! What tests over the API share.

use std::fs;
use std::process::Command;

use cumulet_tests::api::{Serve, text};
use cumulet_tests::cumulet::{Cumulet, Guest};
use cumulet_tests::paths;
use serde_json::{Value, json};

/// What GRUB would have read.
const GRUB_CFG: &str = "menuentry 'guest' {
    linux /boot/vmlinuz root=/dev/vda console=ttyS0 quiet panic=-1
    initrd /boot/initrd
}
";

/// An AMI with the test guest; its id.
pub(crate) fn ami(cumulet: &Cumulet) -> String {
    let folder = tempfile::tempdir().unwrap();
    let boot = folder.path().join("tree/boot");
    fs::create_dir_all(boot.join("grub")).unwrap();
    fs::copy(paths::payload("6.1", "vmlinuz"), boot.join("vmlinuz")).unwrap();
    fs::copy(paths::payload("6.1", "initrd"), boot.join("initrd")).unwrap();
    fs::write(boot.join("grub/grub.cfg"), GRUB_CFG).unwrap();
    let image = folder.path().join("image");
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
        .arg(folder.path().join("tree"))
        .arg(&image)
        .arg("256M")
        .status()
        .unwrap();
    assert!(made.success());
    let imported = cumulet.json(&[
        "images",
        "import",
        image.to_str().unwrap(),
        "--name",
        "guest",
    ]);
    imported["ImageId"].as_str().expect("an AMI").to_owned()
}

/// An instance of the smallest type; its id.
pub(crate) fn run(serve: &Serve, ami: &str, more: &[(&str, &str)]) -> String {
    let mut fields = vec![
        ("ImageId", ami),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t3.nano"),
    ];
    fields.extend(more);
    text(&serve.call("RunInstances", &fields).unwrap(), "instanceId")
}

/// What the guest's metadata service says.
pub(crate) fn metadata(guest: &mut Guest, path: &str) -> String {
    let token = guest.ask(&json!({
        "cmd": "http", "to": "169.254.169.254:80", "method": "PUT", "path": "/latest/api/token",
        "headers": { "X-aws-ec2-metadata-token-ttl-seconds": "60" },
    }));
    let answer = guest.ask(&json!({
        "cmd": "http", "to": "169.254.169.254:80", "method": "GET", "path": format!("/latest/{path}"),
        "headers": { "X-aws-ec2-metadata-token": token["body"] },
    }));
    answer["body"].as_str().unwrap_or_default().to_owned()
}

/// The guest's interfaces but its loopback.
pub(crate) fn interfaces(guest: &mut Guest) -> Vec<Value> {
    let nets = guest.ask(&json!({ "cmd": "net_list" }));
    let nets = nets.as_array().expect("a list").iter();
    nets.filter(|net| net["name"] != "lo").cloned().collect()
}

/// Gives the guest's interface the address that the API tells, in the default VPC's subnets of 4096 addresses.
pub(crate) fn net_up(guest: &mut Guest, described: &str) {
    let private = text(described, "privateIpAddress");
    let mac = text(described, "macAddress");
    let all = interfaces(guest);
    let eth = all.iter().find(|net| net["mac"] == mac.as_str());
    let eth = eth.unwrap_or_else(|| panic!("no interface {mac}: {all:?}"));
    // The primary one is the guest's first.
    assert_eq!(eth["name"], "eth0", "{all:?}");
    let third = private
        .split('.')
        .nth(2)
        .and_then(|part| part.parse::<u8>().ok());
    let gateway = format!("172.31.{}.1", third.expect("an address") & 0xf0);
    guest.ask(&json!({
        "cmd": "net_up", "name": eth["name"], "address": private, "prefix": 20, "gateway": gateway,
    }));
}
