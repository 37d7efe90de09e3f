//! The fixed functions of the machine: a host bridge and the two functions of its companion that
//! firmware and kernels look for. They hold registers and do nothing; the work (interrupt routing,
//! ACPI) is done elsewhere at fixed addresses.

use super::config_space::{ConfigSpace, Identity};
use crate::device::{BarRange, PciDevice};

const INTEL: u16 = 0x8086;
/// The subsystem QEMU's machine of this shape has; guests know it.
const SUBSYSTEM_VENDOR: u16 = 0x1af4;
const SUBSYSTEM: u16 = 0x1100;

/// A function that only keeps what is written to it.
#[derive(Debug)]
pub struct PassiveFunction {
    name: &'static str,
    config: ConfigSpace,
}

fn identity(device: u16, class: u32, revision: u8) -> Identity {
    Identity {
        vendor: INTEL,
        device,
        subsystem_vendor: SUBSYSTEM_VENDOR,
        subsystem: SUBSYSTEM,
        class,
        revision,
    }
}

impl PassiveFunction {
    /// 82441FX host bridge, 0:0.0. Its memory control bytes (0x59 to 0x5f, 0x72) are kept for
    /// firmware that writes and reads them; all of low memory is RAM whatever they say.
    #[must_use]
    pub fn host_bridge() -> Self {
        let mut config = ConfigSpace::new(&identity(0x1237, 0x06_00_00, 2));
        config.allow(0x59, &[0xff; 7]);
        config.allow(0x72, &[0xff]);
        Self {
            name: "host-bridge",
            config,
        }
    }

    /// 82371SB ISA bridge, 0:1.0. Its PIRQ bytes (0x60 to 0x63) are kept, and the passive release
    /// bit (0x82) that Linux sets; interrupts follow the fixed routing in ACPI.
    #[must_use]
    pub fn isa_bridge() -> Self {
        let mut config = ConfigSpace::new(&identity(0x7000, 0x06_01_00, 0)).multifunction();
        config.preset(0x60, &[0x80; 4]);
        config.allow(0x60, &[0xff; 4]);
        config.allow(0x82, &[0x02]);
        Self {
            name: "isa-bridge",
            config,
        }
    }

    /// 82371AB power management, 0:1.3, with its I/O base preset to `pm_base` and enabled, so that
    /// firmware keeps it and the ACPI tables stay true.
    #[must_use]
    pub fn power_management(pm_base: u16) -> Self {
        let mut config = ConfigSpace::new(&identity(0x7113, 0x06_80_00, 3));
        let base = u32::from(pm_base) | 1;
        config.preset(0x40, &base.to_le_bytes());
        // PMREGMISC: the base above is decoded.
        config.preset(0x80, &[1]);
        config.allow(0x80, &[1]);
        Self {
            name: "power-management",
            config,
        }
    }
}

impl PciDevice for PassiveFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn config_read(&mut self, offset: u8, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u8, data: &[u8]) {
        self.config.write(offset, data);
    }

    fn bars(&self) -> Vec<BarRange> {
        Vec::new()
    }

    fn bar_read(&mut self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&mut self, _bar: u8, _offset: u64, _data: &[u8]) {}

    fn reset(&mut self) {
        self.config.reset();
    }
}
