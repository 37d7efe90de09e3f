//! `cargo xtask setup`: the Debian packages that the other tasks need.
//!
//! When nothing is missing this is one `dpkg-query`. Otherwise packages are installed as root or by `sudo -n`; where
//! neither is possible the exact commands are printed and the task ends.

use crate::{apt, sh};
use anyhow::{Context as _, Result, bail};
use std::collections::HashMap;
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
    "uidmap",
    "util-linux",
    "xfsprogs",
    "xz-utils",
    "zstd",
];

/// Needed in version 10 or later, which Debian 12 has in its backports.
const EMULATOR: &[&str] = &["qemu-system-x86", "qemu-utils"];
const EMULATOR_MAJOR: u32 = 10;

/// Where the backports suite is added.
const SOURCES_FILE: &str = "/etc/apt/sources.list.d/cumulet-backports.sources";

/// What is missing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Missing {
    packages: Vec<&'static str>,
    emulator: Vec<&'static str>,
}

/// Installs what is missing; cheap when nothing is.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing(&installed()?);
    if missing != Missing::default() {
        install(&missing)?;
    }
    subordinate_ids()
}

/// Version by package name, of the packages that are installed.
fn installed() -> Result<HashMap<String, String>> {
    let out = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status} ${Version}\n"])
        .args(PACKAGES)
        .args(EMULATOR)
        .output()
        .context(
            "no dpkg-query: the developer tasks need Debian 12 or later (or a container of it)",
        )?;
    // Its status is 1 when it does not know one of the packages, which is an answer too.
    Ok(parse_installed(&String::from_utf8_lossy(&out.stdout)))
}

fn parse_installed(text: &str) -> HashMap<String, String> {
    text.lines()
        .filter_map(
            |line| match line.split(' ').collect::<Vec<_>>().as_slice() {
                [name, "installed", version] => Some(((*name).to_owned(), (*version).to_owned())),
                _ => None,
            },
        )
        .collect()
}

/// Major number of a Debian version such as `1:10.0.2+ds-2`.
fn major(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    upstream
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn missing(installed: &HashMap<String, String>) -> Missing {
    let fit = |name: &&&str| {
        installed.get(**name).and_then(|version| major(version)) < Some(EMULATOR_MAJOR)
    };
    Missing {
        packages: PACKAGES
            .iter()
            .filter(|name| !installed.contains_key(**name))
            .copied()
            .collect(),
        emulator: EMULATOR.iter().filter(fit).copied().collect(),
    }
}

fn install(missing: &Missing) -> Result<()> {
    let backports = match apt::codename()?.as_str() {
        name @ "bookworm" => Some(format!("{name}-backports")),
        _ => None,
    };
    let mut script = Vec::new();
    if let (Some(suite), false) = (&backports, missing.emulator.is_empty())
        && !apt::sources()?.iter().any(|source| source.suite == *suite)
    {
        let uri = apt::archive()?;
        script.push(format!(
            "printf 'Types: deb\\nURIs: {uri}\\nSuites: {suite}\\nComponents: main\\nSigned-By: {}\\n' > {SOURCES_FILE}",
            apt::KEYRING
        ));
    }
    script.push("apt-get update -q".into());
    let install = "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends";
    if !missing.packages.is_empty() {
        script.push(format!("{install} {}", missing.packages.join(" ")));
    }
    if !missing.emulator.is_empty() {
        let target = backports
            .map(|suite| format!("-t {suite} "))
            .unwrap_or_default();
        script.push(format!("{install} {target}{}", missing.emulator.join(" ")));
    }
    as_root(&script.join(" && "))
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
    fn only_installed_packages_of_the_right_age_count() {
        let text = "curl installed 7.88\ngcc config-files 4:12\nqemu-utils installed 1:7.2+dfsg-7\n\
                    qemu-system-x86 installed 1:10.0.2+ds-2\n";
        let missing = missing(&parse_installed(text));
        assert!(missing.packages.contains(&"gcc"));
        assert!(!missing.packages.contains(&"curl"));
        assert_eq!(missing.emulator, ["qemu-utils"]);
    }

    #[test]
    fn debian_versions() {
        assert_eq!(major("1:10.0.2+ds-2+deb13u1~bpo12+1"), Some(10));
        assert_eq!(major("7.88.1"), Some(7));
        assert_eq!(major("odd"), None);
    }

    #[test]
    fn quoting_survives_quotes() {
        assert_eq!(quote("a 'b'"), r"'a '\''b'\'''");
    }
}
