//! Ports that swallow what is written and answer something harmless.

use crate::device::BusDevice;

/// Swallows writes, reads as zeros: POST codes at port 0x80.
#[derive(Debug, Default)]
pub struct Sink;

impl BusDevice for Sink {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

/// Firmware debug output, port 0x402. Reading 0xe9 says that someone listens; without it SeaBIOS
/// stops writing. What firmware says goes nowhere yet.
#[derive(Debug, Default)]
pub struct FirmwareDebug;

impl BusDevice for FirmwareDebug {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xe9);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

/// System control port B, 0x61, answered by KVM's timer itself where it has a dummy speaker; this
/// one is for what KVM leaves to us: a byte that reads back, no NMI sources set.
#[derive(Debug, Default)]
pub struct SystemControlB {
    value: u8,
}

impl BusDevice for SystemControlB {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        data[0] = self.value;
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        self.value = data[0] & 0xf;
    }
}
