//! Every magic address of the x86_64 machine, in one place.
//!
//! ```text
//! guest-physical                                        I/O ports
//! 0000_0000 real-mode area, boot data  } RAM            0061        speaker gate (sink)
//! 000a_0000 (VGA hole, reserved)       }                0064        keyboard controller: reset only
//! 000c_0000 RAM                        }                0070 0071   CMOS and clock
//! 000e_0000 ACPI tables                }                0080        POST codes (sink)
//! 000f_0000 SMBIOS, RSDP               }                0092        fast reset
//! 0010_0000 kernel …                   }                03f8-03ff   COM1
//! C000_0000 32-bit PCI window                           0402        firmware debug (sink)
//! FEC0_0000 IOAPIC (in KVM)                             0600-0603   PM1a events
//! FEE0_0000 LAPIC (in KVM)                              0604-0605   PM1a control
//! FEFF_C000 KVM identity map and TSS                    0608-060b   PM timer
//! 1_0000_0000 RAM above 3 GiB                           0620-0623   GPE0
//! then        64-bit PCI window                         0cf8-0cff   PCI configuration, 0cf9 reset
//! ```

/// One MiB.
pub const MIB: u64 = 1 << 20;
/// One GiB.
pub const GIB: u64 = 1 << 30;

/// Initial GDT of the boot processor (Linux 64-bit boot protocol).
pub const BOOT_GDT: u64 = 0x500;
/// Initial, empty IDT.
pub const BOOT_IDT: u64 = 0x520;
/// PVH `hvm_start_info` and what it points to.
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH module list (one entry: the initrd).
pub const PVH_MODULES: u64 = 0x6040;
/// PVH memory map.
pub const PVH_MEMORY_MAP: u64 = 0x6080;
/// Linux `boot_params` ("zero page").
pub const ZERO_PAGE: u64 = 0x7000;
/// Initial stack pointer.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Initial page tables: PML4, PDPT and four page directories (4 GiB mapped one to one).
pub const PAGE_TABLES: u64 = 0x9000;
/// Kernel command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Bytes reserved for the command line, its final NUL included.
pub const CMDLINE_SIZE: u64 = 0x1_0000;
/// Conventional memory ends here; the last KiB below 640 KiB is the extended BIOS data area.
pub const EBDA: u64 = 0x9_fc00;
/// The VGA hole: no RAM for the guest although the memory slot spans it.
pub const VGA_HOLE: u64 = 0xa_0000;
/// ACPI tables, 64 KiB.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// Bytes reserved for ACPI tables.
pub const ACPI_TABLES_SIZE: u64 = 0x1_0000;
/// SMBIOS entry points and structures.
pub const SMBIOS: u64 = 0xf_0000;
/// Bytes reserved for SMBIOS.
pub const SMBIOS_SIZE: u64 = 0xf000;
/// The ACPI root pointer, on a 16-byte boundary where guests search for it (ACPI 6.5 §5.2.5.1).
pub const RSDP: u64 = 0xf_f000;
/// Extended memory and the place of a bzImage's protected-mode part.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// RAM below 4 GiB ends here at the latest.
pub const LOW_RAM_MAX: u64 = 3 * GIB;
/// RAM continues here.
pub const HIGH_RAM: u64 = 4 * GIB;
/// 32-bit PCI memory window.
pub const PCI_WINDOW32: u64 = LOW_RAM_MAX;
/// First byte behind the 32-bit PCI memory window.
pub const PCI_WINDOW32_END: u64 = 0xfec0_0000;
/// Size of the 64-bit PCI memory window where the processor's address width has room for it.
pub const PCI_WINDOW64_SIZE: u64 = 64 * GIB;
/// IOAPIC registers (emulated by KVM).
pub const IOAPIC: u32 = 0xfec0_0000;
/// Local APIC registers (emulated by KVM).
pub const LAPIC: u32 = 0xfee0_0000;
/// One page for KVM's identity map, used on processors without unrestricted guest mode.
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// Three pages for KVM's task state segment.
pub const KVM_TSS: u64 = 0xfeff_d000;
/// Everything from here to 4 GiB is reserved in the memory map.
pub const RESERVED_TOP: u64 = PCI_WINDOW32_END;

/// System control port B: timer 2 gate and speaker.
pub const PORT_SYSTEM_B: u16 = 0x61;
/// Keyboard controller command port; only its reset pulse is there.
pub const PORT_KEYBOARD: u16 = 0x64;
/// CMOS index.
pub const PORT_CMOS: u16 = 0x70;
/// POST codes.
pub const PORT_POST: u16 = 0x80;
/// System control port A: fast reset.
pub const PORT_SYSTEM_A: u16 = 0x92;
/// First serial port.
pub const PORT_COM1: u16 = 0x3f8;
/// Firmware debug output.
pub const PORT_FIRMWARE_DEBUG: u16 = 0x402;
/// PM1a event block (status, enable).
pub const PORT_PM1_EVENT: u16 = 0x600;
/// PM1a control block.
pub const PORT_PM1_CONTROL: u16 = 0x604;
/// Power management timer.
pub const PORT_PM_TIMER: u16 = 0x608;
/// General-purpose event block 0 (status, enable).
pub const PORT_GPE0: u16 = 0x620;
/// PCI configuration address register.
pub const PORT_PCI_ADDRESS: u16 = 0xcf8;
/// Reset control register.
pub const PORT_RESET: u16 = 0xcf9;
/// PCI configuration data register.
pub const PORT_PCI_DATA: u16 = 0xcfc;

/// Interrupt of the first serial port.
pub const IRQ_COM1: u32 = 4;
/// Interrupt of the clock (never raised, named in the ACPI tables).
pub const IRQ_RTC: u32 = 8;
/// ACPI system control interrupt.
pub const IRQ_SCI: u32 = 9;
/// First GSI of the PCI INTx lines; slot `n` uses `IRQ_PCI + n % IRQ_PCI_LINES`.
pub const IRQ_PCI: u32 = 16;
/// Number of PCI INTx lines.
pub const IRQ_PCI_LINES: u32 = 8;
/// Input pins of KVM's IOAPIC.
pub const IOAPIC_PINS: u32 = 24;
/// First GSI for message-signalled interrupts.
pub const FIRST_MSI_GSI: u32 = IOAPIC_PINS;
/// Slots of PCI bus 0.
pub const PCI_SLOTS: u8 = 32;
