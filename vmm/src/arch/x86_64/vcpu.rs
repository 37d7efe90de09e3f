//! A vCPU's architectural state: power-on state kept for resets, boot registers, register dumps.

use std::fmt::Write as _;

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs,
};
use kvm_ioctls::VcpuFd;

use super::regs::{self, Entry};

const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs enabled, default type write-back: what firmware leaves behind (Intel SDM vol. 3A §12.11).
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;

type Result<T> = std::result::Result<T, kvm_ioctls::Error>;

/// All that a reset must restore. Taken once, right after the vCPU was made.
pub struct PowerOnState {
    sregs: kvm_sregs,
    lapic: kvm_lapic_state,
    mp_state: kvm_mp_state,
    msrs: Msrs,
    xcrs: kvm_xcrs,
    debug_regs: kvm_debugregs,
    events: kvm_vcpu_events,
}

impl PowerOnState {
    /// Reads the state of a vCPU that has not run. `msr_list` names what KVM can save.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn capture(fd: &VcpuFd, msr_list: &[u32]) -> Result<Self> {
        let entries: Vec<_> = msr_list
            .iter()
            .map(|&index| kvm_msr_entry {
                index,
                ..Default::default()
            })
            .collect();
        Ok(Self {
            sregs: fd.get_sregs()?,
            lapic: fd.get_lapic()?,
            mp_state: fd.get_mp_state()?,
            msrs: read_msrs(fd, entries)?,
            xcrs: fd.get_xcrs()?,
            debug_regs: fd.get_debug_regs()?,
            events: fd.get_vcpu_events()?,
        })
    }

    /// Puts a vCPU back to power-on.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn restore(&self, fd: &VcpuFd) -> Result<()> {
        fd.set_mp_state(self.mp_state)?;
        fd.set_sregs(&self.sregs)?;
        fd.set_lapic(&self.lapic)?;
        fd.set_xcrs(&self.xcrs)?;
        fd.set_debug_regs(&self.debug_regs)?;
        fd.set_vcpu_events(&self.events)?;
        fd.set_fpu(&regs::fpu())?;
        write_msrs(fd, self.msrs.as_slice())
    }

    /// Prepares the boot processor to enter a kernel.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn enter(&self, fd: &VcpuFd, entry: Entry) -> Result<()> {
        let mut sregs = self.sregs;
        entry.apply(&mut sregs);
        fd.set_sregs(&sregs)?;
        fd.set_regs(&entry.regs())?;
        fd.set_fpu(&regs::fpu())
    }
}

/// MSRs that firmware would have set on every processor.
///
/// # Errors
/// When KVM refuses.
pub fn set_boot_msrs(fd: &VcpuFd) -> Result<()> {
    write_msrs(
        fd,
        &[
            msr(MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
            msr(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        ],
    )
}

fn msr(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }
}

/// Reads MSRs, leaving out those that KVM lists but does not give for this guest.
fn read_msrs(fd: &VcpuFd, mut entries: Vec<kvm_msr_entry>) -> Result<Msrs> {
    let mut done = 0;
    loop {
        let mut msrs = msr_list(&entries[done..])?;
        let read = fd.get_msrs(&mut msrs)?;
        entries[done..done + read].copy_from_slice(&msrs.as_slice()[..read]);
        done += read;
        if done >= entries.len() {
            return msr_list(&entries);
        }
        entries.remove(done);
        if done == entries.len() {
            return msr_list(&entries);
        }
    }
}

/// Writes MSRs; one that KVM reads but does not take (a read-only one) is passed over.
fn write_msrs(fd: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<()> {
    let mut rest = entries;
    while !rest.is_empty() {
        let written = fd.set_msrs(&msr_list(rest)?)?;
        rest = rest.get(written + 1..).unwrap_or_default();
    }
    Ok(())
}

fn msr_list(entries: &[kvm_msr_entry]) -> Result<Msrs> {
    Msrs::from_entries(entries).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
}

/// Registers as readable text for an error report.
#[must_use]
pub fn dump(fd: &VcpuFd) -> String {
    let mut text = String::with_capacity(1024);
    if let Ok(r) = fd.get_regs() {
        let _ = writeln!(text, "rip {:016x} rflags {:016x}", r.rip, r.rflags);
        let _ = writeln!(
            text,
            "rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}",
            r.rax, r.rbx, r.rcx, r.rdx
        );
        let _ = writeln!(
            text,
            "rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}",
            r.rsi, r.rdi, r.rbp, r.rsp
        );
        let _ = writeln!(
            text,
            "r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}",
            r.r8, r.r9, r.r10, r.r11
        );
        let _ = writeln!(
            text,
            "r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}",
            r.r12, r.r13, r.r14, r.r15
        );
    }
    if let Ok(s) = fd.get_sregs() {
        let _ = writeln!(
            text,
            "cr0 {:016x} cr2 {:016x} cr3 {:016x} cr4 {:016x} efer {:x}",
            s.cr0, s.cr2, s.cr3, s.cr4, s.efer
        );
        for (name, segment) in [("cs", s.cs), ("ss", s.ss), ("ds", s.ds), ("tr", s.tr)] {
            let _ = writeln!(
                text,
                "{name} {:04x} base {:016x} limit {:08x} type {:x} l {} db {}",
                segment.selector, segment.base, segment.limit, segment.type_, segment.l, segment.db
            );
        }
        let _ = writeln!(
            text,
            "gdt {:016x} limit {:x} idt {:016x} limit {:x}",
            s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit
        );
    }
    if let Ok(events) = fd.get_vcpu_events() {
        let exception = events.exception;
        if exception.injected != 0 {
            let _ = writeln!(
                text,
                "exception {} error code {:x}",
                exception.nr, exception.error_code
            );
        }
    }
    text
}
