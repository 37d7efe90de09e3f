//! The fixed function of the machine: a host bridge. It holds registers and does nothing; the work
//! (interrupt routing, ACPI) is done elsewhere at fixed addresses.
//!
//! A PC of this shape has a companion chip in slot 1, an ISA bridge and a power management function.
//! A kernel that is booted directly learns all that they could say from ACPI, and its look at their
//! empty registers costs 258 exits, so they are left out; firmware wants to see them.

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
