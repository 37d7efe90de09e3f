//! Registers, descriptors and page tables with which the boot processor enters a kernel.
//!
//! * Linux 64-bit boot protocol (`Documentation/arch/x86/boot.rst` "64-bit Boot Protocol"): long
//!   mode, paging on with the low memory mapped one to one, RSI = `boot_params`.
//! * PVH (Xen `docs/misc/pvh.pandoc`): 32-bit protected mode, paging off, flat segments, EBX =
//!   `hvm_start_info`.

use kvm_bindings::{kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::layout::{BOOT_GDT, BOOT_IDT, BOOT_STACK, PAGE_TABLES, PVH_START_INFO, ZERO_PAGE};
use crate::memory::{Error, GuestMemory};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_RESERVED: u64 = 1 << 1;

const PAGE: u64 = 0x1000;
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const GIB_MAPPED: u64 = 4;

/// How the boot processor enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Long mode at this address, RSI = `boot_params`.
    Linux64(u64),
    /// 32-bit protected mode at this address, EBX = `hvm_start_info`.
    Pvh(u64),
}

impl Entry {
    /// General registers at entry.
    #[must_use]
    pub fn regs(self) -> kvm_regs {
        match self {
            Self::Linux64(rip) => kvm_regs {
                rip,
                rsp: BOOT_STACK,
                rbp: BOOT_STACK,
                rsi: ZERO_PAGE,
                rflags: RFLAGS_RESERVED,
                ..Default::default()
            },
            Self::Pvh(rip) => kvm_regs {
                rip,
                rbx: PVH_START_INFO,
                rflags: RFLAGS_RESERVED,
                ..Default::default()
            },
        }
    }

    /// Turns the power-on special registers into those at entry.
    pub fn apply(self, sregs: &mut kvm_sregs) {
        let long = matches!(self, Self::Linux64(_));
        let code = segment(GDT[CODE], CODE, long);
        let data = segment(GDT[DATA], DATA, false);
        sregs.cs = code;
        sregs.ds = data;
        sregs.es = data;
        sregs.fs = data;
        sregs.gs = data;
        sregs.ss = data;
        sregs.tr = task_segment();
        sregs.gdt.base = BOOT_GDT;
        sregs.gdt.limit = 8 * 4 - 1;
        sregs.idt.base = BOOT_IDT;
        sregs.idt.limit = 7;
        sregs.cr0 = CR0_PE | CR0_ET;
        sregs.cr4 = 0;
        sregs.efer = 0;
        if long {
            sregs.cr0 |= CR0_PG;
            sregs.cr3 = PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
    }

    /// Writes the tables that these registers point to.
    ///
    /// # Errors
    /// When guest RAM is too small for them.
    pub fn write_tables(self, memory: &GuestMemory) -> Result<(), Error> {
        let mut gdt = [0_u8; 32];
        for (slot, descriptor) in gdt.chunks_exact_mut(8).zip(self.gdt()) {
            slot.copy_from_slice(&descriptor.to_le_bytes());
        }
        write(memory, "descriptor table", BOOT_GDT, &gdt)?;
        write(memory, "interrupt table", BOOT_IDT, &[0; 8])?;
        if matches!(self, Self::Linux64(_)) {
            write(memory, "page tables", PAGE_TABLES, &page_tables())?;
        }
        Ok(())
    }

    fn gdt(self) -> [u64; 4] {
        let mut gdt = GDT;
        if matches!(self, Self::Linux64(_)) {
            gdt[CODE] = gdt[CODE] & !DESCRIPTOR_D | DESCRIPTOR_L;
        }
        gdt
    }
}

/// x87 and SSE control words after reset (Intel SDM vol. 3A table 10-1 says 0x40; every operating
/// system starts from FNINIT's 0x37f).
#[must_use]
pub fn fpu() -> kvm_fpu {
    kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    }
}

// __BOOT_CS must be selector 0x10 and __BOOT_DS 0x18 (boot.rst).
const CODE: usize = 2;
const DATA: usize = 3;
const DESCRIPTOR_L: u64 = 1 << 53;
const DESCRIPTOR_D: u64 = 1 << 54;
/// Flat 4 GiB: code execute/read accessed, data read/write accessed (Intel SDM vol. 3A §3.4.5).
const GDT: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

fn bit(descriptor: u64, shift: u32) -> u8 {
    u8::from(descriptor >> shift & 1 == 1)
}

fn segment(descriptor: u64, index: usize, long: bool) -> kvm_segment {
    let kind = (descriptor >> 40 & 0xf).to_le_bytes()[0];
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: if index == CODE { 0x10 } else { 0x18 },
        type_: kind,
        present: 1,
        dpl: 0,
        db: bit(descriptor, 54) & u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

/// VM entry wants a busy 32/64-bit TSS (Intel SDM vol. 3C §26.3.1.2).
fn task_segment() -> kvm_segment {
    kvm_segment {
        limit: 0x67,
        type_: 0xb,
        present: 1,
        ..Default::default()
    }
}

/// PML4, PDPT and four page directories with 2 MiB pages.
fn page_tables() -> Vec<u8> {
    let mut tables = Vec::with_capacity(6 * 4096);
    let mut push_table = |first: &[u64]| {
        for index in 0..512 {
            tables.extend(first.get(index).copied().unwrap_or(0).to_le_bytes());
        }
    };
    push_table(&[(PAGE_TABLES + PAGE) | PRESENT_WRITABLE]);
    let directories: Vec<u64> = (0..GIB_MAPPED)
        .map(|n| (PAGE_TABLES + (2 + n) * PAGE) | PRESENT_WRITABLE)
        .collect();
    push_table(&directories);
    for gib in 0..GIB_MAPPED {
        let pages: Vec<u64> = (0..512)
            .map(|n| (gib * 512 + n) << 21 | LARGE | PRESENT_WRITABLE)
            .collect();
        push_table(&pages);
    }
    tables
}

fn write(
    memory: &GuestMemory,
    what: &'static str,
    address: u64,
    bytes: &[u8],
) -> Result<(), Error> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|source| Error::Write {
            what,
            address,
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::GuestRam;

    #[test]
    fn long_mode_maps_four_gib_one_to_one() {
        let ram = GuestRam::new(64).unwrap();
        Entry::Linux64(0x10_0200).write_tables(&ram.memory).unwrap();
        let read = |address| ram.memory.read_obj::<u64>(GuestAddress(address)).unwrap();
        for address in [0, 0x10_0000, 0xfee0_0000_u64] {
            let pdpt = read(PAGE_TABLES) & !0xfff;
            let directory = read(pdpt + (address >> 30) * 8) & !0xfff;
            let page = read(directory + (address >> 21 & 511) * 8);
            assert_eq!(page & LARGE, LARGE);
            assert_eq!(page & !0x1f_ffff, address & !0x1f_ffff);
        }
        let mut sregs = kvm_sregs::default();
        Entry::Linux64(0x10_0200).apply(&mut sregs);
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.selector), (1, 0, 0x10));
        assert_eq!(sregs.efer, EFER_LME | EFER_LMA);
        assert_eq!(read(BOOT_GDT + 16) & DESCRIPTOR_L, DESCRIPTOR_L);
    }

    #[test]
    fn pvh_is_flat_32_bit_without_paging() {
        let mut sregs = kvm_sregs::default();
        Entry::Pvh(0x100_0000).apply(&mut sregs);
        assert_eq!((sregs.cs.l, sregs.cs.db), (0, 1));
        assert_eq!(sregs.cr0 & CR0_PG, 0);
        assert_eq!(Entry::Pvh(0x100_0000).regs().rbx, PVH_START_INFO);
    }
}
