//! Disks: identity, limits, data, discard.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use cumulet_images::volume::{Parent, Volume, VolumeSpec};
use cumulet_tests::{Machine, pattern};
use serde_json::{Value, json};

/// Bytes that a file really takes.
fn taken(path: &Path) -> u64 {
    std::fs::metadata(path).expect("the disk").blocks() * 512
}

fn by_serial<'a>(disks: &'a Value, serial: &str) -> &'a Value {
    disks
        .as_array()
        .expect("a list")
        .iter()
        .find(|disk| disk["serial"] == serial)
        .unwrap_or_else(|| panic!("no disk {serial} in {disks}"))
}

/// Two data disks and a scratch disk, each found by its serial number; patterns written by the
/// guest are where the host looks for them.
#[test]
fn three_disks_by_serial() {
    let machine = Machine::new().vcpus(2);
    let root = machine.raw_file("root", 16 << 20);
    let data = machine.raw_file("data", 24 << 20);
    let scratch = machine.raw_file("scratch", 32 << 20);
    let mut vm = machine
        .disk(&root, "vol0123456789abcdef0")
        .disk(&data, "data")
        .disk_with(json!({ "path": scratch, "serial": "scratch", "queues": 1, "engine": "sync" }))
        .start();
    vm.hello();
    let disks = vm.guest(&json!({ "cmd": "disks" }));
    assert_eq!(disks.as_array().map(Vec::len), Some(3), "{disks}");
    for (name, serial, mib) in [
        ("vda", "vol0123456789abcdef0", 16),
        ("vdb", "data", 24),
        ("vdc", "scratch", 32),
    ] {
        let disk = by_serial(&disks, serial);
        assert_eq!(
            disk["name"], name,
            "disks come in the order of the configuration"
        );
        assert_eq!(disk["bytes"], json!(mib << 20));
        assert_eq!(disk["logical_block"], 512);
        assert!(disk["max_segments"].as_u64() > Some(1), "{disk}");
    }
    let root_disk = by_serial(&disks, "vol0123456789abcdef0");
    assert_eq!(root_disk["queues"], 2, "one queue a vCPU");
    assert!(root_disk["discard_max"].as_u64() > Some(0), "{root_disk}");
    assert!(
        root_disk["write_zeroes_max"].as_u64() > Some(0),
        "{root_disk}"
    );
    assert_eq!(by_serial(&disks, "scratch")["queues"], 1);
    for disk in [root_disk, by_serial(&disks, "scratch")] {
        // Linux flushes only a disk that says it has a cache.
        assert_eq!(disk["write_cache"], "write back", "{disk}");
    }

    for disk in ["vol0123456789abcdef0", "scratch"] {
        for direct in [false, true] {
            let torture = json!({
                "cmd": "torture", "disk": disk, "seed": 3, "ops": 150, "len": 6 << 20,
                "threads": 2, "direct": direct, "discard": true,
            });
            let counts = vm.guest(&torture);
            assert!(counts["writes"].as_u64() > Some(0), "{counts}");
        }
    }
    // The last sectors of a disk, and none behind them.
    let end = 16 << 20;
    vm.guest(&json!({
        "cmd": "write", "disk": "vol0123456789abcdef0", "offset": end - 512, "len": 512, "seed": 5,
        "direct": true, "fsync": true,
    }));
    let mut last = [0; 512];
    let mut want = [0; 512];
    pattern::fill(&mut want, 5, end - 512);
    std::fs::File::open(&root)
        .and_then(|file| file.read_exact_at(&mut last, end - 512))
        .expect("the last sector");
    assert_eq!(last, want);
    assert_eq!(std::fs::metadata(&root).expect("the disk").len(), end);
}

/// A raw disk and a volume that the guest may only read.
#[test]
fn read_only_disks_are_read_and_not_written() {
    let machine = Machine::new();
    let raw = machine.raw_file("raw", 24 << 20);
    let mut known = vec![0; 1 << 20];
    pattern::fill(&mut known, 9, 4 << 20);
    std::fs::File::options()
        .write(true)
        .open(&raw)
        .and_then(|file| file.write_all_at(&known, 4 << 20))
        .expect("the host's pattern");
    let folder = machine.dir().join("vol-1");
    let parent = Parent {
        id: "ami-1".to_owned(),
        path: raw.clone(),
        size: 24 << 20,
    };
    Volume::create(&folder, &VolumeSpec::over("vol-1", parent)).expect("a volume");
    let mut vm = machine
        .disk_with(json!({ "path": raw, "serial": "raw", "read_only": true }))
        .disk_with(
            json!({ "path": folder, "serial": "volume", "format": "volume", "read_only": true }),
        )
        .start();
    vm.hello();
    let disks = vm.guest(&json!({ "cmd": "disks" }));
    for serial in ["raw", "volume"] {
        assert_eq!(by_serial(&disks, serial)["read_only"], true);
        vm.guest(&json!({
            "cmd": "verify", "disk": serial, "offset": 4 << 20, "len": 1 << 20, "seed": 9,
        }));
        let refused = vm.try_guest(&json!({
            "cmd": "write", "disk": serial, "offset": 0, "len": 512, "seed": 1,
        }));
        assert!(refused.is_err(), "{serial} was written");
    }
}

/// Discard and write-zeroes give space back to the host; what they cover reads as zeros.
#[test]
fn discard_gives_space_back() {
    let machine = Machine::new();
    let disk = machine.raw_file("disk", 64 << 20);
    let mut vm = machine.disk(&disk, "d").start();
    vm.hello();
    let range = |cmd: &str, offset: u64, len: u64| json!({ "cmd": cmd, "disk": "d", "offset": offset, "len": len });
    let mut write = range("write", 0, 32 << 20);
    write["seed"] = json!(1);
    write["fsync"] = json!(true);
    vm.guest(&write);
    let full = taken(&disk);
    assert!(full >= 32 << 20, "{full}");
    vm.guest(&range("discard", 8 << 20, 16 << 20));
    vm.guest(&range("fsync", 0, 0));
    let after = taken(&disk);
    assert!(
        after <= full - (15 << 20),
        "discard of 16 MiB: {full} before, {after} after"
    );
    vm.guest(&range("verify", 8 << 20, 16 << 20));
    vm.guest(&range("zeroout", 0, 4 << 20));
    vm.guest(&range("verify", 0, 4 << 20));
    for (offset, len) in [(4_u64 << 20, 4_u64 << 20), (24 << 20, 8 << 20)] {
        let mut verify = range("verify", offset, len);
        verify["seed"] = json!(1);
        vm.guest(&verify);
    }
}

/// The limit of the guest's disk is where the host's storage ends: an error in the guest, which
/// lives on, as does the VMM.
#[test]
fn full_host_disk_is_an_io_error() {
    let dir = tempfile::tempdir().expect("a folder");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("needs root");
    nix::mount::mount(
        None::<&str>,
        "/",
        None::<&str>,
        nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .expect("private mounts");
    nix::mount::mount(
        Some("tmpfs"),
        dir.path(),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=8m"),
    )
    .expect("a small tmpfs");
    let disk = cumulet_tests::machine::raw_file(&dir.path().join("disk"), 64 << 20);
    let mut vm = Machine::new().disk(&disk, "d").start();
    vm.hello();
    let refused = vm.try_guest(&json!({
        "cmd": "write", "disk": "d", "offset": 0, "len": 32 << 20, "seed": 1, "direct": true,
    }));
    assert!(refused.is_err(), "32 MiB went into 8");
    // What is taken can be given back, and then writing works again.
    vm.guest(&json!({ "cmd": "discard", "disk": "d", "offset": 0, "len": 32 << 20 }));
    vm.guest(&json!({
        "cmd": "write", "disk": "d", "offset": 0, "len": 1 << 20, "seed": 1, "direct": true,
        "fsync": true,
    }));
}
