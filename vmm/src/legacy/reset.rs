//! The three ways in which a PC is reset by software.

use crate::device::BusDevice;
use crate::requests::Request;
use crate::requests::Requests;

/// Reset control register of the PIIX, port 0xcf9: bit 2 going from 0 to 1 resets
/// (82371AB datasheet §4.1.3 "RC").
#[derive(Debug)]
pub struct ResetControl {
    requests: Requests,
    value: u8,
}

impl ResetControl {
    const RESET_CPU: u8 = 1 << 2;

    /// A register that is 0.
    #[must_use]
    pub fn new(requests: Requests) -> Self {
        Self { requests, value: 0 }
    }
}

impl BusDevice for ResetControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        data[0] = self.value;
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if data[0] & Self::RESET_CPU != 0 && self.value & Self::RESET_CPU == 0 {
            self.value = 0;
            self.requests.raise(Request::Reset);
        } else {
            self.value = data[0] & !Self::RESET_CPU;
        }
    }
}

/// Keyboard controller command port 0x64: there is no keyboard, but command 0xfe pulses the reset
/// line as kernels without ACPI expect.
#[derive(Debug)]
pub struct KeyboardReset {
    requests: Requests,
}

impl KeyboardReset {
    const PULSE_RESET: u8 = 0xfe;

    /// A port that resets the machine through `requests`.
    #[must_use]
    pub fn new(requests: Requests) -> Self {
        Self { requests }
    }
}

impl BusDevice for KeyboardReset {
    /// 0: input buffer empty, so a kernel that waits for it goes on at once.
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if data[0] == Self::PULSE_RESET {
            self.requests.raise(Request::Reset);
        }
    }
}

/// System control port A, 0x92: bit 0 resets, bit 1 is the A20 gate (always open).
#[derive(Debug)]
pub struct SystemControlA {
    requests: Requests,
}

impl SystemControlA {
    const FAST_RESET: u8 = 1;
    const A20: u8 = 1 << 1;

    /// A port that resets the machine through `requests`.
    #[must_use]
    pub fn new(requests: Requests) -> Self {
        Self { requests }
    }
}

impl BusDevice for SystemControlA {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        data[0] = Self::A20;
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if data[0] & Self::FAST_RESET != 0 {
            self.requests.raise(Request::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_resets_and_other_writes_do_not() {
        let requests = Requests::new().unwrap();
        let mut control = ResetControl::new(requests.clone());
        control.write(0, &[0x02]);
        assert_eq!(requests.take(), None);
        control.write(0, &[0x06]);
        assert_eq!(requests.take(), Some(Request::Reset));
        let mut keyboard = KeyboardReset::new(requests.clone());
        keyboard.write(0, &[0xaa]);
        assert_eq!(requests.take(), None);
        keyboard.write(0, &[0xfe]);
        assert_eq!(requests.take(), Some(Request::Reset));
        let mut fast = SystemControlA::new(requests.clone());
        fast.write(0, &[2]);
        assert_eq!(requests.take(), None);
        fast.write(0, &[3]);
        assert_eq!(requests.take(), Some(Request::Reset));
    }
}
