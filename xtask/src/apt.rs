//! Debian packages and the archives this machine knows.
//!
//! No mirror is named in this code: the address comes from the machine's own apt sources.

use crate::sh;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Public keys that Debian signs its archives with (package debian-archive-keyring).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One `main` source of the machine's own apt configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Archive address, without trailing slash.
    pub(crate) uri: String,
    /// Suite as the sources file names it, e.g. `bookworm-updates`.
    pub(crate) suite: String,
}

/// The machine's sources that carry Debian's component `main`.
pub(crate) fn sources() -> Result<Vec<Source>> {
    let text = sh::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    Ok(parse_sources(&text))
}

fn parse_sources(text: &str) -> Vec<Source> {
    let mut found: Vec<Source> = Vec::new();
    for line in text.lines() {
        let mut words = line.split('|');
        if let (Some(uri), Some(suite), Some("main")) = (words.next(), words.next(), words.next()) {
            let source = Source {
                uri: uri.trim_end_matches('/').to_owned(),
                suite: suite.to_owned(),
            };
            if !found.contains(&source) {
                found.push(source);
            }
        }
    }
    found
}

/// Code name of the Debian release this machine runs (`bookworm`, `trixie`), from /etc/os-release.
pub(crate) fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release names no VERSION_CODENAME: xtask needs Debian 12 or later")
}

/// Address of the Debian archive proper, as the machine's source for its own release names it.
pub(crate) fn archive() -> Result<String> {
    let codename = codename()?;
    archive_of(&sources()?, &codename)
}

/// A line of sources.list for a suite of that archive, whose signature must be Debian's whatever this machine trusts.
pub(crate) fn source_line(suite: &str) -> Result<String> {
    Ok(format!(
        "deb [signed-by={KEYRING}] {} {suite} main",
        archive()?
    ))
}

/// Runs mmdebstrap in `dir`; what it says goes to `build.log` there, whose end is part of the error when it fails.
pub(crate) fn mmdebstrap(dir: &Path, args: &[String]) -> Result<()> {
    let log = dir.join("build.log");
    let status = Command::new("mmdebstrap")
        .args(args)
        .current_dir(dir)
        .stdout(fs::File::create(&log)?)
        .stderr(fs::File::options().append(true).open(&log)?)
        .status()
        .context("cannot start mmdebstrap: run `cargo xtask setup`")?;
    if !status.success() {
        bail!(
            "mmdebstrap ended with {status}; the end of its log:\n{}",
            crate::l1::tail(&log, 30)
        );
    }
    Ok(())
}

fn archive_of(sources: &[Source], codename: &str) -> Result<String> {
    match sources.iter().find(|s| s.suite == codename) {
        Some(source) => Ok(source.uri.clone()),
        None => bail!("the machine's apt sources name no archive for {codename} main"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_come_once_each_and_only_main() {
        let text = "http://a.example/debian/|bookworm|main\nhttp://a.example/debian/|bookworm|main\n\
                    http://b.example/|nodistro|contrib\nhttp://a.example/debian/|bookworm-backports|main\n";
        let sources = parse_sources(text);
        assert_eq!(sources.len(), 2);
        assert_eq!(
            archive_of(&sources, "bookworm").unwrap(),
            "http://a.example/debian"
        );
        assert!(archive_of(&sources, "trixie").is_err());
    }
}
