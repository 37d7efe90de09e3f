//! Instances with small real guests, by the command line: what survives what, who is killed when,
//! and that instances are apart.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;

use cumulet_tests::cumulet::{Cumulet, Guest, text, until};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

fn serial(cumulet: &Cumulet, id: &str) -> String {
    let record = cumulet.describe(id);
    let disks = record["Cumulet"]["Disks"].as_array().unwrap().clone();
    text(&disks.iter().find(|disk| disk["Kind"] == "data").unwrap()["Serial"])
}

fn write(guest: &mut Guest, disk: &str, seed: u64) {
    guest.ask(&json!({ "cmd": "write", "disk": disk, "offset": 0, "len": MIB, "seed": seed, "fsync": true }));
}

fn holds(guest: &mut Guest, disk: &str, seed: Option<u64>) {
    guest.ask(&json!({ "cmd": "verify", "disk": disk, "offset": 0, "len": MIB, "seed": seed }));
}

#[test]
fn stop_start_and_reboot_keep_what_ec2_keeps() {
    let cumulet = Cumulet::new("keep");
    let id = cumulet.launch_guest(&["--disk", "64M", "--scratch", "64M"]);
    let volume = serial(&cumulet, &id);
    let before = cumulet.describe(&id);
    let mut guest = Guest::join(&cumulet, &id);
    let dmi = guest.ask(&json!({ "cmd": "dmi" }));
    assert_eq!(dmi["id"]["board_asset_tag"], id.as_str());
    assert!(text(&dmi["id"]["product_uuid"]).starts_with("ec2"));
    assert_eq!(dmi["oem_strings"][0], "cumulet");
    write(&mut guest, &volume, 1);
    write(&mut guest, "ephemeral0", 2);

    drop(guest);
    cumulet.run(&["reboot", &id]);
    let mut guest = Guest::join(&cumulet, &id);
    holds(&mut guest, &volume, Some(1));
    holds(&mut guest, "ephemeral0", Some(2));

    drop(guest);
    cumulet.run(&["stop", &id]);
    assert_eq!(cumulet.state(&id), "stopped");
    cumulet.run(&["start", &id]);
    let mut guest = Guest::join(&cumulet, &id);
    holds(&mut guest, &volume, Some(1));
    holds(&mut guest, "ephemeral0", None);
    let after = cumulet.describe(&id);
    for same in [
        "PrivateIpAddress",
        "NetworkInterfaces",
        "BlockDeviceMappings",
        "ReservationId",
    ] {
        assert_eq!(before[same], after[same]);
    }
    drop(guest);
    cumulet.run(&["terminate", &id]);
    assert!(!cumulet.instance(&id).exists());
}

#[test]
fn guests_power_themselves_off_and_reboot() {
    let cumulet = Cumulet::new("guest");
    let id = cumulet.launch_guest(&[]);
    let mut guest = Guest::join(&cumulet, &id);
    guest.send(&json!({ "cmd": "end", "how": "reboot" }));
    guest.wait_for("HELLO");
    assert_eq!(cumulet.state(&id), "running");
    guest.send(&json!({ "cmd": "end", "how": "poweroff" }));
    until("the instance to stop", || cumulet.state(&id) == "stopped");
    let reason = cumulet.describe(&id)["StateReason"]["Code"].clone();
    assert_eq!(reason, "Client.InstanceInitiatedShutdown");
}

#[test]
fn killed_processes_lose_nothing_flushed() {
    let cumulet = Cumulet::new("kill");
    let id = cumulet.launch_guest(&["--disk", "64M"]);
    let volume = serial(&cumulet, &id);
    for (seed, victim) in [(1, "cumulet-vmm"), (2, "supervisor")] {
        let mut guest = Guest::join(&cumulet, &id);
        if seed > 1 {
            holds(&mut guest, &volume, Some(seed - 1));
        }
        write(&mut guest, &volume, seed);
        cumulet.kill(&id, victim);
        until("the instance to be stopped", || {
            cumulet.state(&id) == "stopped"
        });
        let record = cumulet.describe(&id);
        assert_eq!(record["StateReason"]["Code"], "Server.InternalError");
        drop(guest);
        cumulet.run(&["start", &id]);
    }
    let mut guest = Guest::join(&cumulet, &id);
    holds(&mut guest, &volume, Some(2));
}

#[test]
fn a_published_port_leads_to_the_guest() {
    let cumulet = Cumulet::new("publish");
    let id = cumulet.launch_guest(&["--publish", "18080:8080"]);
    let mut guest = Guest::join(&cumulet, &id);
    net_up(&cumulet, &id, &mut guest);
    guest.send(&json!({ "cmd": "tcp_serve", "port": 8080, "send": 65_536, "receive": 0 }));
    let mut bytes = Vec::new();
    until("the guest to answer", || {
        bytes.clear();
        TcpStream::connect("127.0.0.1:18080")
            .and_then(|mut stream| {
                stream.shutdown(std::net::Shutdown::Write)?;
                stream.read_to_end(&mut bytes)
            })
            .is_ok_and(|count| count == 65_536)
    });
    guest.wait_for("@@{\"ok\"");
}

fn net_up(cumulet: &Cumulet, id: &str, guest: &mut Guest) -> String {
    let address = text(&cumulet.describe(id)["PrivateIpAddress"]);
    guest.ask(&json!({
        "cmd": "net_up", "name": "eth0", "address": address, "prefix": 20, "gateway": "172.31.0.1",
    }));
    address
}

fn http(guest: &mut Guest, method: &str, path: &str, headers: Value) -> Value {
    guest.ask(&json!({
        "cmd": "http", "to": "169.254.169.254:80", "method": method, "path": path,
        "headers": headers,
    }))
}

fn token(guest: &mut Guest) -> String {
    let ttl = json!({ "X-aws-ec2-metadata-token-ttl-seconds": "600" });
    let answer = http(guest, "PUT", "/latest/api/token", ttl);
    assert_eq!(answer["status"], 200, "{answer}");
    text(&answer["body"])
}

/// No root anywhere: KVM by group, the network in a user namespace, the way out by pasta.
#[test]
fn an_ordinary_user_runs_a_guest_with_metadata_and_a_way_out() {
    let cumulet = Cumulet::of_ordinary_user("rootless");
    let id = cumulet.launch_guest(&["--uplink", "pasta", "--disk", "64M"]);
    let owner = std::fs::metadata(cumulet.instance(&id)).unwrap().uid();
    assert_ne!(owner, 0, "root runs it");
    let volume = serial(&cumulet, &id);
    let mut guest = Guest::join(&cumulet, &id);
    net_up(&cumulet, &id, &mut guest);
    let token = token(&mut guest);
    let header = json!({ "X-aws-ec2-metadata-token": token });
    let answer = http(&mut guest, "GET", "/latest/meta-data/instance-id", header);
    assert_eq!(answer["body"], id.as_str());
    write(&mut guest, &volume, 1);
    holds(&mut guest, &volume, Some(1));

    // The host's address on its own network is outside.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.connect("203.0.113.1:9").expect("a default route");
    let listener = TcpListener::bind((probe.local_addr().unwrap().ip(), 0)).unwrap();
    let outside = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\noutside").unwrap();
    });
    let answer = guest.ask(&json!({
        "cmd": "http", "to": outside.to_string(), "method": "GET", "path": "/", "headers": {},
    }));
    assert_eq!(answer["body"], "outside", "{answer}");
    served.join().unwrap();
    drop(guest);
    cumulet.run(&["stop", &id]);
    cumulet.run(&["terminate", &id]);
    assert!(!cumulet.instance(&id).exists());
}

#[test]
fn two_instances_have_metadata_of_their_own() {
    let cumulet = Cumulet::new("two");
    let ids = [cumulet.launch_guest(&[]), cumulet.launch_guest(&[])];
    let mut guests = ids.each_ref().map(|id| Guest::join(&cumulet, id));
    let mut tokens = Vec::new();
    for (id, guest) in ids.iter().zip(&mut guests) {
        net_up(&cumulet, id, guest);
        let token = token(guest);
        let header = json!({ "X-aws-ec2-metadata-token": token });
        let answer = http(guest, "GET", "/latest/meta-data/instance-id", header);
        assert_eq!(answer["body"], id.as_str());
        let bare = http(guest, "GET", "/latest/meta-data/instance-id", json!({}));
        assert_eq!(bare["status"], 401, "IMDSv2 only is the default");
        tokens.push(token);
    }
    for (guest, foreign) in guests.iter_mut().zip(tokens.iter().rev()) {
        let header = json!({ "X-aws-ec2-metadata-token": foreign });
        let answer = http(guest, "GET", "/latest/meta-data/instance-id", header);
        assert_eq!(answer["status"], 401);
    }
}
