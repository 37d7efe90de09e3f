//! What processes do with the CPU, by the kernel's own trace of who runs when: to the microsecond, threads and
//! helpers that have ended meanwhile too.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use anyhow::{Context as _, Result};

use super::probe::Trace;

/// Written into the trace where a window begins and ends.
const BEGIN: &str = "cumulet-bench: begin";
const END: &str = "cumulet-bench: end";
/// Records who runs when.
pub(super) struct Recorder {
    trace: Trace,
    /// The process of every task that was there before.
    processes: HashMap<u32, u32>,
}

/// CPU time by process, in milliseconds. A process that runs no program of its own counts as its parent.
#[derive(Debug, Default)]
pub(super) struct Spent {
    /// Up to the first entry into a new guest, if there was one.
    pub(super) first_entry: Option<BTreeMap<u32, f64>>,
    /// Up to the end.
    pub(super) end: BTreeMap<u32, f64>,
    /// The processes that have begun a program.
    pub(super) programs: HashMap<u32, Program>,
}

/// What a process has begun.
#[derive(Debug)]
pub(super) struct Program {
    /// The file's name, without its folder.
    pub(super) name: String,
    /// The process that began it.
    pub(super) parent: u32,
}

impl Recorder {
    /// Begins. Needs root: the trace shows everybody's processes.
    pub(super) fn begin() -> Result<Self> {
        let trace = Trace::new()?;
        trace.set("trace_clock", "mono")?;
        trace.set("buffer_size_kb", "32768")?;
        for event in [
            "sched/sched_switch",
            "sched/sched_process_exec",
            "task/task_newtask",
        ] {
            trace.set(&format!("events/{event}/enable"), "1")?;
        }
        // One line is enough, but which entry is the new guest's is only known afterwards.
        trace.set("events/kvm/kvm_entry/enable", "1")?;
        trace.set("tracing_on", "1")?;
        let processes = tasks()?;
        trace.set("trace_marker", BEGIN)?;
        Ok(Self { trace, processes })
    }

    /// Ends and adds up.
    pub(super) fn end(self) -> Result<Spent> {
        self.trace.set("trace_marker", END)?;
        self.trace.set("tracing_on", "0")?;
        add_up(&self.trace.text()?, self.processes)
    }
}

/// The process of every task.
fn tasks() -> Result<HashMap<u32, u32>> {
    let mut found = HashMap::new();
    let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    for entry in fs::read_dir("/proc").context("no /proc")?.flatten() {
        let Some(process) = number(&entry) else {
            continue;
        };
        // It may end meanwhile.
        let threads = fs::read_dir(entry.path().join("task"))
            .into_iter()
            .flatten();
        for thread in threads.flatten() {
            found.extend(number(&thread).map(|thread| (thread, process)));
        }
    }
    Ok(found)
}

/// One line of a trace: `COMM-TASK [CPU] FLAGS TIME: EVENT: REST`.
struct Line<'a> {
    task: u32,
    cpu: u32,
    seconds: f64,
    event: &'a str,
    rest: &'a str,
}

fn parse(line: &str) -> Option<Line<'_>> {
    // A name may hold anything but is cut at 15 characters; the CPU's number is in the first brackets of three digits.
    let at = line.find(" [0").or_else(|| line.find(" [1"))?;
    let (head, tail) = line.split_at(at);
    let task = head.trim_end().rsplit('-').next()?.parse().ok()?;
    let (cpu, tail) = tail.trim_start_matches(" [").split_once(']')?;
    let (stamp, tail) = tail.trim_start().split_once(": ")?;
    let (event, rest) = tail.split_once(": ")?;
    Some(Line {
        task,
        cpu: cpu.parse().ok()?,
        seconds: stamp.split_whitespace().last()?.parse().ok()?,
        event,
        rest,
    })
}

/// The number after `name=`.
fn field(rest: &str, name: &str) -> Option<u32> {
    let (_, value) = rest.split_once(&format!("{name}="))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Who has run so far.
#[derive(Default)]
struct Account {
    processes: HashMap<u32, u32>,
    /// What runs on each CPU, and since when.
    running: HashMap<u32, (u32, f64)>,
    begun: Option<f64>,
    spent: BTreeMap<u32, f64>,
}

impl Account {
    fn process(&self, task: u32) -> u32 {
        self.processes.get(&task).copied().unwrap_or(task)
    }

    /// From `now` on the CPU runs `next`; until now it ran `task`.
    fn switch(&mut self, cpu: u32, task: u32, next: u32, now: f64) {
        let before = self.running.insert(cpu, (next, now));
        // Of a CPU that has been silent it is known now what it did.
        let since = before.map(|(_, since)| since).or(self.begun);
        // 0 is the idle task of each CPU.
        if let Some(since) = since.filter(|_| task != 0) {
            *self.spent.entry(self.process(task)).or_default() += (now - since) * 1e3;
        }
    }

    fn begin(&mut self, now: f64) {
        self.begun = Some(now);
        self.spent.clear();
        for (_, since) in self.running.values_mut() {
            *since = now;
        }
    }

    /// Counts what runs at this moment, too.
    fn so_far(&mut self, now: f64) -> BTreeMap<u32, f64> {
        let running: Vec<_> = self.running.iter().map(|(cpu, on)| (*cpu, on.0)).collect();
        for (cpu, task) in running {
            self.switch(cpu, task, task, now);
        }
        self.spent.clone()
    }
}

fn add_up(text: &str, processes: HashMap<u32, u32>) -> Result<Spent> {
    let mut spent = Spent::default();
    let mut account = Account {
        processes,
        ..Account::default()
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    for line in lines.filter_map(parse) {
        let process = account.process(line.task);
        match line.event {
            "tracing_mark_write" if line.rest.contains(BEGIN) => account.begin(line.seconds),
            "tracing_mark_write" if line.rest.contains(END) => {
                spent.end = account.so_far(line.seconds);
            }
            "task_newtask" => {
                let task = field(line.rest, "pid").context("a task without a number")?;
                // Until it runs a program of its own, what a new process does is its parent's doing, as a thread's is.
                account.processes.insert(task, process);
            }
            "sched_process_exec" => {
                account.switch(line.cpu, line.task, line.task, line.seconds);
                account.processes.insert(line.task, line.task);
                let path = line.rest.trim_start_matches("filename=");
                let path = path.split(" pid=").next().unwrap_or(path);
                let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                let parent = spent.programs.get(&line.task).map(|before| before.parent);
                let parent = parent.unwrap_or(process);
                spent.programs.insert(line.task, Program { name, parent });
            }
            "sched_switch" => {
                let before = field(line.rest, "prev_pid").context("a switch from nobody")?;
                let next = field(line.rest, "next_pid").context("a switch to nobody")?;
                account.switch(line.cpu, before, next, line.seconds);
            }
            // Of a VMM that was started in this time.
            "kvm_entry" if spent.first_entry.is_none() && spent.programs.contains_key(&process) => {
                spent.first_entry = Some(account.so_far(line.seconds));
            }
            _ => {}
        }
    }
    account.begun.context("the trace has lost its begin")?;
    Ok(spent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_to_who_ran() {
        // 10: the agent with a thread 11; 20: us; 30: an older guest; 40: a helper that forks 41, which becomes a VMM.
        let text = "# tracer: nop\n\
            tokio-rt worker-11 [000] d..2. 0.900000: sched_switch: prev_comm=tokio-rt worker prev_pid=11 prev_prio=120 prev_state=S ==> next_comm=us next_pid=20 next_prio=120\n\
            us-20 [000] ..... 1.000000: tracing_mark_write: cumulet-bench: begin\n\
            us-20 [000] d..2. 1.001000: sched_switch: prev_comm=us prev_pid=20 prev_prio=120 prev_state=S ==> next_comm=tokio-rt worker next_pid=11 next_prio=120\n\
            tokio-rt worker-11 [000] ..... 1.002000: task_newtask: pid=41 comm=tokio-rt worker clone_flags=4111 oom_score_adj=0\n\
            tokio-rt worker-11 [000] d..2. 1.003000: sched_switch: prev_comm=tokio-rt worker prev_pid=11 prev_prio=120 prev_state=S ==> next_comm=tokio-rt worker next_pid=41 next_prio=120\n\
            vmm-41 [000] ..... 1.004000: sched_process_exec: filename=/b/cumulet-vmm pid=41 old_pid=41\n\
            vmm-41 [000] ..... 1.005000: task_newtask: pid=42 comm=vmm clone_flags=3d0f00 oom_score_adj=0\n\
            vmm-41 [000] d..2. 1.006000: sched_switch: prev_comm=vmm prev_pid=41 prev_prio=120 prev_state=S ==> next_comm=old next_pid=30 next_prio=120\n\
            old-30 [000] d..2. 1.006000: kvm_entry: vcpu 0, rip 0x1\n\
            old-30 [000] d..2. 1.007000: sched_switch: prev_comm=old prev_pid=30 prev_prio=120 prev_state=S ==> next_comm=vcpu next_pid=42 next_prio=120\n\
            vcpu-42 [000] d..2. 1.009000: kvm_entry: vcpu 0, rip 0x1\n\
            vcpu-42 [000] d..2. 1.019000: sched_switch: prev_comm=vcpu prev_pid=42 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120\n\
            <idle>-0 [000] d..2. 1.020000: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=us next_pid=20 next_prio=120\n\
            us-20 [000] ..... 1.021000: tracing_mark_write: cumulet-bench: end\n";
        let there = HashMap::from([(10, 10), (11, 10), (20, 20), (30, 30)]);
        let spent = add_up(text, there).unwrap();
        let microseconds = |spent: &BTreeMap<u32, f64>| -> Vec<(u32, i64)> {
            let rounded = |ms: &f64| format!("{:.0}", ms * 1e3).parse().unwrap();
            spent.iter().map(|(id, ms)| (*id, rounded(ms))).collect()
        };
        assert_eq!(
            microseconds(&spent.first_entry.unwrap()),
            [(10, 3000), (20, 1000), (30, 1000), (41, 4000)]
        );
        assert_eq!(
            microseconds(&spent.end),
            [(10, 3000), (20, 2000), (30, 1000), (41, 14000)]
        );
        let vmm = &spent.programs[&41];
        assert_eq!((vmm.name.as_str(), vmm.parent), ("cumulet-vmm", 10));
    }
}
