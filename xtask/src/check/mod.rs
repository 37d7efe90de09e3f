//! `cargo xtask test`: everything that CI runs. See docs/testing.md.

mod api;
mod e2e;
mod first_hour;
mod native;

pub(crate) use first_hour::{CumuletArgs, cumulet};

use anyhow::{Result, bail};
use clap::Args;
use std::time::Instant;

#[derive(Args)]
pub(crate) struct TestArgs {
    /// Only these steps (repeatable); all by default.
    #[arg(long, value_enum)]
    only: Vec<Step>,
    /// Scripts of the step `api` whose name contains one of these words (repeatable).
    #[arg(long, value_name = "NAME")]
    file: Vec<String>,
    /// End-to-end tests whose `binary::test` name contains one of these words.
    filter: Vec<String>,
}

/// The steps of `cargo xtask test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// cargo fmt --check
    Fmt,
    /// cargo clippy, warnings are errors
    Clippy,
    /// Unit and integration tests that run on any machine
    Unit,
    /// EC2's own SDKs against the simulated back end, after api-lint
    Api,
    /// End-to-end tests on the KVM host
    E2e,
}

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Says what happens and how long it took.
struct Log {
    started: Instant,
}

impl Log {
    fn say(&self, what: &str) {
        let seconds = self.started.elapsed().as_secs();
        println!("[{:02}:{:02}] {what}", seconds / 60, seconds % 60);
    }
}

/// Runs the steps; the last line printed is `N passed, N failed`. With `soak`, tests run their long versions.
pub(crate) fn run(args: &TestArgs, soak: bool) -> Result<()> {
    let log = Log {
        started: Instant::now(),
    };
    let wanted = |step| {
        if args.only.is_empty() {
            // A filter names end-to-end tests and a file the API's, so they ask for nothing else.
            (args.filter.is_empty() && args.file.is_empty())
                || (step == Step::E2e && !args.filter.is_empty())
                || (step == Step::Api && !args.file.is_empty())
        } else {
            args.only.contains(&step)
        }
    };
    crate::setup::ensure()?;
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    if wanted(Step::Fmt) {
        log.say("cargo fmt --check");
        broken.extend(native::fmt().err());
    }
    if wanted(Step::Clippy) {
        log.say("cargo clippy");
        broken.extend(native::clippy().err());
    }
    if wanted(Step::Unit) {
        log.say("unit tests");
        match native::unit_tests(soak) {
            Ok(unit) => {
                log.say(&format!(
                    "unit tests: {} passed, {} failed",
                    unit.passed, unit.failed
                ));
                tally += unit;
            }
            Err(error) => broken.push(error),
        }
    }
    if wanted(Step::Api) {
        match api::run(&log, &args.file, soak) {
            Ok(api) => tally += api,
            Err(error) => broken.push(error),
        }
    }
    if wanted(Step::E2e) {
        match e2e::run(&log, &args.filter, soak) {
            Ok(e2e) => tally += e2e,
            Err(error) => broken.push(error),
        }
    }
    for error in &broken {
        log.say(&format!("FAILED: {error:#}"));
    }
    let tests_wanted = [Step::Unit, Step::Api, Step::E2e].into_iter().any(wanted);
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if !broken.is_empty() || tally.failed > 0 {
        bail!("not everything passed");
    }
    if tests_wanted && tally.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}
