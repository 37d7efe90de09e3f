//! The steps that run on this machine: formatting, lints, tests that need no KVM.

use super::Tally;
use crate::workspace;
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Crash tests need it and what users run must not have it: so the agent is built twice, and nothing else is.
const FAULTS: &str = "cumulet-agent/fault-injection";
/// Everything here is tested on the KVM host instead.
const E2E_PACKAGE: &str = "cumulet-tests";

pub(super) fn fmt() -> Result<()> {
    crate::sh::run(workspace::cargo()?.args(["fmt", "--all", "--check"]))
}

pub(super) fn clippy() -> Result<()> {
    let arguments = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--features",
        FAULTS,
        "--",
        "-D",
        "warnings",
    ];
    crate::sh::run(workspace::cargo()?.args(arguments))
}

/// Tests of every crate but the end-to-end one's, the latter's library, and the crash tests.
pub(super) fn unit_tests(soak: bool) -> Result<Tally> {
    let nextest = workspace::cargo()?
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let start: &[&str] = if nextest {
        &["nextest", "run", "--no-fail-fast"]
    } else {
        &["test", "--no-fail-fast"]
    };
    let mut tally = Tally::default();
    let others: &[&str] = &["--workspace", "--exclude", E2E_PACKAGE];
    let library: &[&str] = &["-p", E2E_PACKAGE, "--lib", "--bins"];
    // The same packages as first, so that the features of what they depend on are the same.
    let crash = &[others, &["--features", FAULTS, "--test", "crash"]].concat();
    for which in [others, library, crash] {
        let mut run = workspace::cargo()?;
        run.args(start).args(which);
        if nextest {
            run.arg("--no-tests=pass");
        }
        if soak {
            run.env(super::e2e::SOAK, "1");
        }
        tally += counted(&mut run)?;
    }
    Ok(tally)
}

/// Runs cargo, shows what it prints and counts the tests from the summaries.
fn counted(run: &mut Command) -> Result<Tally> {
    let (reader, writer) = std::io::pipe()?;
    run.stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = run
        .spawn()
        .with_context(|| format!("cannot start `{}`", crate::sh::show(run)))?;
    // The command holds the writing ends too.
    run.stdout(Stdio::null()).stderr(Stdio::null());
    let mut tally = Tally::default();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        println!("{line}");
        tally += summary(&line).unwrap_or_default();
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        bail!("`{}` ended with {status}", crate::sh::show(run));
    }
    Ok(tally)
}

/// The counts in a summary line of libtest (`test result: ok. 3 passed; 0 failed; …`) or of nextest
/// (`     Summary [   0.1s] 3 tests run: 2 passed, 1 failed, 0 skipped`).
fn summary(line: &str) -> Option<Tally> {
    let plain = without_colours(line);
    let line = plain.trim_start();
    let libtest = line.starts_with("test result: ");
    let nextest = line.starts_with("Summary [") && line.contains(" run: ");
    if !(libtest || nextest) {
        return None;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut tally = Tally::default();
    for pair in words.windows(2) {
        let Ok(count) = pair[0].parse::<u64>() else {
            continue;
        };
        match pair[1].trim_matches(|c: char| !c.is_ascii_alphabetic()) {
            "passed" => tally.passed += count,
            "failed" | "timed" | "exec" => tally.failed += count,
            _ => {}
        }
    }
    Some(tally)
}

fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted() {
        let tally = |passed, failed| Some(Tally { passed, failed });
        assert_eq!(
            summary("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out"),
            tally(3, 0)
        );
        assert_eq!(
            summary("     Summary [   0.10s] 5 tests run: 3 passed (1 slow), 2 failed, 4 skipped"),
            tally(3, 2)
        );
        let coloured = "\x1b[32;1m     Summary\x1b[0m [   0.1s] \x1b[1m2\x1b[0m tests run: \x1b[1m2\x1b[0m passed, 0 skipped";
        assert_eq!(summary(coloured), tally(2, 0));
        assert_eq!(summary("test a::passed ... ok"), None);
    }
}
