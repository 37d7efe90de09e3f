//! Which QEMU emulates L1: the machine's own when it is new enough, else a newer Debian's in the cache folder.
//!
//! QEMU 10.0 and older lose a nested guest now and then (docs/emulated-host.md, "Which QEMU"), and the releases this
//! project builds on have nothing newer. So the packages of a newer Debian are unpacked (not installed) into a folder
//! of the cache, and the program runs with the libraries beside it: nothing of the machine changes, root is not needed.

use crate::{apt, cache, sh};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// First major version that is known to be good.
const GOOD: u32 = 11;
/// The Debian whose packages are unpacked, and the suite that has the emulator.
const BASE: &str = "trixie";
const SUITE: &str = "trixie-backports";
const PACKAGES: &str = "qemu-system-x86/trixie-backports,libc6";
const OPTIONS: [&str; 2] = [
    "--aptopt=APT::Install-Recommends \"false\"",
    "--aptopt=APT::Default-Release \"trixie-backports\"",
];
const PROGRAM: &str = "qemu-system-x86_64";

/// A usable emulator.
#[derive(Debug)]
pub(crate) enum Emulator {
    /// `qemu-system-x86_64` of this machine.
    Installed,
    /// The root of an unpacked Debian.
    Unpacked(PathBuf),
}

/// Finds an emulator, unpacking one first when there is none.
pub(crate) fn ensure() -> Result<Emulator> {
    if installed_major().is_some_and(|major| major >= GOOD) {
        return Ok(Emulator::Installed);
    }
    let recipe = ["1", BASE, SUITE, PACKAGES, OPTIONS[0], OPTIONS[1]];
    let dir = cache::entry("qemu", &cache::key(&recipe), true, unpack)?;
    Ok(Emulator::Unpacked(dir.join("root")))
}

impl Emulator {
    /// The command without any argument of the emulation's own.
    pub(crate) fn command(&self) -> Command {
        match self {
            Self::Installed => Command::new(PROGRAM),
            Self::Unpacked(root) => {
                let libraries = root.join("usr/lib/x86_64-linux-gnu");
                let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
                command
                    .arg("--library-path")
                    .arg(&libraries)
                    .arg(root.join("usr/bin").join(PROGRAM));
                for firmware in ["usr/share/seabios", "usr/share/qemu", "usr/lib/ipxe/qemu"] {
                    command.arg("-L").arg(root.join(firmware));
                }
                command
            }
        }
    }
}

/// Major version of the machine's own emulator, if it has one.
fn installed_major() -> Option<u32> {
    sh::find(PROGRAM)?;
    let text = sh::output(Command::new(PROGRAM).arg("--version")).ok()?;
    major(&text)
}

/// Major version from what `--version` prints.
fn major(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version ")?;
    rest.split('.').next()?.parse().ok()
}

fn unpack(dir: &Path) -> Result<()> {
    eprintln!("xtask: fetching the emulator ({SUITE}; some seconds, once)");
    let uri = apt::archive()?;
    let log = dir.join("build.log");
    // As a tar archive, so that without root the files become this user's own.
    let status = Command::new("mmdebstrap")
        .arg("--variant=extract")
        .args(OPTIONS)
        .arg(format!("--include={PACKAGES}"))
        .args([BASE, "root.tar"])
        .args(
            [BASE, SUITE]
                .map(|suite| format!("deb [signed-by={}] {uri} {suite} main", apt::KEYRING)),
        )
        .current_dir(dir)
        .stdout(fs::File::create(&log)?)
        .stderr(fs::File::options().append(true).open(&log)?)
        .status()
        .context("cannot start mmdebstrap: run `cargo xtask setup`")?;
    if !status.success() {
        bail!(
            "mmdebstrap ended with {status}; the end of its log:\n{}",
            super::tail(&log, 30)
        );
    }
    let root = dir.join("root");
    fs::create_dir(&root)?;
    sh::run(
        Command::new("tar")
            .args([
                "--no-same-owner",
                "--exclude=./dev",
                "-xf",
                "root.tar",
                "-C",
                "root",
            ])
            .current_dir(dir),
    )?;
    fs::remove_file(dir.join("root.tar"))?;
    let emulator = Emulator::Unpacked(root);
    let version = sh::output(emulator.command().arg("--version"))?;
    match major(&version) {
        Some(major) if major >= GOOD => Ok(()),
        _ => bail!("{SUITE} has no QEMU {GOOD}, but: {version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let debian = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright (c)";
        assert_eq!(major(debian), Some(11));
        assert_eq!(major("QEMU emulator version 7.2.17"), Some(7));
        assert_eq!(major("something else"), None);
    }

    #[test]
    fn an_unpacked_emulator_runs_with_its_own_libraries() {
        let command = Emulator::Unpacked("/cache/root".into()).command();
        assert_eq!(
            command.get_program(),
            "/cache/root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
        );
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args[2], "/cache/root/usr/bin/qemu-system-x86_64");
        assert_eq!(args[4], "/cache/root/usr/share/seabios");
    }
}
