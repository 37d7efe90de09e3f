//! Serial port: a 16550A (National Semiconductor PC16550D datasheet).
//!
//! A byte written to the transmitter goes to a [`TransmitSink`] at once, so the transmitter is
//! always empty. The interrupt is a pulse on an edge-triggered line: it is raised when a condition
//! becomes true, not for each byte, so a guest that fills the whole FIFO costs one interrupt.

use std::collections::VecDeque;
use std::io;

use vmm_sys_util::eventfd::EventFd;

use crate::device::BusDevice;

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const INTERRUPT_IDENTITY: u64 = 2;
const LINE_CONTROL: u64 = 3;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
const MODEM_STATUS: u64 = 6;
const SCRATCH: u64 = 7;

const IER_RECEIVED: u8 = 1;
const IER_TRANSMITTER_EMPTY: u8 = 1 << 1;
const IER_MASK: u8 = 0xf;
const IIR_NONE: u8 = 1;
const IIR_TRANSMITTER_EMPTY: u8 = 0x2;
const IIR_RECEIVED: u8 = 0x4;
const IIR_FIFO: u8 = 0xc0;
const FCR_ENABLE: u8 = 1;
const FCR_CLEAR_RECEIVER: u8 = 1 << 1;
const LCR_DIVISOR_LATCH: u8 = 1 << 7;
const MCR_LOOPBACK: u8 = 1 << 4;
const MCR_MASK: u8 = 0x1f;
const LSR_DATA_READY: u8 = 1;
const LSR_TRANSMITTER_EMPTY: u8 = 0x60;
/// Clear to send, data set ready, carrier detect.
const MSR_DEFAULT: u8 = 0xb0;

/// Bytes that wait for the guest at most; the sender waits when it is full.
const RECEIVE_CAPACITY: usize = 1024;

/// Where transmitted bytes go.
pub trait TransmitSink: Send {
    /// Takes one byte. Must not block.
    fn transmit(&mut self, byte: u8);
}

/// Registers and receiver FIFO; plain, so that a snapshot can keep them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SerialState {
    interrupt_enable: u8,
    fifo: bool,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: [u8; 2],
    receiver: VecDeque<u8>,
    /// "Transmitter empty" is to be reported by the next identity read.
    transmitter_pending: bool,
}

/// The serial port.
pub struct Serial {
    state: SerialState,
    interrupt: EventFd,
    sink: Box<dyn TransmitSink>,
    /// Told when the guest has read from a full receiver.
    room: Option<EventFd>,
}

impl Serial {
    /// A port in its state after reset, which raises its interrupt by writing to `interrupt`.
    #[must_use]
    pub fn new(interrupt: EventFd, sink: Box<dyn TransmitSink>) -> Self {
        Self {
            state: SerialState {
                divisor: [12, 0],
                ..Default::default()
            },
            interrupt,
            sink,
            room: None,
        }
    }

    /// Writes to `event` when a full receiver has room again.
    pub fn notify_room(&mut self, event: EventFd) {
        self.room = Some(event);
    }

    /// Bytes that [`Serial::receive`] would take now.
    #[must_use]
    pub fn room(&self) -> usize {
        RECEIVE_CAPACITY - self.state.receiver.len()
    }

    /// Gives the guest input; returns how many bytes fitted.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        // In loopback mode the line is disconnected.
        if self.state.modem_control & MCR_LOOPBACK != 0 {
            return bytes.len();
        }
        let count = bytes.len().min(self.room());
        let was_empty = self.state.receiver.is_empty();
        self.state.receiver.extend(&bytes[..count]);
        if was_empty && count > 0 && self.state.interrupt_enable & IER_RECEIVED != 0 {
            self.raise();
        }
        count
    }

    /// Back to the state after construction; unread input is dropped.
    pub fn reset(&mut self) {
        self.state = SerialState {
            divisor: [12, 0],
            ..Default::default()
        };
    }

    fn raise(&self) {
        // The eventfd counter cannot overflow: KVM reads it each time.
        let _: io::Result<()> = self.interrupt.write(1);
    }

    fn divisor_latch(&self) -> bool {
        self.state.line_control & LCR_DIVISOR_LATCH != 0
    }

    fn transmit(&mut self, byte: u8) {
        if self.state.modem_control & MCR_LOOPBACK != 0 {
            if self.room() > 0 {
                self.state.receiver.push_back(byte);
            }
            return;
        }
        self.sink.transmit(byte);
        if self.state.interrupt_enable & IER_TRANSMITTER_EMPTY != 0
            && !self.state.transmitter_pending
        {
            self.state.transmitter_pending = true;
            self.raise();
        }
    }

    fn read_data(&mut self) -> u8 {
        let was_full = self.room() == 0;
        let byte = self.state.receiver.pop_front().unwrap_or(0);
        if was_full && let Some(room) = &self.room {
            let _: io::Result<()> = room.write(1);
        }
        byte
    }

    fn identity(&mut self) -> u8 {
        let cause =
            if self.state.interrupt_enable & IER_RECEIVED != 0 && !self.state.receiver.is_empty() {
                IIR_RECEIVED
            } else if self.state.transmitter_pending {
                self.state.transmitter_pending = false;
                IIR_TRANSMITTER_EMPTY
            } else {
                IIR_NONE
            };
        cause | if self.state.fifo { IIR_FIFO } else { 0 }
    }

    fn set_interrupt_enable(&mut self, value: u8) {
        let newly = value & !self.state.interrupt_enable;
        self.state.interrupt_enable = value & IER_MASK;
        if value & IER_TRANSMITTER_EMPTY == 0 {
            self.state.transmitter_pending = false;
        }
        if newly & IER_TRANSMITTER_EMPTY != 0 {
            self.state.transmitter_pending = true;
            self.raise();
        } else if newly & IER_RECEIVED != 0 && !self.state.receiver.is_empty() {
            self.raise();
        }
    }

    fn modem_status(&self) -> u8 {
        let control = self.state.modem_control;
        if control & MCR_LOOPBACK == 0 {
            return MSR_DEFAULT;
        }
        // Loopback: RTS->CTS, DTR->DSR, OUT1->RI, OUT2->DCD.
        let wire = |from: u8, to: u8| if control >> from & 1 == 1 { 1 << to } else { 0 };
        wire(1, 4) | wire(0, 5) | wire(2, 6) | wire(3, 7)
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        data[0] = match offset {
            DATA if self.divisor_latch() => self.state.divisor[0],
            INTERRUPT_ENABLE if self.divisor_latch() => self.state.divisor[1],
            DATA => self.read_data(),
            INTERRUPT_ENABLE => self.state.interrupt_enable,
            INTERRUPT_IDENTITY => self.identity(),
            LINE_CONTROL => self.state.line_control,
            MODEM_CONTROL => self.state.modem_control,
            LINE_STATUS if self.state.receiver.is_empty() => LSR_TRANSMITTER_EMPTY,
            LINE_STATUS => LSR_TRANSMITTER_EMPTY | LSR_DATA_READY,
            MODEM_STATUS => self.modem_status(),
            SCRATCH => self.state.scratch,
            _ => 0,
        };
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let value = data[0];
        match offset {
            DATA if self.divisor_latch() => self.state.divisor[0] = value,
            INTERRUPT_ENABLE if self.divisor_latch() => self.state.divisor[1] = value,
            DATA => self.transmit(value),
            INTERRUPT_ENABLE => self.set_interrupt_enable(value),
            INTERRUPT_IDENTITY => {
                self.state.fifo = value & FCR_ENABLE != 0;
                if value & FCR_CLEAR_RECEIVER != 0 {
                    self.state.receiver.clear();
                }
            }
            LINE_CONTROL => self.state.line_control = value,
            MODEM_CONTROL => self.state.modem_control = value & MCR_MASK,
            SCRATCH => self.state.scratch = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    struct Collect(Arc<Mutex<Vec<u8>>>);

    impl TransmitSink for Collect {
        fn transmit(&mut self, byte: u8) {
            self.0.lock().unwrap().push(byte);
        }
    }

    fn serial() -> (Serial, EventFd, Arc<Mutex<Vec<u8>>>) {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        let out = Arc::new(Mutex::new(Vec::new()));
        let serial = Serial::new(event.try_clone().unwrap(), Box::new(Collect(out.clone())));
        (serial, event, out)
    }

    fn read(serial: &mut Serial, offset: u64) -> u8 {
        let mut data = [0];
        serial.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn a_burst_costs_one_interrupt() {
        let (mut serial, event, out) = serial();
        serial.write(INTERRUPT_ENABLE, &[IER_TRANSMITTER_EMPTY]);
        assert_eq!(event.read().unwrap(), 1);
        assert_eq!(read(&mut serial, INTERRUPT_IDENTITY), IIR_TRANSMITTER_EMPTY);
        for byte in b"sixteen bytes..!" {
            serial.write(DATA, &[*byte]);
        }
        assert_eq!(event.read().unwrap(), 1);
        assert_eq!(*out.lock().unwrap(), b"sixteen bytes..!");
        assert_eq!(read(&mut serial, INTERRUPT_IDENTITY), IIR_TRANSMITTER_EMPTY);
        assert_eq!(read(&mut serial, INTERRUPT_IDENTITY), IIR_NONE);
        assert_eq!(read(&mut serial, LINE_STATUS), LSR_TRANSMITTER_EMPTY);
    }

    #[test]
    fn input_waits_for_the_guest_and_says_when_there_is_room() {
        let (mut serial, event, _) = serial();
        let room = EventFd::new(EFD_NONBLOCK).unwrap();
        serial.notify_room(room.try_clone().unwrap());
        assert_eq!(serial.receive(&[7; 2000]), RECEIVE_CAPACITY);
        assert!(event.read().is_err(), "interrupt not enabled yet");
        serial.write(INTERRUPT_ENABLE, &[IER_RECEIVED]);
        assert_eq!(event.read().unwrap(), 1);
        assert_eq!(read(&mut serial, INTERRUPT_IDENTITY), IIR_RECEIVED);
        assert_eq!(read(&mut serial, DATA), 7);
        assert_eq!(room.read().unwrap(), 1);
        assert_eq!(serial.room(), 1);
    }

    #[test]
    fn divisor_latch_and_fifo_and_scratch() {
        let (mut serial, _, out) = serial();
        serial.write(LINE_CONTROL, &[LCR_DIVISOR_LATCH | 3]);
        serial.write(DATA, &[1]);
        serial.write(INTERRUPT_ENABLE, &[2]);
        assert_eq!(read(&mut serial, DATA), 1);
        assert_eq!(read(&mut serial, INTERRUPT_ENABLE), 2);
        serial.write(LINE_CONTROL, &[3]);
        assert!(out.lock().unwrap().is_empty());
        serial.write(INTERRUPT_IDENTITY, &[FCR_ENABLE]);
        assert_eq!(read(&mut serial, INTERRUPT_IDENTITY), IIR_FIFO | IIR_NONE);
        serial.write(SCRATCH, &[0x5a]);
        assert_eq!(read(&mut serial, SCRATCH), 0x5a);
    }

    #[test]
    fn loopback_as_drivers_probe_it() {
        let (mut serial, _, out) = serial();
        serial.write(MODEM_CONTROL, &[MCR_LOOPBACK | 0x0a]);
        assert_eq!(read(&mut serial, MODEM_STATUS) & 0xf0, 0x90);
        serial.write(DATA, &[0x42]);
        assert_eq!(read(&mut serial, DATA), 0x42);
        assert!(out.lock().unwrap().is_empty());
    }
}
