//! The fixed function of the machine: a host bridge. It holds registers and does nothing; the work
//! (interrupt routing, ACPI) is done elsewhere at fixed addresses.
//!
//! A PC of this shape has a companion chip in slot 1, an ISA bridge and a power management function.
//! A kernel that is booted directly learns all that they could say from ACPI, and its look at their
//! empty registers costs 258 exits, so they are left out; firmware wants to see them.

use super::config_space::{ConfigSpace, Identity};
use crate::device::{BarRange, PciDevice};

/// 82441FX, with the subsystem that QEMU's machine of this shape has; guests know it.
const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x1237,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    class: 0x06_00_00,
    revision: 2,
};

/// The host bridge, 0:0.0. It only keeps what is written to it.
#[derive(Debug)]
pub struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    /// Its memory control bytes (0x59 to 0x5f, 0x72) are kept for firmware that writes and reads
    /// them; all of low memory is RAM whatever they say.
    #[must_use]
    pub fn new() -> Self {
        let mut config = ConfigSpace::new(&IDENTITY);
        config.allow(0x59, &[0xff; 7]);
        config.allow(0x72, &[0xff]);
        Self { config }
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl PciDevice for HostBridge {
    fn name(&self) -> &str {
        "host-bridge"
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
