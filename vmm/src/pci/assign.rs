//! What firmware does before an operating system starts: giving every BAR an address. For direct
//! boot, where there is no firmware.

use super::{PciError, PciRoot};
use crate::device::PciDevice;
use crate::event_loop::lock;
use crate::pci::config_space::BAR0;

/// A range of guest-physical addresses kept for BARs, handed out from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    next: u64,
    end: u64,
}

impl Window {
    /// The addresses from `start` up to `end`, without `end`.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Self {
        Self { next: start, end }
    }

    /// Takes `size` bytes (a power of two), aligned to their size.
    fn take(&mut self, size: u64) -> Option<u64> {
        let address = self.next.checked_next_multiple_of(size)?;
        let end = address.checked_add(size)?;
        (end <= self.end).then(|| {
            self.next = end;
            address
        })
    }
}

/// A BAR as sizing finds it.
struct Found {
    bar: u8,
    size: u64,
    wide: bool,
}

fn read_dword(device: &mut dyn PciDevice, offset: u8) -> u32 {
    let mut data = [0; 4];
    device.config_read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// Finds a BAR's size as PCI 3.0 §6.2.5.1 says: write ones, read back, restore.
fn size_bar(device: &mut dyn PciDevice, bar: u8) -> Option<Found> {
    let offset = BAR0 + bar * 4;
    let probe = |device: &mut dyn PciDevice, offset: u8| {
        let before = read_dword(device, offset);
        device.config_write(offset, &[0xff; 4]);
        let mask = read_dword(device, offset);
        device.config_write(offset, &before.to_le_bytes());
        mask
    };
    let low = probe(device, offset);
    if low & !0xf == 0 || low & 1 != 0 {
        return None;
    }
    let wide = low & 0b110 == 0b100;
    let high = if wide && bar < 5 {
        probe(device, offset + 4)
    } else {
        u32::MAX
    };
    let mask = u64::from(high) << 32 | u64::from(low & !0xf);
    let size = (!mask).checked_add(1)?;
    Some(Found { bar, size, wide })
}

impl PciRoot {
    /// Gives every memory BAR an address: 64-bit ones in `above` if there is such a window, all
    /// others in `below` (which lies under 4 GiB). Decoding is left as it is: off after a reset,
    /// so that the guest's own enumeration moves nothing that is in use.
    ///
    /// # Errors
    /// [`PciError::NoRoom`].
    pub fn assign_bars(
        &self,
        mut below: Window,
        mut above: Option<Window>,
    ) -> Result<(), PciError> {
        let mut bus = lock(&self.bus);
        for index in 0..bus.functions.len() {
            let Some(device) = bus.functions[index].as_deref_mut() else {
                continue;
            };
            let mut bar = 0;
            while bar < 6 {
                let Some(found) = size_bar(device, bar) else {
                    bar += 1;
                    continue;
                };
                let address = match &mut above {
                    Some(above) if found.wide => above.take(found.size),
                    _ => below.take(found.size),
                };
                let address = address.ok_or_else(|| PciError::NoRoom {
                    device: device.name().to_owned(),
                    bar: found.bar,
                    size: found.size,
                })?;
                let bytes = address.to_le_bytes();
                device.config_write(BAR0 + bar * 4, &bytes[..4]);
                bar += 1;
                if found.wide {
                    device.config_write(BAR0 + bar * 4, &bytes[4..]);
                    bar += 1;
                }
            }
            bus.refresh(index);
        }
        Ok(())
    }
}
