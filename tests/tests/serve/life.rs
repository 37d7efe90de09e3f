//! The life of instances: what the API says and what the machines do are the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cumulet_tests::api::{Serve, text};
use cumulet_tests::cumulet::{Cumulet, Guest, until};
use serde_json::json;

use crate::common::{ami, metadata, net_up, run};

#[test]
fn a_real_machine_lives_as_the_api_says() {
    let cumulet = Cumulet::new("serve");
    let ami = ami(&cumulet);
    let serve = Serve::start(&cumulet);
    let id = run(
        &serve,
        &ami,
        &[
            ("UserData", &STANDARD.encode("hello")),
            ("BlockDeviceMapping.1.DeviceName", "/dev/sdf"),
            ("BlockDeviceMapping.1.Ebs.VolumeSize", "1"),
            ("TagSpecification.1.ResourceType", "instance"),
            ("TagSpecification.1.Tag.1.Key", "Name"),
            ("TagSpecification.1.Tag.1.Value", "web"),
            ("MetadataOptions.InstanceMetadataTags", "enabled"),
        ],
    );
    let one = [("InstanceId.1", id.as_str())];
    let running = serve.until(&id, "running");
    let private = text(&running, "privateIpAddress");
    let mut guest = Guest::join(&cumulet, &id);

    // The guest sees what the API says, now and after a change.
    let dmi = guest.ask(&json!({ "cmd": "dmi" }));
    assert_eq!(dmi["id"]["board_asset_tag"], id.as_str());
    net_up(&mut guest, &running);
    assert_eq!(metadata(&mut guest, "meta-data/instance-id"), id);
    assert_eq!(metadata(&mut guest, "user-data"), "hello");
    assert_eq!(metadata(&mut guest, "meta-data/tags/instance/Name"), "web");
    let public = text(&running, "ipAddress");
    assert_eq!(metadata(&mut guest, "meta-data/public-ipv4"), public);
    serve
        .call(
            "CreateTags",
            &[
                ("ResourceId.1", &id),
                ("Tag.1.Key", "Name"),
                ("Tag.1.Value", "db"),
            ],
        )
        .unwrap();
    until("the tag to change in the guest", || {
        metadata(&mut guest, "meta-data/tags/instance/Name") == "db"
    });
    let console = serve
        .call("GetConsoleOutput", &[("InstanceId", &id)])
        .unwrap();
    let console = STANDARD.decode(text(&console, "output")).unwrap();
    assert!(String::from_utf8_lossy(&console).contains("HELLO"));

    // Reboot: a new machine, the same instance.
    drop(guest);
    serve.call("RebootInstances", &one).unwrap();
    drop(Guest::join(&cumulet, &id));
    serve.until(&id, "running");

    // Stop and start: the public address goes, the private one stays.
    let stopping = serve.call("StopInstances", &one).unwrap();
    assert!(stopping.contains("<name>stopping</name>"), "{stopping}");
    let stopped = serve.until(&id, "stopped");
    assert!(!stopped.contains("<ipAddress>"), "{stopped}");
    assert_eq!(cumulet.state(&id), "stopped");
    serve.call("StartInstances", &one).unwrap();
    let started = serve.until(&id, "running");
    assert_eq!(text(&started, "privateIpAddress"), private);

    // Termination takes everything along but the volume that is to stay.
    serve.call("TerminateInstances", &one).unwrap();
    serve.until(&id, "terminated");
    assert!(!cumulet.instance(&id).exists());
    let left = serve.call("DescribeVolumes", &[]).unwrap();
    assert_eq!(text(&left, "status"), "available");
    let kept = cumulet.home().join("volumes").join(text(&left, "volumeId"));
    assert!(kept.is_dir(), "{left}");
}

#[test]
fn machines_outlive_the_agent_and_their_ends_are_seen() {
    let cumulet = Cumulet::new("outlive");
    let ami = ami(&cumulet);
    let serve = Serve::start(&cumulet);
    let id = run(&serve, &ami, &[]);
    let one = [("InstanceId.1", id.as_str())];
    let before = serve.until(&id, "running");
    let mut guest = Guest::join(&cumulet, &id);

    // kill -9 of the agent: the guest does not notice, the next agent finds it.
    serve.kill();
    guest.ask(&json!({ "cmd": "ping" }));
    let serve = Serve::start(&cumulet);
    let after = serve.until(&id, "running");
    for same in [
        "reservationId",
        "privateIpAddress",
        "ipAddress",
        "launchTime",
    ] {
        assert_eq!(text(&before, same), text(&after, same), "{same}");
    }
    guest.ask(&json!({ "cmd": "ping" }));

    // kill -9 of the VMM: stopped, with EC2's reason; it can be started again.
    drop(guest);
    cumulet.kill(&id, "cumulet-vmm");
    let stopped = serve.until(&id, "stopped");
    assert!(
        stopped.contains("<code>Server.InternalError</code>"),
        "{stopped}"
    );
    serve.call("StartInstances", &one).unwrap();
    serve.until(&id, "running");

    // The guest powers itself off: stopped, or terminated where that was asked for.
    let mut guest = Guest::join(&cumulet, &id);
    let attribute = [
        ("InstanceId", id.as_str()),
        ("InstanceInitiatedShutdownBehavior.Value", "terminate"),
    ];
    serve.call("ModifyInstanceAttribute", &attribute).unwrap();
    guest.send(&json!({ "cmd": "end", "how": "poweroff" }));
    let over = serve.until(&id, "terminated");
    assert!(
        over.contains("<code>Client.InstanceInitiatedShutdown</code>"),
        "{over}"
    );
    drop(guest);
    assert!(!cumulet.instance(&id).exists());

    // What the command line does is seen, too.
    let other = run(&serve, &ami, &[]);
    serve.until(&other, "running");
    cumulet.run(&["stop", "--force", &other]);
    let stopped = serve.until(&other, "stopped");
    assert!(
        stopped.contains("<code>Client.UserInitiatedShutdown</code>"),
        "{stopped}"
    );
    serve
        .call("StartInstances", &[("InstanceId.1", &other)])
        .unwrap();
    serve.until(&other, "running");
    cumulet.run(&["terminate", &other]);
    serve.until(&other, "terminated");

    // Only one agent serves a state folder.
    let second = cumulet.try_run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(4));
}

#[test]
fn the_agent_is_killed_in_the_middle() {
    let cumulet = Cumulet::new("middle");
    let ami = ami(&cumulet);
    let mut serve = Serve::start(&cumulet);
    let id = run(&serve, &ami, &[]);
    let one = [("InstanceId.1", id.as_str())];
    // Each kill comes right after the request was committed.
    serve.kill();
    serve = Serve::start(&cumulet);
    serve.until(&id, "running");
    for (action, state) in [
        ("StopInstances", "stopped"),
        ("StartInstances", "running"),
        ("TerminateInstances", "terminated"),
    ] {
        serve.call(action, &one).unwrap();
        serve.kill();
        serve = Serve::start(&cumulet);
        serve.until(&id, state);
    }
    assert!(!cumulet.instance(&id).exists());
}
