//! Looking at a running VMM from outside: exits, memory, threads, time to the first `KVM_RUN`.
//!
//! Everything here runs inside the (emulated) KVM host, as root.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// What one boot of one VMM cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BootSample {
    /// From just before exec to the first `KVM_RUN`, in microseconds.
    pub(crate) first_run_us: f64,
    /// From just before exec to HELLO on the serial line, in microseconds.
    pub(crate) hello_us: f64,
    /// VM exits up to HELLO.
    pub(crate) exits: u64,
    /// Resident memory of the VMM without guest RAM, in KiB.
    pub(crate) rss_kib: u64,
    /// The part of it that no other process shares and that was written, in KiB.
    pub(crate) private_dirty_kib: u64,
    /// Threads.
    pub(crate) threads: u64,
}

/// Memory of a process without its guest RAM.
struct Memory {
    rss_kib: u64,
    private_dirty_kib: u64,
}

/// A VMM under test with its console on a pipe. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    started: Instant,
    hang: Duration,
    seen: Vec<String>,
}

impl Running {
    /// Starts the command; its standard output is the guest's console. A guest that says nothing for `hang` is lost.
    pub(crate) fn start(argv: &[String], hang: Duration) -> Result<Self> {
        let (program, args) = argv.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let started = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let stdout = child.stdout.take().context("no pipe to the console")?;
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if send
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            started,
            hang,
            seen: Vec::new(),
        })
    }

    /// Waits for a console line that contains `pattern` and gives it with the time since start.
    pub(crate) fn wait_for(&mut self, pattern: &str) -> Result<(String, Duration)> {
        loop {
            match self.lines.recv_timeout(self.hang) {
                Ok(line) if line.contains(pattern) => return Ok((line, self.started.elapsed())),
                Ok(line) => self.seen.push(line),
                Err(_) => bail!(
                    "no {pattern:?} on the console; seen so far:\n{}",
                    self.seen.join("\n")
                ),
            }
        }
    }

    /// Sends a line to the guest's console.
    pub(crate) fn send(&mut self, line: &str) -> Result<()> {
        use std::io::Write as _;
        let stdin = self
            .child
            .stdin
            .as_mut()
            .context("the console takes no input")?;
        writeln!(stdin, "{line}").context("cannot write to the console")?;
        stdin.flush().context("cannot write to the console")
    }

    /// Process id of the VMM.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// CPU time of a process's threads by name: in the host's user mode, in its kernel, and in guest mode. Threads of
/// one name are added up.
pub(crate) fn cpu_times(pid: u32) -> Result<BTreeMap<String, CpuTime>> {
    let mut times: BTreeMap<String, CpuTime> = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let (head, rest) = stat.rsplit_once(')').context("a stat without a name")?;
        let (_, name) = head.split_once('(').context("a stat without a name")?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        // proc(5) counts from 1, and the third field comes first here.
        let field = |number: usize| -> Result<u64> {
            let ticks: u64 = fields.get(number - 3).context("a short stat")?.parse()?;
            Ok(ticks * TICK_MS)
        };
        let (user, guest) = (field(14)?, field(43)?);
        let time = times.entry(name.to_owned()).or_default();
        time.user += user.saturating_sub(guest);
        time.kernel += field(15)?;
        time.guest += guest;
    }
    Ok(times)
}

/// Milliseconds of CPU time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CpuTime {
    pub(crate) user: u64,
    pub(crate) kernel: u64,
    pub(crate) guest: u64,
}

/// Linux tells user space of ticks of 10 ms.
const TICK_MS: u64 = 10;

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is fine; a killed child must still be reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Boots once without tracing for the time to HELLO, once with it for the first `KVM_RUN`.
pub(crate) fn boot_once(argv: &[String], ram_mib: u64, hang: Duration) -> Result<BootSample> {
    let mut vmm = Running::start(argv, hang)?;
    let (_, hello) = vmm.wait_for("HELLO")?;
    let exits = exits(vmm.pid())?;
    let memory = memory(vmm.pid(), ram_mib)?;
    let threads = fs::read_dir(format!("/proc/{}/task", vmm.pid()))?.count() as u64;
    drop(vmm);
    Ok(BootSample {
        first_run_us: first_run(argv, hang)?,
        hello_us: hello.as_secs_f64() * 1e6,
        exits,
        rss_kib: memory.rss_kib,
        private_dirty_kib: memory.private_dirty_kib,
        threads,
    })
}

/// VM exits of a process so far.
pub(crate) fn exits(pid: u32) -> Result<u64> {
    kvm_count(pid, "exits")
}

/// One of KVM's own statistics of a process's machines (debugfs).
pub(crate) fn kvm_count(pid: u32, what: &str) -> Result<u64> {
    let root = Path::new("/sys/kernel/debug/kvm");
    if !root.exists() {
        // An error shows below, when the folder is still missing.
        let _ = Command::new("mount")
            .args(["-t", "debugfs", "debugfs", "/sys/kernel/debug"])
            .status();
    }
    let prefix = format!("{pid}-");
    let mut sum = 0;
    let mut found = false;
    for entry in fs::read_dir(root).context("KVM statistics (debugfs) are not readable")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            sum += sum_of_file(&entry.path(), what)?;
            found = true;
        }
    }
    if !found {
        bail!("KVM shows no machine of process {pid}");
    }
    Ok(sum)
}

/// The number in `dir/name`, or the sum over `dir/vcpu*/name` on kernels that count by vCPU.
fn sum_of_file(dir: &Path, name: &str) -> Result<u64> {
    let own = dir.join(name);
    if own.is_file() {
        return read_number(&own);
    }
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path().join(name);
        if path.is_file() {
            sum += read_number(&path)?;
        }
    }
    Ok(sum)
}

fn read_number(path: &Path) -> Result<u64> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim()
        .parse()
        .with_context(|| format!("{} holds {text:?}", path.display()))
}

/// Sums /proc/PID/smaps over all mappings but guest RAM: those of at least half its size, or part
/// of it (a machine with a memory hole has two).
fn memory(pid: u32, ram_mib: u64) -> Result<Memory> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut rss_kib, mut private_dirty_kib) = (0, 0);
    let (mut is_ram, kib) = (false, |line: &str| -> u64 {
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    });
    for line in smaps.lines() {
        if line.starts_with("Size:") {
            is_ram = kib(line) >= ram_mib * 1024 / 2;
        } else if is_ram {
            continue;
        } else if line.starts_with("Rss:") {
            rss_kib += kib(line);
        } else if line.starts_with("Private_Dirty:") {
            private_dirty_kib += kib(line);
        }
    }
    Ok(Memory {
        rss_kib,
        private_dirty_kib,
    })
}

/// A tracefs instance of ours, removed when dropped.
pub(super) struct Trace(PathBuf);

impl Trace {
    pub(super) fn new() -> Result<Self> {
        let root = Path::new("/sys/kernel/tracing");
        if !root.join("instances").exists() {
            let _ = Command::new("mount")
                .args(["-t", "tracefs", "tracefs"])
                .arg(root)
                .status();
        }
        let dir = root
            .join("instances")
            .join(format!("cumulet-{}", std::process::id()));
        fs::create_dir(&dir).context("tracefs takes no instance")?;
        Ok(Self(dir))
    }

    pub(super) fn set(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.0.join(file), value).with_context(|| format!("tracefs: {value} > {file}"))
    }

    /// Everything recorded so far, a line an event.
    pub(super) fn text(&self) -> Result<String> {
        fs::read_to_string(self.0.join("trace")).context("cannot read the trace")
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("events/enable"), "0");
        let _ = fs::remove_dir(&self.0);
    }
}

/// Microseconds from exec to the first entry into the guest, by the kernel's own trace.
fn first_run(argv: &[String], hang: Duration) -> Result<f64> {
    let trace = Trace::new()?;
    trace.set("trace_clock", "mono")?;
    trace.set("events/sched/sched_process_exec/enable", "1")?;
    trace.set("events/kvm/kvm_entry/enable", "1")?;
    // The first entry is all we want: stop tracing there, so that no later one costs anything.
    trace.set("events/kvm/kvm_entry/trigger", "traceoff:1")?;
    trace.set("tracing_on", "1")?;
    let mut vmm = Running::start(argv, hang)?;
    let deadline = Instant::now() + hang;
    loop {
        // Long enough for any VMM: a look at the trace takes time from it where there is one CPU.
        thread::sleep(Duration::from_millis(400));
        let text = trace.text()?;
        let exec = stamp(&text, |line| {
            line.contains("sched_process_exec") && line.contains(&format!("pid={} ", vmm.pid()))
        });
        if let (Some(exec), Some(entry)) = (exec, stamp(&text, |line| line.contains("kvm_entry"))) {
            return Ok((entry - exec) * 1e6);
        }
        if Instant::now() > deadline {
            bail!(
                "the trace shows no exec and KVM entry of {}:\n{text}",
                argv[0]
            );
        }
        if let Some(status) = vmm.child.try_wait()? {
            bail!(
                "{} ended with {status} before it entered the guest",
                argv[0]
            );
        }
    }
}

/// The time stamp (seconds) of the first trace line that fits: `comm-pid [cpu] flags TIME: event: …`.
fn stamp(text: &str, fits: impl Fn(&str) -> bool) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| !line.starts_with('#') && fits(line))?;
    line.split_whitespace()
        .find_map(|word| word.strip_suffix(':')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_lines_give_their_time() {
        let text = "# tracer: nop\n\
            cumulet-vmm-71 [000] d..1. 12.500000: sched_process_exec: filename=/b/v pid=71 old_pid=71\n\
            cumulet-vmm-72 [000] d..1. 12.530000: kvm_entry: vcpu 0, rip 0x1000000\n";
        assert_eq!(
            stamp(text, |l| l.contains("sched_process_exec")),
            Some(12.5)
        );
        assert_eq!(stamp(text, |l| l.contains("kvm_entry")), Some(12.53));
        assert_eq!(stamp(text, |l| l.contains("kvm_exit")), None);
    }
}
