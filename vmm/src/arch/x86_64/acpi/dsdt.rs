//! The DSDT: what an operating system cannot find by itself.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package, Path,
    ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::{AcpiConfig, OEM_ID, OEM_REVISION, OEM_TABLE};
use crate::arch::irq::intx_gsi;
use crate::arch::layout::{IRQ_COM1, IRQ_RTC, PCI_SLOTS, PORT_CMOS, PORT_COM1, PORT_PCI_ADDRESS};
use crate::legacy::SLP_TYP_S5;

/// Memory windows of the PCI bus: first address and first address behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciWindows {
    /// Below 4 GiB.
    pub below: (u64, u64),
    /// Above all RAM, where the processor's address width has room.
    pub above: Option<(u64, u64)>,
}

/// Builds the table; its checksum is computed when it is relocated.
pub(super) fn dsdt(config: &AcpiConfig) -> Sdt {
    let mut body = Body::default();
    // \_S5: both sleep types. No S3; S4 comes with hibernation.
    Name::new(
        Path::new("_S5_"),
        &Package::new(vec![&SLP_TYP_S5, &SLP_TYP_S5, &ZERO, &ZERO]),
    )
    .to_aml_bytes(&mut body);
    system_bus(config, &mut body);
    let mut dsdt = Sdt::new(*b"DSDT", 36, 6, OEM_ID, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&body.0);
    dsdt
}

/// Collects bytes; `Vec<u8>` would do but for its double meaning as a sink and as AML.
#[derive(Default)]
struct Body(Vec<u8>);

impl AmlSink for Body {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn system_bus(config: &AcpiConfig, body: &mut dyn AmlSink) {
    let pci_id = Name::new(Path::new("_HID"), &EISAName::new("PNP0A03"));
    let pci_uid = Name::new(Path::new("_UID"), &ZERO);
    let pci_bus = Name::new(Path::new("_BBN"), &ZERO);
    let resources = pci_resources(config);
    let routing = pci_routing();
    let children: Vec<&dyn Aml> = vec![&pci_id, &pci_uid, &pci_bus, &resources, &routing];
    let pci = Device::new(Path::new("PCI0"), children);

    let com_id = Name::new(Path::new("_HID"), &EISAName::new("PNP0501"));
    let com_uid = Name::new(Path::new("_UID"), &1_u8);
    let com_io = IO::new(PORT_COM1, PORT_COM1, 1, 8);
    let com_irq = Interrupt::new(true, true, false, false, IRQ_COM1);
    let com_resources = Name::new(
        Path::new("_CRS"),
        &ResourceTemplate::new(vec![&com_io, &com_irq]),
    );
    let com = Device::new(Path::new("COM1"), vec![&com_id, &com_uid, &com_resources]);

    let rtc_id = Name::new(Path::new("_HID"), &EISAName::new("PNP0B00"));
    let rtc_io = IO::new(PORT_CMOS, PORT_CMOS, 1, 2);
    let rtc_irq = Interrupt::new(true, true, false, false, IRQ_RTC);
    let rtc_resources = Name::new(
        Path::new("_CRS"),
        &ResourceTemplate::new(vec![&rtc_io, &rtc_irq]),
    );
    let rtc = Device::new(Path::new("RTC_"), vec![&rtc_id, &rtc_resources]);

    Scope::new(Path::new("_SB_"), vec![&pci, &com, &rtc]).to_aml_bytes(body);
}

/// `_CRS` of the host bridge: bus 0, all ports but those of configuration space, memory windows.
fn pci_resources(config: &AcpiConfig) -> Name {
    let clip = |address: u64| u32::try_from(address).unwrap_or(u32::MAX);
    let bus = AddressSpace::new_bus_number(0_u16, 0);
    let config_ports = IO::new(PORT_PCI_ADDRESS, PORT_PCI_ADDRESS, 1, 8);
    let ports_below = AddressSpace::new_io(0_u16, PORT_PCI_ADDRESS - 1, None);
    let ports_above = AddressSpace::new_io(PORT_PCI_ADDRESS + 8, u16::MAX, None);
    let (start, end) = config.windows.below;
    let below = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        clip(start),
        clip(end - 1),
        None,
    );
    let above = config.windows.above.map(|(start, end)| {
        AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            start,
            end - 1,
            None,
        )
    });
    let mut resources: Vec<&dyn Aml> =
        vec![&bus, &config_ports, &ports_below, &ports_above, &below];
    if let Some(above) = &above {
        resources.push(above);
    }
    Name::new(Path::new("_CRS"), &ResourceTemplate::new(resources))
}

/// `_PRT`: pin A to D of every slot on fixed GSIs (ACPI 6.5 §6.2.13). Only pin A is used.
fn pci_routing() -> Name {
    let entries: Vec<(u32, u8, u32)> = (0..PCI_SLOTS)
        .flat_map(|slot| (0..4_u8).map(move |pin| (slot, pin)))
        .map(|(slot, pin)| {
            let address = u32::from(slot) << 16 | 0xffff;
            (address, pin, intx_gsi(slot.wrapping_add(pin)))
        })
        .collect();
    let packages: Vec<Package<'_>> = entries
        .iter()
        .map(|(address, pin, gsi)| Package::new(vec![address, pin, &ZERO, gsi]))
        .collect();
    let mut table = acpi_tables::aml::PackageBuilder::new();
    for package in &packages {
        table.add_element(package);
    }
    Name::new(Path::new("_PRT"), &table)
}
