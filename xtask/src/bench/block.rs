//! `bench block`: a virtio disk under ours and QEMU's device, driven from inside the guest.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use cumulet_images::volume::{Parent, Volume, VolumeSpec};
use serde_json::json;

use super::guest::{Contender, Guest, Machine, rate};
use super::table::{Table, compare, median};

/// Size of each disk; all of it is touched before anything is measured.
const DISK: u64 = 128 << 20;

/// One kind of load.
struct Load {
    name: &'static str,
    kind: &'static str,
    block: u64,
    depth: u64,
    ops: u64,
}

const LOADS: [Load; 6] = [
    Load {
        name: "randread 4K d1",
        kind: "randread",
        block: 4 << 10,
        depth: 1,
        ops: 500,
    },
    Load {
        name: "randwrite 4K d1",
        kind: "randwrite",
        block: 4 << 10,
        depth: 1,
        ops: 500,
    },
    Load {
        name: "randread 4K d32",
        kind: "randread",
        block: 4 << 10,
        depth: 32,
        ops: 2000,
    },
    Load {
        name: "randwrite 4K d32",
        kind: "randwrite",
        block: 4 << 10,
        depth: 32,
        ops: 2000,
    },
    Load {
        name: "read 1M",
        kind: "read",
        block: 1 << 20,
        depth: 1,
        ops: 64,
    },
    Load {
        name: "write 1M",
        kind: "write",
        block: 1 << 20,
        depth: 1,
        ops: 64,
    },
];

/// A RAM disk of ours, unmounted when dropped.
struct Ram(PathBuf);

impl Ram {
    fn mount(dir: &Path) -> Result<Self> {
        let dir = dir.join("ram");
        std::fs::create_dir_all(&dir)?;
        crate::sh::run(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=1g", "tmpfs"])
                .arg(&dir),
        )?;
        Ok(Self(dir))
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs every load on every contender in turn and gives the table.
pub(super) fn measure(dir: &Path, machine: &Machine, rounds: usize) -> Result<Table> {
    let ram = Ram::mount(dir)?;
    let raw = ram.0.join("raw.img");
    filled(&raw)?;
    let volume = ram.0.join("vol");
    let spec = VolumeSpec::over(
        "vol-0123456789abcdef0",
        Parent {
            id: "ami-0123456789abcdef0".into(),
            path: raw.clone(),
            size: DISK,
        },
    );
    Volume::create(&volume, &spec)?;
    let other = ram.0.join("qemu.img");
    filled(&other)?;
    let own = ram.0.join("own.img");
    filled(&own)?;

    let disk =
        |path: &Path, format: &str| json!([{ "path": path, "format": format, "serial": "bench" }]);
    let drive = format!(
        "file={},if=none,id=d0,format=raw,aio=io_uring",
        other.display()
    );
    // First touch: what is measured is a disk in use.
    let touch = |guest: &mut Guest| {
        guest
            .ask(
                &json!({ "cmd": "write", "disk": "bench", "offset": 0, "len": DISK, "seed": 7,
                "direct": true, "chunk": 1 << 20 }),
            )
            .map(drop)
    };
    let qemu = machine.qemu(&[
        "-drive",
        &drive,
        "-device",
        "virtio-blk-pci,drive=d0,serial=bench,disable-legacy=on",
    ]);
    let raw = machine.ours(&dir.join("raw.json"), &disk(&own, "raw"), &json!([]))?;
    let volume = machine.ours(&dir.join("vol.json"), &disk(&volume, "volume"), &json!([]))?;
    let mut contenders = [
        Contender::new("qemu", qemu, machine.hang, touch),
        Contender::new("cumulet raw", raw, machine.hang, touch),
        Contender::new("cumulet volume", volume, machine.hang, touch),
    ];
    // Load by contender by round. All take turns within a round, so that what else this host does
    // hits all of them.
    let mut rates = vec![vec![Vec::new(); contenders.len()]; LOADS.len()];
    for round in 0..=rounds {
        for (load, row) in LOADS.iter().zip(&mut rates) {
            let command = json!({ "cmd": "bench", "disk": "bench", "kind": load.kind,
                "block": load.block, "depth": load.depth, "ops": load.ops, "span": DISK });
            let mut line = format!("bench block: round {round}, {}:", load.name);
            for (contender, rates) in contenders.iter_mut().zip(row) {
                let rate = contender.measure(|guest| {
                    let answer = guest.ask(&command)?;
                    rate(&answer["ops"], &answer["ns"])
                })?;
                line.push_str(&format!(" {} {rate:.0}/s", contender.name()));
                if round > 0 {
                    rates.push(rate);
                }
            }
            eprintln!("{line}");
        }
    }
    let mut table = Table::new([
        "load",
        "qemu ops/s",
        "cumulet raw ops/s",
        "ratio (rounds ahead)",
        "cumulet volume ops/s",
        "ratio (rounds ahead)",
    ]);
    for (load, row) in LOADS.iter().zip(&rates) {
        let [qemu, raw, volume] = row.as_slice() else {
            continue;
        };
        let typical = |rates: &[f64]| format!("{:.0}", median(rates.iter().copied()));
        table.row([
            load.name.into(),
            typical(qemu),
            typical(raw),
            compare(raw, qemu),
            typical(volume),
            compare(volume, qemu),
        ]);
    }
    Ok(table)
}

/// A file of [`DISK`] bytes without holes.
fn filled(path: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let chunk = vec![0x5a; 1 << 20];
    for _ in 0..DISK >> 20 {
        file.write_all(&chunk)?;
    }
    Ok(())
}
