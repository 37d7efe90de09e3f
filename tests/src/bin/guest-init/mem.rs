//! Page-aligned memory, as `O_DIRECT` and device rings need it.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{Context as _, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Private, zeroed, locked pages.
pub(crate) struct Pages {
    start: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: the mapping is owned by this value alone and may be used from any one thread.
unsafe impl Send for Pages {}

impl Pages {
    pub(crate) fn new(len: usize) -> Result<Self> {
        let size = NonZeroUsize::new(len).context("an empty buffer")?;
        // SAFETY: a fresh anonymous mapping at an address the kernel chooses touches nothing else.
        let start = unsafe {
            mmap_anonymous(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE | MapFlags::MAP_LOCKED,
            )
        }
        .context("cannot map a buffer")?;
        Ok(Self { start, len })
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `start` maps `len` readable and writable bytes for as long as `self` lives, and
        // `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) }
    }

    /// Address of byte `offset`, for volatile access and for the page table look-up.
    pub(crate) fn address(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.len);
        self.start.as_ptr().cast::<u8>().wrapping_add(offset)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and nothing refers to it any more.
        let result = unsafe { munmap(self.start, self.len) };
        debug_assert!(result.is_ok());
    }
}
