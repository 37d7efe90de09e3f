//! The x86_64 machine: a stripped i440FX look-alike (see `docs/vmm.md`).

pub mod acpi;
pub mod boot;
pub mod cpuid;
pub mod irq;
pub mod layout;
pub mod regs;
pub mod smbios;
pub mod vcpu;
