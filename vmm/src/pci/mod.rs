//! PCI bus 0 as a guest sees it: configuration mechanism #1 (ports 0xcf8 and 0xcfc, PCI 3.0
//! §3.2.2.3.2), functions in slots, and memory BARs that the guest may move at any time.
//!
//! ```text
//!   vCPU: in/out 0xcf8..0xcff ──► PciPorts ─┐
//!   vCPU: MMIO exit ──► mmio_read/write ────┴─► PciRoot ──► PciDevice in its slot
//! ```
//!
//! Lock order: the root's lock is taken first and held while a device handles an access; devices
//! and the event loop never call the root.

mod assign;
pub mod bridge;
pub mod config_space;
pub mod msix;

use std::sync::{Arc, Mutex};

pub use assign::Window;

use crate::device::{BarRange, BusDevice, PciDevice};
use crate::event_loop::lock;

/// Port of the address register.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// Port of the data register; four ports.
pub const CONFIG_DATA: u16 = 0xcfc;

/// Slots of a bus.
pub const SLOTS: u8 = 32;
/// Functions of a slot.
pub const FUNCTIONS: u8 = 8;

/// Address register: access is enabled.
const ENABLE: u32 = 1 << 31;
/// Address register: reserved bits and bus number; only zero names something here.
const NOT_BUS_0: u32 = 0x7fff_0000;

/// What can go wrong on the bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// The place is outside the bus or has a device already.
    #[error("PCI slot {slot}.{function} is taken or does not exist")]
    Slot {
        /// Slot, 0 to 31.
        slot: u8,
        /// Function, 0 to 7.
        function: u8,
    },
    /// The windows are too small for all BARs.
    #[error("no room for BAR {bar} ({size:#x} bytes) of {device} in the PCI memory windows")]
    NoRoom {
        /// Device name.
        device: String,
        /// BAR number.
        bar: u8,
        /// Bytes.
        size: u64,
    },
}

#[derive(Default)]
struct Bus {
    /// The address register as written.
    address: u32,
    /// By slot * 8 + function.
    functions: Vec<Option<Box<dyn PciDevice>>>,
    /// Decoded BARs and the index of their function.
    ranges: Vec<(BarRange, usize)>,
}

/// Bus 0. Shared by all vCPU threads.
pub struct PciRoot {
    bus: Mutex<Bus>,
}

impl std::fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PciRoot")
    }
}

impl Default for PciRoot {
    fn default() -> Self {
        Self::new()
    }
}

impl PciRoot {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        let mut functions = Vec::new();
        functions.resize_with(usize::from(SLOTS) * usize::from(FUNCTIONS), || None);
        Self {
            bus: Mutex::new(Bus {
                functions,
                ..Bus::default()
            }),
        }
    }

    /// Plugs a device in.
    ///
    /// # Errors
    /// [`PciError::Slot`].
    pub fn add(&self, slot: u8, function: u8, device: Box<dyn PciDevice>) -> Result<(), PciError> {
        let mut bus = lock(&self.bus);
        let index = usize::from(slot) * usize::from(FUNCTIONS) + usize::from(function);
        let free = function < FUNCTIONS && matches!(bus.functions.get(index), Some(None));
        if !free {
            return Err(PciError::Slot { slot, function });
        }
        bus.functions[index] = Some(device);
        bus.refresh(index);
        Ok(())
    }

    /// Machine reset: every device back to its state after construction, no BAR assigned.
    pub fn reset(&self) {
        let mut bus = lock(&self.bus);
        bus.address = 0;
        for index in 0..bus.functions.len() {
            if let Some(device) = &mut bus.functions[index] {
                device.reset();
                bus.refresh(index);
            }
        }
    }

    /// The machine is paused, or goes on.
    pub fn set_paused(&self, paused: bool) {
        let mut bus = lock(&self.bus);
        for device in bus.functions.iter_mut().flatten() {
            device.set_paused(paused);
        }
    }

    /// Reads memory at guest-physical `address`. Says whether a BAR answered; if none did, `data`
    /// is all ones.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) -> bool {
        let mut bus = lock(&self.bus);
        if let Some((device, bar, offset)) = bus.find(address, data.len()) {
            device.bar_read(bar, offset, data);
            return true;
        }
        data.fill(0xff);
        false
    }

    /// Writes memory at guest-physical `address`. Says whether a BAR answered.
    pub fn mmio_write(&self, address: u64, data: &[u8]) -> bool {
        let mut bus = lock(&self.bus);
        match bus.find(address, data.len()) {
            Some((device, bar, offset)) => {
                device.bar_write(bar, offset, data);
                true
            }
            None => false,
        }
    }

    /// Device name, BAR and offset behind a guest-physical address, for traces.
    #[must_use]
    pub fn describe(&self, address: u64) -> Option<(String, u8, u64)> {
        let mut bus = lock(&self.bus);
        let (device, bar, offset) = bus.find(address, 1)?;
        Some((device.name().to_owned(), bar, offset))
    }

    /// Reads `data.len()` bytes from port `CONFIG_ADDRESS + offset`.
    pub fn port_read(&self, offset: u64, data: &mut [u8]) {
        let mut bus = lock(&self.bus);
        if offset == 0 && data.len() == 4 {
            data.copy_from_slice(&bus.address.to_le_bytes());
            return;
        }
        match bus.selected(offset, data.len()) {
            Some((index, register)) => {
                if let Some(Some(device)) = bus.functions.get_mut(index) {
                    device.config_read(register, data);
                }
            }
            None => data.fill(0xff),
        }
    }

    /// Writes `data` to port `CONFIG_ADDRESS + offset`.
    pub fn port_write(&self, offset: u64, data: &[u8]) {
        let mut bus = lock(&self.bus);
        if offset == 0
            && let Ok(value) = <[u8; 4]>::try_from(data)
        {
            bus.address = u32::from_le_bytes(value) & !3;
            return;
        }
        if let Some((index, register)) = bus.selected(offset, data.len()) {
            if let Some(Some(device)) = bus.functions.get_mut(index) {
                device.config_write(register, data);
            }
            if register < config_space::BAR_END {
                bus.refresh(index);
            }
        }
    }
}

impl Bus {
    /// Takes over a function's decoded BARs.
    fn refresh(&mut self, index: usize) {
        self.ranges.retain(|(_, owner)| *owner != index);
        if let Some(device) = &self.functions[index] {
            self.ranges
                .extend(device.bars().into_iter().map(|range| (range, index)));
        }
    }

    fn find(&mut self, address: u64, len: usize) -> Option<(&mut dyn PciDevice, u8, u64)> {
        let len = u64::try_from(len).ok()?;
        let (range, index) = self.ranges.iter().find(|(range, _)| {
            address
                .checked_sub(range.address)
                .and_then(|offset| offset.checked_add(len))
                .is_some_and(|end| end <= range.size)
        })?;
        let (bar, offset) = (range.bar, address - range.address);
        let device = self.functions[*index].as_deref_mut()?;
        Some((device, bar, offset))
    }

    /// The function and register that an access to the data ports means; `None` for a function
    /// that is not there and for accesses that are none of configuration space.
    fn selected(&self, offset: u64, len: usize) -> Option<(usize, u8)> {
        let within = u32::try_from(offset.checked_sub(4)?).ok()?;
        let one_dword = within + u32::try_from(len).ok()? <= 4;
        if !one_dword || self.address & ENABLE == 0 || self.address & NOT_BUS_0 != 0 {
            return None;
        }
        let index = usize::try_from(self.address >> 8 & 0xff).ok()?;
        self.functions.get(index)?.as_ref()?;
        let register = u8::try_from(self.address & 0xfc | within).ok()?;
        Some((index, register))
    }
}

/// The bus's ports as a device: eight ports from [`CONFIG_ADDRESS`]. The reset control register at
/// 0xcf9 (one byte, in the middle of the address register) is not part of it: a bus that has one
/// answers one-byte accesses there before it asks this device.
#[derive(Debug, Clone)]
pub struct PciPorts(pub Arc<PciRoot>);

impl BusDevice for PciPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.0.port_read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.port_write(offset, data);
    }
}

#[cfg(test)]
mod tests;
