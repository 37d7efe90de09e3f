//! Interrupts on KVM: the GSI routing table, message-signalled interrupts by irqfd, and INTx lines.
//!
//! Lock order: [`Routes`] before nothing; [`Lines`] before nothing. No lock is held across a call
//! into a device.

use std::io;
use std::sync::{Arc, Mutex};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irqchip, kvm_pit_config, kvm_pit_state2,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::layout::{
    FIRST_MSI_GSI, IOAPIC_PINS, IRQ_PCI, IRQ_PCI_LINES, KVM_IDENTITY_MAP, KVM_TSS,
};
use crate::device::{IntxLine, MsiGroup, MsiMessage, PciHost};
use crate::event_loop::lock;

/// KVM takes this many routes (`KVM_MAX_IRQ_ROUTES`).
const MAX_ROUTES: usize = 4096;

/// The machine's side of [`PciHost`].
pub struct KvmHost {
    vm: Arc<VmFd>,
    routes: Arc<Mutex<Routes>>,
    lines: Arc<Mutex<Lines>>,
}

/// All routes that KVM must know: it takes the whole table each time.
struct Routes {
    entries: Vec<kvm_irq_routing_entry>,
    next_gsi: u32,
}

/// Which slots assert each shared INTx line.
#[derive(Default)]
struct Lines {
    asserted: [u32; IRQ_PCI_LINES as usize],
}

/// Makes the interrupt controllers and the timer inside KVM. Before the first vCPU.
///
/// # Errors
/// When KVM refuses.
pub fn create_controllers(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    vm.set_identity_map_address(KVM_IDENTITY_MAP)?;
    vm.set_tss_address(usize::try_from(KVM_TSS).unwrap_or(usize::MAX))?;
    vm.create_irq_chip()?;
    // The dummy speaker makes KVM answer port 0x61, by which kernels calibrate.
    vm.create_pit2(kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    })
}

/// State of the interrupt controllers and the timer.
pub struct Controllers {
    chips: [kvm_irqchip; 3],
    timer: kvm_pit_state2,
}

impl Controllers {
    /// Reads the state; right after [`create_controllers`] it is the one after power-on.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn capture(vm: &VmFd) -> Result<Self, kvm_ioctls::Error> {
        let mut chips = [kvm_irqchip::default(); 3];
        let ids = [
            KVM_IRQCHIP_PIC_MASTER,
            KVM_IRQCHIP_PIC_SLAVE,
            KVM_IRQCHIP_IOAPIC,
        ];
        for (chip, id) in chips.iter_mut().zip(ids) {
            chip.chip_id = id;
            vm.get_irqchip(chip)?;
        }
        Ok(Self {
            chips,
            timer: vm.get_pit2()?,
        })
    }

    /// Puts the controllers back into this state. No vCPU may run.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn restore(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        for chip in &self.chips {
            vm.set_irqchip(chip)?;
        }
        vm.set_pit2(&self.timer)
    }
}

/// GSI of slot `slot`'s pin A.
#[must_use]
pub fn intx_gsi(slot: u8) -> u32 {
    IRQ_PCI + u32::from(slot) % IRQ_PCI_LINES
}

impl KvmHost {
    /// Sets the routes of the legacy interrupt controllers.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn new(vm: Arc<VmFd>) -> io::Result<Self> {
        let routes = Routes {
            entries: legacy_routes(),
            next_gsi: FIRST_MSI_GSI,
        };
        routes.install(&vm)?;
        Ok(Self {
            vm,
            routes: Arc::new(Mutex::new(routes)),
            lines: Arc::default(),
        })
    }
}

/// Like a PC: GSI 0 to 15 reach both PICs and the IOAPIC, with the timer on IOAPIC pin 2.
fn legacy_routes() -> Vec<kvm_irq_routing_entry> {
    let pin = |gsi, irqchip, pin| {
        let mut entry = kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            ..Default::default()
        };
        entry.u.irqchip.irqchip = irqchip;
        entry.u.irqchip.pin = pin;
        entry
    };
    let mut entries = Vec::with_capacity(64);
    for gsi in 0..16 {
        if gsi < 8 {
            entries.push(pin(gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
        } else {
            entries.push(pin(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8));
        }
    }
    for gsi in (0..IOAPIC_PINS).filter(|&gsi| gsi != 2) {
        entries.push(pin(gsi, KVM_IRQCHIP_IOAPIC, if gsi == 0 { 2 } else { gsi }));
    }
    entries
}

impl Routes {
    fn install(&self, vm: &VmFd) -> io::Result<()> {
        let table = KvmIrqRouting::from_entries(&self.entries)
            .map_err(|_| io::Error::other("too many interrupt routes"))?;
        Ok(vm.set_gsi_routing(&table)?)
    }

    /// Sets one route; tells KVM only when something changed.
    fn set(&mut self, vm: &VmFd, gsi: u32, message: MsiMessage) -> io::Result<()> {
        let [a, b, c, d, e, f, g, h] = message.address.to_le_bytes();
        let mut entry = kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_MSI,
            ..Default::default()
        };
        entry.u.msi.address_lo = u32::from_le_bytes([a, b, c, d]);
        entry.u.msi.address_hi = u32::from_le_bytes([e, f, g, h]);
        entry.u.msi.data = message.data;
        match self.entries.iter().position(|entry| entry.gsi == gsi) {
            Some(index) => self.entries[index] = entry,
            None if self.entries.len() < MAX_ROUTES => self.entries.push(entry),
            None => return Err(io::Error::other("too many interrupt routes")),
        }
        self.install(vm)
    }
}

impl PciHost for KvmHost {
    fn msi(&self, vectors: u16) -> io::Result<Box<dyn MsiGroup>> {
        let first = {
            let mut routes = lock(&self.routes);
            let first = routes.next_gsi;
            routes.next_gsi += u32::from(vectors);
            first
        };
        let vectors = (first..first + u32::from(vectors))
            .map(|gsi| {
                Ok(Vector {
                    gsi,
                    event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
                    wired: Mutex::default(),
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Box::new(KvmMsi {
            vm: Arc::clone(&self.vm),
            routes: Arc::clone(&self.routes),
            vectors,
        }))
    }

    fn intx(&self, slot: u8) -> io::Result<Box<dyn IntxLine>> {
        Ok(Box::new(KvmIntx {
            vm: Arc::clone(&self.vm),
            lines: Arc::clone(&self.lines),
            slot,
        }))
    }

    fn add_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        Ok(self
            .vm
            .register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)?)
    }

    fn remove_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        Ok(self
            .vm
            .unregister_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)?)
    }
}

struct KvmMsi {
    vm: Arc<VmFd>,
    routes: Arc<Mutex<Routes>>,
    vectors: Vec<Vector>,
}

struct Vector {
    gsi: u32,
    event: EventFd,
    wired: Mutex<Wiring>,
}

/// What KVM knows of a vector. A masked vector keeps its route but loses its irqfd, so an event
/// written meanwhile stays in the eventfd and is injected when the vector is unmasked: exactly
/// MSI-X's pending bit, without a rewrite of the routing table at every mask.
#[derive(Default)]
struct Wiring {
    routed: Option<MsiMessage>,
    irqfd: bool,
}

impl MsiGroup for KvmMsi {
    fn event(&self, vector: u16) -> &EventFd {
        &self.vectors[usize::from(vector)].event
    }

    fn route(&self, vector: u16, message: Option<MsiMessage>) -> io::Result<()> {
        let vector = self
            .vectors
            .get(usize::from(vector))
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut wiring = lock(&vector.wired);
        if let Some(message) = message {
            if wiring.routed != Some(message) {
                lock(&self.routes).set(&self.vm, vector.gsi, message)?;
                wiring.routed = Some(message);
            }
            if !wiring.irqfd {
                self.vm.register_irqfd(&vector.event, vector.gsi)?;
                wiring.irqfd = true;
            }
        } else if wiring.irqfd {
            self.vm.unregister_irqfd(&vector.event, vector.gsi)?;
            wiring.irqfd = false;
        }
        Ok(())
    }
}

struct KvmIntx {
    vm: Arc<VmFd>,
    lines: Arc<Mutex<Lines>>,
    slot: u8,
}

impl IntxLine for KvmIntx {
    /// A line is shared by up to four slots: it is low again when none of them asserts it.
    fn set(&self, asserted: bool) -> io::Result<()> {
        let gsi = intx_gsi(self.slot);
        let bit = 1_u32 << (self.slot % 32);
        let mut lines = lock(&self.lines);
        let line = &mut lines.asserted[usize::from(self.slot) % IRQ_PCI_LINES as usize];
        let before = *line != 0;
        if asserted {
            *line |= bit;
        } else {
            *line &= !bit;
        }
        let now = *line != 0;
        if now != before {
            self.vm.set_irq_line(gsi, now)?;
        }
        Ok(())
    }
}

/// A level-triggered line of a legacy device.
pub struct KvmLine {
    vm: Arc<VmFd>,
    gsi: u32,
}

impl KvmLine {
    /// The line with this GSI.
    #[must_use]
    pub fn new(vm: Arc<VmFd>, gsi: u32) -> Self {
        Self { vm, gsi }
    }
}

impl IntxLine for KvmLine {
    fn set(&self, asserted: bool) -> io::Result<()> {
        Ok(self.vm.set_irq_line(self.gsi, asserted)?)
    }
}
