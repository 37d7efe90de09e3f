//! Serves the entropy queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_sys_util::epoll::EventSet;

use super::RngMetrics;
use crate::event_loop::EventHandler;
use crate::virtio::chain::{Chain, GuestFault, IoVecs, cut};
use crate::virtio::{Link, Ram, VirtQueue};

/// Most bytes given for one request; the driver asks again for more.
const MAX_BYTES: u64 = 64 * 1024;

/// What runs on the event loop.
pub(super) struct RngHandler {
    queue: VirtQueue,
    memory: Ram,
    link: Arc<Link>,
    metrics: Arc<RngMetrics>,
    chain: Chain,
    ranges: IoVecs,
}

impl RngHandler {
    pub(super) fn new(
        queue: VirtQueue,
        memory: Ram,
        link: Arc<Link>,
        metrics: Arc<RngMetrics>,
    ) -> Self {
        Self {
            queue,
            memory,
            link,
            metrics,
            chain: Chain::default(),
            ranges: IoVecs::default(),
        }
    }

    fn serve(&mut self) -> Result<(), GuestFault> {
        let mut budget = self.queue.size();
        loop {
            self.queue.silence()?;
            while budget > 0 && self.queue.pop(&mut self.chain)? {
                budget -= 1;
                let written = self.answer();
                self.queue.push(self.chain.head, written)?;
            }
            if budget == 0 {
                // Others' turn; the event loop comes back.
                self.queue.kick_again();
                break;
            }
            if !self.queue.listen()? {
                break;
            }
        }
        self.queue.announce()
    }

    /// Fills the popped chain's buffers; returns how many bytes.
    fn answer(&mut self) -> u32 {
        self.ranges.clear();
        let in_ram = cut(&self.chain.writable, 0, MAX_BYTES)
            .all(|buffer| self.ranges.push(&self.memory, buffer));
        let mut written = 0;
        if in_ram {
            for range in self.ranges.as_slice() {
                let got = fill(range);
                written += got;
                if got < range.iov_len {
                    break;
                }
            }
        }
        self.metrics.requests.fetch_add(1, Ordering::Relaxed);
        if written == 0 {
            self.metrics.errors.fetch_add(1, Ordering::Relaxed);
        }
        let written = u32::try_from(written).unwrap_or(0);
        self.metrics
            .bytes
            .fetch_add(u64::from(written), Ordering::Relaxed);
        written
    }
}

/// Fills a range of guest RAM with entropy; returns how many bytes it got.
fn fill(range: &libc::iovec) -> usize {
    let mut done = 0;
    while done < range.iov_len {
        let at = range.iov_base.wrapping_byte_add(done);
        // SAFETY: the range lies in guest RAM, which the handler keeps mapped.
        let got = unsafe { libc::getrandom(at, range.iov_len - done, 0) };
        match usize::try_from(got) {
            Ok(got) if got > 0 => done += got,
            _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    done
}

impl EventHandler for RngHandler {
    fn ready(&mut self, _source: u64, _events: EventSet) {
        if self.link.failed() {
            return;
        }
        if let Err(fault) = self.serve() {
            self.link.fail(&fault.to_string());
        }
    }
}
