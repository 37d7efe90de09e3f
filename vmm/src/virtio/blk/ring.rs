//! `io_uring` for batches of reads and writes.
//!
//! The ring's descriptor itself is watched by the event loop: it is readable while completions
//! wait. So a batch that completes while it is submitted (data in the page cache) is reaped at
//! once and wakes nobody.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{IoUring, opcode, squeue, types};

use super::transfer::{Direction, Part};

/// Requests that can wait for submission. The kernel's completion queue holds twice as many.
const ENTRIES: u32 = 128;

/// How often submission is tried again when the kernel is out of resources.
const RETRIES: u32 = 1000;

/// A ring and the count of what is in it.
pub(super) struct Ring {
    ring: IoUring,
    in_flight: usize,
    unsubmitted: usize,
}

/// A completion: what [`Ring::push`] was given, and the kernel's result (bytes or a negative error
/// number).
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub(super) tag: u64,
    pub(super) result: i32,
}

impl Ring {
    /// Sets a ring up.
    ///
    /// # Errors
    /// `PermissionDenied` or `Unsupported` where the host does not allow it.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            ring: IoUring::new(ENTRIES)?,
            in_flight: 0,
            unsubmitted: 0,
        })
    }

    /// Requests pushed and not reaped.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether `parts` more can be pushed without losing completions.
    pub(super) fn has_room(&self, parts: usize) -> bool {
        let capacity = usize::try_from(self.ring.params().cq_entries()).unwrap_or(0);
        let batch = usize::try_from(ENTRIES).unwrap_or(0);
        self.in_flight + parts <= capacity && self.unsubmitted + parts <= batch
    }

    /// Queues a part for the next [`Ring::submit`]. The caller has asked [`Ring::has_room`].
    ///
    /// # Safety
    /// `ranges` and the memory they name stay where they are until the completion was reaped.
    pub(super) unsafe fn push(
        &mut self,
        direction: Direction,
        part: &Part,
        ranges: &[libc::iovec],
        tag: u64,
    ) -> bool {
        let entry = entry(direction, part, ranges).user_data(tag);
        // SAFETY: the caller keeps the entry's memory alive; the descriptor is the backend's.
        let pushed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        if pushed {
            self.in_flight += 1;
            self.unsubmitted += 1;
        }
        pushed
    }

    /// Hands everything queued to the kernel, in one call. Says whether there was anything.
    ///
    /// # Errors
    /// When the kernel refuses for good.
    pub(super) fn submit(&mut self) -> io::Result<bool> {
        if self.unsubmitted == 0 {
            return Ok(false);
        }
        self.enter(0)?;
        Ok(true)
    }

    /// Waits until at least one completion is there.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.enter(1)
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        for _ in 0..RETRIES {
            match self.ring.submit_and_wait(want) {
                Ok(submitted) => {
                    self.unsubmitted = self.unsubmitted.saturating_sub(submitted);
                    if self.unsubmitted == 0 {
                        return Ok(());
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Out of memory for a moment, or completions must be reaped first.
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        if !self.ring.completion().is_empty() {
                            return Ok(());
                        }
                        std::thread::yield_now();
                    }
                    _ => return Err(error),
                },
            }
        }
        Err(io::Error::other("io_uring takes no more requests"))
    }

    /// The next completion, if one is there.
    pub(super) fn reap(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        self.in_flight -= 1;
        Some(Completion {
            tag: entry.user_data(),
            result: entry.result(),
        })
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

fn entry(direction: Direction, part: &Part, ranges: &[libc::iovec]) -> squeue::Entry {
    let file = types::Fd(part.file);
    let offset = part.file_offset;
    if let [range] = ranges
        && let Ok(len) = u32::try_from(range.iov_len)
    {
        let base = range.iov_base.cast::<u8>();
        return match direction {
            Direction::Read => opcode::Read::new(file, base, len).offset(offset).build(),
            Direction::Write => opcode::Write::new(file, base, len).offset(offset).build(),
        };
    }
    // Ranges of a request are bounded by the queue's size.
    let count = u32::try_from(ranges.len()).unwrap_or(0);
    match direction {
        Direction::Read => opcode::Readv::new(file, ranges.as_ptr(), count)
            .offset(offset)
            .build(),
        Direction::Write => opcode::Writev::new(file, ranges.as_ptr(), count)
            .offset(offset)
            .build(),
    }
}
