//! What the command line says to bad input: a clear message, EC2's code and a status of its own.
//! Nothing here gets as far as starting anything.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::common::World;

#[test]
fn no_command_shows_help() {
    World::new().run(&[]).fails(2, &["Usage", "terminate"]);
}

#[test]
fn unknown_instance_types_name_their_family() {
    let world = World::new();
    world
        .run(&["run", "--kernel", "kernel", "-t", "t3.huge"])
        .fails(2, &["InvalidInstanceType", "t3.huge", "t3.micro"]);
    world
        .run(&["run", "--kernel", "kernel", "--vcpus", "33"])
        .fails(2, &["InvalidParameterValue", "1 to 32"]);
    world
        .run(&["run", "--kernel", "kernel", "--memory", "32M"])
        .fails(2, &["64 MiB"]);
    world
        .run(&[
            "run", "--kernel", "kernel", "-t", "t3.micro", "--vcpus", "1",
        ])
        .fails(2, &["cannot be used with"]);
}

#[test]
fn user_data_is_limited() {
    let world = World::new();
    fs::write(world.path("big"), vec![b'x'; 16_385]).unwrap();
    world
        .run(&["run", "--kernel", "kernel", "--user-data", "big"])
        .fails(
            2,
            &[
                "InvalidParameterValue",
                "User data is limited to 16384 bytes",
                "gzip",
            ],
        );
    world
        .run(&["run", "--kernel", "kernel", "--user-data", "absent"])
        .fails(2, &["absent", "No such file"]);
}

#[test]
fn disks_tags_and_ports_are_checked() {
    let world = World::new();
    let run = |more: &[&str]| {
        let mut args = vec!["run", "--kernel", "kernel"];
        args.extend(more);
        world.run(&args)
    };
    run(&["--disk", "sdg=1G", "--disk", "/dev/sdg=2G"])
        .fails(2, &["InvalidBlockDeviceMapping", "/dev/sdg"]);
    run(&["--disk", "8"]).fails(2, &["no unit", "8G"]);
    run(&["--disk", "17T"]).fails(2, &["limit of 16 TiB"]);
    let many: Vec<&str> = ["--disk", "1G"].repeat(12);
    run(&many).fails(2, &["at most 11 volumes"]);
    let many: Vec<&str> = ["--scratch", "1G"].repeat(5);
    run(&many).fails(2, &["at most 4 scratch disks"]);
    run(&["--root-size", "8G"]).fails(2, &["needs an image"]);
    run(&["--tag", "a=1", "--tag", "a=2"]).fails(2, &["Duplicate tag key"]);
    run(&["--tag", "aws:x=1"]).fails(2, &["reserved"]);
    run(&[
        "--tag",
        "a b=1",
        "--metadata-options",
        "instance-tags=enabled",
    ])
    .fails(2, &["not a valid tag key"]);
    run(&["--publish", "80"]).fails(2, &["HOST:GUEST"]);
    run(&["--publish", "8080:80", "--publish", "8080:81"]).fails(2, &["twice"]);
    run(&["--metadata-options", "hop-limit=65"]).fails(2, &["1 to 64"]);
    run(&["--uplink", "carrier-pigeon"]).fails(2, &["slirp4netns"]);
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn keys_must_be_public() {
    let world = World::new();
    fs::write(world.path("id"), "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    world
        .run(&["run", "--kernel", "kernel", "--key", "id"])
        .fails(2, &["InvalidKey.Format", "private key", "id.pub"]);
    fs::write(world.path("x.pub"), "hello\n").unwrap();
    world
        .run(&["run", "--kernel", "kernel", "--key", "x.pub"])
        .fails(2, &["OpenSSH public key format"]);
}

#[test]
fn missing_things_are_named() {
    let world = World::new();
    world
        .run(&["run", "no-such-image"])
        .fails(3, &["InvalidAMIID.NotFound", "no-such-image"]);
    world
        .run(&["run", "--kernel", "absent"])
        .fails(2, &["absent", "No such file"]);
    for command in [
        "ssh",
        "console",
        "logs",
        "stop",
        "start",
        "reboot",
        "terminate",
        "describe",
    ] {
        world
            .run(&[command, "i-0123456789abcdef0"])
            .fails(3, &["InvalidInstanceID.NotFound", "i-0123456789abcdef0"]);
        world
            .run(&[command, "../../etc"])
            .fails(3, &["InvalidInstanceID.NotFound"]);
    }
}

#[test]
fn errors_are_json_when_asked() {
    let world = World::new();
    let done = world.run(&["--output", "json", "describe", "nobody"]);
    assert_eq!(done.status(), 3);
    assert_eq!(done.stdout(), "");
    let error: serde_json::Value = serde_json::from_str(&done.stderr()).unwrap();
    assert_eq!(error["error"]["code"], "InvalidInstanceID.NotFound");
    assert!(error["error"]["mend"].is_string());
}

#[test]
fn an_unfit_host_is_told_before_anything_is_made() {
    let world = World::new();
    let doctor = world.run(&["--output", "json", "doctor"]);
    let report = doctor.json();
    assert_eq!(doctor.status() == 0, report["fit"].as_bool().unwrap());
    for check in report["checks"].as_array().unwrap() {
        if check["status"] != "ok" {
            assert!(check["mend"].is_string(), "{check} has no mend");
        }
    }
    if report["fit"] == false {
        world
            .run(&["run", "--kernel", "kernel"])
            .fails(5, &["HostUnfit", "cumulet doctor"]);
        assert_eq!(world.leftovers(), [""; 0]);
    }
}

/// A folder of devices with `/dev/null` alone, and what `prepare` adds to it.
fn with_devices(prepare: &str) -> String {
    format!(
        r#"
        touch null
        mount --bind /dev/null null
        mount -t tmpfs none /dev
        touch /dev/null
        mount --bind null /dev/null
        {prepare}
        "$@"
        "#
    )
}

#[test]
fn a_host_without_kvm_is_told_so() {
    for (prepare, found) in [
        ("", "/dev/kvm does not exist"),
        ("mknod /dev/kvm p", "/dev/kvm"),
        ("touch /dev/kvm; mount --bind null /dev/kvm", "/dev/kvm"),
    ] {
        let world = World::new();
        let script = with_devices(prepare);
        world
            .run_within(&script, &["run", "--kernel", "kernel"])
            .fails(5, &["HostUnfit", "kvm guest", found, "cumulet doctor"]);
        assert_eq!(world.leftovers(), [""; 0]);
        let doctor = world.run_within(&script, &["doctor"]);
        assert_eq!(doctor.status(), 5);
        let text = doctor.stdout();
        assert!(
            text.contains("FAIL  kvm guest") && text.contains("-> "),
            "{text}"
        );
    }
}

#[test]
fn the_doctor_makes_nothing() {
    let world = World::new();
    world.run(&["doctor"]);
    assert!(!world.home().exists());
}

#[test]
fn the_state_folder_is_private() {
    let world = World::new();
    fs::create_dir(world.home()).unwrap();
    fs::set_permissions(world.home(), fs::Permissions::from_mode(0o755)).unwrap();
    world.run(&["list"]).succeeds();
    let mode = fs::metadata(world.home()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(world.home(), Some(12_345), None).unwrap();
        world.run(&["list"]).fails(5, &["12345", "--home"]);
    }
}

#[test]
fn types_are_listed_as_ec2_does() {
    let done = World::new().run(&["--output", "json", "types"]);
    done.succeeds();
    let json = done.json();
    let types = json["InstanceTypes"].as_array().unwrap();
    let micro = types
        .iter()
        .find(|one| one["InstanceType"] == "t3.micro")
        .unwrap();
    assert_eq!(micro["VCpuInfo"]["DefaultVCpus"], 2);
    assert_eq!(micro["MemoryInfo"]["SizeInMiB"], 1024);
}
