//! The modern virtio-over-PCI transport (virtio 1.2 §4.1): configuration space, the BAR, the status
//! machine, doorbells and the life of the device behind it.

mod common;
mod layout;

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::common::{Action, Common};
use super::link::status_bit;
use super::{
    Activation, FailureSink, Link, Ram, VirtQueue, VirtioDevice, feature_set, has_feature,
};
use crate::device::{BarRange, PciDevice, PciHost};
use crate::event_loop::EventLoopHandle;
use crate::pci::config_space::{
    BarKind, CAPABILITY_MSIX, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, ConfigError, ConfigSpace,
    Identity,
};
use crate::pci::msix::{self, Msix};

const ACKNOWLEDGE: u8 = status_bit(VIRTIO_CONFIG_S_ACKNOWLEDGE);
const DRIVER: u8 = status_bit(VIRTIO_CONFIG_S_DRIVER);
const FEATURES_OK: u8 = status_bit(VIRTIO_CONFIG_S_FEATURES_OK);
const DRIVER_OK: u8 = status_bit(VIRTIO_CONFIG_S_DRIVER_OK);
const FAILED: u8 = status_bit(VIRTIO_CONFIG_S_FAILED);

/// Vendor and subsystem vendor of virtio over PCI (virtio 1.2 §4.1.2).
const VENDOR: u16 = 0x1af4;
/// Modern device IDs begin here (virtio 1.2 §4.1.2.1).
const FIRST_MODERN_DEVICE: u16 = 0x1040;
/// Subsystem ID; modern drivers want 0x40 or more (virtio 1.2 §4.1.2.1).
const SUBSYSTEM: u16 = 0x1100;

/// What every virtio function is plugged into.
#[derive(Clone)]
pub struct Host {
    /// Guest RAM.
    pub memory: Ram,
    /// Interrupts and doorbells.
    pub pci: Arc<dyn PciHost>,
    /// Where queue handlers run.
    pub events: EventLoopHandle,
    /// Who is told of devices taken from the guest.
    pub failures: Arc<dyn FailureSink>,
}

/// Why a function could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The host has no interrupts or events left.
    #[error("cannot set up {what} of {device}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// Device name.
        device: String,
        /// What the host said.
        source: io::Error,
    },
    /// The layout does not fit configuration space.
    #[error("configuration space of {device}")]
    Config {
        /// Device name.
        device: String,
        /// What did not fit.
        source: ConfigError,
    },
    /// More queues than there are vectors or notification addresses.
    #[error("{device} has {queues} queues, more than {} fit", layout::MAX_VECTORS - 1)]
    TooManyQueues {
        /// Device name.
        device: String,
        /// How many.
        queues: usize,
    },
}

/// A PCI function with a virtio device behind it.
pub struct VirtioPci {
    config: ConfigSpace,
    common: Common,
    link: Arc<Link>,
    device: Box<dyn VirtioDevice>,
    host: Host,
    kicks: Vec<EventFd>,
    /// BAR address at which doorbells are registered now.
    doorbells: Option<u64>,
    msix_capability: u8,
    access_capability: u8,
}

impl VirtioPci {
    /// Puts `device` behind a function in PCI slot `slot`.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn new(
        name: &str,
        slot: u8,
        device: Box<dyn VirtioDevice>,
        host: Host,
    ) -> Result<Self, TransportError> {
        let host_error = |what| {
            move |source| TransportError::Host {
                what,
                device: name.to_owned(),
                source,
            }
        };
        let config_error = |source| TransportError::Config {
            device: name.to_owned(),
            source,
        };
        let sizes = device.queue_sizes();
        let vectors = u16::try_from(sizes.len() + 1)
            .ok()
            .filter(|vectors| *vectors <= layout::MAX_VECTORS)
            .ok_or_else(|| TransportError::TooManyQueues {
                device: name.to_owned(),
                queues: sizes.len(),
            })?;

        let kind = device.kind();
        let mut config = ConfigSpace::new(&Identity {
            vendor: VENDOR,
            device: FIRST_MODERN_DEVICE + kind.id,
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM,
            class: kind.class,
            // Modern only (virtio 1.2 §4.1.2.1).
            revision: 1,
        })
        .with_intx();
        config
            .add_bar(layout::BAR, layout::BAR_SIZE, BarKind::Memory32)
            .map_err(config_error)?;
        let (body, mask) = msix::capability(vectors, layout::TABLE_PLACE, layout::PENDING_PLACE);
        let msix_capability = config
            .add_capability(CAPABILITY_MSIX, &body, &mask)
            .map_err(config_error)?;
        let access_capability = layout::add_capabilities(&mut config).map_err(config_error)?;

        let group = host.pci.msi(vectors).map_err(host_error("MSI-X vectors"))?;
        let intx = host.pci.intx(slot).map_err(host_error("the INTx line"))?;
        let link = Link::new(
            name.to_owned(),
            Msix::new(group, vectors),
            intx,
            sizes.len(),
            Arc::clone(&host.failures),
        );
        let kicks = sizes
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC))
            .collect::<io::Result<_>>()
            .map_err(host_error("queue events"))?;
        let offered = device.features()
            | feature_set(&[
                VIRTIO_F_VERSION_1,
                VIRTIO_RING_F_EVENT_IDX,
                VIRTIO_RING_F_INDIRECT_DESC,
            ]);
        Ok(Self {
            config,
            common: Common::new(offered, &sizes),
            link: Arc::new(link),
            device,
            host,
            kicks,
            doorbells: None,
            msix_capability,
            access_capability,
        })
    }

    /// The device's line to its driver.
    #[must_use]
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Follows a write to the device status register (virtio 1.2 §2.1, §3.1.1).
    fn set_status(&mut self, value: u8) {
        if value == 0 {
            self.reset_device();
            return;
        }
        let before = self.link.status();
        if self.link.failed() {
            return;
        }
        // The driver only ever adds bits; the device's own bits are not the driver's to set.
        let added = value & !before & (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
        self.link.add_status(added & !(FEATURES_OK | DRIVER_OK));
        if added & FEATURES_OK != 0
            && self.common.features_fit()
            && self.device.accepts(self.common.driver_features)
        {
            self.link.add_status(FEATURES_OK);
        }
        if added & DRIVER_OK != 0 {
            if self.link.status() & FEATURES_OK == 0 {
                self.link
                    .fail("driver started before the features were agreed");
                return;
            }
            self.link.add_status(DRIVER_OK);
            self.activate();
        }
    }

    fn activate(&mut self) {
        match self.build_queues().and_then(|queues| {
            self.device.activate(Activation {
                memory: self.host.memory.clone(),
                features: self.common.driver_features,
                queues,
                link: Arc::clone(&self.link),
                events: self.host.events.clone(),
            })
        }) {
            Ok(()) => {
                self.move_doorbells();
                // A driver may have made buffers available before it was ready to say so.
                self.kick_all();
            }
            Err(error) => self.link.fail(&error.to_string()),
        }
    }

    fn build_queues(&self) -> io::Result<Vec<Option<VirtQueue>>> {
        let event_idx = has_feature(self.common.driver_features, VIRTIO_RING_F_EVENT_IDX);
        let registers = (0..).zip(&self.common.queues).zip(&self.kicks);
        registers
            .map(|((index, registers), kick)| {
                if !registers.enabled {
                    return Ok(None);
                }
                let queue = registers
                    .build(event_idx, &self.host.memory)
                    .ok_or_else(|| io::Error::other(format!("queue {index} is not valid")))?;
                Ok(Some(VirtQueue::new(
                    queue,
                    index,
                    kick.try_clone()?,
                    self.host.memory.clone(),
                    Arc::clone(&self.link),
                )))
            })
            .collect()
    }

    fn kick_all(&self) {
        for kick in &self.kicks {
            // Fails only when the event is signalled already.
            let _ = kick.write(1);
        }
    }

    /// Device reset by the driver: when this returns nothing is in flight.
    fn reset_device(&mut self) {
        self.device.stop();
        self.common.reset();
        self.link.reset_device();
        self.move_doorbells();
        for kick in &self.kicks {
            // A notification from before the reset means nothing after it.
            let _ = kick.read();
        }
    }

    /// Registers the doorbells of an active device where its BAR is now, and nowhere else.
    fn move_doorbells(&mut self) {
        let active = self.link.status() & DRIVER_OK != 0;
        let wanted = active
            .then(|| {
                self.config
                    .decoded_bars()
                    .first()
                    .map(|range| range.address)
            })
            .flatten();
        if wanted == self.doorbells {
            return;
        }
        if let Some(base) = self.doorbells.take() {
            for (address, kick) in self.doorbell_addresses(base) {
                if let Err(error) = self.host.pci.remove_doorbell(address, kick) {
                    tracing::warn!(device = self.link.name(), %error, "cannot remove a doorbell");
                }
            }
        }
        if let Some(base) = wanted {
            for (address, kick) in self.doorbell_addresses(base) {
                // Without a doorbell the write comes to `bar_write`, which does the same slower.
                if let Err(error) = self.host.pci.add_doorbell(address, kick) {
                    tracing::warn!(device = self.link.name(), %error, "cannot add a doorbell");
                }
            }
            self.doorbells = wanted;
        }
    }

    fn doorbell_addresses(&self, base: u64) -> impl Iterator<Item = (u64, &EventFd)> {
        (0..).zip(&self.kicks).map(move |(index, kick): (u64, _)| {
            (
                base + layout::NOTIFY + index * layout::NOTIFY_MULTIPLIER,
                kick,
            )
        })
    }

    /// Takes over what a write to configuration space changed.
    fn config_changed(&mut self) {
        let command = self.config.command();
        self.link
            .set_intx_disabled(command & COMMAND_INTX_DISABLE != 0);
        let bus_master = command & COMMAND_BUS_MASTER != 0;
        if bus_master != self.link.may_access_memory() {
            self.link.set_bus_master(bus_master);
            if bus_master {
                self.kick_all();
            }
        }
        let control = self.config.word(self.msix_capability + 2);
        self.link.with_msix(|msix| msix.set_control(control));
        self.move_doorbells();
        self.tell_device();
    }

    /// Tells a running device that what it may do as a PCI function may have changed.
    fn tell_device(&mut self) {
        if self.link.status() & DRIVER_OK != 0 {
            self.device.function_changed();
        }
    }

    /// Offset and length that the PCI configuration access capability selects, if they are an
    /// access to our BAR (virtio 1.2 §4.1.4.9).
    fn selected_access(&self) -> Option<(u64, usize)> {
        let at = self.access_capability;
        let mut bar = [0];
        self.config.read(at + layout::ACCESS_BAR, &mut bar);
        let dword = |field: u8| {
            let mut data = [0; 4];
            self.config.read(at + field, &mut data);
            u32::from_le_bytes(data)
        };
        let offset = u64::from(dword(layout::ACCESS_OFFSET));
        let len = match dword(layout::ACCESS_LENGTH) {
            1 => 1,
            2 => 2,
            4 => 4,
            _ => return None,
        };
        let inside = offset < layout::BAR_SIZE && offset.is_multiple_of(u64::try_from(len).ok()?);
        (bar[0] == layout::BAR && inside).then_some((offset, len))
    }

    fn touches_access_window(&self, offset: u8, len: usize) -> bool {
        let start = usize::from(self.access_capability + layout::ACCESS_DATA);
        let offset = usize::from(offset);
        offset < start + 4 && offset + len > start
    }
}

impl PciDevice for VirtioPci {
    fn name(&self) -> &str {
        self.link.name()
    }

    fn config_read(&mut self, offset: u8, data: &mut [u8]) {
        if self.touches_access_window(offset, data.len())
            && let Some((bar_offset, len)) = self.selected_access()
        {
            let mut window = [0; 4];
            self.bar_read(layout::BAR, bar_offset, &mut window[..len]);
            let at = self.access_capability + layout::ACCESS_DATA;
            self.config.write(at, &window[..len]);
        }
        self.config
            .set_interrupt_status(self.link.interrupt_pending());
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u8, data: &[u8]) {
        self.config.write(offset, data);
        self.config_changed();
        if self.touches_access_window(offset, data.len())
            && let Some((bar_offset, len)) = self.selected_access()
        {
            let mut window = [0; 4];
            let at = self.access_capability + layout::ACCESS_DATA;
            self.config.read(at, &mut window);
            self.bar_write(layout::BAR, bar_offset, &window[..len]);
        }
    }

    fn bars(&self) -> Vec<BarRange> {
        self.config.decoded_bars()
    }

    fn bar_read(&mut self, _bar: u8, offset: u64, data: &mut [u8]) {
        match offset {
            layout::COMMON..layout::ISR => self.common.read(&self.link, offset, data),
            layout::ISR => {
                data.fill(0);
                if let Some(first) = data.first_mut() {
                    *first = self.link.take_isr();
                }
            }
            layout::DEVICE..layout::NOTIFY => {
                self.device.read_config(offset - layout::DEVICE, data);
            }
            layout::MSIX_TABLE..layout::MSIX_PENDING => self
                .link
                .with_msix(|msix| msix.table_read(offset - layout::MSIX_TABLE, data)),
            layout::MSIX_PENDING..layout::BAR_SIZE => self
                .link
                .with_msix(|msix| msix.pending_read(offset - layout::MSIX_PENDING, data)),
            _ => data.fill(0),
        }
    }

    fn bar_write(&mut self, _bar: u8, offset: u64, data: &[u8]) {
        match offset {
            layout::COMMON..layout::ISR => {
                let action = self
                    .common
                    .write(&self.link, &self.host.memory, offset, data);
                match action {
                    Action::Status(status) => self.set_status(status),
                    Action::Vector => self.tell_device(),
                    Action::None => {}
                }
            }
            layout::DEVICE..layout::NOTIFY => {
                self.device.write_config(offset - layout::DEVICE, data);
            }
            layout::NOTIFY..layout::MSIX_TABLE => {
                let index = (offset - layout::NOTIFY) / layout::NOTIFY_MULTIPLIER;
                let kick = usize::try_from(index).ok().and_then(|i| self.kicks.get(i));
                if let Some(kick) = kick {
                    // Fails only when the event is signalled already.
                    let _ = kick.write(1);
                }
            }
            layout::MSIX_TABLE..layout::MSIX_PENDING => self
                .link
                .with_msix(|msix| msix.table_write(offset - layout::MSIX_TABLE, data)),
            _ => {}
        }
    }

    fn set_paused(&mut self, paused: bool) {
        self.device.set_paused(paused);
    }

    fn reset(&mut self) {
        self.reset_device();
        self.config.reset();
        self.config_changed();
        self.link.with_msix(Msix::reset);
    }
}

impl Drop for VirtioPci {
    fn drop(&mut self) {
        self.device.stop();
    }
}

#[cfg(test)]
mod tests;
