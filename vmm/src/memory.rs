//! Guest RAM: one anonymous mapping, 2 MiB-aligned, huge pages advised before first touch.

use std::io;
use std::ptr::NonNull;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{GuestAddress, GuestMemoryError, GuestRegionCollectionError, GuestRegionMmap};

use crate::arch::layout::{HIGH_RAM, LOW_RAM_MAX, MIB};

/// The guest's memory as devices and loaders see it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// Huge page size; the mapping starts on a multiple of it.
const ALIGNMENT: usize = 2 << 20;

/// Why guest RAM cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The size does not fit this host's address space.
    #[error("memory_mib: {0} MiB is more than this host can address")]
    TooLarge(u64),
    /// The kernel refused the mapping.
    #[error("memory_mib: the host has no room for {mib} MiB of guest RAM")]
    Map {
        /// What was asked for.
        mib: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// `vm-memory` refused a region.
    #[error("cannot describe guest RAM")]
    Region(#[source] MmapRegionError),
    /// `vm-memory` refused the layout.
    #[error("cannot lay out guest RAM")]
    Layout(#[source] GuestRegionCollectionError),
    /// A write of boot data left RAM.
    #[error("cannot write {what} to guest RAM at {address:#x}")]
    Write {
        /// What was written.
        what: &'static str,
        /// Guest-physical address.
        address: u64,
        /// Why not.
        #[source]
        source: GuestMemoryError,
    },
}

/// Guest RAM and where it lives in this process.
///
/// The mapping is never unmapped: clones of [`GuestRam::memory`] are in every device and the
/// process ends with its machine.
#[derive(Debug, Clone)]
pub struct GuestRam {
    /// For everyone who reads or writes guest RAM.
    pub memory: GuestMemory,
    /// Memory slots: guest-physical address, size, host address.
    pub slots: Vec<Slot>,
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: `base` is only the address for `madvise` on a mapping that lives as long as the process;
// the kernel serialises that call with other users of the mapping.
unsafe impl Send for GuestRam {}

/// A contiguous piece of guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Guest-physical address.
    pub guest: u64,
    /// Bytes.
    pub size: u64,
    /// Address in this process.
    pub host: u64,
}

/// Splits RAM around the hole below 4 GiB: `(address, bytes)` in order.
#[must_use]
pub fn split(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= LOW_RAM_MAX {
        vec![(0, bytes)]
    } else {
        vec![(0, LOW_RAM_MAX), (HIGH_RAM, bytes - LOW_RAM_MAX)]
    }
}

impl GuestRam {
    /// Maps `mib` MiB of RAM. Nothing is allocated before it is touched.
    ///
    /// # Errors
    /// When the host has no room.
    pub fn new(mib: u64) -> Result<Self, Error> {
        let bytes = mib.checked_mul(MIB).ok_or(Error::TooLarge(mib))?;
        let size = usize::try_from(bytes).map_err(|_| Error::TooLarge(mib))?;
        let base = map_aligned(size).map_err(|source| Error::Map { mib, source })?;
        let mut regions = Vec::with_capacity(2);
        let mut slots = Vec::with_capacity(2);
        let mut offset = 0_usize;
        for (guest, length) in split(bytes) {
            let piece = usize::try_from(length).map_err(|_| Error::TooLarge(mib))?;
            // SAFETY: `offset + piece` stays within the `size` bytes just mapped, since the pieces
            // add up to `size`.
            let host = unsafe { base.add(offset) };
            // SAFETY: the mapping is private to this process, readable, writable, `piece` bytes
            // long from `host`, and lives until the process ends.
            let builder =
                unsafe { MmapRegionBuilder::new(piece).with_raw_mmap_pointer(host.as_ptr()) }
                    .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                    .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
            let region = builder.build().map_err(Error::Region)?;
            let region =
                GuestRegionMmap::new(region, GuestAddress(guest)).ok_or(Error::TooLarge(mib))?;
            regions.push(region);
            slots.push(Slot {
                guest,
                size: length,
                host: u64::try_from(host.as_ptr().addr()).map_err(|_| Error::TooLarge(mib))?,
            });
            offset += piece;
        }
        Ok(Self {
            memory: GuestMemory::from_regions(regions).map_err(Error::Layout)?,
            slots,
            base,
            size,
        })
    }

    /// Makes all RAM zero again by giving it back to the host. No vCPU may run.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear(&self) -> io::Result<()> {
        // SAFETY: the range is our own anonymous mapping; all users go through `vm-memory`, whose
        // accesses are volatile and expect the guest to change memory at any time.
        let done =
            unsafe { libc::madvise(self.base.as_ptr().cast(), self.size, libc::MADV_DONTNEED) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// Maps `size` bytes on an [`ALIGNMENT`] boundary.
fn map_aligned(size: usize) -> io::Result<NonNull<u8>> {
    let padded = size
        .checked_add(ALIGNMENT)
        .ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: a new private mapping at an address of the kernel's choice; no memory is touched.
    let raw = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            padded,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start: *mut u8 = raw.cast();
    let head = start.align_offset(ALIGNMENT);
    // SAFETY: `head` is below ALIGNMENT, so `head + size` stays inside the padded mapping.
    let base = unsafe { start.add(head) };
    // SAFETY: advice on our own mapping; guest RAM must not be in core dumps of the VMM.
    unsafe {
        libc::madvise(base.cast(), size, libc::MADV_HUGEPAGE);
        libc::madvise(base.cast(), size, libc::MADV_DONTDUMP);
    }
    NonNull::new(base).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemoryBackend};

    #[test]
    fn the_hole_below_four_gib_is_left_free() {
        assert_eq!(split(64 * MIB), [(0, 64 * MIB)]);
        assert_eq!(split(LOW_RAM_MAX), [(0, LOW_RAM_MAX)]);
        assert_eq!(split(5 << 30), [(0, LOW_RAM_MAX), (HIGH_RAM, 2 << 30)]);
    }

    #[test]
    fn ram_is_aligned_zeroed_and_cleared() {
        let ram = GuestRam::new(64).unwrap();
        assert_eq!(ram.slots.len(), 1);
        assert_eq!(ram.slots[0].host % (2 << 20), 0);
        ram.memory.write_obj(7_u64, GuestAddress(0x1000)).unwrap();
        ram.clear().unwrap();
        assert_eq!(ram.memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), 0);
        assert_eq!(ram.memory.last_addr(), GuestAddress(64 * MIB - 1));
    }
}
