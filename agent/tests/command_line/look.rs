//! Looking at instances: `ps`, `list`, `describe` and `logs`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;

use serde_json::{Value, json};

use super::common::{World, alive, finish, until};

/// The columns of the line that begins with `first`, where two spaces or more are between.
fn cells(table: &str, first: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.starts_with(first));
    let line = line.unwrap_or_else(|| panic!("no {first} in\n{table}"));
    let cells = line.split("  ").map(str::trim);
    cells
        .filter(|cell| !cell.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn ps_shows_what_runs_and_list_everything() {
    let world = World::new();
    let nothing = world.run(&["ps"]);
    nothing.succeeds();
    assert!(
        nothing.stdout().contains("cumulet ps -a"),
        "{}",
        nothing.stdout()
    );
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let publish = format!("{port}:80");
    let up = world.launch("", &["--name", "up", "--publish", &publish]);
    let down = world.launch("", &["--name", "down"]);
    world.run(&["stop", "down"]).succeeds();

    let ps = world.run(&["ps"]).stdout();
    let header = "INSTANCE NAME STATE TYPE IMAGE ADDRESS PUBLIC PORTS AGE";
    assert_eq!(cells(&ps, "INSTANCE").join(" "), header);
    let line = cells(&ps, &up);
    assert_eq!(line[1..5], ["up", "running", "t3.micro", "-"]);
    assert!(line[5].starts_with("172.31."), "{line:?}");
    assert_eq!(line[6..8], ["-".into(), format!("127.0.0.1:{port}->80")]);
    assert!(!ps.contains(&down), "{ps}");
    for all in [&["ps", "-a"][..], &["list"], &["ls"]] {
        let all = world.run(all).stdout();
        assert_eq!(cells(&all, &down)[1..3], ["down", "stopped"]);
        assert_eq!(cells(&all, &up)[1..3], ["up", "running"]);
    }
    assert_eq!(world.run(&["ps", "-q"]).stdout(), format!("{up}\n"));
    let json = world.run(&["--output", "json", "ps"]).json();
    let instances = json["Instances"].as_array().unwrap();
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0]["InstanceId"], up.as_str());

    // A record that cannot be read is told in any case: it may run.
    fs::write(world.instance(&down).join("instance.json"), "{").unwrap();
    let ps = world.run(&["ps"]);
    assert!(ps.stderr().contains(&down), "{}", ps.stderr());
    let all = world.run(&["ps", "-a"]);
    assert_eq!(cells(&all.stdout(), &down)[1..3], ["-", "damaged"]);
}

#[test]
fn describe_tells_everything() {
    let world = World::new();
    fs::write(world.path("ud"), "#!/bin/sh\n").unwrap();
    let more = [
        "--name",
        "web",
        "--tag",
        "team=red",
        "--disk",
        "1G",
        "--scratch",
        "64M",
        "--user-data",
        "ud",
        "--metadata-options",
        "http-tokens=optional,hop-limit=3",
    ];
    let id = world.launch("", &more);
    fs::write(world.instance(&id).join("ephemeral0.raw"), [1; 100_000]).unwrap();
    let value = world.describe("web");
    let pids = &value["Cumulet"]["Processes"];
    assert_eq!(pids["Supervisor"], world.supervisor(&id));
    assert_eq!(pids["Vmm"], world.vmm(&id));
    assert_eq!(value["Cumulet"]["Owner"], "command-line");
    let disks = value["Cumulet"]["Disks"].as_array().unwrap();
    let scratch = fs::metadata(world.instance(&id).join("ephemeral0.raw")).unwrap();
    assert_eq!(disks[1]["UsedBytes"], scratch.blocks() * 512);
    assert!(disks[0]["UsedBytes"].as_u64().unwrap() < 1 << 20);
    assert_eq!(disks[0]["SizeBytes"], 1_u64 << 30);

    let text = world.run(&["describe", "web"]).stdout();
    let line = |label: &str| {
        let found = text.lines().find_map(|line| {
            let rest = line.trim_start().strip_prefix(label)?;
            rest.starts_with(' ').then(|| rest.trim().to_owned())
        });
        found.unwrap_or_else(|| panic!("no {label} in\n{text}"))
    };
    assert_eq!(line("state"), "running");
    assert_eq!(line("type"), "t3.micro (2 vCPUs, 1 GiB)");
    assert_eq!(
        line("metadata"),
        "http-tokens=optional,hop-limit=3,http-endpoint=enabled,instance-tags=disabled"
    );
    assert_eq!(line("user data"), "10 bytes");
    assert_eq!(line("uplink"), "none");
    assert_eq!(line("supervisor"), format!("pid {}", pids["Supervisor"]));
    assert_eq!(line("VMM"), format!("pid {}", pids["Vmm"]));
    for part in [
        value["Cumulet"]["Folder"].as_str().unwrap(),
        value["PrivateIpAddress"].as_str().unwrap(),
        value["NetworkInterfaces"][0]["MacAddress"]
            .as_str()
            .unwrap(),
        disks[0]["Device"].as_str().unwrap(),
        value["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
            .as_str()
            .unwrap(),
        "ephemeral0",
        "team=red",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }

    world.run(&["stop", "web"]).succeeds();
    let value = world.describe("web");
    assert_eq!(value["Cumulet"]["Processes"]["Supervisor"], Value::Null);
    assert_eq!(value["Cumulet"]["Disks"][1]["UsedBytes"], Value::Null);
    let text = world.run(&["describe", "web"]).stdout();
    assert!(text.contains("User initiated shutdown"), "{text}");
    assert!(text.contains("supervisor  none"), "{text}");
}

#[test]
fn where_an_instance_of_the_api_is() {
    let world = World::new();
    let id = world.launch("", &["--name", "web"]);
    world.run(&["stop", &id]).succeeds();
    world.adopt(&id);
    world.change(&id, |record| {
        record["place"]["interfaces"] = json!([{
            "interface_id": "eni-0123456789abcdef1",
            "mac": "02:00:00:00:00:01",
            "device_index": 1,
            "private_ips": ["172.31.32.9"],
            "subnet_id": "subnet-0123456789abcdef1",
            "subnet_cidr": "172.31.32.0/20",
            "groups": [],
        }]);
    });
    let stopped = world.describe(&id);
    let second = &stopped["NetworkInterfaces"][1];
    assert_eq!(second["Attachment"]["DeviceIndex"], 1);
    assert_eq!(second["PrivateIpAddress"], "172.31.32.9");
    assert_eq!(stopped["VpcId"], "vpc-0123456789abcdef0");
    assert_eq!(stopped["SecurityGroups"][0]["GroupName"], "default");
    assert_eq!(stopped["Placement"]["AvailabilityZone"], "us-east-1a");
    assert_eq!(stopped["Cumulet"]["Owner"], "api");
    // The record still has it, and it is not the instance's while it is stopped.
    assert_eq!(stopped["PublicIpAddress"], Value::Null);
    let text = world.run(&["describe", &id]).stdout();
    for part in [
        "the EC2 API, account 123456789012, us-east-1a",
        "vpc-0123456789abcdef0 (172.31.0.0/16)",
        "subnet-0123456789abcdef0 (172.31.16.0/20)",
        "sg-0123456789abcdef0 (default)",
        "eni-0123456789abcdef1 (02:00:00:00:00:01), 172.31.32.9 in subnet-0123456789abcdef1",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    world.change(&id, |record| record["state"] = json!("stopping"));
    let lock = fs::File::options()
        .write(true)
        .open(world.instance(&id).join("lock"))
        .unwrap();
    hold(&lock);
    assert_eq!(world.describe(&id)["PublicIpAddress"], "100.64.1.2");
    let ps = world.run(&["ps"]).stdout();
    assert_eq!(cells(&ps, &id)[6], "100.64.1.2");
}

/// Makes an instance count as somebody's, until the file is closed.
fn hold(lock: &fs::File) {
    use nix::fcntl::{FcntlArg, fcntl};
    let whole = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(lock, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
}

#[test]
fn logs_print_and_follow() {
    let world = World::new();
    let id = world.launch("deaf", &["--name", "web"]);
    let boots = "the pretended guest boots\n";
    assert_eq!(world.run(&["logs", "web"]).stdout(), boots);
    let json = world.run(&["--output", "json", "logs", "web"]).json();
    assert_eq!(json["InstanceId"], id.as_str());
    assert_eq!(json["Output"], boots);
    let ours = world.run(&["logs", "web", "--supervisor"]).stdout();
    assert!(ours.contains("the VMM runs"), "{ours}");

    let mut followed = world.command(&["logs", "-f", "web"]).spawn().unwrap();
    let mut lines = BufReader::new(followed.stdout.take().unwrap()).lines();
    let mut next = || lines.next().map(Result::unwrap);
    assert_eq!(next().as_deref(), Some(boots.trim_end()));
    let mut programs = world
        .command(&["--output", "json", "logs", "-f", "-n", "1", "web"])
        .spawn()
        .unwrap();
    let values = BufReader::new(programs.stdout.take().unwrap()).lines();
    let mut values = values.map(|line| -> Value { serde_json::from_str(&line.unwrap()).unwrap() });
    assert_eq!(values.next().unwrap()["Output"], boots);
    world.run(&["reboot", "web", "--timeout", "1s"]).succeeds();
    assert_eq!(next().as_deref(), Some("reset"));
    world.run(&["stop", "web", "--force"]).succeeds();
    assert_eq!(next(), None);
    assert_eq!(finish(followed), 0);
    assert_eq!(values.next().unwrap()["Output"], "reset\n");
    assert_eq!(values.next(), None);
    assert_eq!(finish(programs), 0);

    // Stopped, it still says what it has said.
    let last = world.run(&["logs", "-n", "1", "web"]).stdout();
    assert_eq!(last, "reset\n");
    let done = world.run(&["logs", "-f", "web"]);
    done.succeeds();
    assert_eq!(done.stdout(), format!("{boots}reset\n"));
    assert!(
        done.stderr().contains("does not run any more"),
        "{}",
        done.stderr()
    );
}

#[test]
fn a_follower_sees_the_end_of_what_is_deleted() {
    let world = World::new();
    let id = world.launch("", &[]);
    let mut followed = world.command(&["logs", "-f", &id]).spawn().unwrap();
    let mut lines = BufReader::new(followed.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("boots"));
    let vmm = world.vmm(&id);
    world.run(&["terminate", &id]).succeeds();
    until("the machine to end", || (!alive(vmm)).then_some(()));
    assert_eq!(finish(followed), 0);
}
