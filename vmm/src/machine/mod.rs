//! The machine: built in one sequence, started, paused, reset, ended.

mod loading;

use std::io;
use std::sync::{Arc, Mutex};

use cumulet_images::block::BlockBackend;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use serde_json::{Value, json};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::arch::acpi::{AcpiBlob, AcpiConfig, PciWindows};
use crate::arch::boot::BootError;
use crate::arch::cpuid::{self, CpuModel};
use crate::arch::irq::{Controllers, KvmHost, KvmLine};
use crate::arch::regs::Entry;
use crate::arch::smbios::{self, Hardware, SmbiosError};
use crate::arch::vcpu::PowerOnState;
use crate::arch::{self, layout};
use crate::boot::{BootSource, SourceError};
use crate::bus::PortBus;
use crate::config::VmConfig;
use crate::console::ConsoleOutput;
use crate::device::PciHost;
use crate::devices::{self, DeviceError, DeviceMetrics};
use crate::event_loop::{EventLoopHandle, lock};
use crate::legacy::{
    FirmwareDebug, KeyboardReset, Pm, PmPorts, PmTimer, ResetControl, Rtc, Serial, Sink,
    SystemControlA, SystemControlB,
};
use crate::memory::{self, GuestRam};
use crate::pci::{PciError, PciPorts, PciRoot, Window};
use crate::requests::Requests;
use crate::resources::Resources;
use crate::trace::{Timeline, Trace, VcpuTrace};
use crate::vcpu::{OnStart, Platform, Vcpu, Vcpus};
use crate::virtio::FailureSink;
use crate::virtio::transport::Host;
use loading::{Loading, load};

/// Why a machine cannot be built or reset.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Guest RAM.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// KVM refused something.
    #[error("KVM cannot {action}")]
    Kvm {
        /// What was asked.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// More vCPUs than this host's KVM makes.
    #[error("vcpus: {wanted} wanted, this host's KVM makes at most {limit}")]
    TooManyVcpus {
        /// Configured.
        wanted: u8,
        /// KVM's limit.
        limit: usize,
    },
    /// The kernel cannot be booted.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// There is nothing to boot.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// SMBIOS strings.
    #[error(transparent)]
    Smbios(#[from] SmbiosError),
    /// The PCI bus.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// A virtio device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Host resources.
    #[error("cannot make {what}")]
    Host {
        /// What for.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn kvm<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> MachineError {
    move |source| MachineError::Kvm {
        action,
        source: source.into(),
    }
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    move |source| MachineError::Host { what, source }
}

/// What the machine is plugged into: the event loop and who hears of events.
pub struct Surroundings {
    /// Where queue handlers run.
    pub events: EventLoopHandle,
    /// Who is told of devices taken from the guest.
    pub failures: Arc<dyn FailureSink>,
    /// Runs first on each vCPU thread.
    pub on_vcpu_start: OnStart,
    /// Runs first on the thread that loads the kernel.
    pub on_load: OnStart,
    /// Milestones.
    pub timeline: Arc<Timeline>,
}

/// A machine. Dropping it ends its vCPU threads.
pub struct Machine {
    vcpus: Vcpus,
    ram: GuestRam,
    ram_bytes: u64,
    platform: Arc<Platform>,
    legacy: Legacy,
    boot: Arc<BootSource>,
    loading: Option<Loading>,
    tables: Tables,
    windows: PciWindows,
    console: ConsoleOutput,
    trace: Trace,
    metrics: DeviceMetrics,
    disks: Vec<Arc<dyn BlockBackend>>,
    vm: Arc<VmFd>,
    controllers: Controllers,
}

/// Devices that the main thread talks to.
struct Legacy {
    serial: Arc<Mutex<Serial>>,
    pm: Arc<Mutex<Pm>>,
    pm_timer: Arc<Mutex<PmTimer>>,
}

/// Tables that direct boot writes where firmware would.
struct Tables {
    acpi: (Vec<u8>, Vec<u8>),
    smbios: Vec<u8>,
}

impl Machine {
    /// Builds a machine whose vCPUs are parked.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub fn build(
        config: &VmConfig,
        resources: Resources,
        around: &Surroundings,
    ) -> Result<Self, MachineError> {
        let ram = GuestRam::new(config.memory_mib)?;
        let ram_bytes = config.memory_mib * layout::MIB;
        let boot = Arc::new(resources.boot);
        let loading = Loading::begin(&boot, &ram, ram_bytes, &around.on_load)
            .map_err(host("a thread that loads the kernel"))?;
        let vm = Arc::new(create_vm(&resources.kvm, &ram)?);
        let controllers = Controllers::capture(&vm).map_err(kvm("read interrupt controllers"))?;
        let irq_host: Arc<dyn PciHost> =
            Arc::new(KvmHost::new(Arc::clone(&vm)).map_err(kvm("route interrupts"))?);
        let requests = Requests::new().map_err(host("a request event"))?;
        let console =
            ConsoleOutput::new(Arc::clone(&around.timeline)).map_err(host("a console timer"))?;

        let (vcpus, physical_bits) = create_vcpus(config, &resources.kvm, &vm, around)?;
        let windows = pci_windows(ram_bytes, physical_bits);
        Timeline::mark(&around.timeline.kvm_ready);

        let mut ports = PortBus::default();
        let legacy = Legacy::new(&mut ports, &vm, &requests, &console, config)?;
        let pci = Arc::new(PciRoot::new());
        ports.add(
            "PCI configuration",
            layout::PORT_PCI_ADDRESS,
            8,
            Arc::new(Mutex::new(PciPorts(Arc::clone(&pci)))),
        );
        let disks = resources.disks.clone();
        let metrics = devices::plug(&pci, config, resources.disks, resources.nets, || Host {
            memory: ram.memory.clone(),
            pci: Arc::clone(&irq_host),
            events: around.events.clone(),
            failures: Arc::clone(&around.failures),
        })?;

        let trace = Trace {
            timeline: Arc::clone(&around.timeline),
            vcpus: vcpus.iter().map(|vcpu| Arc::clone(&vcpu.trace)).collect(),
        };
        let platform = Arc::new(Platform {
            ports,
            pci,
            requests,
        });
        Ok(Self {
            vcpus: Vcpus::spawn(vcpus, &platform, &around.on_vcpu_start)
                .map_err(host("vCPU threads"))?,
            tables: Tables::new(config, ram_bytes, windows)?,
            ram,
            ram_bytes,
            platform,
            legacy,
            boot,
            loading: Some(loading),
            windows,
            console,
            trace,
            metrics,
            disks,
            vm,
            controllers,
        })
    }

    /// Puts the boot data into guest RAM and lets the vCPUs go.
    ///
    /// # Errors
    /// When the kernel cannot be loaded.
    pub fn start(&mut self) -> Result<(), MachineError> {
        let entry = self.boot_data()?;
        Timeline::mark(&self.trace.timeline.kernel_loaded);
        self.vcpus.start(entry);
        Timeline::mark(&self.trace.timeline.first_run);
        Ok(())
    }

    /// Fills RAM with what a boot needs; says where the kernel is entered.
    fn boot_data(&mut self) -> Result<Entry, MachineError> {
        self.write_tables()?;
        match self.loading.take() {
            Some(loading) => loading.end(),
            None => load(&self.boot, &self.ram.memory, self.ram_bytes),
        }
    }

    /// Assigns PCI addresses and puts the tables into RAM: what firmware would do.
    fn write_tables(&self) -> Result<(), MachineError> {
        let below = Window::new(self.windows.below.0, self.windows.below.1);
        let above = self
            .windows
            .above
            .map(|(start, end)| Window::new(start, end));
        self.platform.pci.assign_bars(below, above)?;
        let (acpi, rsdp) = &self.tables.acpi;
        let blobs = [
            ("ACPI tables", layout::ACPI_TABLES, acpi),
            ("ACPI root pointer", layout::RSDP, rsdp),
            ("SMBIOS tables", layout::SMBIOS, &self.tables.smbios),
        ];
        for (what, address, blob) in blobs {
            self.ram
                .memory
                .write_slice(blob, GuestAddress(address))
                .map_err(|source| memory::Error::Write {
                    what,
                    address,
                    source,
                })?;
        }
        Ok(())
    }

    /// Stops all vCPUs, and with them the guest's clocks and what comes from the network.
    pub fn pause(&self) {
        self.vcpus.park();
        self.platform.pci.set_paused(true);
        lock(&self.legacy.pm_timer).pause();
    }

    /// Undoes [`Machine::pause`].
    pub fn resume(&self) {
        lock(&self.legacy.pm_timer).resume();
        self.platform.pci.set_paused(false);
        self.vcpus.resume();
    }

    /// Resets vCPUs and devices, empties RAM and boots anew.
    ///
    /// # Errors
    /// When the kernel cannot be loaded again.
    pub fn reset(&mut self) -> Result<(), MachineError> {
        self.vcpus.park();
        // What the guest asked for in its last moments is answered by this reset.
        let _ = self.platform.requests.take();
        self.platform.pci.reset();
        self.platform.pci.set_paused(false);
        self.controllers
            .restore(&self.vm)
            .map_err(kvm("reset the interrupt controllers"))?;
        self.legacy.reset();
        self.ram.clear().map_err(host("empty guest RAM"))?;
        let entry = self.boot_data()?;
        self.vcpus.start(entry);
        Ok(())
    }

    /// Stops the vCPUs and the devices for good: requests in flight are completed, disks flushed.
    ///
    /// # Errors
    /// When a disk cannot be flushed; the others are flushed all the same.
    pub fn shut_down(&mut self) -> io::Result<()> {
        self.vcpus.quit();
        self.platform.pci.reset();
        let flushed: Vec<_> = self.disks.iter().map(|disk| disk.flush()).collect();
        flushed.into_iter().collect()
    }

    /// Presses the ACPI power button.
    pub fn press_power_button(&self) {
        lock(&self.legacy.pm).press_power_button();
    }

    /// Requests of the guest.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.platform.requests
    }

    /// Console output.
    #[must_use]
    pub fn console(&self) -> &ConsoleOutput {
        &self.console
    }

    /// Gives the guest console input; returns how much it took.
    #[must_use]
    pub fn console_input(&self, bytes: &[u8]) -> usize {
        lock(&self.legacy.serial).receive(bytes)
    }

    /// Writes to `event` when console input that did not fit fits again.
    pub fn notify_console_room(&self, event: EventFd) {
        lock(&self.legacy.serial).notify_room(event);
    }

    /// Counters.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Exits, devices and milestones as a table for a person.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.trace.table();
        text.push_str("devices\n");
        for (name, metrics) in &self.metrics {
            text.push_str("  ");
            text.push_str(name);
            if let Value::Object(counters) = metrics.snapshot() {
                for (counter, value) in counters.iter().filter(|(_, value)| **value != 0) {
                    text.push_str(&format!(" {counter}={value}"));
                }
            }
            text.push('\n');
        }
        text
    }

    /// Exits, devices and memory for the control socket.
    #[must_use]
    pub fn stats(&self) -> Value {
        let devices: serde_json::Map<_, _> = self
            .metrics
            .iter()
            .map(|(name, metrics)| (name.clone(), metrics.snapshot()))
            .collect();
        let mut stats = self.trace.to_json();
        stats["devices"] = devices.into();
        stats["guest_ram_bytes"] = self.ram_bytes.into();
        stats["console_bytes"] = json!(self.console.total());
        stats
    }
}

/// Makes the VM: memory slots, interrupt controllers, timer.
fn create_vm(kvm_device: &Kvm, ram: &GuestRam) -> Result<VmFd, MachineError> {
    let vm = kvm_device.create_vm().map_err(kvm("make a machine"))?;
    for (index, slot) in (0..).zip(&ram.slots) {
        let region = kvm_userspace_memory_region {
            slot: index,
            guest_phys_addr: slot.guest,
            memory_size: slot.size,
            userspace_addr: slot.host,
            flags: 0,
        };
        // SAFETY: the host range is the guest RAM mapping, which lives as long as this process,
        // and the slots do not overlap.
        unsafe { vm.set_user_memory_region(region) }.map_err(kvm("take guest RAM"))?;
    }
    arch::irq::create_controllers(&vm).map_err(kvm("make interrupt controllers"))?;
    Ok(vm)
}

/// Makes the vCPUs; also says how wide a guest-physical address is.
fn create_vcpus(
    config: &VmConfig,
    kvm_device: &Kvm,
    vm: &VmFd,
    around: &Surroundings,
) -> Result<(Vec<Vcpu>, u32), MachineError> {
    let limit = kvm_device.get_max_vcpus();
    if usize::from(config.vcpus) > limit {
        return Err(MachineError::TooManyVcpus {
            wanted: config.vcpus,
            limit,
        });
    }
    let supported = kvm_device
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(kvm("say what its processors can do"))?;
    let msrs = kvm_device
        .get_msr_index_list()
        .map_err(kvm("list its registers"))?;
    let mut template = Vec::new();
    let mut vcpus = Vec::with_capacity(usize::from(config.vcpus));
    for id in 0..config.vcpus {
        let fd = vm.create_vcpu(id.into()).map_err(kvm("make a vCPU"))?;
        if template.is_empty() {
            let model = CpuModel {
                vcpus: config.vcpus,
                tsc_khz: fd.get_tsc_khz().ok().filter(|khz| *khz > 0),
                nested: config.nested_virtualization,
                tsc_deadline: kvm_device.check_extension(Cap::TscDeadlineTimer),
            };
            template = model.template(supported.as_slice());
        }
        let entries = cpuid::for_vcpu(&template, id)
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))
            .map_err(kvm("take so many CPUID entries"))?;
        fd.set_cpuid2(&entries).map_err(kvm("set CPUID"))?;
        let power_on =
            PowerOnState::capture(&fd, msrs.as_slice()).map_err(kvm("read a vCPU's state"))?;
        vcpus.push(Vcpu {
            id,
            fd,
            power_on,
            trace: Arc::new(VcpuTrace::new(&around.timeline, config.trace)),
        });
    }
    Ok((vcpus, cpuid::physical_bits(&template)))
}

/// Where PCI BARs may be. The window above RAM stays below 2^44, as far as old kernels reach.
fn pci_windows(ram: u64, physical_bits: u32) -> PciWindows {
    let top = 1_u64 << physical_bits.min(44);
    let start = (layout::HIGH_RAM + ram.saturating_sub(layout::LOW_RAM_MAX))
        .next_multiple_of(4 * layout::GIB);
    let end = start.saturating_add(layout::PCI_WINDOW64_SIZE).min(top);
    PciWindows {
        below: (layout::PCI_WINDOW32, layout::PCI_WINDOW32_END),
        above: (end > start).then_some((start, end)),
    }
}

impl Legacy {
    /// Makes the small devices and puts them on their ports.
    fn new(
        ports: &mut PortBus,
        vm: &Arc<VmFd>,
        requests: &Requests,
        console: &ConsoleOutput,
        config: &VmConfig,
    ) -> Result<Self, MachineError> {
        let com_irq =
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(host("a serial interrupt"))?;
        vm.register_irqfd(&com_irq, layout::IRQ_COM1)
            .map_err(kvm("wire the serial interrupt"))?;
        let serial = Arc::new(Mutex::new(Serial::new(com_irq, Box::new(console.clone()))));
        let sci = KvmLine::new(Arc::clone(vm), layout::IRQ_SCI);
        let pm = Arc::new(Mutex::new(Pm::new(Box::new(sci), requests.clone())));
        let pm_timer = Arc::new(Mutex::new(PmTimer::default()));
        let ram = config.memory_mib * layout::MIB;
        let low = ram.min(layout::LOW_RAM_MAX);
        let rtc = Rtc::new(low, ram - low, config.vcpus);

        let reset = || requests.clone();
        ports.add("COM1", layout::PORT_COM1, 8, serial.clone());
        ports.add("PM timer", layout::PORT_PM_TIMER, 4, pm_timer.clone());
        // Before the PCI ports, in whose range it lies.
        ports.add(
            "reset control",
            layout::PORT_RESET,
            1,
            shared(ResetControl::new(reset())),
        );
        ports.add("CMOS and clock", layout::PORT_CMOS, 2, shared(rtc));
        ports.add(
            "PM1 events",
            layout::PORT_PM1_EVENT,
            4,
            shared(PmPorts::event(&pm)),
        );
        ports.add(
            "PM1 control",
            layout::PORT_PM1_CONTROL,
            2,
            shared(PmPorts::control(&pm)),
        );
        ports.add("GPE0", layout::PORT_GPE0, 4, shared(PmPorts::gpe0(&pm)));
        ports.add(
            "keyboard reset",
            layout::PORT_KEYBOARD,
            1,
            shared(KeyboardReset::new(reset())),
        );
        ports.add(
            "fast reset",
            layout::PORT_SYSTEM_A,
            1,
            shared(SystemControlA::new(reset())),
        );
        ports.add(
            "speaker gate",
            layout::PORT_SYSTEM_B,
            1,
            shared(SystemControlB::default()),
        );
        ports.add("POST codes", layout::PORT_POST, 1, shared(Sink));
        ports.add(
            "firmware debug",
            layout::PORT_FIRMWARE_DEBUG,
            1,
            shared(FirmwareDebug),
        );
        Ok(Self {
            serial,
            pm,
            pm_timer,
        })
    }

    fn reset(&self) {
        lock(&self.serial).reset();
        lock(&self.pm).reset();
    }
}

fn shared<D>(device: D) -> Arc<Mutex<D>> {
    Arc::new(Mutex::new(device))
}

impl Tables {
    fn new(config: &VmConfig, ram: u64, windows: PciWindows) -> Result<Self, MachineError> {
        let acpi = AcpiBlob::new(&AcpiConfig {
            vcpus: config.vcpus,
            windows,
        });
        let hardware = Hardware {
            ram,
            vcpus: config.vcpus,
        };
        Ok(Self {
            acpi: acpi.for_direct_boot().ok_or_else(|| {
                host("room for the ACPI tables")(io::ErrorKind::StorageFull.into())
            })?,
            smbios: smbios::tables(&config.smbios, hardware)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_avoid_ram_and_fit_the_address_width() {
        let gib = layout::GIB;
        let small = pci_windows(256 * layout::MIB, 40);
        assert_eq!(small.above, Some((4 * gib, 68 * gib)));
        let large = pci_windows(40 * gib, 40);
        assert_eq!(large.above, Some((44 * gib, 108 * gib)));
        let narrow = pci_windows(256 * layout::MIB, 36);
        assert_eq!(narrow.above, Some((4 * gib, 64 * gib)));
        assert_eq!(pci_windows(70 * gib, 36).above, None);
    }
}
