//! Which QEMU emulates L1: the machine's own when it is the right one, else a newer Debian's in the cache folder.
//!
//! QEMU 10.0 and older lose a nested guest now and then when they emulate in several threads, and QEMU 11 slows QEMU's own
//! q35 machine to a crawl when it counts instructions (docs/emulated-host.md, "Which QEMU"). No release this project builds
//! on has both. So the packages of a newer Debian are unpacked (not installed) into a folder of the cache, and the program
//! runs with the libraries beside it: nothing of the machine changes, root is not needed.

use crate::{apt, cache, sh};
use anyhow::{Result, bail};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "qemu-system-x86_64";

/// An emulator that is known to be good for something, and where Debian has it.
struct Release {
    /// Major versions.
    good: RangeInclusive<u32>,
    /// The suites whose packages are unpacked; the last one has the emulator.
    suites: &'static [&'static str],
}

/// For an L1 that is as fast as it can be.
const FAST: Release = Release {
    good: 11..=u32::MAX,
    suites: &["trixie", "trixie-backports"],
};

/// For an L1 that counts instructions, in one thread.
const COUNTING: Release = Release {
    good: 10..=10,
    suites: &["trixie"],
};

/// A usable emulator.
#[derive(Debug)]
pub(crate) enum Emulator {
    /// `qemu-system-x86_64` of this machine.
    Installed,
    /// The root of an unpacked Debian.
    Unpacked(PathBuf),
}

/// Finds the emulator for an L1 that counts instructions or not, unpacking one first when there is none.
pub(crate) fn ensure(icount: bool) -> Result<Emulator> {
    let release = if icount { COUNTING } else { FAST };
    if installed_major().is_some_and(|major| release.good.contains(&major)) {
        return Ok(Emulator::Installed);
    }
    let (suite, args) = release.recipe();
    let mut recipe = vec!["2"];
    recipe.extend(args.iter().map(String::as_str));
    let dir = cache::entry("qemu", &cache::key(&recipe), true, |dir| {
        unpack(dir, &release, suite, &args)
    })?;
    Ok(Emulator::Unpacked(dir.join("root")))
}

impl Release {
    /// The suite that has the emulator, and what mmdebstrap is told, but for the sources.
    fn recipe(&self) -> (&'static str, Vec<String>) {
        let base = self.suites.first().copied().unwrap_or_default();
        let suite = self.suites.last().copied().unwrap_or_default();
        let args = [
            "--variant=extract",
            "--aptopt=APT::Install-Recommends \"false\"",
            &format!("--aptopt=APT::Default-Release \"{suite}\""),
            &format!("--include=qemu-system-x86/{suite},libc6"),
            base,
            // As a tar archive, so that without root the files become this user's own.
            "root.tar",
        ];
        (suite, args.map(str::to_owned).to_vec())
    }
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

fn unpack(dir: &Path, release: &Release, suite: &str, recipe: &[String]) -> Result<()> {
    eprintln!("xtask: fetching the emulator ({suite}; some seconds, once)");
    let mut args = recipe.to_vec();
    for suite in release.suites {
        args.push(apt::source_line(suite)?);
    }
    apt::mmdebstrap(dir, &args)?;
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
    if major(&version).is_some_and(|major| release.good.contains(&major)) {
        return Ok(());
    }
    bail!(
        "{suite} has no QEMU {}, but: {version}",
        release.good.start()
    )
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
