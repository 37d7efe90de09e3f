//! End-to-end tests: each test of `tests/tests/*.rs` on its own inside the emulated KVM host.

use super::{Log, Tally};
use crate::host::{self, BIN};
use crate::l1::client::{self, Lease, Lost};
use crate::l1::proto::Exec;
use crate::l1::{self, Flavour};
use crate::payload::{self, Payload};
use crate::workspace;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Set for the long versions of tests.
pub(super) const SOAK: &str = "CUMULET_SOAK";
const PROFILE: &str = "e2e";
/// L1s that end under one test are replaced so many times before the test counts as failed.
const TRIES: u32 = 3;
/// Where test binaries are put in L1.
const REMOTE: &str = "/opt/cumulet/test";

/// One test.
struct Case {
    binary: String,
    name: String,
}

impl Case {
    fn full_name(&self) -> String {
        format!("{}::{}", self.binary, self.name)
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
    log.say("starting the emulated KVM host");
    let mut host = Host {
        binaries: &binaries,
        payload: &payload,
        lease: None,
        soak,
    };
    host.ready()?;
    log.say(&format!("{} end-to-end tests", cases.len()));
    let mut tally = Tally::default();
    let mut restarts = Vec::new();
    for case in &cases {
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
        })
        .collect())
}

/// The L1 that the tests run in, started again when it has ended.
struct Host<'a> {
    binaries: &'a [(String, PathBuf)],
    payload: &'a Payload,
    lease: Option<(Lease, Vec<(String, String)>)>,
    soak: bool,
}

impl Host<'_> {
    fn flavour() -> Flavour {
        Flavour {
            name: "test".into(),
            memory_mib: 6144,
            icount: false,
            idle_seconds: 120,
            disks: Vec::new(),
        }
    }

    /// A lease on an L1 that has everything the tests need.
    fn ready(&mut self) -> Result<&(Lease, Vec<(String, String)>)> {
        if self.lease.is_none() {
            let lease = client::lease(&Self::flavour())?;
            host::push_binaries(&lease, PROFILE)?;
            for (name, path) in self.binaries {
                lease.push(path, &Path::new(REMOTE).join(name))?;
            }
            let mut env = vec![
                ("CUMULET_BIN_DIR".to_owned(), BIN.to_owned()),
                (
                    payload::ENV.to_owned(),
                    payload::push(self.payload, &lease)?,
                ),
            ];
            if self.soak {
                env.push((SOAK.to_owned(), "1".to_owned()));
            }
            self.lease = Some((lease, env));
        }
        self.lease.as_ref().context("no lease")
    }

    /// Runs one test, again when it was the emulator that ended.
    fn run(&mut self, log: &Log, case: &Case, restarts: &mut Vec<String>) -> Result<Verdict> {
        let guard = Duration::from_secs(if self.soak { 4 * 3600 } else { 1200 });
        let mut tries = 1;
        loop {
            let mut output = Vec::new();
            let outcome = self.ready().and_then(|(lease, env)| {
                let request = Exec {
                    argv: vec![
                        format!("{REMOTE}/{}", case.binary),
                        "--exact".into(),
                        case.name.clone(),
                        "--nocapture".into(),
                        "--test-threads=1".into(),
                    ],
                    env: env.clone(),
                    cwd: Some("/tmp".into()),
                    reap: true,
                    ..Exec::default()
                };
                lease.exec(&request, None, Some(guard), |_, bytes| {
                    output.extend_from_slice(bytes);
                    Ok(())
                })
            });
            let text = String::from_utf8_lossy(&output).into_owned();
            match outcome {
                Ok(exit)
                    if exit.code == 0 && exit.leftovers.is_empty() && text.contains("1 passed") =>
                {
                    return Ok(Verdict::Passed);
                }
                Ok(exit) => {
                    let mut why = format!("{text}\nexit code {}", exit.code);
                    for line in &exit.leftovers {
                        why.push_str(&format!("\nleft running: {line}"));
                    }
                    return Ok(Verdict::Failed(why));
                }
                Err(error) if error.is::<client::Overdue>() => {
                    return Ok(Verdict::Failed(format!("{text}\n{error:#}")));
                }
                Err(error) if error.is::<Lost>() => {
                    let console =
                        l1::tail(&l1::run_dir(&Self::flavour().name)?.join("console.log"), 30);
                    self.lease = None;
                    log.say(&format!(
                        "{} was interrupted: {error:#}; L1's console ended with:\n{console}",
                        case.full_name()
                    ));
                    restarts.push(format!("{} ({error:#})", case.full_name()));
                    if tries == TRIES {
                        return Ok(Verdict::Failed(format!(
                            "{text}\nL1 ended under it {TRIES} times: {error:#}"
                        )));
                    }
                    tries += 1;
                }
                Err(error) => return Ok(Verdict::Failed(format!("{text}\n{error:#}"))),
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        self.lease = None;
        client::query(&Self::flavour().name, &l1::owner::Ask::Stop).map(drop)
    }
}
