//! vCPU threads: run, hand exits to the buses, park, reset.
//!
//! ```text
//!            start(entry)            park()                  quit()
//!   parked ──────────────► running ────────► parked    any ────────► thread ends
//!     ▲                       │ request, fault
//!     └───────────────────────┘ (parks by itself, the main thread decides)
//! ```
//!
//! Lock order: the phase's mutex is never held while a device or KVM is called.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::arch::regs::Entry;
use crate::arch::vcpu::{PowerOnState, dump};
use crate::bus::PortBus;
use crate::event_loop::lock;
use crate::pci::PciRoot;
use crate::requests::{Request, Requests};
use crate::trace::{Exit, VcpuTrace};

/// What a vCPU thread does first: it confines itself.
pub type OnStart = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What all vCPUs see of the machine.
pub struct Platform {
    /// Port space.
    pub ports: PortBus,
    /// Memory-mapped devices: all of them are PCI BARs.
    pub pci: Arc<PciRoot>,
    /// Reset, power-off, failures.
    pub requests: Requests,
}

/// One vCPU before its thread starts.
pub struct Vcpu {
    /// Its number and APIC id.
    pub id: u8,
    /// KVM's handle.
    pub fd: VcpuFd,
    /// What a reset restores.
    pub power_on: PowerOnState,
    /// Its counters.
    pub trace: Arc<VcpuTrace>,
}

/// What the main thread wants of the vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Park,
    Run,
    Quit,
}

struct Phase {
    wanted: Wanted,
    /// Counts lives of the guest; a vCPU that sees a new one resets itself first.
    life: u64,
    entry: Option<Entry>,
    parked: usize,
}

struct Shared {
    phase: Mutex<Phase>,
    changed: Condvar,
    /// Set when the vCPUs must leave guest mode.
    stop: AtomicBool,
    platform: Arc<Platform>,
}

/// All vCPU threads of a machine.
pub struct Vcpus {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

thread_local! {
    /// `immediate_exit` of the thread's own vCPU, for the signal handler.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// Makes the interrupted or the next KVM_RUN return. Without the flag a signal that arrives just
/// before KVM_RUN would be lost.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    IMMEDIATE_EXIT.with(|cell| {
        let flag = cell.get();
        if !flag.is_null() {
            // SAFETY: points into the `kvm_run` mapping of this thread's vCPU, which the thread
            // keeps until it has cleared the cell; the kernel only reads the byte.
            unsafe { flag.write_volatile(1) };
        }
    });
}

impl Vcpus {
    /// Starts the threads, parked. `on_start` runs first on each (it applies the sandbox).
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn spawn(
        vcpus: Vec<Vcpu>,
        platform: &Arc<Platform>,
        on_start: &OnStart,
    ) -> io::Result<Self> {
        register_signal_handler(SIGRTMIN(), on_kick)?;
        let shared = Arc::new(Shared {
            phase: Mutex::new(Phase {
                wanted: Wanted::Park,
                life: 0,
                entry: None,
                parked: vcpus.len(),
            }),
            changed: Condvar::new(),
            stop: AtomicBool::new(true),
            platform: Arc::clone(platform),
        });
        let threads = vcpus
            .into_iter()
            .map(|vcpu| {
                let shared = Arc::clone(&shared);
                let on_start = Arc::clone(on_start);
                std::thread::Builder::new()
                    .name(format!("vcpu{}", vcpu.id))
                    .stack_size(256 << 10)
                    .spawn(move || {
                        let runner = Runner { vcpu, shared };
                        if let Err(message) = on_start() {
                            // Parks at once: a vCPU does not run while a request waits.
                            runner.fail(message);
                        }
                        runner.run();
                    })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { shared, threads })
    }

    /// Lets a new life begin at `entry`. The vCPUs must be parked.
    pub fn start(&self, entry: Entry) {
        self.order(|phase| {
            phase.life += 1;
            phase.entry = Some(entry);
            phase.wanted = Wanted::Run;
        });
    }

    /// Lets parked vCPUs go on.
    pub fn resume(&self) {
        self.order(|phase| phase.wanted = Wanted::Run);
    }

    fn order(&self, change: impl FnOnce(&mut Phase)) {
        let mut phase = lock(&self.shared.phase);
        change(&mut phase);
        let stop = phase.wanted != Wanted::Run;
        self.shared.stop.store(stop, Ordering::Release);
        self.shared.changed.notify_all();
    }

    /// Stops all vCPUs; returns when none executes guest code any more.
    pub fn park(&self) {
        self.order(|phase| phase.wanted = Wanted::Park);
        self.kick();
        let mut phase = lock(&self.shared.phase);
        while phase.parked < self.threads.len() {
            phase = self
                .shared
                .changed
                .wait(phase)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all threads and waits for them.
    pub fn quit(&mut self) {
        self.order(|phase| phase.wanted = Wanted::Quit);
        self.kick();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }

    fn kick(&self) {
        for thread in &self.threads {
            // Fails only for a thread that has ended.
            let _ = thread.kill(SIGRTMIN());
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.quit();
    }
}

/// A vCPU thread's body.
struct Runner {
    vcpu: Vcpu,
    shared: Arc<Shared>,
}

impl Runner {
    fn run(mut self) {
        let flag = &raw mut self.vcpu.fd.get_kvm_run().immediate_exit;
        IMMEDIATE_EXIT.with(|cell| cell.set(flag));
        let mut life = 0;
        let mut first = true;
        while let Some((new_life, entry)) = self.wait() {
            if new_life != life {
                life = new_life;
                if let Err(error) = self.begin(entry, first) {
                    self.fail(format!("KVM refused the initial state: {error}"));
                    self.park();
                    continue;
                }
                first = false;
            } else {
                // Tells the guest's watchdogs that it was paused; not every guest wants to know.
                let _ = self.vcpu.fd.kvmclock_ctrl();
            }
            self.vcpu.fd.set_kvm_immediate_exit(0);
            // A kick between the order and the line above is not lost: it set `stop` first.
            while !self.shared.stop.load(Ordering::Acquire)
                && !self.shared.platform.requests.pending()
            {
                self.step();
            }
            self.complete_io();
            self.park();
        }
        IMMEDIATE_EXIT.with(|cell| cell.set(ptr::null_mut()));
    }

    /// Waits, counted as parked, until it may run; `None` when the thread shall end.
    fn wait(&self) -> Option<(u64, Option<Entry>)> {
        let mut phase = lock(&self.shared.phase);
        loop {
            match phase.wanted {
                Wanted::Run => {
                    phase.parked -= 1;
                    return Some((phase.life, phase.entry));
                }
                Wanted::Quit => return None,
                Wanted::Park => {}
            }
            phase = self
                .shared
                .changed
                .wait(phase)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Becomes counted as parked. A vCPU that stopped by itself, because of a request or a fault,
    /// first waits for the main thread to want it parked.
    fn park(&self) {
        let mut phase = lock(&self.shared.phase);
        while phase.wanted == Wanted::Run {
            phase = self
                .shared
                .changed
                .wait(phase)
                .unwrap_or_else(PoisonError::into_inner);
        }
        phase.parked += 1;
        self.shared.changed.notify_all();
    }

    fn begin(&self, entry: Option<Entry>, first: bool) -> Result<(), kvm_ioctls::Error> {
        let Vcpu { fd, power_on, .. } = &self.vcpu;
        if !first {
            power_on.restore(fd)?;
        }
        crate::arch::vcpu::set_boot_msrs(fd)?;
        match entry {
            Some(entry) if self.vcpu.id == 0 => power_on.enter(fd, entry),
            _ => Ok(()),
        }
    }

    /// KVM finishes a port or MMIO access only at the next KVM_RUN; done before anyone looks at or
    /// replaces the vCPU's state.
    fn complete_io(&mut self) {
        self.vcpu.fd.set_kvm_immediate_exit(1);
        // Returns EINTR at once.
        let _ = self.vcpu.fd.run();
        self.vcpu.fd.set_kvm_immediate_exit(0);
    }

    /// One KVM_RUN and what it led to.
    fn step(&mut self) {
        let platform = &self.shared.platform;
        let trace = &self.vcpu.trace;
        let exit = self.vcpu.fd.run();
        trace.first_exit();
        match exit {
            Ok(VcpuExit::IoOut(port, data)) => {
                trace.count(Exit::IoOut);
                let (data, length) = (ptr::from_ref(data).cast::<u8>(), data.len());
                let size = access_size(&mut self.vcpu.fd);
                // SAFETY: `data` and `length` are the I/O data inside this vCPU's `kvm_run`
                // mapping; nothing writes to it before the next KVM_RUN on this thread.
                let data = unsafe { std::slice::from_raw_parts(data, length) };
                for piece in data.chunks(size) {
                    trace.port(port, true, &platform.ports);
                    platform.ports.write(port, piece);
                }
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                trace.count(Exit::IoIn);
                let (data, length) = (data.as_mut_ptr(), data.len());
                let size = access_size(&mut self.vcpu.fd);
                // SAFETY: as above; the borrow from `run` has ended, so this is the only one.
                let data = unsafe { std::slice::from_raw_parts_mut(data, length) };
                for piece in data.chunks_mut(size) {
                    trace.port(port, false, &platform.ports);
                    platform.ports.read(port, piece);
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                trace.count(Exit::MmioRead);
                trace.mmio(address, false, &platform.pci);
                platform.pci.mmio_read(address, data);
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                trace.count(Exit::MmioWrite);
                trace.mmio(address, true, &platform.pci);
                platform.pci.mmio_write(address, data);
            }
            Ok(VcpuExit::Hlt) => trace.count(Exit::Halt),
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => trace.count(Exit::Interrupted),
            Ok(VcpuExit::Shutdown) => {
                trace.count(Exit::Shutdown);
                let registers = dump(&self.vcpu.fd);
                platform.requests.raise(Request::TripleFault {
                    vcpu: self.vcpu.id,
                    registers,
                });
            }
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                let message = format!(
                    "KVM could not enter the guest: hardware reason {reason:#x} on CPU {cpu}"
                );
                self.fail(message);
            }
            Ok(VcpuExit::InternalError) => {
                let message = internal_error(&mut self.vcpu.fd);
                self.fail(message);
            }
            Ok(other) => {
                let message = format!("unexpected exit {other:?}");
                self.fail(message);
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                trace.count(Exit::Interrupted);
                // `stop` was set before the kick; the caller looks at it next.
                self.vcpu.fd.set_kvm_immediate_exit(0);
            }
            Err(error) => self.fail(format!("KVM_RUN failed: {error}")),
        }
    }

    fn fail(&self, message: String) {
        self.vcpu.trace.count(Exit::Error);
        self.shared.platform.requests.raise(Request::VcpuFailed {
            vcpu: self.vcpu.id,
            message,
            registers: dump(&self.vcpu.fd),
        });
    }
}

/// Bytes of one access of the port exit at hand (a string instruction repeats it).
fn access_size(fd: &mut VcpuFd) -> usize {
    // SAFETY: called only after a port exit, for which KVM fills this member of the union.
    let size = unsafe { fd.get_kvm_run().__bindgen_anon_1.io.size };
    usize::from(size.max(1))
}

fn internal_error(fd: &mut VcpuFd) -> String {
    // SAFETY: called only after KVM_EXIT_INTERNAL_ERROR, for which KVM fills this member.
    let internal = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    let meaning = match internal.suberror {
        1 => "an instruction that KVM cannot emulate",
        2 => "an unexpected exit while an event was being delivered",
        3 => "an interrupt could not be delivered",
        4 => "an unexpected hardware exit",
        _ => "an unknown cause",
    };
    let count = usize::try_from(internal.ndata)
        .unwrap_or(0)
        .min(internal.data.len());
    let data: Vec<_> = internal.data[..count]
        .iter()
        .map(|word| format!("{word:x}"))
        .collect();
    format!(
        "KVM internal error {}: {meaning} (data {}); `cumulet doctor` says whether this KVM is fit",
        internal.suberror,
        data.join(" ")
    )
}
