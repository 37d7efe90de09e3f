//! The 256 bytes of a function's configuration space (PCI 3.0 §6.1): a type 0 header, memory BARs
//! and a list of capabilities, with a mask that says which bits the guest may write.

use crate::device::BarRange;

/// Configuration space bytes.
const SIZE: usize = 256;
/// Where the first capability goes: right after the header.
const FIRST_CAPABILITY: usize = 0x40;

/// Offset of the command register (PCI 3.0 §6.2.2).
pub const COMMAND: u8 = 0x04;
/// Command: answer to memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: the function may access memory and send message-signalled interrupts.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command: do not assert INTx.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// The command bits a guest may set: memory, bus master, parity, SERR, INTx disable.
const COMMAND_WRITABLE: u16 = 0x0546;

/// Offset of the status register (PCI 3.0 §6.2.3).
const STATUS: usize = 0x06;
/// Status: INTx is pending.
const STATUS_INTERRUPT: u8 = 1 << 3;
/// Status: the capabilities list is there.
const STATUS_CAPABILITIES: u8 = 1 << 4;

const REVISION: usize = 0x08;
/// Offset of BAR 0.
pub const BAR0: u8 = 0x10;
/// First byte behind the BARs.
pub const BAR_END: u8 = 0x28;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;

/// Capability ID of MSI-X (PCI 3.0 appendix H).
pub const CAPABILITY_MSIX: u8 = 0x11;
/// Capability ID of vendor-specific data.
pub const CAPABILITY_VENDOR: u8 = 0x09;

/// Who a function says it is (PCI 3.0 §6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Class, subclass and programming interface, as in `0x010000`.
    pub class: u32,
    /// Revision.
    pub revision: u8,
}

/// Kind of a memory BAR (PCI 3.0 §6.2.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// Below 4 GiB, not prefetchable.
    Memory32,
    /// Anywhere, prefetchable; takes two BAR registers.
    Memory64,
}

/// What can go wrong while a function is put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A BAR must be a power of two of at least 16 bytes, and its registers free.
    #[error("BAR {index} of {size:#x} bytes cannot be placed: wrong size or register taken")]
    Bar {
        /// BAR number.
        index: u8,
        /// Bytes.
        size: u64,
    },
    /// The list of capabilities leaves configuration space.
    #[error("capability {id:#04x} of {len} bytes does not fit configuration space")]
    CapabilityTooLong {
        /// Capability ID.
        id: u8,
        /// Bytes, with its two-byte head.
        len: usize,
    },
}

#[derive(Debug, Clone, Copy)]
struct Bar {
    size: u64,
    kind: BarKind,
}

/// A function's configuration space.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    initial: [u8; SIZE],
    bars: [Option<Bar>; 6],
    /// Where the pointer to the next capability goes.
    link: usize,
    /// Where the next capability goes.
    free: usize,
}

impl ConfigSpace {
    /// A function with no BAR and no capability.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            initial: [0; SIZE],
            bars: [None; 6],
            link: CAPABILITIES_POINTER,
            free: FIRST_CAPABILITY,
        };
        space.preset(0, &identity.vendor.to_le_bytes());
        space.preset(2, &identity.device.to_le_bytes());
        space.preset(REVISION, &[identity.revision]);
        space.preset(REVISION + 1, &identity.class.to_le_bytes()[..3]);
        space.preset(SUBSYSTEM, &identity.subsystem_vendor.to_le_bytes());
        space.preset(SUBSYSTEM + 2, &identity.subsystem.to_le_bytes());
        space.allow(usize::from(COMMAND), &COMMAND_WRITABLE.to_le_bytes());
        // Cache line size and latency timer: the guest may keep values there (PCI 3.0 §6.2.4).
        space.allow(0x0c, &[0xff, 0xff]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Says that the function uses INTA#.
    #[must_use]
    pub fn with_intx(mut self) -> Self {
        self.preset(INTERRUPT_PIN, &[1]);
        self
    }

    /// Sets bytes to their value at reset; not further checked.
    fn preset(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        self.initial[offset..offset + data.len()].copy_from_slice(data);
    }

    /// Lets the guest write the bits set in `mask`.
    pub fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// Adds a memory BAR, unassigned (address 0) until the guest or
    /// [`PciRoot::assign_bars`](super::PciRoot::assign_bars) gives it an address.
    ///
    /// # Errors
    /// [`ConfigError::Bar`].
    pub fn add_bar(&mut self, index: u8, size: u64, kind: BarKind) -> Result<(), ConfigError> {
        let error = ConfigError::Bar { index, size };
        let first = usize::from(index);
        let registers = match kind {
            BarKind::Memory32 => 1,
            BarKind::Memory64 => 2,
        };
        let largest = match kind {
            BarKind::Memory32 => 1 << 31,
            BarKind::Memory64 => 1 << 40,
        };
        if first + registers > 6 || !size.is_power_of_two() || !(16..=largest).contains(&size) {
            return Err(error);
        }
        let upper_half_of_another = first > 0
            && matches!(
                self.bars[first - 1],
                Some(Bar {
                    kind: BarKind::Memory64,
                    ..
                })
            );
        if upper_half_of_another
            || self.bars[first..first + registers]
                .iter()
                .any(Option::is_some)
        {
            return Err(error);
        }
        let offset = usize::from(BAR0) + first * 4;
        let mask = (!(size - 1)).to_le_bytes();
        self.allow(offset, &mask[..4 * registers]);
        if kind == BarKind::Memory64 {
            // Type 10 (64 bits), prefetchable.
            self.preset(offset, &[0x0c]);
        }
        self.bars[first] = Some(Bar { size, kind });
        Ok(())
    }

    /// Appends a capability and returns its offset. `body` and `mask` (what the guest may write)
    /// are the bytes after the ID and the next-pointer; a shorter `mask` is filled with zeros.
    ///
    /// # Errors
    /// [`ConfigError::CapabilityTooLong`].
    pub fn add_capability(&mut self, id: u8, body: &[u8], mask: &[u8]) -> Result<u8, ConfigError> {
        let offset = self.free;
        let len = body.len() + 2;
        let too_long = || ConfigError::CapabilityTooLong { id, len };
        let end = offset + len;
        if end > SIZE || mask.len() > body.len() {
            return Err(too_long());
        }
        let place = u8::try_from(offset).map_err(|_| too_long())?;
        self.preset(offset, &[id, 0]);
        self.preset(offset + 2, body);
        self.allow(offset + 2, mask);
        self.preset(self.link, &[place]);
        let status = self.bytes[STATUS] | STATUS_CAPABILITIES;
        self.preset(STATUS, &[status]);
        self.link = offset + 1;
        self.free = end.next_multiple_of(4);
        Ok(place)
    }

    /// Reads; bytes beyond configuration space are ones.
    pub fn read(&self, offset: u8, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// Writes what the masks allow.
    pub fn write(&mut self, offset: u8, data: &[u8]) {
        for (at, byte) in (usize::from(offset)..SIZE).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | byte & mask;
        }
    }

    /// Two bytes at `offset`; zero beyond the end.
    #[must_use]
    pub fn word(&self, offset: u8) -> u16 {
        let mut data = [0; 2];
        if usize::from(offset) + 2 <= SIZE {
            self.read(offset, &mut data);
        }
        u16::from_le_bytes(data)
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.word(COMMAND)
    }

    /// Shows in the status register whether INTx is pending (PCI 3.0 §6.2.3).
    pub fn set_interrupt_status(&mut self, pending: bool) {
        if pending {
            self.bytes[STATUS] |= STATUS_INTERRUPT;
        } else {
            self.bytes[STATUS] &= !STATUS_INTERRUPT;
        }
    }

    /// Address that a BAR holds, decoded or not; zero for one that is not there.
    #[must_use]
    pub fn bar_address(&self, index: u8) -> u64 {
        let Some(Some(bar)) = self.bars.get(usize::from(index)) else {
            return 0;
        };
        let offset = BAR0 + index * 4;
        let mut data = [0; 8];
        match bar.kind {
            BarKind::Memory32 => self.read(offset, &mut data[..4]),
            BarKind::Memory64 => self.read(offset, &mut data),
        }
        u64::from_le_bytes(data) & !(bar.size - 1)
    }

    /// Bytes of a BAR; zero for one that is not there.
    #[must_use]
    pub fn bar_size(&self, index: u8) -> u64 {
        match self.bars.get(usize::from(index)) {
            Some(Some(bar)) => bar.size,
            _ => 0,
        }
    }

    /// The BARs that answer now: memory decoding is on, an address is set, and the range does not
    /// reach beyond the address space (as it does while the guest finds out the size).
    #[must_use]
    pub fn decoded_bars(&self) -> Vec<BarRange> {
        if self.command() & COMMAND_MEMORY == 0 {
            return Vec::new();
        }
        (0..6)
            .map(|bar| BarRange {
                bar,
                address: self.bar_address(bar),
                size: self.bar_size(bar),
            })
            .filter(|range| {
                range.size > 0
                    && range.address > 0
                    && range.address.checked_add(range.size).is_some()
            })
            .collect()
    }

    /// All registers back to their values at reset.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDENTITY: Identity = Identity {
        vendor: 0x1af4,
        device: 0x1042,
        subsystem_vendor: 0x1af4,
        subsystem: 2,
        class: 0x01_00_00,
        revision: 1,
    };

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(&IDENTITY).with_intx();
        space.add_bar(0, 0x4000, BarKind::Memory32).unwrap();
        space.add_bar(2, 0x10000, BarKind::Memory64).unwrap();
        space
    }

    fn dword(space: &ConfigSpace, offset: u8) -> u32 {
        let mut data = [0; 4];
        space.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn header_shows_the_identity_and_cannot_be_overwritten() {
        let mut space = space();
        for offset in [0, 8, 0x2c] {
            space.write(offset, &[0xff; 4]);
        }
        assert_eq!(dword(&space, 0), 0x1042_1af4);
        assert_eq!(dword(&space, 8), 0x0100_0001);
        assert_eq!(dword(&space, 0x2c), 0x0002_1af4);
        assert_eq!(dword(&space, 0x3c) & 0xff00, 0x100);
    }

    #[test]
    fn bars_are_sized_by_all_ones_and_decode_only_when_told() {
        let mut space = space();
        for offset in [0x10, 0x14, 0x18, 0x1c] {
            space.write(offset, &[0xff; 4]);
        }
        assert_eq!(dword(&space, 0x10), 0xffff_c000);
        assert_eq!(dword(&space, 0x14), 0, "no BAR 1");
        assert_eq!(dword(&space, 0x18), 0xffff_000c);
        assert_eq!(dword(&space, 0x1c), 0xffff_ffff);
        space.write(COMMAND, &COMMAND_MEMORY.to_le_bytes());
        let sizing: Vec<_> = space.decoded_bars().iter().map(|range| range.bar).collect();
        assert_eq!(sizing, [0], "a 64-bit BAR at the very end is not decoded");

        space.write(0x10, &0xe000_1234_u32.to_le_bytes());
        space.write(0x18, &0x4000_0000_u32.to_le_bytes());
        space.write(0x1c, &0x12_u32.to_le_bytes());
        let expected = [
            BarRange {
                bar: 0,
                address: 0xe000_0000,
                size: 0x4000,
            },
            BarRange {
                bar: 2,
                address: 0x12_4000_0000,
                size: 0x10000,
            },
        ];
        assert_eq!(space.decoded_bars(), expected);
        space.write(COMMAND, &[0, 0]);
        assert!(space.decoded_bars().is_empty());
        space.reset();
        assert_eq!(space.bar_address(0), 0);
    }

    #[test]
    fn capabilities_are_chained() {
        let mut space = space();
        assert_eq!(dword(&space, 4) >> 16, 0);
        let first = space
            .add_capability(CAPABILITY_VENDOR, &[1, 2, 3], &[])
            .unwrap();
        let second = space
            .add_capability(CAPABILITY_MSIX, &[0; 10], &[0, 0xc0])
            .unwrap();
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!(dword(&space, 4) >> 16, 0x10);
        assert_eq!(dword(&space, 0x34), 0x40);
        assert_eq!(dword(&space, 0x40), 0x0201_4809);
        space.write(second, &[0xff; 4]);
        assert_eq!(dword(&space, second), 0xc000_0011);
        assert!(space.add_capability(9, &[0; 200], &[]).is_err());
    }

    #[test]
    fn impossible_bars_are_refused() {
        let mut space = space();
        for (index, size, kind) in [
            (0, 0x1000, BarKind::Memory32),
            (3, 0x1000, BarKind::Memory32),
            (1, 0x1000, BarKind::Memory64),
            (5, 0x1000, BarKind::Memory64),
            (6, 0x1000, BarKind::Memory32),
            (4, 0x1001, BarKind::Memory32),
            (4, 8, BarKind::Memory32),
            (4, 1 << 32, BarKind::Memory32),
        ] {
            assert!(space.add_bar(index, size, kind).is_err(), "{index} {size}");
        }
        space.add_bar(4, 1 << 32, BarKind::Memory64).unwrap();
    }

    proptest! {
        #[test]
        fn random_writes_change_only_what_is_writable(
            writes in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 1..5)), 0..64)
        ) {
            let mut space = space();
            let before = space.clone();
            for (offset, data) in &writes {
                space.write(*offset, data);
                for range in space.decoded_bars() {
                    prop_assert_eq!(range.address % range.size, 0);
                }
            }
            for at in 0..SIZE {
                let kept = !space.writable[at];
                prop_assert_eq!(space.bytes[at] & kept, before.bytes[at] & kept);
            }
            space.reset();
            prop_assert_eq!(space.bytes, before.bytes);
        }
    }
}
