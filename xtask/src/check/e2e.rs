//! End-to-end tests: each test of `tests/tests/*.rs`, and each script of `tests/first_hour`, on its own on the KVM host.

use super::{Log, Tally, first_hour};
use crate::kvm_host::{self, KvmHost, Needs};
use crate::l1::client::Lost;
use crate::l1::proto::{Exec, Exit};
use crate::l1::{self, Flavour};
use crate::{ami, payload, workspace};
use anyhow::{Context as _, Result, bail};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Set for the long versions of tests.
pub(super) const SOAK: &str = "CUMULET_SOAK";
pub(super) const PROFILE: &str = "e2e";
/// L1s that end under one test are replaced so many times before the test counts as failed.
const TRIES: u32 = 3;
/// Names of the L1s that tests run in, side by side: each has one CPU.
const L1S: [&str; 2] = ["test", "test-2"];
/// What an L1 may come to take beyond its memory, in MiB: the emulator's translations.
const EMULATOR_MIB: u64 = 1024;
/// The scripts are listed as tests of a binary with this name.
const FIRST_HOUR: &str = "first_hour";

/// One test.
struct Case {
    binary: String,
    name: String,
    /// It is not a test of that binary but this script of `tests/first_hour`.
    script: Option<PathBuf>,
}

impl Case {
    fn full_name(&self) -> String {
        format!("{}::{}", self.binary, self.name)
    }

    /// What only a test that has passed prints.
    fn proof(&self) -> String {
        match &self.script {
            Some(script) => first_hour::proof(script),
            None => "1 passed".to_owned(),
        }
    }
}

/// How a test went.
enum Verdict {
    Passed,
    Failed(String),
}

/// Builds everything, boots L1 once and runs test by test.
pub(super) fn run(log: &Log, filter: &[String], soak: bool) -> Result<Tally> {
    log.say("building what the end-to-end tests run");
    workspace::build_binaries(PROFILE)?;
    let binaries = workspace::build_e2e_tests(PROFILE)?;
    let mut cases = Vec::new();
    for (name, path) in &binaries {
        cases.extend(list(name, path)?);
    }
    if cases.is_empty() {
        bail!("tests/tests has no test");
    }
    // First, since they take longest.
    let scripts = first_hour::scripts()?
        .into_iter()
        .map(|(name, script)| Case {
            binary: FIRST_HOUR.to_owned(),
            name,
            script: Some(script),
        });
    cases.splice(0..0, scripts);
    let wanted = |case: &Case| {
        filter.is_empty()
            || filter
                .iter()
                .any(|word| case.full_name().contains(word.as_str()))
    };
    cases.retain(wanted);
    if cases.is_empty() {
        bail!("no end-to-end test's name contains {}", filter.join(" or "));
    }
    let payload = payload::ensure()?;
    // Some tests, and the scripts, boot it; a host is opened with its disk or without.
    log.say("making the AMI debian-12");
    let amis = ami::ensure(PROFILE)?;
    let native = kvm_host::this_machine_is_fit(PROFILE)?;
    let needs = Needs {
        profile: PROFILE,
        payload: Some(&payload),
        tests: &binaries,
        amis: Some(&amis),
    };
    let hosts = if native { 1 } else { room_for_l1s(cases.len()) };
    let what = if native {
        "this machine's own KVM"
    } else {
        "emulated KVM hosts"
    };
    log.say(&format!(
        "{} end-to-end tests on {hosts} × {what}",
        cases.len()
    ));
    let queue = Mutex::new(cases.iter().collect::<VecDeque<_>>());
    let done = std::thread::scope(|scope| {
        let workers: Vec<_> = L1S[..hosts]
            .iter()
            .map(|name| {
                let host = Host {
                    needs: &needs,
                    native,
                    name,
                    running: None,
                    soak,
                };
                scope.spawn(|| work(log, host, &queue))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect::<Result<Vec<_>>>()
    })?;
    let mut tally = Tally::default();
    let mut restarts = Vec::new();
    for (counted, restarted) in done {
        tally += counted;
        restarts.extend(restarted);
    }
    log.say(&format!(
        "end-to-end tests: {} passed, {} failed",
        tally.passed, tally.failed
    ));
    if !restarts.is_empty() {
        log.say(&format!(
            "the emulated host was started again {} times: {}",
            restarts.len(),
            restarts.join("; ")
        ));
    }
    Ok(tally)
}

/// How many emulated hosts this machine has processors and memory for.
fn room_for_l1s(cases: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_mib(&text))
        .map_or(1, |mib| mib / (u64::from(l1::LARGE_MIB) + EMULATOR_MIB));
    let memory = usize::try_from(memory).unwrap_or(usize::MAX);
    L1S.len().min(processors).min(memory).min(cases).max(1)
}

/// Memory that programs may still take, in MiB, by /proc/meminfo.
fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

/// Takes tests from the queue until it is empty.
fn work(
    log: &Log,
    mut host: Host<'_>,
    queue: &Mutex<VecDeque<&Case>>,
) -> Result<(Tally, Vec<String>)> {
    let mut tally = Tally::default();
    let mut restarts = Vec::new();
    loop {
        let next = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(case) = next else { break };
        let started = Instant::now();
        let verdict = host.run(log, case, &mut restarts)?;
        let seconds = started.elapsed().as_secs();
        match verdict {
            Verdict::Passed => {
                tally.passed += 1;
                log.say(&format!("ok      {seconds:4} s  {}", case.full_name()));
            }
            Verdict::Failed(why) => {
                tally.failed += 1;
                log.say(&format!(
                    "FAILED  {seconds:4} s  {}\n{why}",
                    case.full_name()
                ));
            }
        }
    }
    host.end()?;
    Ok((tally, restarts))
}

/// The tests of a binary, as it lists them itself. Ignored ones are not run, and said to be.
fn list(binary: &str, path: &Path) -> Result<Vec<Case>> {
    let names = |more: &[&str]| -> Result<Vec<String>> {
        let text = crate::sh::output(
            Command::new(path)
                .args(["--list", "--format", "terse"])
                .args(more),
        )?;
        Ok(text
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .map(str::to_owned)
            .collect())
    };
    let ignored = names(&["--ignored"])?;
    for name in &ignored {
        println!("not run (ignored): {binary}::{name}");
    }
    let all = names(&[])?;
    Ok(all
        .into_iter()
        .filter(|name| !ignored.contains(name))
        .map(|name| Case {
            binary: binary.to_owned(),
            name,
            script: None,
        })
        .collect())
}

/// The host that the tests run on; an emulated one is started again when it has ended.
struct Host<'a> {
    needs: &'a Needs<'a>,
    native: bool,
    /// Which L1, if it is one.
    name: &'static str,
    running: Option<KvmHost>,
    soak: bool,
}

impl Host<'_> {
    /// A host that has everything the tests need.
    fn ready(&mut self) -> Result<&KvmHost> {
        if self.running.is_none() {
            let flavour = Flavour::large(self.name);
            self.running = Some(KvmHost::open(self.native, flavour, self.needs)?);
        }
        self.running.as_ref().context("no host")
    }

    fn try_once(&mut self, case: &Case, output: &mut Vec<u8>) -> Result<Exit> {
        let guard = Duration::from_secs(if self.soak { 4 * 3600 } else { 1800 });
        let soak = self.soak;
        let host = self.ready()?;
        if let Some(script) = &case.script {
            return first_hour::run(host, script, output);
        }
        let request = Exec {
            argv: vec![
                host.test_path(&case.binary),
                "--exact".into(),
                case.name.clone(),
                "--nocapture".into(),
                "--test-threads=1".into(),
            ],
            env: if soak {
                vec![(SOAK.to_owned(), "1".to_owned())]
            } else {
                Vec::new()
            },
            cwd: Some("/tmp".into()),
            reap: true,
            ..Exec::default()
        };
        host.exec(&request, guard, |_, bytes| {
            output.extend_from_slice(bytes);
            Ok(())
        })
    }

    /// Runs one test, again when it was the emulator that ended.
    fn run(&mut self, log: &Log, case: &Case, restarts: &mut Vec<String>) -> Result<Verdict> {
        for attempt in 1.. {
            let mut output = Vec::new();
            let outcome = self.try_once(case, &mut output);
            let mut text = String::from_utf8_lossy(&output).into_owned();
            match outcome {
                Ok(exit)
                    if exit.code == 0
                        && exit.leftovers.is_empty()
                        && text.contains(&case.proof()) =>
                {
                    return Ok(Verdict::Passed);
                }
                Ok(exit) => {
                    text.push_str(&format!("\nexit code {}", exit.code));
                    for line in &exit.leftovers {
                        text.push_str(&format!("\nleft running: {line}"));
                    }
                    return Ok(Verdict::Failed(text));
                }
                Err(error) if error.is::<Lost>() => {
                    let console = match self.running.take() {
                        Some(host) => host.console()?.unwrap_or_default(),
                        None => String::new(),
                    };
                    log.say(&format!(
                        "{} was interrupted: {error:#}; L1's console ended with:\n{console}",
                        case.full_name()
                    ));
                    restarts.push(format!("{} ({error:#})", case.full_name()));
                    if attempt == TRIES {
                        return Ok(Verdict::Failed(format!(
                            "{text}\nL1 ended under it {TRIES} times: {error:#}"
                        )));
                    }
                }
                Err(error) => return Ok(Verdict::Failed(format!("{text}\n{error:#}"))),
            }
        }
        bail!("no attempt was made")
    }

    fn end(self) -> Result<()> {
        self.running.map_or(Ok(()), KvmHost::end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:       24684128 kB\nMemFree: 1 kB\nMemAvailable:   16777216 kB\n";
        assert_eq!(available_mib(text), Some(16384));
        assert_eq!(available_mib("MemTotal: 1 kB"), None);
    }
}
