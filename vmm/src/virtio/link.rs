//! What a running device sees of its transport: interrupts to the guest, the device status, and a
//! way to say that the driver misbehaved.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_NEEDS_RESET};
use vmm_sys_util::eventfd::EventFd;

use crate::device::IntxLine;
use crate::event_loop::lock;
use crate::pci::msix::Msix;

/// "No vector" in the vector registers (virtio 1.2 §4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// ISR: a queue has used buffers (virtio 1.2 §4.1.4.5).
const ISR_QUEUE: u8 = 1;
/// ISR: the configuration or the status changed.
const ISR_CONFIG: u8 = 2;

/// Failures of one device that are logged as warnings; a guest can cause any number.
const LOUD_FAILURES: u32 = 8;

/// Gets told when a device is taken from the guest.
pub trait FailureSink: Send + Sync {
    /// `device` failed because of `reason`. Called from any thread, with the device's locks held:
    /// it must not call back into devices.
    fn device_failed(&self, device: &str, reason: &str);
}

/// Interrupt state: which vector says what, and the INTx fallback.
struct Irq {
    msix: Msix,
    intx: Box<dyn IntxLine>,
    intx_disabled: bool,
    asserted: bool,
    isr: u8,
    config_vector: u16,
    queue_vectors: Vec<u16>,
    /// The queues' vectors when somebody else was told to raise them; empty if nobody is.
    handed_over: Vec<u16>,
}

impl Irq {
    fn raise(&mut self, vector: u16, cause: u8) {
        if self.msix.enabled() {
            if vector != NO_VECTOR {
                self.msix.signal(vector);
            }
        } else {
            self.isr |= cause;
            self.update_line();
        }
    }

    /// The queues' vectors, if all of them interrupt by MSI-X.
    fn vectors(&self) -> Option<&[u16]> {
        let all = self.msix.enabled() && !self.queue_vectors.contains(&NO_VECTOR);
        all.then_some(&self.queue_vectors)
    }

    fn update_line(&mut self) {
        let assert = self.isr != 0 && !self.intx_disabled && !self.msix.enabled();
        if assert != self.asserted {
            match self.intx.set(assert) {
                Ok(()) => self.asserted = assert,
                Err(error) => tracing::debug!(%error, assert, "cannot set the INTx line"),
            }
        }
    }
}

/// Shared by a transport and its device's handler.
pub struct Link {
    name: String,
    status: AtomicU8,
    generation: AtomicU8,
    bus_master: AtomicBool,
    failures: AtomicU32,
    sink: Arc<dyn FailureSink>,
    irq: Mutex<Irq>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("name", &self.name)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(
        name: String,
        msix: Msix,
        intx: Box<dyn IntxLine>,
        queues: usize,
        sink: Arc<dyn FailureSink>,
    ) -> Self {
        Self {
            name,
            status: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            bus_master: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            sink,
            irq: Mutex::new(Irq {
                msix,
                intx,
                intx_disabled: false,
                asserted: false,
                isr: 0,
                config_vector: NO_VECTOR,
                queue_vectors: vec![NO_VECTOR; queues],
                handed_over: Vec::new(),
            }),
        }
    }

    /// Device name, `blk0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells the driver that queue `index` has used buffers.
    pub fn signal_queue(&self, index: u16) {
        let mut irq = lock(&self.irq);
        if let Some(vector) = irq.queue_vectors.get(usize::from(index)).copied() {
            irq.raise(vector, ISR_QUEUE);
        }
    }

    /// Lets somebody else interrupt for the queues, by the events returned, one a queue, until
    /// [`Link::take_back_interrupts`]. `None` if not all queues have an MSI-X vector.
    ///
    /// # Errors
    /// When the host refuses a vector's route.
    pub fn hand_over_interrupts(&self) -> io::Result<Option<Vec<EventFd>>> {
        let mut irq = lock(&self.irq);
        let Some(vectors) = irq.vectors().map(<[u16]>::to_vec) else {
            return Ok(None);
        };
        let events = vectors
            .iter()
            .map(|vector| irq.msix.hand_over(*vector))
            .collect::<io::Result<Vec<_>>>();
        match events {
            Ok(_) => irq.handed_over = vectors,
            Err(_) => irq.msix.take_back(),
        }
        events.map(Some)
    }

    /// The events handed over are the queues' interrupts still: the driver has neither changed
    /// vectors nor turned MSI-X off.
    #[must_use]
    pub fn interrupts_stay_handed_over(&self) -> bool {
        let irq = lock(&self.irq);
        irq.vectors() == Some(&irq.handed_over)
    }

    /// Nobody else interrupts any more.
    pub fn take_back_interrupts(&self) {
        let mut irq = lock(&self.irq);
        irq.handed_over.clear();
        irq.msix.take_back();
    }

    /// Tells the driver that the device configuration changed (virtio 1.2 §4.1.4.3.1).
    pub fn signal_config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let mut irq = lock(&self.irq);
        let vector = irq.config_vector;
        irq.raise(vector, ISR_CONFIG);
    }

    /// The driver broke the rules, or the device cannot go on: DEVICE_NEEDS_RESET
    /// (virtio 1.2 §2.1.2). The caller stops serving the queue.
    pub fn fail(&self, reason: &str) {
        let needs_reset = status_bit(VIRTIO_CONFIG_S_NEEDS_RESET);
        let before = self.status.fetch_or(needs_reset, Ordering::AcqRel);
        if before & needs_reset != 0 {
            return;
        }
        if self.failures.fetch_add(1, Ordering::Relaxed) < LOUD_FAILURES {
            tracing::warn!(device = self.name, reason, "device needs a reset");
        } else {
            tracing::debug!(device = self.name, reason, "device needs a reset");
        }
        self.sink.device_failed(&self.name, reason);
        if before & status_bit(VIRTIO_CONFIG_S_DRIVER_OK) != 0 {
            self.signal_config();
        }
    }

    /// The device waits for a reset: no request may be served.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.status() & status_bit(VIRTIO_CONFIG_S_NEEDS_RESET) != 0
    }

    /// Whether the guest lets the function reach memory (PCI command register, bus master).
    #[must_use]
    pub fn may_access_memory(&self) -> bool {
        self.bus_master.load(Ordering::Acquire)
    }

    pub(super) fn set_bus_master(&self, on: bool) {
        self.bus_master.store(on, Ordering::Release);
    }

    pub(super) fn set_intx_disabled(&self, disabled: bool) {
        let mut irq = lock(&self.irq);
        irq.intx_disabled = disabled;
        irq.update_line();
    }

    pub(super) fn status(&self) -> u8 {
        self.status.load(Ordering::Acquire)
    }

    pub(super) fn add_status(&self, bits: u8) {
        self.status.fetch_or(bits, Ordering::AcqRel);
    }

    pub(super) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the ISR, which clears it and releases the line.
    pub(super) fn take_isr(&self) -> u8 {
        let mut irq = lock(&self.irq);
        let isr = std::mem::take(&mut irq.isr);
        irq.update_line();
        isr
    }

    pub(super) fn interrupt_pending(&self) -> bool {
        lock(&self.irq).isr != 0
    }

    /// Vector of a queue, or of configuration changes for `None`.
    pub(super) fn vector(&self, queue: Option<u16>) -> u16 {
        let irq = lock(&self.irq);
        match queue {
            None => irq.config_vector,
            Some(queue) => irq
                .queue_vectors
                .get(usize::from(queue))
                .copied()
                .unwrap_or(NO_VECTOR),
        }
    }

    /// Sets a vector; one that does not exist becomes [`NO_VECTOR`] (virtio 1.2 §4.1.5.1.2.1).
    pub(super) fn set_vector(&self, queue: Option<u16>, vector: u16) {
        let mut irq = lock(&self.irq);
        let vector = if vector < irq.msix.vectors() {
            vector
        } else {
            NO_VECTOR
        };
        match queue {
            None => irq.config_vector = vector,
            Some(queue) => {
                if let Some(place) = irq.queue_vectors.get_mut(usize::from(queue)) {
                    *place = vector;
                }
            }
        }
    }

    /// Uses MSI-X, after which the INTx line may have to be released.
    pub(super) fn with_msix<R>(&self, use_it: impl FnOnce(&mut Msix) -> R) -> R {
        let mut irq = lock(&self.irq);
        let result = use_it(&mut irq.msix);
        irq.update_line();
        result
    }

    /// Device reset: status, ISR and vectors (virtio 1.2 §2.1, §4.1.5.1.2).
    pub(super) fn reset_device(&self) {
        let mut irq = lock(&self.irq);
        irq.isr = 0;
        irq.update_line();
        irq.config_vector = NO_VECTOR;
        irq.queue_vectors.fill(NO_VECTOR);
        self.status.store(0, Ordering::Release);
    }
}

/// A status bit as the eight-bit register has it.
pub(super) const fn status_bit(bit: u32) -> u8 {
    assert!(bit < 256, "status bits are the low eight");
    bit.to_le_bytes()[0]
}
