//! The network of VPCs between real machines: security groups, public addresses, metadata, and the router's own life.

use std::thread;
use std::time::Duration;

use cumulet_tests::api::{Serve, text};
use cumulet_tests::cumulet::{Cumulet, Guest, until};
use cumulet_tests::process::Found;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{ami, interfaces, metadata, net_up, run};

/// How long a guest tries a port that nothing answers, in seconds.
const PATIENCE: u64 = 12;

fn group(serve: &Serve, name: &str) -> String {
    let fields = [("GroupName", name), ("GroupDescription", "of a test")];
    text(
        &serve.call("CreateSecurityGroup", &fields).unwrap(),
        "groupId",
    )
}

/// Lets members of a group take a port, from addresses or from members of another.
fn permission<'a>(
    group: &'a str,
    port: &'a str,
    from: (&'a str, &'a str),
) -> [(&'a str, &'a str); 5] {
    [
        ("GroupId", group),
        ("IpPermissions.1.IpProtocol", "tcp"),
        ("IpPermissions.1.FromPort", port),
        ("IpPermissions.1.ToPort", port),
        from,
    ]
}

/// Whether a connection between two guests comes to be, and from where the server sees it come.
fn connects(server: &mut Guest, client: &mut Guest, to: &str, port: u16) -> String {
    server.send(&json!({ "cmd": "tcp_serve", "port": port, "send": 10_000, "receive": 10_000 }));
    // It may be tried before the server listens.
    let mut last = Value::Null;
    for _ in 0..10 {
        client.send(&json!({
            "cmd": "tcp_connect", "to": format!("{to}:{port}"), "send": 10_000, "receive": 10_000,
        }));
        last = serde_json::from_str(&client.wait_for("@@")[2..]).unwrap();
        if last.get("ok").is_some() {
            let served: Value = serde_json::from_str(&server.wait_for("@@")[2..]).unwrap();
            let from = served["ok"]["from"]
                .as_str()
                .expect("an address")
                .to_owned();
            return from.split(':').next().unwrap_or_default().to_owned();
        }
        thread::sleep(Duration::from_secs(1));
    }
    panic!("no connection to {to}:{port}: {last}");
}

/// How a connection fails.
fn refused(client: &mut Guest, to: &str, port: u16) -> String {
    client
        .send(&json!({ "cmd": "tcp_connect", "to": format!("{to}:{port}"), "patience": PATIENCE }));
    let answer: Value = serde_json::from_str(&client.wait_for("@@")[2..]).unwrap();
    answer["error"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
        .to_owned()
}

#[test]
fn packets_meet_security_groups_and_public_addresses() {
    let cumulet = Cumulet::new("groups");
    let ami = ami(&cumulet);
    let serve = Serve::start(&cumulet);
    let (web, db) = (group(&serve, "web"), group(&serve, "db"));
    let web_id = run(&serve, &ami, &[("SecurityGroupId.1", &web)]);
    let db_id = run(&serve, &ami, &[("SecurityGroupId.1", &db)]);
    let web_shown = serve.until(&web_id, "running");
    let db_shown = serve.until(&db_id, "running");
    let mut web_guest = Guest::join(&cumulet, &web_id);
    let mut db_guest = Guest::join(&cumulet, &db_id);
    net_up(&mut web_guest, &web_shown);
    net_up(&mut db_guest, &db_shown);
    let (web_ip, db_ip) = (
        text(&web_shown, "privateIpAddress"),
        text(&db_shown, "privateIpAddress"),
    );

    // Each sees its own metadata, and a token of one is nothing to the other.
    assert_eq!(metadata(&mut web_guest, "meta-data/instance-id"), web_id);
    assert_eq!(metadata(&mut db_guest, "meta-data/instance-id"), db_id);
    let token = web_guest.ask(&json!({
        "cmd": "http", "to": "169.254.169.254:80", "method": "PUT", "path": "/latest/api/token",
        "headers": { "X-aws-ec2-metadata-token-ttl-seconds": "60" },
    }));
    let stolen = db_guest.ask(&json!({
        "cmd": "http", "to": "169.254.169.254:80", "method": "GET", "path": "/latest/meta-data/instance-id",
        "headers": { "X-aws-ec2-metadata-token": token["body"] },
    }));
    assert_eq!(stolen["status"], 401, "{stolen}");

    // Nothing is let in that no rule names: it times out.
    let error = refused(&mut web_guest, &db_ip, 5432);
    assert!(error.contains("timed out"), "{error}");
    // A rule counts at once on running instances; a group stands for its members.
    let from_web = permission(&db, "5432", ("IpPermissions.1.Groups.1.GroupId", &web));
    serve
        .call("AuthorizeSecurityGroupIngress", &from_web)
        .unwrap();
    assert_eq!(
        connects(&mut db_guest, &mut web_guest, &db_ip, 5432),
        web_ip
    );
    let error = refused(&mut web_guest, &db_ip, 5433);
    assert!(error.contains("timed out"), "{error}");
    serve.call("RevokeSecurityGroupIngress", &from_web).unwrap();
    until("the revocation to count", || {
        refused(&mut web_guest, &db_ip, 5432).contains("timed out")
    });

    // Public addresses: each sees the other's.
    let public = |shown: &str| text(shown, "ipAddress");
    let from_db = format!("{}/32", public(&db_shown));
    let rule = permission(&web, "80", ("IpPermissions.1.IpRanges.1.CidrIp", &from_db));
    serve.call("AuthorizeSecurityGroupIngress", &rule).unwrap();
    let seen = connects(&mut web_guest, &mut db_guest, &public(&web_shown), 80);
    assert_eq!(seen, public(&db_shown));
    // An Elastic IP takes the place of the address at once.
    let elastic = serve.call("AllocateAddress", &[("Domain", "vpc")]).unwrap();
    let (allocation, address) = (text(&elastic, "allocationId"), text(&elastic, "publicIp"));
    let associate = [
        ("AllocationId", allocation.as_str()),
        ("InstanceId", &web_id),
    ];
    serve.call("AssociateAddress", &associate).unwrap();
    assert_eq!(
        connects(&mut web_guest, &mut db_guest, &address, 80),
        public(&db_shown)
    );
    until("the metadata service to tell the Elastic IP", || {
        metadata(&mut web_guest, "meta-data/public-ipv4") == address
    });
    for id in [&web_id, &db_id] {
        serve
            .call("TerminateInstances", &[("InstanceId.1", id)])
            .unwrap();
        serve.until(id, "terminated");
    }
}

/// The router of a state folder; its own host side, a fork of it, is another process.
fn router(cumulet: &Cumulet) -> Option<i32> {
    let home = cumulet.home().display().to_string();
    let all: Vec<Found> = Found::all()
        .into_iter()
        .filter(|process| process.line.contains("__router") && process.line.contains(&home))
        .collect();
    let forked = |one: &Found| all.iter().any(|other| other.pid == one.parent);
    let mut first = all
        .iter()
        .filter(|one| !forked(one) && !is_host_side(one.pid));
    first.next().map(|one| one.pid)
}

/// The host side has left its parent and calls itself another name.
fn is_host_side(pid: i32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim() == "cumulet-host")
}

fn kill_router(cumulet: &Cumulet) -> i32 {
    let pid = router(cumulet).expect("a router");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    pid
}

#[test]
fn the_router_may_be_killed_and_ends_with_the_last_instance() {
    let cumulet = Cumulet::of_ordinary_user("router");
    let ami = ami(&cumulet);
    let serve = Serve::start(&cumulet);
    let id = run(&serve, &ami, &[]);
    let shown = serve.until(&id, "running");
    let mut guest = Guest::join(&cumulet, &id);
    net_up(&mut guest, &shown);
    assert_eq!(metadata(&mut guest, "meta-data/instance-id"), id);

    // The agent starts another at once, which takes over what the first left.
    let first = kill_router(&cumulet);
    until("another router", || {
        router(&cumulet).is_some_and(|pid| pid != first)
    });
    let answers = |guest: &mut Guest| {
        guest.send(&json!({
            "cmd": "http", "to": "169.254.169.254:80", "method": "PUT", "path": "/latest/api/token",
            "headers": { "X-aws-ec2-metadata-token-ttl-seconds": "60" },
        }));
        guest.wait_for("@@").starts_with("@@{\"ok\"")
    };
    until("the metadata service to be back", || answers(&mut guest));
    assert_eq!(metadata(&mut guest, "meta-data/instance-id"), id);

    // It outlives the agent.
    serve.kill();
    assert_eq!(metadata(&mut guest, "meta-data/instance-id"), id);
    // Without both nothing is lost but the metadata, until an agent is there again.
    kill_router(&cumulet);
    let serve = Serve::start(&cumulet);
    until("the metadata service to be back", || answers(&mut guest));
    serve.until(&id, "running");

    // A second interface, attached while the instance is stopped.
    drop(guest);
    let one = [("InstanceId.1", id.as_str())];
    serve.call("StopInstances", &one).unwrap();
    let stopped = serve.until(&id, "stopped");
    let subnet = text(&stopped, "subnetId");
    let made = serve
        .call("CreateNetworkInterface", &[("SubnetId", &subnet)])
        .unwrap();
    let attach = [
        ("NetworkInterfaceId", &*text(&made, "networkInterfaceId")),
        ("InstanceId", &id),
        ("DeviceIndex", "1"),
    ];
    serve.call("AttachNetworkInterface", &attach).unwrap();
    serve.call("StartInstances", &one).unwrap();
    let started = serve.until(&id, "running");
    let mut guest = Guest::join(&cumulet, &id);
    let second = text(&made, "macAddress");
    let macs: Vec<Value> = interfaces(&mut guest)
        .into_iter()
        .map(|net| net["mac"].clone())
        .collect();
    assert_eq!(macs.len(), 2, "{macs:?}");
    assert!(macs.contains(&json!(second)), "{macs:?}");
    net_up(&mut guest, &started);
    let path = format!("meta-data/network/interfaces/macs/{second}/device-number");
    assert_eq!(metadata(&mut guest, &path), "1");

    // The last one takes the router along.
    drop(guest);
    serve.call("TerminateInstances", &one).unwrap();
    serve.until(&id, "terminated");
    until("the router to end", || router(&cumulet).is_none());
}
