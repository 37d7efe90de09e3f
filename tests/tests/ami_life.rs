//! A full Debian AMI through its life: first boot, stop, start, terminate, as a user does it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use cumulet_tests::cli::{BOOT_GUARD, Home};

const USER_DATA: &str = "#!/bin/sh
set -e
echo once >> /root/user-data-runs
id -u > /root/user-data-uid
pwd > /root/user-data-cwd
mkdir -p /srv/www
echo 'made by user data' > /srv/www/index.html
cd /srv/www && setsid python3 -m http.server 80 > /dev/null 2>&1 < /dev/null &
";

/// Asks IMDSv2 for one leaf from a shell in the guest.
const IMDS: &str = r#"imds() { python3 - "$1" <<'PY'
import sys, urllib.request as u
b = 'http://169.254.169.254/latest/'
t = u.urlopen(u.Request(b + 'api/token', method='PUT', headers={'X-aws-ec2-metadata-token-ttl-seconds': '60'})).read().decode()
print(u.urlopen(u.Request(b + sys.argv[1], headers={'X-aws-ec2-metadata-token': t})).read().decode(), end='')
PY
}; "#;

fn imds(home: &Home, path: &str) -> String {
    home.ssh("web", &format!("{IMDS} imds {path}"))
}

/// The published page, waited for.
fn page(port: u16) -> String {
    let started = Instant::now();
    let mut last = String::new();
    while started.elapsed() < BOOT_GUARD {
        let fetched = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        match fetched {
            Ok(text) if text.contains("200 OK") => return text,
            Ok(text) => last = text,
            Err(error) => last = error.to_string(),
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    panic!("no page at port {port}; last answer: {last}");
}

#[test]
fn first_boot_stop_start_terminate() {
    let home = Home::new("debian", true);
    let key = home.path().join("me");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "me", "-f"])
        .arg(&key)
        .status();
    assert!(made.expect("ssh-keygen").success());
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("the public key");
    let user_data = home.file("setup.sh", USER_DATA);

    let launched = home.run(&[
        "run",
        "debian-12",
        "--keep",
        "--name",
        "web",
        "--vcpus",
        "2",
        "--memory",
        "768M",
        "--user-data",
        &user_data,
        "--key",
        &key.with_extension("pub").display().to_string(),
        "--root-size",
        "10G",
        "--disk",
        "1G",
        "--scratch",
        "64M",
        "--publish",
        "18080:80",
        "--tag",
        "team=blue",
        "--metadata-options",
        "http-tokens=required,instance-tags=enabled",
        "--cmdline",
        "panic=-1 systemd.default_timeout_start_sec=1200",
    ]);
    let instance = launched.ok().json()["Instances"][0].take();
    let id = instance["InstanceId"]
        .as_str()
        .expect("an instance id")
        .to_owned();
    let address = instance["PrivateIpAddress"]
        .as_str()
        .expect("an address")
        .to_owned();

    // Key login works and the page that user data serves is there.
    home.ssh("web", "true");
    assert!(page(18080).contains("made by user data"));
    home.ssh("web", "cloud-init status --wait > /dev/null || true");

    // cloud-init found EC2, ran the user data once, as root.
    let result = home.ssh("web", "cat /run/cloud-init/result.json");
    assert!(result.contains("DataSourceEc2"), "{result}");
    assert_eq!(home.ssh("web", "sudo cat /root/user-data-runs"), "once");
    assert_eq!(home.ssh("web", "sudo cat /root/user-data-uid"), "0");
    assert_eq!(home.ssh("web", "sudo cat /root/user-data-cwd"), "/");
    assert_eq!(home.ssh("web", "whoami"), "ec2-user");
    assert_eq!(
        home.ssh("web", "hostname"),
        format!("ip-{}", address.replace('.', "-"))
    );
    assert_eq!(home.ssh("web", "nproc"), "2");
    let root = home.ssh("web", "df --output=size -BM / | tail -1");
    let root: u64 = root
        .trim()
        .trim_end_matches('M')
        .parse()
        .expect("megabytes");
    assert!(root > 8800, "the root file system did not grow: {root} MiB");

    // IMDSv2 only, and it tells the truth.
    let bare = home.ssh(
        "web",
        "python3 -c 'import urllib.request as u, urllib.error as e
try: print(u.urlopen(\"http://169.254.169.254/latest/meta-data/\").status)
except e.HTTPError as x: print(x.code)'",
    );
    assert_eq!(bare, "401");
    assert_eq!(imds(&home, "meta-data/instance-id"), id);
    assert_eq!(imds(&home, "meta-data/local-ipv4"), address);
    assert_eq!(imds(&home, "user-data"), USER_DATA.trim());
    assert_eq!(
        imds(&home, "meta-data/public-keys/0/openssh-key").trim(),
        public.trim()
    );
    assert_eq!(imds(&home, "meta-data/tags/instance/team"), "blue");
    let uuid = home.ssh("web", "sudo cat /sys/class/dmi/id/product_uuid");
    assert!(uuid.to_lowercase().starts_with("ec2"), "{uuid}");
    assert_eq!(
        home.ssh("web", "cat /sys/class/dmi/id/sys_vendor"),
        "Amazon EC2"
    );
    assert_eq!(home.ssh("web", "cat /sys/class/dmi/id/board_asset_tag"), id);

    // Marks on root, volume and scratch disk.
    let disks = instance["Cumulet"]["Disks"]
        .as_array()
        .expect("disks")
        .clone();
    let serial = |kind: &str| {
        disks
            .iter()
            .find(|disk| {
                disk["Kind"]
                    .as_str()
                    .is_some_and(|k| k.eq_ignore_ascii_case(kind))
            })
            .and_then(|disk| disk["Serial"].as_str())
            .unwrap_or_else(|| panic!("no {kind} disk in {disks:?}"))
            .to_owned()
    };
    let node = |kind: &str| {
        let name = serial(kind);
        let found = home.ssh("web", "lsblk -dno NAME,SERIAL");
        let line = found.lines().find(|line| line.contains(&name));
        let line = line.unwrap_or_else(|| panic!("no disk {name} in\n{found}"));
        format!("/dev/{}", line.split_whitespace().next().expect("a name"))
    };
    for kind in ["data", "scratch"] {
        let device = node(kind);
        home.ssh(
            "web",
            &format!("echo kept-{kind} | sudo dd of={device} conv=fsync status=none"),
        );
    }
    home.ssh("web", "echo kept | sudo tee /root/mark > /dev/null; sync");

    home.run(&["stop", "web"]).ok();
    let stopped = home.describe("web");
    assert_eq!(stopped["State"]["Name"], "stopped", "{stopped}");
    home.run(&["start", "web"]).ok();

    home.ssh("web", "cloud-init status --wait > /dev/null || true");
    assert_eq!(imds(&home, "meta-data/instance-id"), id);
    assert_eq!(
        home.ssh("web", "sudo cat /root/user-data-runs"),
        "once",
        "user data ran again"
    );
    assert_eq!(home.ssh("web", "sudo cat /root/mark"), "kept");
    let mark = |kind: &str| {
        let device = node(kind);
        home.ssh(
            "web",
            &format!("sudo dd if={device} bs=16 count=1 status=none | tr -d '\\0'"),
        )
    };
    assert_eq!(mark("data"), "kept-data");
    assert_eq!(mark("scratch"), "", "the scratch disk is not blank");

    home.run(&["terminate", "web"]).ok();
    let gone = home.run(&["describe", "web"]);
    assert_eq!(gone.code, Some(3), "{gone:?}");
    assert!(
        !home.path().join("instances").join(&id).exists(),
        "files are left"
    );
}
