//! The seams between devices, buses and KVM.
//!
//! A device sees guest memory, its queues, an interrupt and a place on a bus; it never sees KVM or
//! another device. `machine` and `arch` implement the host side of these traits on KVM; tests
//! implement them in memory.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// A device on a port or MMIO bus. Offsets are relative to the device's range.
pub trait BusDevice: Send {
    /// The guest reads `data.len()` bytes (1 to 8).
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes `data` (1 to 8 bytes).
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// Where a message-signalled interrupt goes (PCI 3.0 §6.8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// The message-signalled interrupts of one device: one GSI and irqfd a vector.
pub trait MsiGroup: Send + Sync {
    /// Writing to this event injects the vector, if it is routed.
    fn event(&self, vector: u16) -> &EventFd;

    /// Routes the vector, or takes its route away (masked).
    ///
    /// # Errors
    /// When KVM refuses the route.
    fn route(&self, vector: u16, message: Option<MsiMessage>) -> io::Result<()>;
}

/// A level-triggered INTx line, for guests that cannot use MSI-X.
pub trait IntxLine: Send + Sync {
    /// Asserts or releases the line.
    ///
    /// # Errors
    /// When KVM refuses.
    fn set(&self, asserted: bool) -> io::Result<()>;
}

/// What a PCI device needs from the machine it is plugged into.
pub trait PciHost: Send + Sync {
    /// Reserves `vectors` message-signalled interrupts.
    ///
    /// # Errors
    /// When no GSI is left.
    fn msi(&self, vectors: u16) -> io::Result<Box<dyn MsiGroup>>;

    /// The INTx line of PCI slot `slot`, pin A.
    ///
    /// # Errors
    /// When KVM refuses.
    fn intx(&self, slot: u8) -> io::Result<Box<dyn IntxLine>>;

    /// From now on a guest write of any size to `address` signals `event` without an exit to us.
    ///
    /// # Errors
    /// When KVM refuses.
    fn add_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()>;

    /// Undoes [`PciHost::add_doorbell`].
    ///
    /// # Errors
    /// When KVM refuses.
    fn remove_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()>;
}

/// A memory BAR as the guest has it programmed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarRange {
    /// BAR number, 0 to 5.
    pub bar: u8,
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// A PCI function. The PCI root asks for [`PciDevice::bars`] after every configuration write, so a
/// device moves when the guest reprograms a BAR or memory decoding.
pub trait PciDevice: Send {
    /// Name for traces and errors, `blk0`.
    fn name(&self) -> &str;

    /// Reads configuration space; `offset + data.len()` stays within 256 and within one dword.
    fn config_read(&mut self, offset: u8, data: &mut [u8]);

    /// Writes configuration space.
    fn config_write(&mut self, offset: u8, data: &[u8]);

    /// Decoded memory BARs now (none while memory decoding is off).
    fn bars(&self) -> Vec<BarRange>;

    /// Reads from a BAR.
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes to a BAR.
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]);

    /// The machine is paused, or goes on: see [`crate::virtio::VirtioDevice::set_paused`].
    fn set_paused(&mut self, paused: bool) {
        let _ = paused;
    }

    /// Machine reset: back to the state after construction; doorbells and routes removed, BAR
    /// registers back at their initial addresses.
    fn reset(&mut self);
}
