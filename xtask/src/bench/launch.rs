//! `bench launch`: `cumulet run` of a small AMI and of a large one: time until the instance runs, and the disk space
//! that it has taken by then.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::guest::Machine;
use super::table::{Table, median};
use crate::sh;

/// The AMIs: name and size. The content is the same: the test guest's kernel and initramfs.
const AMIS: [(&str, &str); 2] = [("small", "1G"), ("large", "20G")];

/// What GRUB would have read. The guest says HELLO and touches no disk.
const GRUB_CFG: &str = "menuentry 'guest' {
    linux /boot/vmlinuz root=/dev/vda console=ttyS0 quiet panic=-1 cumulet.mode=hold
    initrd /boot/initrd
}
";

/// What one launch took.
struct Sample {
    run_ms: f64,
    /// Allocated on disk for the instance, all its files.
    kib: f64,
}

/// Makes an image of that size with the test guest and imports it; the AMI's id.
pub(super) fn import(
    home: &Path,
    dir: &Path,
    machine: &Machine,
    name: &str,
    size: &str,
) -> Result<String> {
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("boot/grub"))?;
    std::fs::copy(&machine.kernel, tree.join("boot/vmlinuz"))?;
    std::fs::copy(&machine.initrd, tree.join("boot/initrd"))?;
    std::fs::write(tree.join("boot/grub/grub.cfg"), GRUB_CFG)?;
    let image = dir.join(name);
    sh::run(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
            .arg(&tree)
            .arg(&image)
            .arg(size),
    )?;
    let image = image.to_str().context("a path that is not UTF-8")?;
    let told = cumulet(home, &["images", "import", image, "--name", name])?;
    let id = told["ImageId"].as_str();
    Ok(id.with_context(|| format!("no AMI in {told}"))?.to_owned())
}

/// Imports the AMIs, then launches them in turn and gives the table.
pub(super) fn measure(dir: &Path, machine: &Machine, rounds: usize) -> Result<Table> {
    let home = dir.join("home");
    for (name, size) in AMIS {
        eprintln!("bench launch: AMI of {size}");
        import(&home, dir, machine, name, size)?;
    }
    let mut samples = [const { Vec::new() }; AMIS.len()];
    for round in 0..=rounds {
        for ((name, _), samples) in AMIS.iter().zip(&mut samples) {
            let sample = launch(&home, name)?;
            eprintln!(
                "bench launch: round {round}, {name}: {:.1} ms, {} KiB",
                sample.run_ms, sample.kib
            );
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let mut table = Table::new(["AMI", "until it runs, ms", "ratio", "disk space, KiB"]);
    let time = |samples: &[Sample]| median(samples.iter().map(|s| s.run_ms));
    let base = time(&samples[0]);
    for ((_, size), samples) in AMIS.iter().zip(&samples) {
        table.row([
            (*size).into(),
            format!("{:.1}", time(samples)),
            format!("{:.3}", time(samples) / base),
            format!("{}", median(samples.iter().map(|s| s.kib))),
        ]);
    }
    Ok(table)
}

fn launch(home: &Path, image: &str) -> Result<Sample> {
    let started = Instant::now();
    let answer = cumulet(
        home,
        &[
            "run", image, "--keep", "--vcpus", "1", "--memory", "256M", "--uplink", "none",
        ],
    )?;
    let run_ms = started.elapsed().as_secs_f64() * 1e3;
    let id = answer["Instances"][0]["InstanceId"]
        .as_str()
        .with_context(|| format!("no instance in {answer}"))?;
    let kib = allocated(&home.join("instances").join(id))? / 1024;
    cumulet(home, &["terminate", id])?;
    Ok(Sample {
        run_ms,
        kib: f64::from(u32::try_from(kib)?),
    })
}

/// Runs a command and gives its result.
fn cumulet(home: &Path, args: &[&str]) -> Result<Value> {
    let program = cumulet_tests::paths::binary("cumulet");
    let text = sh::output(
        Command::new(program)
            .args(["--output", "json", "--home"])
            .arg(home)
            .args(args),
    )?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text:?}"))
}

/// Bytes that the file system has allocated for a folder and what is in it.
fn allocated(path: &Path) -> Result<u64> {
    // In units of 512 bytes whatever the file system (stat(2)).
    let mut bytes = std::fs::symlink_metadata(path)?.blocks() * 512;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            bytes += allocated(&entry?.path())?;
        }
    }
    Ok(bytes)
}
