//! Where this workspace and its build results are.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// Root of the workspace: where cargo says xtask's own manifest is, or where this program was compiled.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&manifest)
        .parent()
        .context("xtask's manifest has no parent directory")?;
    root.canonicalize()
        .with_context(|| format!("cannot find the workspace at {}", root.display()))
}

/// Cargo's target directory.
pub(crate) fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => Ok(dir.into()),
        None => Ok(root()?.join("target")),
    }
}

/// Where cargo puts the binaries of a profile (`dev` uses the directory `debug`).
pub(crate) fn profile_dir(profile: &str) -> Result<PathBuf> {
    let name = if profile == "dev" { "debug" } else { profile };
    Ok(target()?.join(name))
}

/// Builds the product's binaries.
pub(crate) fn build_binaries(profile: &str) -> Result<()> {
    build_packages(profile, &[VMM, "cumulet-agent"])
}

/// The package that is built without the code that unwinds: its processes are many and end at a panic anyway.
const VMM: &str = "cumulet-vmm";

/// Builds the binaries of some packages.
pub(crate) fn build_packages(profile: &str, packages: &[&str]) -> Result<()> {
    let is_lean = |package: &&&str| **package == VMM && profile != "dev";
    let (lean, others): (Vec<&str>, Vec<&str>) = packages.iter().partition(is_lean);
    let abort = format!("profile.{profile}.panic=\"abort\"");
    for (packages, more) in [(others, &[][..]), (lean, &["--config", &abort])] {
        if packages.is_empty() {
            continue;
        }
        let mut build = cargo()?;
        build
            .args(["build", "--profile", profile, "--bins"])
            .args(more)
            .args(packages.iter().flat_map(|package| ["-p", package]));
        crate::sh::run(&mut build)?;
    }
    Ok(())
}

/// Builds one test binary and gives its path. `NAME` is tests/tests/NAME.rs; `PACKAGE/NAME` the same of another
/// package; `PACKAGE` alone (a workspace member's name) its unit tests.
pub(crate) fn build_test(test: &str, profile: &str) -> Result<PathBuf> {
    let members = [
        "cumulet-vmm",
        "cumulet-agent",
        "cumulet-imds",
        "cumulet-images",
        "xtask",
    ];
    let (package, target) = match test.split_once('/') {
        Some((package, name)) => (package, ["--test", name]),
        None if members.contains(&test) => (test, ["--lib", ""]),
        None => ("cumulet-tests", ["--test", test]),
    };
    let mut build = cargo()?;
    build
        .args([
            "test",
            "--no-run",
            "--profile",
            profile,
            "--message-format",
            "json",
            "-p",
            package,
        ])
        .args(target.iter().filter(|word| !word.is_empty()))
        .stderr(std::process::Stdio::inherit());
    let executables = executables(&build_output(&mut build)?);
    match executables.as_slice() {
        [(_, path)] => Ok(path.clone()),
        other => anyhow::bail!("{test:?} names {} test binaries, not one", other.len()),
    }
}

/// Builds tests/tests/*.rs and gives each binary's name and path.
pub(crate) fn build_e2e_tests(profile: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut build = cargo()?;
    build
        .args([
            "test",
            "--no-run",
            "--profile",
            profile,
            "--message-format",
            "json",
        ])
        .args(["-p", "cumulet-tests", "--test", "*"])
        .stderr(std::process::Stdio::inherit());
    let mut found = executables(&build_output(&mut build)?);
    found.sort();
    Ok(found)
}

/// Name and path of every test binary that cargo's messages tell of.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| {
            message["reason"] == "compiler-artifact" && message["profile"]["test"] == true
        })
        .filter_map(|message| {
            let path = message["executable"].as_str()?;
            Some((
                message["target"]["name"].as_str()?.to_owned(),
                PathBuf::from(path),
            ))
        })
        .collect()
}

fn build_output(build: &mut std::process::Command) -> Result<String> {
    let out = build
        .output()
        .with_context(|| format!("cannot start `{}`", crate::sh::show(build)))?;
    if !out.status.success() {
        anyhow::bail!("`{}` ended with {}", crate::sh::show(build), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Cargo, in this workspace.
pub(crate) fn cargo() -> Result<std::process::Command> {
    let mut cargo =
        std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()?);
    Ok(cargo)
}
