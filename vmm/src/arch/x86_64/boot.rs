//! Loads a kernel the way a boot loader would: Linux' 64-bit boot protocol for bzImage, PVH for
//! ELF kernels that offer it, and Linux' protocol again for ELF kernels that do not.

use std::io::{self, Read, Seek, SeekFrom};

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::{BzImage, Elf, KernelLoader, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress};

use super::layout::{
    ACPI_TABLES, CMDLINE, CMDLINE_SIZE, EBDA, GIB, HIGH_MEMORY, HIGH_RAM, LOW_RAM_MAX, MIB,
    PVH_MEMORY_MAP, PVH_MODULES, PVH_START_INFO, RESERVED_TOP, RSDP, VGA_HOLE, ZERO_PAGE,
};
use super::regs::Entry;
use crate::boot::{BootFile, Payload};
use crate::memory::{self, GuestMemory, split};

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// "Undefined" boot loader (boot.rst `type_of_loader`).
const LOADER_OTHER: u8 = 0xff;
const XLF_KERNEL_64: u16 = 1;
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 2;
/// Where the 64-bit entry is behind the start of the protected-mode kernel (boot.rst).
const ENTRY_64: u64 = 0x200;
const PVH_MAGIC: u32 = 0x336e_c578;
const ELF_MACHINE_X86_64: u16 = 62;
const PAGE: u64 = 0x1000;

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file is empty, shorter than its header says, or its parts leave RAM.
    #[error("boot.kernel: the kernel is truncated: {have} bytes, at least {need} expected")]
    KernelTruncated {
        /// File size.
        have: u64,
        /// Least size.
        need: u64,
    },
    /// Not a kernel for x86_64.
    #[error("boot.kernel: a kernel for {found}, but this machine is x86_64")]
    WrongArchitecture {
        /// What it is for.
        found: String,
    },
    /// Not a kernel.
    #[error("boot.kernel: not a kernel (neither bzImage nor ELF)")]
    NotAKernel,
    /// 32-bit bzImage.
    #[error("boot.kernel: a 32-bit bzImage; this machine boots 64-bit kernels")]
    Kernel32,
    /// Loader's complaint.
    #[error("boot.kernel: cannot load it (truncated, or it does not fit into memory_mib)")]
    Load(#[source] linux_loader::loader::Error),
    /// The kernel says how much it needs.
    #[error(
        "memory_mib: the kernel needs {need_mib} MiB of RAM to start, the guest has {have_mib}"
    )]
    MemoryTooSmall {
        /// Least RAM.
        need_mib: u64,
        /// RAM below 4 GiB.
        have_mib: u64,
    },
    /// No room for the initial RAM disk.
    #[error(
        "boot.initrd: {size} bytes do not fit into the {room} bytes free behind the kernel; give the guest more memory_mib"
    )]
    InitrdTooLarge {
        /// File size.
        size: u64,
        /// Room in guest RAM.
        room: u64,
    },
    /// Command line longer than the kernel takes.
    #[error("boot.cmdline: {length} bytes, this kernel takes at most {limit}")]
    CmdlineTooLong {
        /// Its length.
        length: usize,
        /// The kernel's limit.
        limit: u64,
    },
    /// A NUL would cut it short.
    #[error("boot.cmdline: contains a NUL byte")]
    CmdlineNul,
    /// Host I/O.
    #[error("cannot read {what}")]
    Read {
        /// Kernel or initial RAM disk.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Guest RAM.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// Boot parameters do not fit.
    #[error("cannot write boot parameters")]
    Parameters(#[source] linux_loader::configurator::Error),
}

/// Loads `payload` into guest RAM of `ram` bytes and says how to enter it.
///
/// # Errors
/// See [`BootError`].
pub fn load(memory: &GuestMemory, ram: u64, payload: &mut Payload) -> Result<Entry, BootError> {
    let low_end = ram.min(LOW_RAM_MAX);
    let kernel = load_kernel(memory, low_end, &mut payload.kernel)?;
    write_cmdline(memory, &payload.cmdline, kernel.cmdline_limit)?;
    let initrd = match &mut payload.initrd {
        Some(file) => Some(load_initrd(memory, low_end, &kernel, file)?),
        None => None,
    };
    let map = memory_map(ram);
    match kernel.entry {
        Entry::Linux64(_) => write_zero_page(memory, kernel.header, initrd, &map)?,
        Entry::Pvh(_) => write_start_info(memory, initrd, &map)?,
    }
    kernel.entry.write_tables(memory)?;
    Ok(kernel.entry)
}

/// The memory map: `(address, bytes, e820 type)`.
#[must_use]
pub fn memory_map(ram: u64) -> Vec<(u64, u64, u32)> {
    let low_end = ram.min(LOW_RAM_MAX);
    let mut map = vec![
        (0, EBDA, E820_RAM),
        (EBDA, VGA_HOLE - EBDA, E820_RESERVED),
        (ACPI_TABLES, HIGH_MEMORY - ACPI_TABLES, E820_RESERVED),
        (HIGH_MEMORY, low_end - HIGH_MEMORY, E820_RAM),
        (RESERVED_TOP, 4 * GIB - RESERVED_TOP, E820_RESERVED),
    ];
    for (address, size) in split(ram) {
        if address >= HIGH_RAM {
            map.push((address, size, E820_RAM));
        }
    }
    map
}

struct Kernel {
    entry: Entry,
    header: setup_header,
    /// First byte that the kernel leaves alone while it starts.
    end: u64,
    initrd_max: u64,
    cmdline_limit: u64,
}

fn load_kernel(
    memory: &GuestMemory,
    low_end: u64,
    file: &mut BootFile,
) -> Result<Kernel, BootError> {
    let size = file.size().map_err(read_error("the kernel"))?;
    let mut head = Vec::with_capacity(0x400);
    file.by_ref()
        .take(0x400)
        .read_to_end(&mut head)
        .and_then(|_| file.rewind())
        .map_err(read_error("the kernel"))?;
    match identify(&head, size)? {
        Kind::BzImage => load_bzimage(memory, low_end, file, size),
        Kind::Elf => load_elf(memory, file),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    BzImage,
    Elf,
}

fn identify(head: &[u8], size: u64) -> Result<Kind, BootError> {
    let truncated = |need| BootError::KernelTruncated { have: size, need };
    let other = |found: &str| BootError::WrongArchitecture {
        found: found.to_owned(),
    };
    if head.is_empty() {
        return Err(truncated(0x400));
    }
    if head.starts_with(b"\x7fELF") {
        let [.., low, high] = *head.get(..20).ok_or(truncated(64))? else {
            return Err(truncated(64));
        };
        if head[4] != 2 {
            return Err(other("a 32-bit processor (ELF class 1)"));
        }
        return match u16::from_le_bytes([low, high]) {
            ELF_MACHINE_X86_64 => Ok(Kind::Elf),
            183 => Err(other("aarch64")),
            243 => Err(other("riscv64")),
            machine => Err(other(&format!("ELF machine {machine}"))),
        };
    }
    if head.get(0x202..0x206) == Some(b"HdrS") {
        return Ok(Kind::BzImage);
    }
    if head.get(0x38..0x3c) == Some(b"ARM\x64") {
        return Err(other("aarch64"));
    }
    if head.get(0x30..0x35) == Some(b"RISCV") {
        return Err(other("riscv64"));
    }
    // gzip: x86_64 kernels are never stored so, arm64 ones are.
    if head.starts_with(b"\x1f\x8b") {
        return Err(other("another processor (a compressed Image, as on arm64)"));
    }
    if head.starts_with(b"MZ") && head.len() < 0x400 {
        return Err(truncated(0x400));
    }
    Err(BootError::NotAKernel)
}

fn load_bzimage(
    memory: &GuestMemory,
    low_end: u64,
    file: &mut BootFile,
    size: u64,
) -> Result<Kernel, BootError> {
    let header = read_header(file)?;
    if header.version < 0x020c || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(BootError::Kernel32);
    }
    // boot.rst: `syssize` counts 16-byte paragraphs, `setup_sects` excludes the boot sector.
    let need = (u64::from(header.setup_sects.max(1)) + 1) * 512 + u64::from(header.syssize) * 16;
    if size < need {
        return Err(BootError::KernelTruncated { have: size, need });
    }
    let end = header
        .pref_address
        .max(HIGH_MEMORY)
        .saturating_add(u64::from(header.init_size));
    if end > low_end {
        return Err(BootError::MemoryTooSmall {
            need_mib: end.div_ceil(MIB),
            have_mib: low_end / MIB,
        });
    }
    let loaded = BzImage::load(memory, Some(GuestAddress(HIGH_MEMORY)), file, None)
        .map_err(BootError::Load)?;
    let above_4g = header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0;
    Ok(Kernel {
        entry: Entry::Linux64(HIGH_MEMORY + ENTRY_64),
        header: loaded.setup_header.unwrap_or(header),
        end: end.max(loaded.kernel_end),
        initrd_max: if above_4g {
            low_end
        } else {
            u64::from(header.initrd_addr_max) + 1
        },
        cmdline_limit: u64::from(header.cmdline_size),
    })
}

fn read_header(file: &mut BootFile) -> Result<setup_header, BootError> {
    let mut bytes = [0_u8; size_of::<setup_header>()];
    file.seek(SeekFrom::Start(0x1f1))
        .and_then(|_| file.read_exact(&mut bytes))
        .and_then(|()| file.rewind())
        .map_err(read_error("the kernel"))?;
    vm_memory::ByteValued::from_slice(&bytes)
        .copied()
        .ok_or(BootError::NotAKernel)
}

fn load_elf(memory: &GuestMemory, file: &mut BootFile) -> Result<Kernel, BootError> {
    let loaded =
        Elf::load(memory, None, file, Some(GuestAddress(HIGH_MEMORY))).map_err(BootError::Load)?;
    let entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Entry::Pvh(entry.0),
        _ => Entry::Linux64(loaded.kernel_load.0),
    };
    Ok(Kernel {
        entry,
        header: setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            kernel_alignment: 0x100_0000,
            ..Default::default()
        },
        end: loaded.kernel_end,
        initrd_max: u64::from(u32::MAX),
        cmdline_limit: 2047,
    })
}

fn write_cmdline(memory: &GuestMemory, cmdline: &str, limit: u64) -> Result<(), BootError> {
    let limit = limit.clamp(255, CMDLINE_SIZE - 1);
    if u64::try_from(cmdline.len()).map_or(true, |length| length > limit) {
        return Err(BootError::CmdlineTooLong {
            length: cmdline.len(),
            limit,
        });
    }
    if cmdline.contains('\0') {
        return Err(BootError::CmdlineNul);
    }
    let mut bytes = Vec::with_capacity(cmdline.len() + 1);
    bytes.extend_from_slice(cmdline.as_bytes());
    bytes.push(0);
    memory
        .write_slice(&bytes, GuestAddress(CMDLINE))
        .map_err(|source| memory::Error::Write {
            what: "command line",
            address: CMDLINE,
            source,
        })?;
    Ok(())
}

/// Puts the initial RAM disk as high as the kernel takes it: out of the way of decompression.
fn load_initrd(
    memory: &GuestMemory,
    low_end: u64,
    kernel: &Kernel,
    file: &mut BootFile,
) -> Result<(u64, u64), BootError> {
    let size = file.size().map_err(read_error("the initrd"))?;
    let top = low_end.min(kernel.initrd_max);
    let room = top.saturating_sub(kernel.end.next_multiple_of(PAGE));
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    if size > room {
        return Err(BootError::InitrdTooLarge { size, room });
    }
    let address = (top - size) & !(PAGE - 1);
    memory
        .read_exact_volatile_from(GuestAddress(address), file, length)
        .map_err(|source| BootError::Read {
            what: "the initrd",
            source: io::Error::other(source),
        })?;
    Ok((address, size))
}

/// Low and high half, as `boot_params` wants addresses.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

fn write_zero_page(
    memory: &GuestMemory,
    header: setup_header,
    initrd: Option<(u64, u64)>,
    map: &[(u64, u64, u32)],
) -> Result<(), BootError> {
    let mut params = boot_params {
        hdr: header,
        acpi_rsdp_addr: RSDP,
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_OTHER;
    params.hdr.cmd_line_ptr = halves(CMDLINE).0;
    if let Some((address, size)) = initrd {
        (params.hdr.ramdisk_image, params.ext_ramdisk_image) = halves(address);
        (params.hdr.ramdisk_size, params.ext_ramdisk_size) = halves(size);
    }
    for (slot, &(addr, size, r#type)) in params.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry { addr, size, r#type };
        params.e820_entries += 1;
    }
    LinuxBootConfigurator::write_bootparams(
        &BootParams::new(&params, GuestAddress(ZERO_PAGE)),
        memory,
    )
    .map_err(BootError::Parameters)
}

fn write_start_info(
    memory: &GuestMemory,
    initrd: Option<(u64, u64)>,
    map: &[(u64, u64, u32)],
) -> Result<(), BootError> {
    let map: Vec<_> = map
        .iter()
        .map(|&(addr, size, type_)| hvm_memmap_table_entry {
            addr,
            size,
            type_,
            reserved: 0,
        })
        .collect();
    let info = hvm_start_info {
        magic: PVH_MAGIC,
        version: 1,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: PVH_MODULES,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: RSDP,
        memmap_paddr: PVH_MEMORY_MAP,
        memmap_entries: u32::try_from(map.len()).unwrap_or(0),
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(PVH_START_INFO));
    params.set_sections(&map, GuestAddress(PVH_MEMORY_MAP));
    if let Some((paddr, size)) = initrd {
        let module = hvm_modlist_entry {
            paddr,
            size,
            ..Default::default()
        };
        params.set_modules(&[module], GuestAddress(PVH_MODULES));
    }
    PvhBootConfigurator::write_bootparams(&params, memory).map_err(BootError::Parameters)
}

fn read_error(what: &'static str) -> impl Fn(io::Error) -> BootError {
    move |source| BootError::Read { what, source }
}
