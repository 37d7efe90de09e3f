//! ACPI tables: fixed hardware, not "hardware reduced", so that every kernel back to CentOS 7 and
//! the firmwares find what they know.
//!
//! The tables are built once as a relocatable blob with a list of pointers and checksums. Direct
//! boot puts the blob at its place and resolves the list itself; a firmware loads it through
//! fw_cfg and resolves the same list where it likes.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::{GenericAddress, Sdt};

use super::layout::{
    ACPI_TABLES, ACPI_TABLES_SIZE, IOAPIC, IRQ_SCI, LAPIC, PORT_GPE0, PORT_PM_TIMER,
    PORT_PM1_CONTROL, PORT_PM1_EVENT, PORT_RESET,
};
use crate::legacy::CENTURY_INDEX;

pub use dsdt::PciWindows;

const OEM_ID: [u8; 6] = *b"CUMULE";
const OEM_TABLE: [u8; 8] = *b"CUMULET ";
const OEM_REVISION: u32 = 1;
const HEADER: usize = 36;
const CHECKSUM: usize = 9;

/// What the tables depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcpiConfig {
    /// Processors.
    pub vcpus: u8,
    /// Memory windows of the PCI bus.
    pub windows: PciWindows,
}

/// A pointer inside the blob that holds an offset into the blob until it is relocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pointer {
    at: usize,
    size: usize,
}

/// All tables, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiBlob {
    data: Vec<u8>,
    pointers: Vec<Pointer>,
    /// `(start, length)` of each table with a checksum.
    tables: Vec<(usize, usize)>,
    xsdt: usize,
}

impl AcpiBlob {
    /// Builds the tables.
    #[must_use]
    pub fn new(config: &AcpiConfig) -> Self {
        let mut blob = Self {
            data: Vec::with_capacity(4096),
            pointers: Vec::new(),
            tables: Vec::new(),
            xsdt: 0,
        };
        let facs = blob.push(&bytes(&FACS::new()), false);
        let dsdt = blob.push(dsdt::dsdt(config).as_slice(), true);
        let fadt = blob.push(fadt().as_slice(), true);
        for (field, size, target) in [(36, 4, facs), (40, 4, dsdt), (140, 8, dsdt)] {
            blob.point(fadt + field, size, target);
        }
        let madt = blob.push(madt(config.vcpus).as_slice(), true);
        let mut xsdt = Sdt::new(*b"XSDT", 36, 1, OEM_ID, OEM_TABLE, OEM_REVISION);
        xsdt.append(0_u64);
        xsdt.append(0_u64);
        blob.xsdt = blob.push(xsdt.as_slice(), true);
        for (index, table) in [fadt, madt].into_iter().enumerate() {
            blob.point(blob.xsdt + HEADER + index * 8, 8, table);
        }
        blob
    }

    /// Appends a table on a 64-byte boundary, as the FACS wants (ACPI 6.5 §5.2.10).
    fn push(&mut self, table: &[u8], checksum: bool) -> usize {
        let start = self.data.len().next_multiple_of(64);
        self.data.resize(start, 0);
        self.data.extend_from_slice(table);
        if checksum {
            self.tables.push((start, table.len()));
        }
        start
    }

    fn point(&mut self, at: usize, size: usize, target: usize) {
        let offset = u64::try_from(target).unwrap_or(0).to_le_bytes();
        self.data[at..at + size].copy_from_slice(&offset[..size]);
        self.pointers.push(Pointer { at, size });
    }

    /// The tables as they must be when they begin at guest-physical `base`, and the root pointer
    /// to them.
    #[must_use]
    pub fn relocate(&self, base: u64) -> (Vec<u8>, Vec<u8>) {
        let mut data = self.data.clone();
        for pointer in &self.pointers {
            let field = &mut data[pointer.at..pointer.at + pointer.size];
            let mut value = [0; 8];
            value[..pointer.size].copy_from_slice(field);
            let value = (u64::from_le_bytes(value) + base).to_le_bytes();
            field.copy_from_slice(&value[..pointer.size]);
        }
        for &(start, length) in &self.tables {
            let table = &mut data[start..start + length];
            table[CHECKSUM] = 0;
            let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            table[CHECKSUM] = sum.wrapping_neg();
        }
        let xsdt = base + u64::try_from(self.xsdt).unwrap_or(0);
        (data, bytes(&Rsdp::new(OEM_ID, xsdt)))
    }

    /// As [`AcpiBlob::relocate`] for the place where direct boot puts the tables; `None` if they
    /// have outgrown it.
    #[must_use]
    pub fn for_direct_boot(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let fits = u64::try_from(self.data.len()).is_ok_and(|length| length <= ACPI_TABLES_SIZE);
        fits.then(|| self.relocate(ACPI_TABLES))
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Fixed ACPI description table, revision 6 (ACPI 6.5 §5.2.9).
fn fadt() -> Sdt {
    const LENGTH: u32 = 276;
    let mut fadt = Sdt::new(*b"FACP", LENGTH, 6, OEM_ID, OEM_TABLE, OEM_REVISION);
    // Preferred profile: enterprise server.
    fadt.write_u8(45, 4);
    fadt.write_u16(46, u16::try_from(IRQ_SCI).unwrap_or(0));
    // No SMI command port: the machine is always in ACPI mode.
    fadt.write_u32(56, u32::from(PORT_PM1_EVENT));
    fadt.write_u32(64, u32::from(PORT_PM1_CONTROL));
    fadt.write_u32(76, u32::from(PORT_PM_TIMER));
    fadt.write_u32(80, u32::from(PORT_GPE0));
    // Lengths: PM1 event, control, PM2, timer, GPE0.
    for (offset, length) in [(88, 4), (89, 2), (90, 0), (91, 4), (92, 4)] {
        fadt.write_u8(offset, length);
    }
    // C2 and C3 latencies that mean "not there".
    fadt.write_u16(96, 101);
    fadt.write_u16(98, 1001);
    fadt.write_u8(108, CENTURY_INDEX);
    fadt.write_u16(109, IAPC_LEGACY_DEVICES | IAPC_NO_VGA | IAPC_NO_ASPM);
    fadt.write_u32(
        112,
        WBINVD | PROC_C1 | NO_SLEEP_BUTTON | NO_FIXED_RTC | TIMER_32_BITS | RESET_REGISTER,
    );
    fadt.write(116, GenericAddress::io_port_address::<u8>(PORT_RESET));
    fadt.write_u8(128, 6);
    fadt.write_u8(131, 5);
    fadt.write(148, GenericAddress::io_port_address::<u32>(PORT_PM1_EVENT));
    fadt.write(
        172,
        GenericAddress::io_port_address::<u16>(PORT_PM1_CONTROL),
    );
    fadt.write(208, GenericAddress::io_port_address::<u32>(PORT_PM_TIMER));
    fadt.write(220, GenericAddress::io_port_address::<u32>(PORT_GPE0));
    fadt
}

const IAPC_LEGACY_DEVICES: u16 = 1;
const IAPC_NO_VGA: u16 = 1 << 2;
const IAPC_NO_ASPM: u16 = 1 << 4;
const WBINVD: u32 = 1;
const PROC_C1: u32 = 1 << 2;
/// No fixed sleep button. The fixed power button is there: bit 4 is clear.
const NO_SLEEP_BUTTON: u32 = 1 << 5;
const NO_FIXED_RTC: u32 = 1 << 6;
const TIMER_32_BITS: u32 = 1 << 8;
const RESET_REGISTER: u32 = 1 << 10;

/// Interrupts active high and level-triggered (ACPI 6.5 table 5.26, "MPS INTI flags").
const ACTIVE_HIGH_LEVEL: u16 = 0b1101;
/// The machine also has two 8259 controllers.
const PCAT_COMPAT: u32 = 1;

/// Multiple APIC description table (ACPI 6.5 §5.2.12).
fn madt(vcpus: u8) -> Sdt {
    let mut madt = Sdt::new(*b"APIC", 36, 4, OEM_ID, OEM_TABLE, OEM_REVISION);
    madt.append(LAPIC);
    madt.append(PCAT_COMPAT);
    for id in 0..vcpus {
        // Processor local APIC: type, length, processor uid, APIC id, flags (enabled).
        madt.append_slice(&[0, 8, id, id, 1, 0, 0, 0]);
    }
    // IOAPIC: type, length, id, reserved, address, first GSI.
    madt.append_slice(&[1, 12, 0, 0]);
    madt.append(IOAPIC);
    madt.append(0_u32);
    // Interrupt source overrides: type, length, bus, ISA interrupt, GSI, flags.
    for (isa, gsi, flags) in [(0, 2, 0), (9, IRQ_SCI, ACTIVE_HIGH_LEVEL)] {
        madt.append_slice(&[2, 10, 0, isa]);
        madt.append(gsi);
        madt.append(flags);
    }
    // Local APIC NMI: type, length, all processors, flags, LINT1.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(vcpus: u8) -> AcpiBlob {
        AcpiBlob::new(&AcpiConfig {
            vcpus,
            windows: PciWindows {
                below: (0xc000_0000, 0xfec0_0000),
                above: Some((0x1_0000_0000, 0x11_0000_0000)),
            },
        })
    }

    fn word(data: &[u8], at: usize, size: usize) -> u64 {
        let mut value = [0; 8];
        value[..size].copy_from_slice(&data[at..at + size]);
        u64::from_le_bytes(value)
    }

    fn table(data: &[u8], base: u64, address: u64) -> &[u8] {
        let start = usize::try_from(address - base).unwrap();
        let length = usize::try_from(word(data, start + 4, 4)).unwrap();
        &data[start..start + length]
    }

    #[test]
    fn tables_are_found_from_the_root_with_right_checksums_at_any_place() {
        for base in [ACPI_TABLES, 0x7f00_0000] {
            let (data, rsdp) = blob(2).relocate(base);
            assert_eq!(&rsdp[..8], b"RSD PTR ");
            let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!(sum(&rsdp[..20]), 0);
            assert_eq!(sum(&rsdp), 0);
            let xsdt = table(&data, base, word(&rsdp, 24, 8));
            assert_eq!(&xsdt[..4], b"XSDT");
            let fadt = table(&data, base, word(xsdt, 36, 8));
            let madt = table(&data, base, word(xsdt, 44, 8));
            let dsdt = table(&data, base, word(fadt, 140, 8));
            let names = [fadt, madt, dsdt].map(|t| t[..4].to_vec());
            assert_eq!(names, [b"FACP", b"APIC", b"DSDT"]);
            assert_eq!(word(fadt, 40, 4), word(fadt, 140, 8));
            assert_eq!(table(&data, base, word(fadt, 36, 4))[..4], *b"FACS");
            assert_eq!(word(fadt, 36, 4) % 64, 0);
            for table in [xsdt, fadt, madt, dsdt] {
                assert_eq!(sum(table), 0);
            }
        }
    }

    #[test]
    fn thirty_two_processors_fit() {
        assert!(blob(32).for_direct_boot().is_some());
    }
}
