//! `cargo xtask setup`: the Debian packages that the other tasks need.
//!
//! When nothing is missing this is one `dpkg-query`. Otherwise packages are installed as root or by `sudo -n`; where
//! neither is possible the exact commands are printed and the task ends.

use crate::sh;
use anyhow::{Context as _, Result, bail};
use std::collections::HashSet;
use std::process::Command;

/// What the build, the tests and the product's own run time need.
const PACKAGES: &[&str] = &[
    "acpica-tools",
    "busybox-static",
    "ca-certificates",
    "cpio",
    "curl",
    "debian-archive-keyring",
    "dosfstools",
    "e2fsprogs",
    "gcc",
    "iproute2",
    "libc6-dev",
    "mmdebstrap",
    "mtools",
    "nftables",
    "openssh-client",
    "openssl",
    "passt",
    "python3",
    "python3-venv",
    "qemu-utils",
    "uidmap",
    "util-linux",
    "xfsprogs",
    "xz-utils",
    "zstd",
];

/// Installs what is missing; cheap when nothing is.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing(&installed()?);
    if !missing.is_empty() {
        install(&missing)?;
    }
    subordinate_ids()
}

/// Names of the packages that are installed.
fn installed() -> Result<HashSet<String>> {
    let out = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(PACKAGES)
        .output()
        .context(
            "no dpkg-query: the developer tasks need Debian 12 or later (or a container of it)",
        )?;
    // Its status is 1 when it does not know one of the packages, which is an answer too.
    Ok(parse_installed(&String::from_utf8_lossy(&out.stdout)))
}

fn parse_installed(text: &str) -> HashSet<String> {
    text.lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(str::to_owned)
        .collect()
}

fn missing(installed: &HashSet<String>) -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|name| !installed.contains(**name))
        .copied()
        .collect()
}

/// Makes sure of a program that may have come from elsewhere than Debian: its packages are installed only when it is
/// nowhere on PATH.
pub(crate) fn ensure_program(program: &str, packages: &[&str]) -> Result<()> {
    if sh::find(program).is_none() {
        install(packages)?;
    }
    Ok(())
}

fn install(missing: &[&str]) -> Result<()> {
    as_root(&format!(
        "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends {}",
        missing.join(" ")
    ))
}

/// Runs a shell line as root, or tells the user to.
fn as_root(line: &str) -> Result<()> {
    let mut shell = if nix::unistd::geteuid().is_root() {
        Command::new("sh")
    } else if sh::output(Command::new("sudo").args(["-n", "true"])).is_ok() {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    } else {
        bail!(
            "something is missing on this machine, and only root can mend it. Run this, then try again:\n\n    sudo sh -c {}\n",
            quote(line)
        );
    };
    eprintln!("xtask: {line}");
    // What tasks print on standard output is for programs to read.
    sh::run(shell.args(["-c", &format!("{{ {line}; }} >&2")]))
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// An ordinary user needs subordinate ids to build disk images with their right owners.
fn subordinate_ids() -> Result<()> {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return Ok(());
    }
    let user = nix::unistd::User::from_uid(uid)?.context("this user has no name")?;
    let has = |file: &str| {
        std::fs::read_to_string(file).is_ok_and(|text| {
            text.lines()
                .filter_map(|line| line.split(':').next())
                .any(|owner| owner == user.name || owner == uid.to_string())
        })
    };
    if has("/etc/subuid") && has("/etc/subgid") {
        return Ok(());
    }
    as_root(&format!(
        "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
        user.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let text = "curl installed\ngcc config-files\n";
        let missing = missing(&parse_installed(text));
        assert!(missing.contains(&"gcc"));
        assert!(!missing.contains(&"curl"));
    }

    #[test]
    fn quoting_survives_quotes() {
        assert_eq!(quote("a 'b'"), r"'a '\''b'\'''");
    }
}
