//! ACPI fixed hardware: PM1a event and control blocks and GPE0 (ACPI 6.5 §4.8).
//!
//! One [`Pm`] serves three port ranges through [`PmPorts`]. The system control interrupt is level
//! triggered: asserted while an enabled status bit is set.

use std::sync::{Arc, Mutex};

use crate::device::{BusDevice, IntxLine};
use crate::event_loop::lock;
use crate::requests::Request;
use crate::requests::Requests;

/// Power button status and enable bit.
const POWER_BUTTON: u16 = 1 << 8;
/// PM1 control: ACPI mode (always on: there is no SMI to switch it).
const SCI_EN: u16 = 1;
/// PM1 control: sleep type.
const SLP_TYP_SHIFT: u16 = 10;
const SLP_TYP_MASK: u16 = 7 << SLP_TYP_SHIFT;
/// PM1 control: go to sleep. Write only.
const SLP_EN: u16 = 1 << 13;
/// Sleep type of S5 in `\_S5`.
pub const SLP_TYP_S5: u8 = 0;

/// Registers; plain, so that a snapshot can keep them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PmState {
    pm1_status: u16,
    pm1_enable: u16,
    pm1_control: u16,
    gpe_status: u16,
    gpe_enable: u16,
}

/// The power management block.
pub struct Pm {
    state: PmState,
    sci: Box<dyn IntxLine>,
    asserted: bool,
    requests: Requests,
}

impl Pm {
    /// A block in its state after reset.
    #[must_use]
    pub fn new(sci: Box<dyn IntxLine>, requests: Requests) -> Self {
        Self {
            state: PmState::default(),
            sci,
            asserted: false,
            requests,
        }
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) {
        self.state.pm1_status |= POWER_BUTTON;
        self.update();
    }

    /// Back to the state after construction.
    pub fn reset(&mut self) {
        self.state = PmState::default();
        self.update();
    }

    fn update(&mut self) {
        let state = &self.state;
        let level =
            state.pm1_status & state.pm1_enable != 0 || state.gpe_status & state.gpe_enable != 0;
        if level != self.asserted {
            self.asserted = level;
            if let Err(error) = self.sci.set(level) {
                tracing::error!(%error, "cannot drive the ACPI interrupt");
            }
        }
    }

    fn write_control(&mut self, value: u16) {
        self.state.pm1_control = value & !SLP_EN;
        if value & SLP_EN != 0 && value & SLP_TYP_MASK == u16::from(SLP_TYP_S5) << SLP_TYP_SHIFT {
            self.requests.raise(Request::PowerOff);
        }
    }
}

/// One of the block's port ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Event,
    Control,
    Gpe0,
}

/// A port range of a [`Pm`], for the bus.
pub struct PmPorts {
    pm: Arc<Mutex<Pm>>,
    block: Block,
}

impl PmPorts {
    /// PM1a status (offset 0) and enable (2).
    #[must_use]
    pub fn event(pm: &Arc<Mutex<Pm>>) -> Self {
        Self::new(pm, Block::Event)
    }

    /// PM1a control.
    #[must_use]
    pub fn control(pm: &Arc<Mutex<Pm>>) -> Self {
        Self::new(pm, Block::Control)
    }

    /// GPE0 status (offset 0) and enable (2).
    #[must_use]
    pub fn gpe0(pm: &Arc<Mutex<Pm>>) -> Self {
        Self::new(pm, Block::Gpe0)
    }

    fn new(pm: &Arc<Mutex<Pm>>, block: Block) -> Self {
        Self {
            pm: Arc::clone(pm),
            block,
        }
    }

    fn registers(&self, pm: &Pm) -> [u8; 4] {
        let (low, high) = match self.block {
            Block::Event => (pm.state.pm1_status, pm.state.pm1_enable),
            Block::Control => (pm.state.pm1_control | SCI_EN, 0),
            Block::Gpe0 => (pm.state.gpe_status, pm.state.gpe_enable),
        };
        let ([a, b], [c, d]) = (low.to_le_bytes(), high.to_le_bytes());
        [a, b, c, d]
    }
}

impl BusDevice for PmPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let registers = self.registers(&lock(&self.pm));
        for (byte, position) in data.iter_mut().zip(offset..) {
            let index = usize::try_from(position).unwrap_or(usize::MAX);
            *byte = registers.get(index).copied().unwrap_or(0);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut pm = lock(&self.pm);
        // Bytes not written keep enable bits and clear no status bit.
        let [_, _, c, d] = self.registers(&pm);
        let mut low = [0; 2];
        if self.block == Block::Control {
            low = (pm.state.pm1_control).to_le_bytes();
        }
        let mut words = [low[0], low[1], c, d];
        for (byte, position) in data.iter().zip(offset..) {
            let index = usize::try_from(position).unwrap_or(usize::MAX);
            if let Some(slot) = words.get_mut(index) {
                *slot = *byte;
            }
        }
        let low = u16::from_le_bytes([words[0], words[1]]);
        let high = u16::from_le_bytes([words[2], words[3]]);
        match self.block {
            Block::Event => {
                pm.state.pm1_status &= !low;
                pm.state.pm1_enable = high;
            }
            Block::Gpe0 => {
                pm.state.gpe_status &= !low;
                pm.state.gpe_enable = high;
            }
            Block::Control => pm.write_control(low),
        }
        pm.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Line(Arc<AtomicBool>);

    impl IntxLine for Line {
        fn set(&self, asserted: bool) -> io::Result<()> {
            self.0.store(asserted, Ordering::Relaxed);
            Ok(())
        }
    }

    fn pm() -> (Arc<Mutex<Pm>>, Arc<AtomicBool>, Requests) {
        let line = Arc::new(AtomicBool::new(false));
        let requests = Requests::new().unwrap();
        let pm = Pm::new(Box::new(Line(line.clone())), requests.clone());
        (Arc::new(Mutex::new(pm)), line, requests)
    }

    #[test]
    fn power_button_raises_the_interrupt_until_acknowledged() {
        let (pm, line, _) = pm();
        let mut event = PmPorts::event(&pm);
        lock(&pm).press_power_button();
        assert!(!line.load(Ordering::Relaxed), "not enabled yet");
        event.write(2, &POWER_BUTTON.to_le_bytes());
        assert!(line.load(Ordering::Relaxed));
        let mut status = [0; 2];
        event.read(0, &mut status);
        assert_eq!(u16::from_le_bytes(status), POWER_BUTTON);
        event.write(0, &POWER_BUTTON.to_le_bytes());
        assert!(!line.load(Ordering::Relaxed));
    }

    #[test]
    fn sleep_enable_with_the_type_of_s5_powers_off() {
        let (pm, _, requests) = pm();
        let mut control = PmPorts::control(&pm);
        let mut value = [0; 2];
        control.read(0, &mut value);
        assert_eq!(u16::from_le_bytes(value) & SCI_EN, SCI_EN);
        control.write(0, &(SLP_EN | 1 << SLP_TYP_SHIFT).to_le_bytes());
        assert_eq!(requests.take(), None, "S1 is not offered");
        control.write(0, &SLP_EN.to_le_bytes());
        assert_eq!(requests.take(), Some(Request::PowerOff));
    }

    #[test]
    fn byte_writes_leave_the_other_byte_alone() {
        let (pm, line, _) = pm();
        let mut event = PmPorts::event(&pm);
        event.write(3, &[1]);
        lock(&pm).press_power_button();
        event.write(2, &[0]);
        assert!(line.load(Ordering::Relaxed));
        lock(&pm).reset();
        assert!(!line.load(Ordering::Relaxed));
    }
}
