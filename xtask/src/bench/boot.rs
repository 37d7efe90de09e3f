//! `bench boot`: exec to HELLO, ours against QEMU, counted in instructions.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::guest::{again, qemu};
use super::probe::{BootSample, boot_once};
use super::table::{Table, median};

/// Guest RAM of every machine in the comparison.
const RAM_MIB: u64 = 256;

/// A VMM under comparison: name and command line.
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) argv: Vec<String>,
}

/// The three machines for one kernel and initramfs.
pub(super) fn contenders(dir: &Path, kernel: &Path, initrd: &Path) -> Result<Vec<Contender>> {
    let cmdline = "console=ttyS0 quiet panic=-1 cumulet.mode=hold";
    let config = dir.join("boot.json");
    let document = json!({
        "memory_mib": RAM_MIB,
        "boot": { "kernel": { "kernel": kernel, "initrd": initrd, "cmdline": cmdline } },
        "rng": false,
        "console": { "stdio": true },
    });
    std::fs::write(&config, document.to_string())
        .with_context(|| format!("cannot write {}", config.display()))?;
    let ours = Path::new(crate::host::BIN).join("cumulet-vmm");
    let qemu = |machine: &str| qemu(machine, RAM_MIB, kernel, initrd, cmdline);
    Ok(vec![
        Contender {
            name: "cumulet",
            argv: vec![
                ours.display().to_string(),
                "--config".into(),
                config.display().to_string(),
            ],
        },
        Contender {
            name: "qemu microvm",
            argv: qemu("microvm"),
        },
        Contender {
            name: "qemu q35",
            argv: qemu("q35"),
        },
    ])
}

/// Runs inside the KVM host: every contender in turn, `rounds` times after a dropped one: in an instruction-counted host
/// virtual time runs ahead while real disk I/O is pending.
pub(super) fn measure(
    contenders: &[Contender],
    rounds: usize,
    hang: Duration,
) -> Result<Vec<(String, Vec<BootSample>)>> {
    let mut results: Vec<_> = contenders
        .iter()
        .map(|c| (c.name.to_string(), Vec::new()))
        .collect();
    for round in 0..=rounds {
        for (contender, (_, samples)) in contenders.iter().zip(&mut results) {
            let boot = || boot_once(&contender.argv, RAM_MIB, hang);
            let sample = again(contender.name, boot)
                .with_context(|| format!("{}, round {round}", contender.name))?;
            eprintln!(
                "bench boot: round {round}, {}: KVM_RUN {:.1} ms, HELLO {:.0} ms",
                contender.name,
                sample.first_run_us / 1e3,
                sample.hello_us / 1e3
            );
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    Ok(results)
}

/// The table that is shown, with ratios to QEMU microvm.
pub(super) fn table(results: &[(String, Vec<BootSample>)]) -> Table {
    let mut table = Table::new([
        "VMM",
        "exec -> KVM_RUN ms",
        "ratio",
        "exec -> HELLO ms",
        "ratio",
        "exits",
        "RSS KiB",
        "dirty KiB",
        "threads",
    ]);
    let pick = |name: &str, value: fn(&BootSample) -> f64| {
        results
            .iter()
            .find(|(n, _)| n == name)
            .map_or(f64::NAN, |(_, s)| median(s.iter().map(value)))
    };
    let base_run = pick("qemu microvm", |s| s.first_run_us);
    let base_hello = pick("qemu microvm", |s| s.hello_us);
    for (name, samples) in results {
        let run = median(samples.iter().map(|s| s.first_run_us));
        let hello = median(samples.iter().map(|s| s.hello_us));
        let whole = |value: fn(&BootSample) -> u64| {
            let mut values: Vec<u64> = samples.iter().map(value).collect();
            values.sort_unstable();
            values
                .get(values.len() / 2)
                .map_or("-".into(), ToString::to_string)
        };
        table.row([
            name.clone(),
            format!("{:.1}", run / 1e3),
            format!("{:.3}", run / base_run),
            format!("{:.0}", hello / 1e3),
            format!("{:.3}", hello / base_hello),
            whole(|s| s.exits),
            whole(|s| s.rss_kib),
            whole(|s| s.private_dirty_kib),
            whole(|s| s.threads),
        ]);
    }
    table
}
