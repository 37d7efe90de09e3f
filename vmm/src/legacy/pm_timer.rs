//! ACPI power management timer (ACPI 6.5 §4.8.3.3): 32 bits at 3.579545 MHz.

use std::time::{Duration, Instant};

use crate::device::BusDevice;

const FREQUENCY: u128 = 3_579_545;

/// The timer. It stands still while the machine is paused.
#[derive(Debug)]
pub struct PmTimer {
    start: Instant,
    paused: Option<Instant>,
}

impl Default for PmTimer {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            paused: None,
        }
    }
}

impl PmTimer {
    /// Stops counting.
    pub fn pause(&mut self) {
        self.paused.get_or_insert_with(Instant::now);
    }

    /// Counts on from where it stood.
    pub fn resume(&mut self) {
        if let Some(since) = self.paused.take() {
            self.start += since.elapsed();
        }
    }

    fn ticks(elapsed: Duration) -> u32 {
        let ticks = elapsed.as_nanos() * FREQUENCY / 1_000_000_000;
        // Wraps every 20 minutes, as TMR_VAL_EXT says.
        let [a, b, c, d, ..] = ticks.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl BusDevice for PmTimer {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let now = self.paused.unwrap_or_else(Instant::now);
        let value = Self::ticks(now - self.start).to_le_bytes();
        for (byte, position) in data.iter_mut().zip(offset..) {
            let index = usize::try_from(position).unwrap_or(usize::MAX);
            *byte = value.get(index).copied().unwrap_or(0);
        }
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_wraps() {
        assert_eq!(PmTimer::ticks(Duration::from_secs(1)), 3_579_545);
        assert_eq!(PmTimer::ticks(Duration::from_secs(1200)), {
            u32::try_from(1200 * 3_579_545_u64 % (1 << 32)).unwrap()
        });
    }

    #[test]
    fn stands_still_while_paused() {
        let mut timer = PmTimer::default();
        timer.pause();
        let read = |timer: &mut PmTimer| {
            let mut data = [0; 4];
            timer.read(0, &mut data);
            data
        };
        assert_eq!(read(&mut timer), read(&mut timer));
        timer.resume();
    }
}
