//! The guest's console output: a ring of the last 64 KiB, a log file, and live streams.
//!
//! ```text
//!  vCPU thread: serial port ──► ConsoleOutput (ring + pending) ──timerfd──► main thread ──► log
//!                                                                               ├──► standard output
//!                                                                               └──► control connections
//! ```
//!
//! The vCPU never writes to a file. It wakes the main thread at the end of a line at once, and
//! otherwise some milliseconds after the first byte, so a line costs one system call, not one a
//! character.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmm_sys_util::timerfd::TimerFd;

use crate::event_loop::lock;
use crate::legacy::TransmitSink;
use crate::trace::Timeline;

/// Bytes of output kept, as EC2's `GetConsoleOutput` returns them.
pub const RING: usize = 64 << 10;
/// A part of a line waits this long for its rest.
const PATIENCE: Duration = Duration::from_millis(10);
/// Output that waits for the main thread at most; older bytes are dropped from the live streams
/// (never from the ring).
const PENDING: usize = 256 << 10;

/// When the timer will fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Armed {
    No,
    Later,
    Now,
}

struct State {
    ring: VecDeque<u8>,
    pending: Vec<u8>,
    total: u64,
    armed: Armed,
    timer: TimerFd,
}

/// Console output on its way from the vCPU to the main thread. Cheap to clone.
#[derive(Clone)]
pub struct ConsoleOutput {
    state: Arc<Mutex<State>>,
    timeline: Arc<Timeline>,
}

impl ConsoleOutput {
    /// No output yet.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn new(timeline: Arc<Timeline>) -> io::Result<Self> {
        let timer = TimerFd::new()?;
        Ok(Self {
            state: Arc::new(Mutex::new(State {
                ring: VecDeque::new(),
                pending: Vec::new(),
                total: 0,
                armed: Armed::No,
                timer,
            })),
            timeline,
        })
    }

    /// The raw descriptor that becomes readable when there is output to take.
    #[must_use]
    pub fn timer_fd(&self) -> i32 {
        use std::os::fd::AsRawFd;
        lock(&self.state).timer.as_raw_fd()
    }

    /// Takes the output since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        let mut state = lock(&self.state);
        if state.armed != Armed::No {
            state.armed = Armed::No;
            // Stops it and makes the descriptor unreadable again.
            let _ = state.timer.clear();
        }
        std::mem::take(&mut state.pending)
    }

    /// The last 64 KiB.
    #[must_use]
    pub fn ring(&self) -> Vec<u8> {
        lock(&self.state).ring.iter().copied().collect()
    }

    /// Bytes ever written by the guest.
    #[must_use]
    pub fn total(&self) -> u64 {
        lock(&self.state).total
    }
}

impl TransmitSink for ConsoleOutput {
    fn transmit(&mut self, byte: u8) {
        let mut state = lock(&self.state);
        if state.total == 0 {
            Timeline::mark(&self.timeline.first_console_byte);
        }
        state.total += 1;
        if state.ring.len() == RING {
            state.ring.pop_front();
        }
        state.ring.push_back(byte);
        if state.pending.len() >= PENDING {
            state.pending.drain(..PENDING / 2);
        }
        state.pending.push(byte);
        let wanted = if byte == b'\n' {
            Armed::Now
        } else {
            Armed::Later
        };
        if wanted > state.armed {
            state.armed = wanted;
            let delay = match wanted {
                Armed::Now => Duration::from_nanos(1),
                _ => PATIENCE,
            };
            // Fails only for a timer that is not there.
            let _ = state.timer.reset(delay, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> ConsoleOutput {
        ConsoleOutput::new(Arc::new(Timeline::default())).unwrap()
    }

    #[test]
    fn output_is_taken_once_and_kept_in_the_ring() {
        let mut console = output();
        for byte in b"hello\n" {
            console.transmit(*byte);
        }
        assert_eq!(console.take(), b"hello\n");
        assert!(console.take().is_empty());
        assert_eq!(console.ring(), b"hello\n");
        assert_eq!(console.total(), 6);
        assert!(console.timeline.first_console_byte.get().is_some());
    }

    #[test]
    fn a_flood_keeps_the_newest_bytes_in_bounded_memory() {
        let mut console = output();
        for n in 0..300_000_u32 {
            console.transmit(n.to_le_bytes()[0]);
        }
        assert_eq!(console.ring().len(), RING);
        let pending = console.take();
        assert!(pending.len() <= PENDING);
        assert_eq!(pending.last(), Some(&299_999_u32.to_le_bytes()[0]));
    }
}
