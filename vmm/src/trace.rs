//! What happened and how often: exits by reason (always), by port and register (with `--trace`),
//! and when the machine's milestones were reached.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bus::PortBus;
use crate::event_loop::lock;
use crate::pci::PciRoot;

/// Why a vCPU came back from guest mode to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// IN.
    IoIn,
    /// OUT.
    IoOut,
    /// Read of a memory-mapped register.
    MmioRead,
    /// Write of a memory-mapped register.
    MmioWrite,
    /// HLT (normally handled inside KVM).
    Halt,
    /// A signal or another kick.
    Interrupted,
    /// Triple fault.
    Shutdown,
    /// Anything that ends the vCPU.
    Error,
}

impl Exit {
    const ALL: [(Self, &str); 8] = [
        (Self::IoIn, "io_in"),
        (Self::IoOut, "io_out"),
        (Self::MmioRead, "mmio_read"),
        (Self::MmioWrite, "mmio_write"),
        (Self::Halt, "halt"),
        (Self::Interrupted, "interrupted"),
        (Self::Shutdown, "shutdown"),
        (Self::Error, "error"),
    ];

    fn index(self) -> usize {
        Self::ALL
            .iter()
            .position(|(exit, _)| *exit == self)
            .unwrap_or(0)
    }
}

/// When the machine's milestones were reached.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The process was executed; known to 10 ms (`/proc/self/stat`).
    pub exec: OnceLock<Instant>,
    /// `main` began.
    pub main: OnceLock<Instant>,
    /// KVM has the machine, its memory and its vCPUs.
    pub kvm_ready: OnceLock<Instant>,
    /// Kernel and initial RAM disk are in guest RAM.
    pub kernel_loaded: OnceLock<Instant>,
    /// The vCPUs were let go.
    pub first_run: OnceLock<Instant>,
    /// A vCPU came back for the first time.
    pub first_exit: OnceLock<Instant>,
    /// The guest sent its first byte to the console.
    pub first_console_byte: OnceLock<Instant>,
}

impl Timeline {
    /// Marks a milestone; only the first time counts.
    pub fn mark(milestone: &OnceLock<Instant>) {
        milestone.get_or_init(Instant::now);
    }

    /// Finds out when the process was executed.
    pub fn mark_exec(&self) {
        if let Some(age) = process_age()
            && let Some(exec) = Instant::now().checked_sub(age)
        {
            let _ = self.exec.set(exec);
        }
    }

    fn milestones(&self) -> Vec<(&'static str, Instant)> {
        [
            ("exec", &self.exec),
            ("main", &self.main),
            ("kvm_ready", &self.kvm_ready),
            ("kernel_loaded", &self.kernel_loaded),
            ("first_run", &self.first_run),
            ("first_exit", &self.first_exit),
            ("first_console_byte", &self.first_console_byte),
        ]
        .into_iter()
        .filter_map(|(name, when)| Some((name, *when.get()?)))
        .collect()
    }

    /// Milestones in microseconds since `main` began (`exec` before it, thus negative).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Some(zero) = self.main.get() else {
            return Value::Null;
        };
        let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        let map = self.milestones().into_iter().map(|(name, when)| {
            let since = match when.checked_duration_since(*zero) {
                Some(after) => micros(after),
                None => -micros(*zero - when),
            };
            (name.to_owned(), Value::from(since))
        });
        Value::Object(map.collect())
    }
}

/// Time since the process was executed, from field 22 of `/proc/self/stat`, in units of 10 ms
/// (USER_HZ is 100 on every Linux architecture we run on).
fn process_age() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command name may hold spaces and parentheses; it ends at the last ')'.
    let ticks: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let start = Duration::from_millis(ticks * 10);
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: fills the given structure.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    if done != 0 {
        return None;
    }
    let now = Duration::new(
        u64::try_from(now.tv_sec).ok()?,
        u32::try_from(now.tv_nsec).ok()?,
    );
    now.checked_sub(start)
}

/// What one port or register was used for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Port(u16, bool),
    Mmio(String, u64, bool),
}

/// Counters of one vCPU.
pub struct VcpuTrace {
    exits: [AtomicU64; Exit::ALL.len()],
    seen_exit: AtomicBool,
    timeline: Arc<Timeline>,
    detail: Option<Mutex<BTreeMap<Place, (&'static str, u64)>>>,
}

impl VcpuTrace {
    /// No exits yet. Counts ports and registers only if `detail`.
    #[must_use]
    pub fn new(timeline: &Arc<Timeline>, detail: bool) -> Self {
        Self {
            exits: Default::default(),
            seen_exit: AtomicBool::new(false),
            timeline: Arc::clone(timeline),
            detail: detail.then(Mutex::default),
        }
    }

    /// Counts an exit.
    pub fn count(&self, exit: Exit) {
        self.exits[exit.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the time of the first exit.
    pub fn first_exit(&self) {
        if !self.seen_exit.load(Ordering::Relaxed) {
            self.seen_exit.store(true, Ordering::Relaxed);
            Timeline::mark(&self.timeline.first_exit);
        }
    }

    /// Counts a port access.
    pub fn port(&self, port: u16, write: bool, ports: &PortBus) {
        if let Some(detail) = &self.detail {
            lock(detail)
                .entry(Place::Port(port, write))
                .or_insert_with(|| (ports.name(port).unwrap_or("nothing there"), 0))
                .1 += 1;
        }
    }

    /// Counts a register access.
    pub fn mmio(&self, address: u64, write: bool, pci: &PciRoot) {
        if let Some(detail) = &self.detail {
            let place = match pci.describe(address) {
                Some((device, bar, offset)) => {
                    Place::Mmio(format!("{device} BAR{bar}"), offset, write)
                }
                None => Place::Mmio("nothing there".to_owned(), address, write),
            };
            lock(detail).entry(place).or_insert(("", 0)).1 += 1;
        }
    }
}

/// All counters of a machine.
pub struct Trace {
    /// Milestones.
    pub timeline: Arc<Timeline>,
    /// By vCPU.
    pub vcpus: Vec<Arc<VcpuTrace>>,
}

impl Trace {
    fn by_reason(&self) -> Vec<(&'static str, u64)> {
        Exit::ALL
            .iter()
            .map(|(exit, name)| {
                let counts = self.vcpus.iter();
                let total = counts
                    .map(|vcpu| vcpu.exits[exit.index()].load(Ordering::Relaxed))
                    .sum();
                (*name, total)
            })
            .collect()
    }

    fn by_place(&self) -> Vec<(String, &'static str, u64)> {
        let mut sum: BTreeMap<Place, (&'static str, u64)> = BTreeMap::new();
        for detail in self.vcpus.iter().filter_map(|vcpu| vcpu.detail.as_ref()) {
            for (place, (name, count)) in lock(detail).iter() {
                sum.entry(place.clone()).or_insert((name, 0)).1 += count;
            }
        }
        let mut list: Vec<_> = sum
            .into_iter()
            .map(|(place, (name, count))| match place {
                Place::Port(port, write) => {
                    (format!("port {port:#06x} {name}"), verb(write), count)
                }
                Place::Mmio(name, offset, write) => {
                    (format!("mmio {name} +{offset:#x}"), verb(write), count)
                }
            })
            .collect();
        list.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
        list
    }

    /// For the control socket.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let reasons = self.by_reason();
        let total: u64 = reasons.iter().map(|(_, count)| count).sum();
        let mut exits: serde_json::Map<_, _> = reasons
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        exits.insert("total".to_owned(), total.into());
        let places: Vec<_> = self
            .by_place()
            .into_iter()
            .map(|(place, verb, count)| json!({"place": place, "access": verb, "count": count}))
            .collect();
        json!({"exits": exits, "places": places, "timeline_us": self.timeline.to_json()})
    }

    /// A table for a person.
    #[must_use]
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::from("boot timeline\n");
        let mut previous = None;
        let milestones = self.timeline.milestones();
        for (name, when) in &milestones {
            let zero = milestones[0].1;
            let step = when.saturating_duration_since(previous.unwrap_or(*when));
            let _ = writeln!(
                text,
                "  {name:<20} {:>12.3} ms  +{:.3} ms",
                (*when - zero).as_secs_f64() * 1e3,
                step.as_secs_f64() * 1e3
            );
            previous = Some(*when);
        }
        let reasons = self.by_reason();
        let total: u64 = reasons.iter().map(|(_, count)| count).sum();
        let _ = writeln!(text, "exits to the VMM: {total}");
        for (name, count) in reasons.into_iter().filter(|(_, count)| *count > 0) {
            let _ = writeln!(text, "  {name:<44} {count:>9}");
        }
        let places = self.by_place();
        if !places.is_empty() {
            text.push_str("by place\n");
        }
        for (place, verb, count) in places {
            let _ = writeln!(text, "  {place:<38} {verb:<5} {count:>9}");
        }
        text
    }
}

fn verb(write: bool) -> &'static str {
    if write { "write" } else { "read" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_appear_by_reason_and_place() {
        let timeline = Arc::new(Timeline::default());
        Timeline::mark(&timeline.main);
        timeline.mark_exec();
        let vcpu = Arc::new(VcpuTrace::new(&timeline, true));
        let ports = PortBus::default();
        vcpu.count(Exit::IoOut);
        vcpu.port(0x80, true, &ports);
        vcpu.first_exit();
        let trace = Trace {
            timeline,
            vcpus: vec![vcpu],
        };
        let json = trace.to_json();
        assert_eq!(json["exits"]["io_out"], 1);
        assert_eq!(json["exits"]["total"], 1);
        assert_eq!(json["places"][0]["place"], "port 0x0080 nothing there");
        assert!(json["timeline_us"]["first_exit"].is_i64());
        assert!(trace.table().contains("first_exit"));
    }
}
