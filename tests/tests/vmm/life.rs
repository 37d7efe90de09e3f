//! How machines end, begin again, and stand still.

use cumulet_tests::cumulet::until;
use cumulet_tests::process::is_alive;
use cumulet_tests::{Machine, Vm, elf};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

fn ping(vm: &mut Vm) {
    assert_eq!(vm.guest(&json!({ "cmd": "ping" })), "pong");
}

/// The guest reboots: same process, devices as new, data kept; then the reset button; then the
/// power button ends it.
#[test]
fn reboot_reset_and_power_button_in_one_process() {
    let machine = Machine::new().reboots();
    let disk = machine.raw_file("data", 8 << 20);
    let mut vm = machine.disk(&disk, "vol-1").start();
    let mut events = vm.control();
    events.ask("subscribe");
    let id = vm.id();
    vm.hello();
    vm.guest(&json!({
        "cmd": "write", "disk": "vol-1", "offset": 0, "len": 1 << 20, "seed": 1, "fsync": true,
    }));
    vm.send(&json!({ "cmd": "end", "how": "reboot" }));
    vm.hello();
    events.wait_event("reset");
    assert_eq!(vm.id(), id);
    assert!(vm.is_running());
    vm.guest(&json!({ "cmd": "verify", "disk": "vol-1", "offset": 0, "len": 1 << 20, "seed": 1 }));

    vm.control().ask("reset");
    vm.hello();
    vm.guest(&json!({ "cmd": "verify", "disk": "vol-1", "offset": 0, "len": 1 << 20, "seed": 1 }));

    // A guest that does not listen goes on; one that does, goes.
    vm.guest(&json!({ "cmd": "ignore_button" }));
    vm.control().ask("power_button");
    ping(&mut vm);
    vm.control().ask("reset");
    vm.hello();
    vm.control().ask("power_button");
    let exit = vm.exit();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.reason()["reason"], "power_button", "{}", exit.stderr);
}

/// A real kernel's triple fault (`reboot=t`) is a reset like any other.
#[test]
fn linux_reboots_by_triple_fault() {
    let mut vm = Machine::new().reboots().cmdline("reboot=t").start();
    vm.hello();
    vm.send(&json!({ "cmd": "end", "how": "reboot" }));
    vm.hello();
    // With exit_on_reboot it would be the end; here the reset button and the end by a signal.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(vm.id()).expect("a process id"));
    kill(pid, Signal::SIGTERM).expect("SIGTERM");
    let exit = vm.exit();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.reason()["reason"], "quit", "{}", exit.stderr);
}

/// A panicking guest with `panic=-1` reboots; where a reboot is the end, the reason says so.
#[test]
fn panic_is_seen_and_ends_as_a_reboot() {
    let mut vm = Machine::new().start();
    vm.hello();
    vm.send(&json!({ "cmd": "end", "how": "panic" }));
    let exit = vm.exit();
    assert!(
        exit.stdout.contains("Kernel panic - not syncing"),
        "{}",
        exit.stdout
    );
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.reason()["reason"], "guest_reboot", "{}", exit.stderr);
}

#[test]
fn pause_and_resume() {
    let mut vm = Machine::new().vcpus(2).start();
    let mut control = vm.control();
    control.ask("subscribe");
    vm.hello();
    control.ask("pause");
    control.wait_event("paused");
    // The guest's clock says how long it has run; a paused guest does not answer.
    vm.send(&json!({ "cmd": "ping" }));
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(!vm.console().contains("pong"), "a paused guest answered");
    // Twice the same is no error.
    control.ask("pause");
    control.ask("resume");
    control.wait_event("running");
    vm.wait_line("pong", |line| line.contains("pong").then_some(()));
    control.ask("resume");
    ping(&mut vm);

    // Every command of the protocol that only asks.
    let status = control.ask("status");
    assert!(status.is_object(), "{status}");
    let stats = control.ask("stats");
    assert!(stats.is_object(), "{stats}");
    let output = control.ask("console_output");
    assert!(output["output"].is_string(), "{output}");
    // Quit works on a paused machine too.
    control.ask("pause");
    control.ask("quit");
    let exit = vm.exit();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.reason()["reason"], "quit", "{}", exit.stderr);
}

/// A guest that can do nothing but triple fault is ended with its registers, not reset for ever.
#[test]
fn endless_triple_faults_end_with_registers() {
    let exit = small_kernel(Machine::new().reboots(), &elf::triple_fault());
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
    let reason = exit.reason();
    assert_eq!(reason["reason"], "vcpu_error", "{}", exit.stderr);
    assert_eq!(reason["vcpu"], 0);
    let registers = reason["registers"].as_str().unwrap_or_default();
    assert!(registers.to_lowercase().contains("rip"), "{registers}");
    let message = reason["message"].as_str().unwrap_or_default();
    assert!(message.contains("triple fault"), "{message}");
}

/// Where a reboot is the end, a triple fault is told as the crash that it may be.
#[test]
fn triple_fault_is_told_from_a_reboot() {
    let exit = small_kernel(Machine::new(), &elf::triple_fault());
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
    let reason = exit.reason();
    assert_eq!(reason["reason"], "vcpu_error", "{}", exit.stderr);
    assert_eq!(reason["message"], "triple fault", "{}", exit.stderr);
}

/// KVM itself gives up: the reason names it, with registers.
#[test]
fn kvm_internal_error_is_reported() {
    let exit = small_kernel(Machine::new().reboots(), &elf::run_from(0xd000_0000));
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
    let reason = exit.reason();
    assert_eq!(reason["reason"], "vcpu_error", "{}", exit.stderr);
    let registers = reason["registers"].as_str().unwrap_or_default();
    assert!(
        registers.to_lowercase().contains("d0000000"),
        "the place is not shown: {registers}"
    );
}

/// Even a machine that cannot react any more dies with what started it, and lets go of its disk.
#[test]
fn a_machine_that_hangs_dies_with_its_parent() {
    for hangs in [false, true] {
        let machine = Machine::new();
        let disk = machine.raw_file("disk", 1 << 20);
        // A shell in between is the parent; the VMM's process id comes by a file.
        let pid_file = machine.dir().join("pid");
        let mut vm = machine
            .disk(&disk, "d")
            .prepare({
                let pid_file = pid_file.clone();
                move |command| {
                    let mut shell = std::process::Command::new("sh");
                    shell
                        .args(["-c", "\"$@\" --die-with-parent & echo $! > \"$0\"; wait"])
                        .arg(&pid_file)
                        .arg(command.get_program())
                        .args(command.get_args());
                    *command = shell;
                }
            })
            .start();
        vm.hello();
        let pid = std::fs::read_to_string(&pid_file).expect("the process id");
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a number"));
        if hangs {
            kill(pid, Signal::SIGSTOP).expect("SIGSTOP");
        }
        vm.kill();
        until("the VMM to end", || !is_alive(pid));
        let mut again = Machine::new().disk(&disk, "d").start();
        again.hello();
    }
}

/// Runs a kernel of a few instructions to its end.
fn small_kernel(machine: Machine, bytes: &[u8]) -> cumulet_tests::process::Exit {
    let dir = tempfile::tempdir().expect("a folder");
    let kernel = dir.path().join("kernel");
    std::fs::write(&kernel, bytes).expect("a file");
    machine.boot(&kernel, None).start().exit()
}
