//! Guests that mean harm. They may lose their devices or their lives; the VMM answers, other
//! machines do not notice, and after a reset the same process boots a sound guest.

use std::path::Path;

use cumulet_tests::{Machine, Vm};
use serde_json::{Value, json};

/// A machine that does ordinary work beside the attacker.
struct Bystander(Vm);

impl Bystander {
    fn start(disk: &Path) -> Self {
        let mut vm = Machine::new().disk(disk, "data").start();
        vm.hello();
        let mut bystander = Self(vm);
        bystander.write(1);
        bystander
    }

    fn write(&mut self, seed: u64) {
        self.0.guest(&json!({
            "cmd": "write", "disk": "data", "offset": 0, "len": 2 << 20, "seed": seed, "direct": true,
            "fsync": true,
        }));
    }

    fn is_unharmed(&mut self, seed: u64) {
        self.0.guest(&json!({
            "cmd": "verify", "disk": "data", "offset": 0, "len": 2 << 20, "seed": seed, "direct": true,
        }));
    }
}

/// A machine whose guest attacks.
struct Attacker(Vm);

impl Attacker {
    fn start() -> Self {
        cumulet_tests::net::enter_with_tap();
        let machine = Machine::new()
            .reboots()
            .vcpus(2)
            .cmdline("iomem=relaxed")
            .tap("tap0", "02:00:00:00:00:07");
        let disk = machine.raw_file("victim", 8 << 20);
        let second = machine.raw_file("second", 8 << 20);
        let mut vm = machine
            .disk(&disk, "victim")
            .disk(&second, "second")
            .start();
        vm.hello();
        Self(vm)
    }

    /// One stage. The guest may answer, reboot or fall silent.
    fn attack(&mut self, stage: &str, seed: u64, rounds: u64) -> Option<Value> {
        let command = json!({ "cmd": "hostile", "stage": stage, "seed": seed, "rounds": rounds });
        eprintln!("{command}");
        self.0.send(&command);
        let outcome = self.0.outcome(std::time::Duration::from_secs(120));
        eprintln!("  {outcome:?}");
        outcome
    }

    /// The VMM answers; its memory is not eaten; after a reset it boots a guest whose devices work.
    fn stands(&mut self, host_limit_kib: u64) {
        assert!(
            self.0.is_running(),
            "the VMM has ended.\n{}",
            self.0.evidence()
        );
        assert!(self.0.control().ask("status").is_object());
        assert!(self.0.control().ask("stats").is_object());
        let resident = resident_kib(self.0.id());
        assert!(
            resident < host_limit_kib,
            "the VMM takes {resident} KiB of the host's memory"
        );
        self.0.skip_console();
        self.0.control().ask("reset");
        self.0.hello();
        for disk in ["victim", "second"] {
            self.0.guest(&json!({
                "cmd": "torture", "disk": disk, "seed": 1, "ops": 30, "len": 2 << 20,
                "direct": true, "discard": true,
            }));
        }
        let list = self.0.guest(&json!({ "cmd": "net_list" }));
        self.0.guest(&json!({
            "cmd": "net_up", "name": list[0]["name"], "address": "10.77.0.2", "prefix": 24,
        }));
        self.0
            .guest(&json!({ "cmd": "icmp", "to": "10.77.0.1", "bytes": 56, "count": 2 }));
        self.0.guest(&json!({ "cmd": "random", "bytes": 32 }));
    }
}

/// `VmRSS` of a process.
fn resident_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the VMM's status");
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .expect("VmRSS")
}

/// Guest RAM and what a VMM may need beside it.
const HOST_LIMIT_KIB: u64 = (128 + 64) << 10;

/// Garbage in every ring of every device: the VMM stands, and so does the guest, because its own
/// memory is all that it gives the devices.
#[test]
fn garbage_rings() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = cumulet_tests::machine::raw_file(&dir.path().join("data"), 4 << 20);
    let mut bystander = Bystander::start(&disk);
    let mut attacker = Attacker::start();
    let mut events = attacker.0.control();
    events.ask("subscribe");
    let mut heard = 0;
    for seed in 1..=3 {
        let outcome = attacker.attack("rings", seed, 60);
        let devices = outcome.as_ref().and_then(|answer| answer["ok"].as_object());
        let killed = devices.is_some_and(|devices| {
            let mut devices = devices.values();
            devices.any(|device| device["needs_reset"].as_u64() > Some(0))
        });
        if killed {
            // Whoever watches the machine hears of it.
            let event = events.wait_event("device_failed");
            let device = event["device"].as_str().expect("a name");
            assert!(
                !event["reason"].as_str().expect("a reason").is_empty(),
                "{event}"
            );
            let status = attacker.0.control().ask("status");
            assert!(status["failed_devices"][device].is_string(), "{status}");
            heard += 1;
        }
        bystander.is_unharmed(seed);
        bystander.write(seed + 1);
    }
    assert!(heard > 0, "no round killed a device");
    attacker.stands(HOST_LIMIT_KIB);
    bystander.is_unharmed(4);
}

/// Garbage in every register, in configuration space, in the I/O ports and in the console.
#[test]
fn garbage_registers() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = cumulet_tests::machine::raw_file(&dir.path().join("data"), 4 << 20);
    let mut bystander = Bystander::start(&disk);
    let mut attacker = Attacker::start();
    for (stage, rounds) in [
        ("registers", 2000),
        ("ports", 5000),
        ("msix", 500),
        ("config", 300),
        ("uart", 500),
    ] {
        attacker.attack(stage, 7, rounds);
        attacker.stands(HOST_LIMIT_KIB);
        bystander.is_unharmed(1);
    }
}
