//! `bench run`: RunInstances over the API: the CPU that the agent and every other process takes from the request until the
//! guest's first instruction.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use cumulet_tests::api::{Serve, text};
use cumulet_tests::cumulet::Cumulet;

use super::cpu::{Recorder, Spent};
use super::guest::{Machine, again};
use super::launch;
use super::table::{Table, median};

/// Who is asked about.
const AGENT: &str = "cumulet serve";
/// By then the instance runs.
const AGENT_LATER: &str = "cumulet serve, until 4 s after the answer";
/// So long after the answer it is looked whether the instance runs: to ask for it costs the agent something, too.
const SETTLE: Duration = Duration::from_millis(1500);
/// The same where time is counted in instructions of an emulated processor.
const SETTLE_EMULATED: Duration = Duration::from_secs(4);

/// CPU milliseconds by process.
type Sample = BTreeMap<String, f64>;

/// In each round an instance is run and terminated.
pub(super) fn measure(
    dir: &Path,
    machine: &Machine,
    rounds: usize,
    pretended: bool,
) -> Result<Table> {
    let home = dir.join("home");
    let machine = Machine {
        kernel: halting(dir, &machine.kernel)?,
        initrd: machine.initrd.clone(),
        ..*machine
    };
    let ami = launch::import(&home, dir, &machine, "guest", "256M")?;
    let cumulet = Cumulet::at(home);
    let more: &[&str] = if pretended { &["--skip-doctor"] } else { &[] };
    let bench = Bench {
        serve: Serve::start_with(&cumulet, more),
        cumulet,
        ami,
        pretended,
    };
    let mut samples = Vec::new();
    for round in 0..=rounds {
        let sample = again("bench run", || bench.round())?;
        eprintln!(
            "bench run: round {round}: {:.1} ms of {AGENT}",
            sample[AGENT]
        );
        if round > 0 {
            samples.push(sample);
        }
    }
    Ok(table(&samples))
}

/// The kernel, whose first instructions are changed so that it halts for ever: what comes after is not measured, and a
/// guest that is busy beside other programs gets lost on an emulated processor.
fn halting(dir: &Path, kernel: &Path) -> Result<PathBuf> {
    let mut bytes = std::fs::read(kernel)?;
    // The 64-bit entry, by Linux's boot protocol: 0x200 bytes behind the sectors of the set-up code, of which there are
    // `setup_sects` (at 0x1f1) and the boot sector.
    let sectors = usize::from(*bytes.get(0x1f1).context("no kernel")?);
    let entry = (sectors + 1) * 512 + 0x200;
    // cli; hlt; jmp back to hlt
    let code = bytes.get_mut(entry..entry + 4).context("no kernel")?;
    code.copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd]);
    let path = dir.join("halting");
    std::fs::write(&path, bytes)?;
    Ok(path)
}

struct Bench {
    serve: Serve,
    cumulet: Cumulet,
    ami: String,
    pretended: bool,
}

impl Bench {
    fn round(&self) -> Result<Sample> {
        let fields = [
            ("ImageId", self.ami.as_str()),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("InstanceType", "t3.nano"),
        ];
        let settle = if self.pretended {
            SETTLE
        } else {
            SETTLE_EMULATED
        };
        let recorder = Recorder::begin()?;
        let answer = self.call("RunInstances", &fields)?;
        thread::sleep(settle);
        // By name while they run.
        let sample = recorder.end().and_then(|spent| self.name(&spent));
        let id = text(&answer, "instanceId");
        let one = [("InstanceId.1", id.as_str())];
        let shown = self.call("DescribeInstances", &one)?;
        self.call("TerminateInstances", &one)?;
        self.serve.until(&id, "terminated");
        if !shown.contains("<name>running</name>") {
            bail!("it does not run after {settle:?}: {shown}");
        }
        sample
    }

    fn call(&self, action: &str, fields: &[(&str, &str)]) -> Result<String> {
        let answer = self.serve.call(action, fields);
        answer.map_err(|error| anyhow!("{action}: {}: {}", error.code, error.message))
    }

    /// By name what was recorded by process.
    fn name(&self, spent: &Spent) -> Result<Sample> {
        let window = match &spent.first_entry {
            None if self.pretended => &spent.end,
            first => first.as_ref().context("no guest was entered")?,
        };
        let mut sample = Sample::new();
        for (process, ms) in window {
            if let Some(name) = self.name_of(*process, spent) {
                *sample.entry(name).or_default() += ms;
            }
        }
        if !self.pretended {
            let agent = spent.end.get(&self.serve.pid());
            let agent = agent.context("the agent did nothing")?;
            sample.insert(AGENT_LATER.to_owned(), *agent);
        }
        Ok(sample)
    }

    /// Nobody's business is what does not belong to this agent, such as ourselves and the kernel's threads.
    fn name_of(&self, process: u32, spent: &Spent) -> Option<String> {
        if let Some(name) = self.lasting(process) {
            return Some(name.to_owned());
        }
        let program = spent.programs.get(&process)?;
        // Whose helper it is does not matter, but ours it must be.
        let parent = |process: &u32| Some(spent.programs.get(process)?.parent);
        let mut line = std::iter::successors(Some(program.parent), parent).take(8);
        line.find(|process| self.lasting(*process).is_some())?;
        match program.name.as_str() {
            "cumulet-vmm" | "sh" if self.pretended => None,
            name => Some(name.to_owned()),
        }
    }

    /// What a process is that still runs: one of this agent's.
    fn lasting(&self, process: u32) -> Option<&'static str> {
        if process == self.serve.pid() {
            return Some(AGENT);
        }
        let line = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if !line.contains(&self.cumulet.home().display().to_string()) {
            return None;
        }
        [("__router", "router"), ("__supervise", "supervisor")]
            .into_iter()
            .find_map(|(word, name)| line.contains(word).then_some(name))
    }
}

fn table(samples: &[Sample]) -> Table {
    let names: BTreeSet<&String> = samples.iter().flat_map(Sample::keys).collect();
    let mut table = Table::new(["process", "CPU, ms"]);
    for name in names {
        let values = samples
            .iter()
            .map(|sample| sample.get(name).copied().unwrap_or(0.0));
        table.row([name.clone(), format!("{:.2}", median(values))]);
    }
    table
}
