//! What the guest has flushed survives `kill -9` of the VMM at any instant.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cumulet_images::volume::{Parent, Volume, VolumeSpec};
use cumulet_tests::machine::raw_file;
use cumulet_tests::pattern::{Rng, fill};
use cumulet_tests::{Machine, Vm, rounds};
use serde_json::{Value, json};

const SIZE: u64 = 16 << 20;
const DISKS: [&str; 2] = ["raw", "volume"];

/// 50 kills (1,000 in a soak), by two workers with two guests, so that neither waits for the other's boot. Each guest
/// writes flushed records (and junk that is not flushed) to a raw disk and to a copy-on-write
/// volume, until its VMM is killed at a random moment. The next one must find all that were
/// announced.
#[test]
fn fifty_kills_lose_nothing_flushed() {
    std::thread::scope(|scope| {
        for worker in 0..2 {
            scope.spawn(move || kill_rounds(worker));
        }
    });
}

fn kill_rounds(worker: u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let raw = raw_file(&dir.path().join("raw"), SIZE);
    let volume = volume_over_pattern(dir.path());
    let mut rng = Rng::new(worker);
    let mut next = 0;
    let rounds = rounds(25, 500);
    for round in 0..rounds {
        let mut vm = start(&raw, &volume);
        vm.send(&json!({ "cmd": "journal", "disks": DISKS, "next": next }));
        expect_announcement(&mut vm, round);
        // Some records, then a moment between two of them.
        for _ in 0..=rng.below(12) {
            expect_announcement(&mut vm, round);
        }
        std::thread::sleep(std::time::Duration::from_micros(rng.below(5000)));
        vm.kill();
        next = announced(&vm).map_or(next, |last| last + 1);
        check_on_host(&raw, next);
        eprintln!(
            "worker {worker}: kill {} of {rounds}, {next} records",
            round + 1
        );
    }
    assert!(next >= rounds, "only {next} records were written");
    let mut vm = start(&raw, &volume);
    vm.guest(&json!({ "cmd": "journal_verify", "disks": DISKS, "next": next }));
    // Where nothing was written the volume still shows its parent.
    vm.guest(&json!({
        "cmd": "verify", "disk": "volume", "offset": SIZE, "len": 1 << 20, "seed": 77,
    }));
}

fn start(raw: &Path, volume: &Path) -> Vm {
    // The smallest machine with the kernel that boots fastest.
    let mut vm = Machine::new()
        .kernel("5.10")
        .memory_mib(64)
        .disk(raw, "raw")
        .disk_with(json!({ "path": volume, "serial": "volume", "format": "volume" }))
        .start();
    vm.hello();
    vm
}

/// The next announcement; an error of the guest ends the test.
fn expect_announcement(vm: &mut Vm, round: u64) {
    let line = vm.wait_line("a record", |line| {
        line.starts_with('@').then(|| line.to_owned())
    });
    assert!(line.starts_with("@!"), "round {round}: {line}");
}

/// The last record announced on the console, which is all read before a killed VMM's pipe ends.
fn announced(vm: &Vm) -> Option<u64> {
    vm.console_at_end()
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("@!")?.parse().ok())
}

fn check_on_host(raw: &Path, next: u64) {
    let file = std::fs::File::open(raw).expect("the disk");
    let (mut found, mut expected) = ([0; 4096], [0; 4096]);
    for record in 0..next {
        let at = record * 4096;
        file.read_exact_at(&mut found, at).expect("a record");
        fill(&mut expected, record, at);
        assert!(found == expected, "record {record} is lost on the host");
    }
}

/// A volume over an image that is full of the pattern of seed 77 and one MiB longer than what is
/// written.
fn volume_over_pattern(dir: &Path) -> std::path::PathBuf {
    let size = SIZE + (1 << 20);
    let image = dir.join("image");
    let mut bytes = vec![0; usize::try_from(size).expect("small")];
    fill(&mut bytes, 77, 0);
    std::fs::write(&image, bytes).expect("the image");
    let parent = Parent {
        id: "ami-test".to_owned(),
        path: image,
        size,
    };
    let volume = dir.join("volume");
    Volume::create(&volume, &VolumeSpec::over("vol-test", parent)).expect("a volume");
    volume
}

/// A volume is a disk like any other: parent's bytes, own bytes, discard; and it takes only what
/// was written.
#[test]
fn volume_behaves_as_a_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let volume = volume_over_pattern(dir.path());
    let mut vm = Machine::new()
        .vcpus(2)
        .disk_with(json!({ "path": volume, "serial": "v", "format": "volume" }))
        .start();
    vm.hello();
    let range = |cmd: &str, offset: u64, len: u64, seed: Option<u64>| -> Value {
        json!({ "cmd": cmd, "disk": "v", "offset": offset, "len": len, "seed": seed })
    };
    vm.guest(&range("verify", 0, 4 << 20, Some(77)));
    vm.guest(&range("write", 1 << 20, 512, Some(3)));
    vm.guest(&range("fsync", 0, 0, None));
    vm.guest(&range("verify", 1 << 20, 512, Some(3)));
    // The rest of the block came from the parent.
    vm.guest(&range("verify", (1 << 20) + 512, 1 << 20, Some(77)));
    vm.guest(&range("discard", 2 << 20, 1 << 20, None));
    vm.guest(&range("verify", 2 << 20, 1 << 20, None));
    vm.guest(&json!({
        "cmd": "torture", "disk": "v", "seed": 4, "ops": 150, "len": 4 << 20, "threads": 2,
        "direct": true, "discard": true,
    }));
    vm.guest(&range("verify", 12 << 20, 4 << 20, Some(77)));

    // One volume, one machine.
    let exit = Machine::new()
        .disk_with(json!({ "path": volume, "serial": "v", "format": "volume" }))
        .refused();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("in use by process"), "{}", exit.stderr);
}
