//! What befalls the host: it goes down without a word, or its disk is full.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cumulet_tests::api::{Serve, text};
use cumulet_tests::cumulet::{Cumulet, Guest, until};
use cumulet_tests::paths;
use cumulet_tests::process::Found;
use cumulet_tests::rounds;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::json;

use crate::common::{ami, metadata, net_up, run};

const MIB: u64 = 1 << 20;

/// Everything that runs over a state folder: agent, router, supervisors, and what they have started.
fn family(cumulet: &Cumulet) -> Vec<Found> {
    let home = cumulet.home().display().to_string();
    let all = Found::all();
    let mut family: Vec<Found> = Vec::new();
    loop {
        let belongs = |one: &&Found| {
            one.line.contains(&home) || family.iter().any(|known| known.pid == one.parent)
        };
        let more: Vec<Found> = all.iter().filter(belongs).cloned().collect();
        if more.len() == family.len() {
            return family;
        }
        family = more;
    }
}

/// The host goes down: every process is gone at once, with the namespaces that they were in.
fn pull_the_plug(cumulet: &Cumulet, serve: Serve) {
    let signal = |signal| {
        for one in family(cumulet) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(one.pid), signal);
        }
    };
    // Stopped first, so that none sees another's end.
    signal(Signal::SIGSTOP);
    let names: Vec<String> = family(cumulet).into_iter().map(|one| one.line).collect();
    for name in ["serve", "__router", "__supervise", "cumulet-vmm"] {
        assert!(names.iter().any(|line| line.contains(name)), "{names:?}");
    }
    signal(Signal::SIGKILL);
    serve.kill();
    until("the end of everything", || family(cumulet).is_empty());
    // A host has its sockets' files gone or not after a reboot; nothing may depend on them.
    for folder in [cumulet.home().to_owned(), cumulet.home().join("instances")] {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().extension().is_some_and(|end| end == "sock") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

#[test]
fn instances_are_stopped_after_the_host_went_down() {
    let cumulet = Cumulet::new("plug");
    let ami = ami(&cumulet);
    let serve = Serve::start(&cumulet);
    let volume = [
        ("BlockDeviceMapping.1.DeviceName", "/dev/sdf"),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "2"),
    ];
    let id = run(&serve, &ami, &volume);
    let one = [("InstanceId.1", id.as_str())];
    let before = serve.until(&id, "running");
    let mut guest = Guest::join(&cumulet, &id);
    let disks = guest.ask(&json!({ "cmd": "disks" }));
    let disks = disks.as_array().expect("a list").iter();
    let data = disks
        .filter(|disk| disk["bytes"] == MIB << 11)
        .map(|disk| disk["serial"].clone())
        .next()
        .expect("a disk of 2 GiB");
    guest.ask(
        &json!({ "cmd": "write", "disk": data, "offset": 0, "len": MIB, "seed": 1, "fsync": true }),
    );
    drop(guest);

    pull_the_plug(&cumulet, serve);
    let serve = Serve::start(&cumulet);
    let stopped = serve.until(&id, "stopped");
    assert!(
        stopped.contains("<code>Server.InternalError</code>"),
        "{stopped}"
    );
    assert!(!stopped.contains("<ipAddress>"), "{stopped}");
    serve.call("StartInstances", &one).unwrap();
    let after = serve.until(&id, "running");
    for same in ["reservationId", "privateIpAddress", "macAddress"] {
        assert_eq!(text(&before, same), text(&after, same), "{same}");
    }
    let mut guest = Guest::join(&cumulet, &id);
    guest.ask(&json!({ "cmd": "verify", "disk": data, "offset": 0, "len": MIB, "seed": 1 }));
    net_up(&mut guest, &after);
    assert_eq!(metadata(&mut guest, "meta-data/instance-id"), id);
    drop(guest);
    serve.call("TerminateInstances", &one).unwrap();
    serve.until(&id, "terminated");
}

/// Says on the console how often it has run, and when all that is on disk.
const USER_DATA: &str = "#!/bin/sh
echo once more >> /root/runs
systemd-run sh -c 'cloud-init status --wait; sync; echo user data has run: $(grep -c . /root/runs) > /dev/ttyS0'
";

#[test]
fn user_data_is_not_run_again_after_the_host_went_down() {
    // Two boots of a Debian take minutes. That user data is not run again by a new start is seen in every run
    // (tests/first_hour), and that the instance is the same one above.
    if rounds(0, 1) == 0 {
        eprintln!("not run: only `cargo xtask soak` has the time");
        return;
    }
    let cumulet = Cumulet::new("debian");
    fs::create_dir(cumulet.home()).unwrap();
    let amis = paths::folder("CUMULET_AMI_HOME").join("amis");
    std::os::unix::fs::symlink(amis, cumulet.home().join("amis")).unwrap();
    let serve = Serve::start(&cumulet);
    let images = serve
        .call("DescribeImages", &[("Owner.1", "self")])
        .unwrap();
    let user_data = STANDARD.encode(USER_DATA);
    let fields = [
        ("ImageId", &*text(&images, "imageId")),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t3.micro"),
        ("UserData", &user_data),
    ];
    let id = text(&serve.call("RunInstances", &fields).unwrap(), "instanceId");
    serve.until(&id, "running");
    console(&serve, &id, "user data has run: 1");

    pull_the_plug(&cumulet, serve);
    let serve = Serve::start(&cumulet);
    serve.until(&id, "stopped");
    serve
        .call("StartInstances", &[("InstanceId.1", &id)])
        .unwrap();
    serve.until(&id, "running");
    let said = console(&serve, &id, "finished at");
    assert!(!said.contains("user data has run"), "{said}");
    serve
        .call("TerminateInstances", &[("InstanceId.1", &id)])
        .unwrap();
    serve.until(&id, "terminated");
}

/// What a guest has said since its start, as soon as that is among it.
fn console(serve: &Serve, id: &str, what: &str) -> String {
    // A whole Debian boots here: longer than anything else.
    for _ in 0..900 {
        let answer = serve.call("GetConsoleOutput", &[("InstanceId", id)]);
        let output = STANDARD.decode(text(&answer.unwrap(), "output")).unwrap();
        let said = String::from_utf8_lossy(&output).into_owned();
        if said.contains(what) {
            return said;
        }
        thread::sleep(Duration::from_secs(1));
    }
    let answer = serve.call("GetConsoleOutput", &[("InstanceId", id)]);
    panic!("{id} never said {what:?}: {answer:?}");
}

/// A small file system of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(mib: u32) -> Self {
        let path = std::env::temp_dir().join(format!("small-disk-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}M"), "small-disk"])
            .arg(&path)
            .status();
        assert!(mounted.unwrap().success());
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Fills it up to so many KiB.
    fn fill(&self, left_kib: u64) {
        let mut file = File::create(self.0.join("fill")).unwrap();
        while file.write_all(&[1; 64 << 10]).is_ok() {}
        let len = file.metadata().unwrap().len();
        file.set_len(len - left_kib * 1024).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // At once for us, and for others when they have let go of it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_leaks() {
    assert!(
        Uid::effective().is_root(),
        "only root can mount a small file system to fill: run the tests as root, or in the emulated host"
    );
    let disk = SmallDisk::mount(128);
    let cumulet = Cumulet::at(disk.path().join("home"));
    let ami = ami(&cumulet);
    let serve = Serve::start(&cumulet);
    let id = run(&serve, &ami, &[]);
    serve.until(&id, "running");
    let mut guest = Guest::join(&cumulet, &id);
    let fields = [
        ("ImageId", ami.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t3.nano"),
    ];

    // Nothing can be recorded, so nothing is done.
    disk.fill(0);
    let stop = [("InstanceId.1", id.as_str())];
    for (action, fields) in [("RunInstances", &fields[..]), ("StopInstances", &stop)] {
        let refused = serve.call(action, fields).unwrap_err();
        assert_eq!(refused.code, "InternalError", "{action}");
        assert!(
            refused
                .message
                .contains("Nothing was changed; free space on that file system"),
            "{refused:?}"
        );
    }
    alone(&cumulet, &serve, &id);
    assert_eq!(guest.ask(&json!({ "cmd": "ping" })), "pong");
    disk.free();

    // The launch can be recorded, but no machine made; then a machine made, but not recorded that it runs.
    for left_kib in [32, 64] {
        disk.fill(left_kib);
        let launched = serve.call("RunInstances", &fields);
        // Long enough for what fails; whatever it is, it is told when there is space again.
        thread::sleep(Duration::from_secs(10));
        disk.free();
        let Ok(launched) = launched else {
            alone(&cumulet, &serve, &id);
            continue;
        };
        let other = text(&launched, "instanceId");
        let one = [("InstanceId.1", other.as_str())];
        let mut shown = String::new();
        until("the launch to be decided", || {
            shown = serve.call("DescribeInstances", &one).unwrap();
            ["running", "terminated"].contains(&text(&shown, "name").as_str())
        });
        if text(&shown, "name") == "terminated" {
            assert!(shown.contains("No space left on device"), "{shown}");
        } else {
            serve.call("TerminateInstances", &one).unwrap();
            serve.until(&other, "terminated");
        }
        alone(&cumulet, &serve, &id);
    }

    // What was refused works now.
    assert_eq!(guest.ask(&json!({ "cmd": "ping" })), "pong");
    drop(guest);
    serve.call("StopInstances", &stop).unwrap();
    serve.until(&id, "stopped");
    serve.call("TerminateInstances", &stop).unwrap();
    serve.until(&id, "terminated");
}

/// There is nothing but this instance, which runs.
fn alone(cumulet: &Cumulet, serve: &Serve, id: &str) {
    let running = [
        ("Filter.1.Name", "instance-state-name"),
        ("Filter.1.Value.1", "running"),
        ("Filter.1.Value.2", "pending"),
        ("Filter.1.Value.3", "shutting-down"),
    ];
    let shown = serve.call("DescribeInstances", &running).unwrap();
    assert_eq!(shown.matches("<instanceId>").count(), 1, "{shown}");
    assert!(shown.contains(id), "{shown}");
    assert!(shown.contains("<name>running</name>"), "{shown}");
    for (action, element) in [
        ("DescribeVolumes", "<size>"),
        ("DescribeNetworkInterfaces", "<macAddress>"),
    ] {
        let shown = serve.call(action, &[]).unwrap();
        assert_eq!(shown.matches(element).count(), 1, "{shown}");
    }
    let folders = fs::read_dir(cumulet.home().join("instances")).unwrap();
    let names = folders.map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.filter(|name| name != ".lock").collect();
    assert_eq!(names, [id]);
    let supervisors = family(cumulet)
        .into_iter()
        .filter(|one| one.line.contains("__supervise"));
    assert_eq!(supervisors.count(), 1);
}
