//! The Debian AMI that demo and end-to-end tests boot: built once by `cumulet images build`, kept in the user's cache.

use crate::{cache, sh, workspace};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the AMI.
pub(crate) const NAME: &str = "debian-12";
/// Size of the disk that brings the AMI to L1: room for the volumes of instances too. Blocks nobody writes cost nothing.
const DISK_SIZE: &str = "48G";

/// AMIs, and a disk with the same content for L1.
pub(crate) struct Amis {
    /// A state folder of cumulet's.
    pub(crate) home: PathBuf,
    /// An ext4 disk image of that folder.
    pub(crate) disk: PathBuf,
}

/// The AMI, built first when its recipe has changed.
pub(crate) fn ensure(profile: &str) -> Result<Amis> {
    let home = cache::root()?.join("amis");
    cache::private_dir(&home)?;
    let _lock = cache::lock(&cache::root()?.join("amis.lock"))?;
    let cumulet = workspace::profile_dir(profile)?.join("cumulet");
    // It builds nothing when the store has an AMI of the same recipe.
    sh::run(
        Command::new(&cumulet)
            .arg("--home")
            .arg(&home)
            .args(["images", "build", NAME]),
    )?;
    let ids = ids(&home)?;
    let disk = cache::entry("ami-disk", &cache::key(&ids), true, |dir| {
        pack(&home, &dir.join("disk.img"))
    })?;
    Ok(Amis {
        home,
        disk: disk.join("disk.img"),
    })
}

/// Ids of the AMIs in the store.
fn ids(home: &Path) -> Result<Vec<String>> {
    let store = home.join("amis");
    let mut ids: Vec<String> = fs::read_dir(&store)
        .with_context(|| format!("cannot read {}", store.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("ami-"))
        .collect();
    ids.sort();
    Ok(ids)
}

/// Puts the AMI store (and nothing else of the state folder) on a disk.
fn pack(home: &Path, disk: &Path) -> Result<()> {
    let tree = disk.with_file_name("tree");
    fs::create_dir(&tree)?;
    // Hard links where they work: the images are large, and only read.
    sh::run(
        Command::new("cp")
            .args(["--recursive", "--link"])
            .arg(home.join("amis"))
            .arg(&tree),
    )
    .or_else(|_| {
        sh::run(
            Command::new("cp")
                .args(["--recursive", "--sparse=always"])
                .arg(home.join("amis"))
                .arg(&tree),
        )
    })?;
    let mke2fs = sh::find("mke2fs").context("no mke2fs: run `cargo xtask setup`")?;
    sh::run(
        Command::new(mke2fs)
            .args([
                "-q",
                "-t",
                "ext4",
                "-m",
                "0",
                "-E",
                "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
                "-d",
            ])
            .args([&tree, disk])
            .arg(DISK_SIZE),
    )?;
    Ok(fs::remove_dir_all(&tree)?)
}
