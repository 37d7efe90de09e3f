//! An unmodified Debian: its own cloud-init finds EC2, and stop and start are EC2's.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use cumulet_tests::cumulet::{Cumulet, text, until};
use cumulet_tests::paths;

const USER_DATA: &str = "#!/bin/sh
id -u > /root/user-data-uid
pwd > /root/user-data-cwd
date >> /root/user-data-runs
mkdir -p /srv/www
echo 'made by user data' > /srv/www/index.html
systemd-run --unit=www python3 -m http.server --directory /srv/www 80
";

/// Asks the metadata service with a token, as any program in the guest may.
const IMDS: &str = "python3 - <<'END'
from urllib.request import Request, urlopen
base = 'http://169.254.169.254/latest/'
ttl = {'X-aws-ec2-metadata-token-ttl-seconds': '60'}
token = urlopen(Request(base + 'api/token', method='PUT', headers=ttl)).read().decode()
header = {'X-aws-ec2-metadata-token': token}
print(urlopen(Request(base + 'PATH', headers=header)).read().decode())
END";

fn imds(cumulet: &Cumulet, id: &str, path: &str) -> String {
    sh(cumulet, id, &IMDS.replace("PATH", path))
}

fn sh(cumulet: &Cumulet, id: &str, script: &str) -> String {
    let out = cumulet.run(&["ssh", "--wait", "18m", id, "--", script]);
    out.trim().to_owned()
}

/// The page at the published port.
fn page() -> Option<String> {
    let mut stream = TcpStream::connect("127.0.0.1:18080").ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

#[test]
fn first_boot_stop_and_start() {
    let cumulet = Cumulet::at(paths::folder("CUMULET_AMI_HOME"));
    let user_data = std::env::temp_dir().join(format!("user-data-{}", std::process::id()));
    std::fs::write(&user_data, USER_DATA).unwrap();
    let launched = cumulet.json(&[
        "run",
        "debian-12",
        "--keep",
        "--name",
        "debian",
        "--instance-type",
        "t3.micro",
        "--user-data",
        user_data.to_str().unwrap(),
        "--scratch",
        "64M",
        "--root-size",
        "10G",
        "--publish",
        "18080:80",
        "--tag",
        "team=blue",
        "--metadata-options",
        "http-tokens=required,instance-tags=enabled",
        "--uplink",
        "none",
    ]);
    let instance = &launched["Instances"][0];
    let id = text(&instance["InstanceId"]);
    let address = text(&instance["PrivateIpAddress"]);

    // Login by key works, and cloud-init has found EC2.
    sh(&cumulet, &id, "cloud-init status --wait");
    assert_eq!(sh(&cumulet, &id, "whoami"), "ec2-user");
    assert_eq!(sh(&cumulet, &id, "cloud-id"), "aws");
    assert_eq!(
        sh(&cumulet, &id, "hostname"),
        format!("ip-{}", address.replace('.', "-"))
    );
    let source = sh(&cumulet, &id, "cat /run/cloud-init/result.json");
    assert!(source.contains("DataSourceEc2"), "{source}");
    assert_eq!(imds(&cumulet, &id, "meta-data/instance-id"), id);

    assert_eq!(imds(&cumulet, &id, "user-data"), USER_DATA.trim());
    assert_eq!(imds(&cumulet, &id, "meta-data/tags/instance/team"), "blue");
    assert_eq!(
        sh(&cumulet, &id, "cat /sys/class/dmi/id/board_asset_tag"),
        id
    );
    let root = sh(&cumulet, &id, "df --output=size -BG / | tail -1");
    assert_eq!(root, "10G", "the root file system did not grow");

    // The user data ran as root, and the page that it serves is to be had from outside.
    assert_eq!(sh(&cumulet, &id, "sudo cat /root/user-data-uid"), "0");
    assert_eq!(sh(&cumulet, &id, "sudo cat /root/user-data-cwd"), "/");
    until("the page that user data serves", || {
        page().is_some_and(|page| page.contains("made by user data"))
    });
    let scratch = "/dev/disk/by-id/virtio-ephemeral0";
    let fill = format!(
        "echo kept | sudo tee /root/kept; echo gone | sudo dd of={scratch} conv=fsync; sync"
    );
    sh(&cumulet, &id, &fill);
    assert_eq!(
        sh(&cumulet, &id, &format!("sudo head -c 4 {scratch}")),
        "gone"
    );

    let stopped = cumulet.json(&["stop", &id]);
    assert_eq!(
        stopped["StoppingInstances"][0]["CurrentState"]["Name"],
        "stopped"
    );
    let started = cumulet.json(&["start", &id]);
    assert_eq!(started["StartingInstances"][0]["InstanceId"], id.as_str());

    sh(&cumulet, &id, "cloud-init status --wait");
    assert_eq!(imds(&cumulet, &id, "meta-data/instance-id"), id);
    assert_eq!(
        sh(&cumulet, &id, "sudo grep -c . /root/user-data-runs"),
        "1"
    );
    assert_eq!(sh(&cumulet, &id, "sudo cat /root/kept"), "kept");
    let blank = format!("sudo cmp -n 1048576 {scratch} /dev/zero && echo blank");
    assert_eq!(sh(&cumulet, &id, &blank), "blank");
    cumulet.run(&["terminate", &id]);
}
