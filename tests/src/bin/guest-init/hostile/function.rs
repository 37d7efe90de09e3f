//! A PCI function in the hands of user space: configuration space, capabilities, BARs.

use std::fs::{self, File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::ptr::NonNull;

use anyhow::{Context as _, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::disk::sysfs;

/// One function, named by its sysfs directory.
pub(crate) struct Function {
    dir: PathBuf,
}

/// A structure that a virtio capability points at (virtio 1.2 §4.1.4).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) bar: u8,
    pub(crate) offset: usize,
    /// `notify_off_multiplier`, of the notification structure only.
    pub(crate) multiplier: usize,
}

impl Function {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// `0000:00:02.0`.
    pub(crate) fn slot(&self) -> String {
        self.dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    pub(crate) fn is_virtio(&self) -> bool {
        sysfs(&self.dir.join("vendor")).as_deref() == Some("0x1af4")
    }

    /// The device type as virtio numbers it (§5): modern functions have the id 0x1040 + type.
    pub(crate) fn virtio_type(&self) -> u16 {
        sysfs(&self.dir.join("device"))
            .and_then(|text| u16::from_str_radix(text.trim_start_matches("0x"), 16).ok())
            .map_or(0, |id| id.saturating_sub(0x1040))
    }

    /// Takes the function from its driver and switches memory decoding and bus mastering on.
    pub(crate) fn take(&self) -> Result<()> {
        let unbind = self.dir.join("driver/unbind");
        if unbind.exists() {
            fs::write(&unbind, self.slot()).with_context(|| format!("unbind {}", self.slot()))?;
        }
        let config = self.config()?;
        let mut command = [0; 2];
        config.read_exact_at(&mut command, 4)?;
        config.write_all_at(&[command[0] | 6, command[1]], 4)?;
        Ok(())
    }

    pub(crate) fn give_back(&self) -> Result<()> {
        fs::write("/sys/bus/pci/drivers/virtio-pci/bind", self.slot())
            .with_context(|| format!("the driver refuses {}", self.slot()))
    }

    pub(crate) fn config(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.dir.join("config"))
            .with_context(|| format!("configuration space of {}", self.slot()))
    }

    /// Every memory BAR that can be mapped, with its number.
    pub(crate) fn bars(&self) -> Vec<(u8, Mapping)> {
        (0..6)
            .filter_map(|bar| {
                let path = self.dir.join(format!("resource{bar}"));
                Some((bar, Mapping::new(&path).ok()?))
            })
            .collect()
    }

    /// The BAR that holds the MSI-X table (PCI 3.0 §6.8.2.4).
    pub(crate) fn msix_bar(&self) -> Result<Option<u8>> {
        let space = self.space()?;
        Ok(capabilities(&space)
            .find(|at| space[*at] == 0x11)
            .map(|at| space.get(at + 4).map_or(0, |word| word & 7)))
    }

    /// The virtio structure of this kind: 1 common, 2 notify, 3 ISR, 4 device.
    pub(crate) fn virtio_structure(&self, kind: u8) -> Result<Option<Place>> {
        let space = self.space()?;
        let word = |at: usize| -> usize {
            space.get(at..at + 4).map_or(0, |bytes| {
                bytes
                    .iter()
                    .rev()
                    .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
            })
        };
        Ok(capabilities(&space)
            .find(|at| space[*at] == 9 && space.get(at + 3) == Some(&kind))
            .map(|at| Place {
                bar: space.get(at + 4).copied().unwrap_or(0),
                offset: word(at + 8),
                multiplier: word(at + 16),
            }))
    }

    fn space(&self) -> Result<Vec<u8>> {
        let mut space = vec![0; 256];
        self.config()?.read_exact_at(&mut space, 0)?;
        Ok(space)
    }
}

/// Offsets of the capability list, which may be as broken as it likes.
fn capabilities(space: &[u8]) -> impl Iterator<Item = usize> {
    let next = |at: usize| space.get(at).map(|next| usize::from(next & !3));
    std::iter::successors(next(0x34), move |at| next(at + 1))
        .take_while(|at| *at >= 0x40)
        .take(48)
}

/// A BAR mapped into this process.
pub(crate) struct Mapping {
    start: NonNull<libc::c_void>,
    len: usize,
}

impl Mapping {
    fn new(path: &std::path::Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = usize::try_from(file.metadata()?.len())?;
        let size = NonZeroUsize::new(len).context("an empty BAR")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping of device memory at an address the kernel chooses.
        let start = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, &file, 0) }?;
        Ok(Self { start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes the low `width` bytes (1, 2, 4 or 8) of `value`, in one access.
    pub(crate) fn write(&self, offset: usize, width: usize, value: u64) {
        if offset + width > self.len {
            return;
        }
        let bytes = value.to_le_bytes();
        let at = self.start.as_ptr().cast::<u8>().wrapping_add(offset);
        // SAFETY: the access lies within the mapping; x86 allows unaligned ones, which are made by
        // assembly because Rust's volatile accesses must be aligned.
        unsafe {
            match width {
                1 => at.write_volatile(bytes[0]),
                2 => store_u16(at, u16::from_le_bytes([bytes[0], bytes[1]])),
                4 => store_u32(
                    at,
                    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
                ),
                _ => store_u64(at, value),
            }
        }
    }

    /// Reads `width` bytes (1, 2 or 4) in one access.
    pub(crate) fn read(&self, offset: usize, width: usize) -> u32 {
        if offset + width > self.len {
            return 0;
        }
        let at = self.start.as_ptr().cast::<u8>().wrapping_add(offset);
        // SAFETY: as in `write`.
        unsafe {
            match width {
                1 => u32::from(at.read_volatile()),
                2 => load_u16(at),
                _ => load_u32(at),
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; nothing refers to it any more.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// # Safety
/// `at` must be mapped for 2 bytes.
unsafe fn store_u16(at: *mut u8, value: u16) {
    // SAFETY: the caller's.
    unsafe { std::arch::asm!("mov word ptr [{}], {:x}", in(reg) at, in(reg) value) }
}

/// # Safety
/// `at` must be mapped for 4 bytes.
unsafe fn store_u32(at: *mut u8, value: u32) {
    // SAFETY: the caller's.
    unsafe { std::arch::asm!("mov dword ptr [{}], {:e}", in(reg) at, in(reg) value) }
}

/// # Safety
/// `at` must be mapped for 8 bytes.
unsafe fn store_u64(at: *mut u8, value: u64) {
    // SAFETY: the caller's.
    unsafe { std::arch::asm!("mov qword ptr [{}], {}", in(reg) at, in(reg) value) }
}

/// # Safety
/// `at` must be mapped for 2 bytes.
unsafe fn load_u16(at: *mut u8) -> u32 {
    let value: u32;
    // SAFETY: the caller's.
    unsafe { std::arch::asm!("movzx {:e}, word ptr [{}]", out(reg) value, in(reg) at) }
    value
}

/// # Safety
/// `at` must be mapped for 4 bytes.
unsafe fn load_u32(at: *mut u8) -> u32 {
    let value: u32;
    // SAFETY: the caller's.
    unsafe { std::arch::asm!("mov {:e}, dword ptr [{}]", out(reg) value, in(reg) at) }
    value
}
