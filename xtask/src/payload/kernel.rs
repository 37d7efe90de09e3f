//! Stock Debian kernels, fetched as packages from the archive that the machine's own apt uses.

use super::modules::Modules;
use crate::{apt, cache, sh};
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The metapackage that stands for a suite's newest cloud kernel.
const METAPACKAGE: &str = "linux-image-cloud-amd64";
/// What the guest needs to see its devices: the bus, disks, network, entropy, power button.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "button",
    "evdev",
];

/// A kernel series that must boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// Debian 11.
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13.
    #[value(name = "6.12")]
    V6_12,
}

impl Series {
    /// As people say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
        }
    }
}

/// A kernel in the cache.
pub(crate) struct Stock {
    dir: PathBuf,
}

impl Stock {
    /// The bzImage.
    pub(crate) fn vmlinuz(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The folder with the modules the guest loads and their `order`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }

    /// `uname -r`.
    pub(crate) fn release(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join("release"))?)
    }
}

/// The series' kernel, fetched when the cache has none of this recipe.
pub(crate) fn ensure(series: Series) -> Result<Stock> {
    let kind = format!("kernel-{}", series.name());
    let mut recipe = vec!["1", series.suite(), METAPACKAGE];
    recipe.extend(MODULES);
    let dir = cache::entry(&kind, &cache::key(&recipe), true, |dir| {
        fetch(series, dir).with_context(|| format!("cannot fetch the {} kernel", series.name()))
    })?;
    Ok(Stock { dir })
}

fn fetch(series: Series, dir: &Path) -> Result<()> {
    eprintln!(
        "xtask: fetching Debian's {} kernel ({})",
        series.name(),
        series.suite()
    );
    let work = dir.join("work");
    let apt = PrivateApt::new(&work, series.suite())?;
    let package = versioned_package(&sh::output(
        apt.command("apt-cache").args(["depends", METAPACKAGE]),
    )?)?;
    sh::output(
        apt.command("apt-get")
            .args(["download", &package])
            .current_dir(&work),
    )?;
    let deb = find(&work, |name| name.ends_with(".deb"))?;
    let tree = work.join("tree");
    sh::output(Command::new("dpkg").arg("-x").arg(deb).arg(&tree))?;
    let vmlinuz = find(&tree.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    // Debian 13 has left /lib for /usr/lib.
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|path| tree.join(path))
        .into_iter()
        .find(|path| path.is_dir())
        .context("the package has no modules")?;
    let modules = find(&modules, |_| true)?;
    let release = modules
        .file_name()
        .and_then(|name| name.to_str())
        .context("the modules' folder has no release as its name")?;
    fs::write(dir.join("release"), release)?;
    fs::copy(vmlinuz, dir.join("vmlinuz"))?;
    store_modules(&modules, &dir.join("modules"))?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn store_modules(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    let mut order = String::new();
    for module in Modules::scan(from)?.in_load_order(MODULES)? {
        let name = format!("{}.ko", module.name);
        fs::write(to.join(&name), module.content)?;
        order.push_str(&name);
        order.push('\n');
    }
    fs::write(to.join("order"), order)?;
    Ok(())
}

/// The one entry of a folder whose name fits.
fn find(dir: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&fits) {
            found.push(entry.path());
        }
    }
    ensure!(
        found.len() == 1,
        "{} has {} entries that fit, not one",
        dir.display(),
        found.len()
    );
    found.pop().context("nothing found")
}

/// The package that the metapackage stands for now.
fn versioned_package(depends: &str) -> Result<String> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
        .with_context(|| format!("{METAPACKAGE} depends on no kernel:\n{depends}"))
}

/// apt with state of its own, so that the machine's package lists stay as they are and no root is needed.
struct PrivateApt {
    options: Vec<String>,
}

impl PrivateApt {
    fn new(dir: &Path, suite: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part))?;
        }
        fs::write(dir.join("status"), "")?;
        let source = apt::source_line(suite)? + "\n";
        fs::write(dir.join("sources.list"), source)?;
        let at = |name: &str| dir.join(name).display().to_string();
        let options = vec![
            format!("Dir::State={}", dir.display()),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
            // The folders are this user's; apt's own download user could not write there.
            "APT::Sandbox::User=".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            // An old suite's last Release file stays good when its date has passed.
            "Acquire::Check-Valid-Until=false".to_owned(),
        ];
        let apt = Self { options };
        sh::output(apt.command("apt-get").args(["--error-on=any", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-q");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metapackage_names_the_kernel() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n";
        assert_eq!(
            versioned_package(text).unwrap(),
            "linux-image-6.1.0-50-cloud-amd64"
        );
        assert!(versioned_package("linux-image-cloud-amd64\n").is_err());
    }
}
