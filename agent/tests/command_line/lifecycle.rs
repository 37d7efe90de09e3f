//! The life of instances: states, processes, and what is left when any of them is killed. The VMM
//! is a pretended one; real guests run in the emulated host's tests.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::common::{World, alive, finish, kill, until};

#[test]
fn a_guest_that_powers_off_takes_its_instance_with_it() {
    let world = World::new();
    let mut args = vec!["run".to_owned()];
    args.extend(world.pretend("poweroff"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = world.run(&args);
    done.succeeds();
    assert!(
        done.stderr().contains("Instance initiated shutdown"),
        "{}",
        done.stderr()
    );
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn stop_start_reboot_terminate() {
    let world = World::new();
    let id = world.launch("", &["--name", "web", "--disk", "1G", "--scratch", "64M"]);
    assert_eq!(world.state(&id), "running");
    let machine = || -> serde_json::Value {
        serde_json::from_slice(&fs::read(world.instance(&id).join("machine.json")).unwrap())
            .unwrap()
    };
    let before = machine();
    assert_eq!(before["smbios"]["board_asset_tag"], id.as_str());
    assert_eq!(before["disks"].as_array().unwrap().len(), 2);
    let scratch = world.instance(&id).join("ephemeral0.raw");
    fs::write(&scratch, "data of the guest").unwrap();

    // A reboot keeps the scratch disk and everything else.
    let first = world.vmm(&id);
    world.run(&["reboot", "web"]).succeeds();
    assert_ne!(world.vmm(&id), first);
    assert!(
        fs::read(&scratch)
            .unwrap()
            .starts_with(b"data of the guest")
    );

    // A stop keeps volumes and blanks scratch disks.
    let stopped = world.run(&["--output", "json", "stop", "web"]);
    stopped.succeeds();
    assert_eq!(
        stopped.json()["StoppingInstances"][0]["CurrentState"]["Name"],
        "stopped"
    );
    let record = world.describe(&id);
    assert_eq!(record["State"]["Code"], 80);
    assert_eq!(
        record["StateReason"]["Code"],
        "Client.UserInitiatedShutdown"
    );
    assert!(!scratch.exists());
    world.run(&["stop", "web"]).succeeds();
    world
        .run(&["reboot", "web"])
        .fails(4, &["IncorrectInstanceState", "cumulet start"]);
    world
        .run(&["ssh", "web"])
        .fails(4, &["stopped", "cumulet start"]);

    // A start is the same instance again.
    world.run(&["start", "web", "--skip-doctor"]).succeeds();
    let after = machine();
    assert_eq!(after["smbios"], before["smbios"]);
    assert_eq!(after["disks"], before["disks"]);
    assert_eq!(after["nets"][0]["mac"], before["nets"][0]["mac"]);
    let blank = fs::read(&scratch).unwrap();
    assert!(blank.len() == 64 << 20 && blank.iter().all(|byte| *byte == 0));
    // Starting what runs changes nothing.
    let again = world.run(&["--output", "json", "start", "web", "--skip-doctor"]);
    again.succeeds();
    assert_eq!(
        again.json()["StartingInstances"][0]["PreviousState"]["Name"],
        "running"
    );

    let vmm = world.vmm(&id);
    world.run(&["terminate", "web"]).succeeds();
    assert!(!alive(vmm));
    assert_eq!(world.leftovers(), [""; 0]);
    world
        .run(&["describe", &id])
        .fails(3, &["InvalidInstanceID.NotFound"]);
}

#[test]
fn a_broken_ssh_connection_is_told() {
    let world = World::new();
    let id = world.launch("answers", &[]);
    let ssh = world.path("bin").join("ssh");
    let ends_with = |status: u8| {
        fs::write(&ssh, format!("#!/bin/sh\nexit {status}\n")).unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        world.run(&["ssh", &id])
    };
    // What ssh calls a connection that failed.
    let broken = ends_with(255);
    broken.fails(255, &[&format!("the ssh connection to {id} ended")]);
    assert_eq!(broken.stderr().lines().count(), 1, "{}", broken.stderr());
    // A command's own failure is its own business.
    let failed = ends_with(3);
    assert_eq!((failed.status(), failed.stderr()), (3, String::new()));
}

#[test]
fn a_guest_deaf_to_the_power_button_is_cut_off() {
    let world = World::new();
    let id = world.launch("deaf", &[]);
    world.run(&["stop", &id, "--timeout", "1s"]).succeeds();
    assert_eq!(world.state(&id), "stopped");
    world.run(&["start", &id, "--skip-doctor"]).succeeds();
    // A reboot resets it in place.
    let vmm = world.vmm(&id);
    world.run(&["reboot", &id, "--timeout", "1s"]).succeeds();
    assert_eq!(world.vmm(&id), vmm);
    assert!(
        world
            .run(&["console", "--log", &id])
            .stdout()
            .contains("reset")
    );
    world.run(&["stop", &id, "--force"]).succeeds();
    assert_eq!(world.state(&id), "stopped");
}

#[test]
fn a_kept_guest_that_powers_off_is_stopped() {
    let world = World::new();
    let id = world.launch("poweroff", &[]);
    until("the guest to power off", || {
        (world.state(&id) == "stopped").then_some(())
    });
    let record = world.describe(&id);
    assert_eq!(
        record["StateReason"]["Code"],
        "Client.InstanceInitiatedShutdown"
    );
}

#[test]
fn killed_vmm() {
    let world = World::new();
    let id = world.launch("", &[]);
    let supervisor = world.supervisor(&id);
    kill(world.vmm(&id));
    until("the instance to stop", || {
        (world.state(&id) == "stopped").then_some(())
    });
    let record = world.describe(&id);
    assert_eq!(record["StateReason"]["Code"], "Server.InternalError");
    assert!(
        record["StateReason"]["Message"]
            .as_str()
            .unwrap()
            .contains("signal 9")
    );
    until("the supervisor to end", || {
        (!alive(supervisor)).then_some(())
    });
    world.run(&["start", &id, "--skip-doctor"]).succeeds();
    assert_eq!(world.state(&id), "running");
}

#[test]
fn killed_supervisor() {
    let world = World::new();
    let id = world.launch("", &["--scratch", "64M"]);
    let vmm = world.vmm(&id);
    let supervisor = world.supervisor(&id);
    kill(supervisor);
    until("the VMM to die with it", || (!alive(vmm)).then_some(()));
    until("the supervisor to end", || {
        (!alive(supervisor)).then_some(())
    });
    // The lock is free when the last thread of both is gone, and a process looks dead when its first one is.
    until("the lock to be free", || {
        (world.state(&id) == "stopped").then_some(())
    });
    let record = world.describe(&id);
    assert_eq!(record["StateReason"]["Code"], "Server.InternalError");
    world.run(&["start", &id, "--skip-doctor"]).succeeds();
    assert_eq!(world.state(&id), "running");
}

#[test]
fn killed_while_stopping() {
    let world = World::new();
    let id = world.launch("deaf", &[]);
    let stop = world.command(&["stop", &id]).spawn().unwrap();
    until("the stop", || {
        (world.state(&id) == "stopping").then_some(())
    });
    world
        .run(&["start", &id, "--skip-doctor"])
        .fails(4, &["stopping"]);
    kill(world.supervisor(&id));
    assert_eq!(finish(stop), 0);
    let record = world.describe(&id);
    assert_eq!(record["State"]["Name"], "stopped");
    assert_eq!(
        record["StateReason"]["Code"],
        "Client.UserInitiatedShutdown"
    );
}

#[test]
fn killed_command_of_an_instance_that_is_not_kept() {
    let world = World::new();
    let mut args = vec!["run".to_owned()];
    args.extend(world.pretend(""));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let command = world.command(&args).spawn().unwrap();
    let id = until("the instance", || world.ids().pop());
    until("it to run", || {
        (world.state(&id) == "running").then_some(())
    });
    let vmm = world.vmm(&id);
    world
        .run(&["stop", &id])
        .fails(4, &["--keep", "cumulet terminate"]);
    kill(i32::try_from(command.id()).unwrap());
    until("everything to be gone", || {
        (!alive(vmm) && world.leftovers().is_empty()).then_some(())
    });
    finish(command);
}

#[test]
fn killed_command_and_supervisor_at_once() {
    let world = World::new();
    let mut args = vec!["run".to_owned()];
    args.extend(world.pretend(""));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let command = world.command(&args).spawn().unwrap();
    let id = until("the instance", || world.ids().pop());
    let vmm = world.vmm(&id);
    let supervisor = world.supervisor(&id);
    kill(i32::try_from(command.id()).unwrap());
    kill(supervisor);
    until("the VMM to die", || (!alive(vmm)).then_some(()));
    // The next command of any kind sweeps.
    assert_eq!(world.ids(), [""; 0]);
    assert_eq!(world.leftovers(), [""; 0]);
    finish(command);
}

#[test]
fn interrupt_ends_what_is_not_kept() {
    let world = World::new();
    let mut args = vec!["run".to_owned()];
    args.extend(world.pretend(""));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let command = world.command(&args).spawn().unwrap();
    let id = until("the instance", || world.ids().pop());
    until("it to run", || {
        (world.state(&id) == "running").then_some(())
    });
    let pid = nix::unistd::Pid::from_raw(i32::try_from(command.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(finish(command), 0);
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn a_failed_first_start_says_why_and_leaves_nothing() {
    let world = World::new();
    for keep in [false, true] {
        let mut args = vec!["run".to_owned()];
        if keep {
            args.push("--keep".into());
        }
        args.extend(world.pretend("fail-at-once"));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let done = world.run(&args);
        done.fails(6, &["no kernel found in the image", "no root file system"]);
        assert_eq!(world.leftovers(), [""; 0]);
    }
}

#[test]
fn a_busy_port_is_named_and_leaves_nothing() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let publish = format!("{port}:80");
    let mut args = vec!["run".to_owned(), "--publish".into(), publish];
    args.extend(world.pretend(""));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    world
        .run(&args)
        .fails(4, &["PortBusy", &port.to_string(), "busy"]);
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn instances_do_not_get_in_each_others_way() {
    let world = World::new();
    let one = world.launch("", &["--name", "twin"]);
    let two = world.launch("", &["--name", "twin"]);
    let (first, second) = (world.describe(&one), world.describe(&two));
    assert_ne!(first["PrivateIpAddress"], second["PrivateIpAddress"]);
    let mac = |record: &serde_json::Value| record["NetworkInterfaces"][0]["MacAddress"].clone();
    assert_ne!(mac(&first), mac(&second));
    world.run(&["stop", "twin"]).fails(4, &[&one, &two]);
    world.run(&["terminate", &one, &two]).succeeds();
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn a_damaged_record_is_shown_not_deleted() {
    let world = World::new();
    let id = world.launch("", &[]);
    world.run(&["stop", &id]).succeeds();
    fs::write(world.instance(&id).join("instance.json"), "{").unwrap();
    let done = world.run(&["list"]);
    done.succeeds();
    assert!(done.stderr().contains("damaged"), "{}", done.stderr());
    world.run(&["describe", &id]).fails(1, &["damaged"]);
    assert!(world.instance(&id).exists());
    world.run(&["terminate", &id]).succeeds();
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn works_in_a_folder_deeper_than_a_socket_address() {
    let world = World::new();
    let deep = world.path(&"x".repeat(200));
    let home = deep.to_str().unwrap();
    let mut args = vec!["--home", home, "--output", "json", "run", "--keep"];
    let base = world.pretend("");
    args.extend(base.iter().map(String::as_str));
    let done = world.run(&args);
    done.succeeds();
    let json = done.json();
    let id = json["Instances"][0]["InstanceId"].as_str().unwrap();
    world.run(&["--home", home, "terminate", id]).succeeds();
}
