//! A virtqueue in use: takes chains from the driver, gives them back, and interrupts only when the
//! driver wants it (EVENT_IDX or the ring's flags, virtio 1.2 §2.7.7).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::chain::{Chain, GuestFault};
use super::{Link, Ram};

/// How a queue's event is watched. Every signal is reported once, so that nobody has to read the
/// event's counter: one system call less for each notification.
pub const KICK: EventSet = EventSet::IN.union(EventSet::EDGE_TRIGGERED);

/// Where a queue's parts are in guest RAM, for someone else who serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rings {
    /// Entries.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
    /// Index in the available ring of the next chain to serve.
    pub next: u16,
}

/// One active queue.
pub struct VirtQueue {
    queue: Queue,
    memory: Ram,
    link: Arc<Link>,
    index: u16,
    kick: EventFd,
    /// The used index when the driver was last told about it.
    announced: u16,
}

impl VirtQueue {
    /// `queue` is ready and valid in `memory`; `kick` gets signalled by the driver.
    #[must_use]
    pub fn new(queue: Queue, index: u16, kick: EventFd, memory: Ram, link: Arc<Link>) -> Self {
        let announced = queue.next_used();
        Self {
            queue,
            memory,
            link,
            index,
            kick,
            announced,
        }
    }

    /// The event that the driver's notifications signal; to be watched for [`KICK`].
    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Entries, as the driver chose.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The queue for someone else to serve. `None` if a part of it is not in one piece of RAM.
    #[must_use]
    pub fn rings(&self) -> Option<Rings> {
        let rings = Rings {
            size: self.queue.size(),
            descriptors: self.queue.desc_table(),
            available: self.queue.avail_ring(),
            used: self.queue.used_ring(),
            next: self.queue.next_avail(),
        };
        let entries = usize::from(rings.size);
        // Sizes of virtio 1.2 §2.7, with the event indices.
        let parts = [
            (rings.descriptors, 16 * entries),
            (rings.available, 6 + 2 * entries),
            (rings.used, 6 + 8 * entries),
        ];
        parts
            .iter()
            .all(|(address, len)| self.memory.get_slice(GuestAddress(*address), *len).is_ok())
            .then_some(rings)
    }

    /// Serves the queue again after someone else did, who has given back all chains before `next`.
    pub fn take_back(&mut self, next: u16) {
        self.queue.set_next_avail(next);
        self.queue.set_next_used(next);
        self.announced = next;
        // Whatever was not announced to the driver is announced now.
        self.link.signal_queue(self.index);
    }

    /// Makes the event loop call the handler again, for work left over.
    pub fn kick_again(&self) {
        // Fails only after 2^64 signals without a reset.
        let _ = self.kick.write(1);
    }

    /// Takes the next chain, if there is one and the device may access memory.
    ///
    /// # Errors
    /// When the driver broke the rules.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, GuestFault> {
        if !self.link.may_access_memory() {
            return Ok(false);
        }
        let size = self.queue.size();
        let next = match self.queue.iter(&self.memory) {
            Ok(mut available) => available.next(),
            Err(virtio_queue::Error::InvalidAvailRingIndex) => {
                return Err(GuestFault::AvailableIndex);
            }
            Err(_) => return Err(GuestFault::RingAccess),
        };
        match next {
            Some(descriptors) => chain.fill(descriptors, size).map(|()| true),
            None => Ok(false),
        }
    }

    /// Puts the chain popped last back: the next [`VirtQueue::pop`] returns it again.
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// How many chains wait to be popped.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn waiting(&self) -> Result<u16, GuestFault> {
        self.queue
            .avail_idx(&self.memory, Ordering::Acquire)
            .map(|index| index.0.wrapping_sub(self.queue.next_avail()))
            .map_err(|_| GuestFault::RingAccess)
    }

    /// Gives a chain back, with the number of bytes written to it.
    ///
    /// # Errors
    /// When the ring cannot be written.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), GuestFault> {
        self.queue
            .add_used(&self.memory, head, written)
            .map_err(|_| GuestFault::RingAccess)
    }

    /// Gives several chains back, as [`VirtQueue::push`], so that the driver sees all of them at
    /// once or none (it needs all buffers of a frame, virtio 1.2 §5.1.6.4).
    ///
    /// # Errors
    /// When the ring cannot be written.
    pub fn push_together(&mut self, chains: &[(u16, u32)]) -> Result<(), GuestFault> {
        let Some(((head, written), first)) = chains.split_last() else {
            return Ok(());
        };
        let mut next = self.queue.next_used();
        for (head, written) in first {
            let slot = u64::from(next % self.queue.size());
            // Four bytes of flags and index, then eight a chain (virtio 1.2 §2.7.8).
            let at = self.queue.used_ring().saturating_add(4 + slot * 8);
            let element = u64::from(*head) | u64::from(*written) << 32;
            self.memory
                .write_obj(element.to_le(), GuestAddress(at))
                .map_err(|_| GuestFault::RingAccess)?;
            next = next.wrapping_add(1);
        }
        // The last one publishes the index, and with it all the others.
        self.queue.set_next_used(next);
        self.push(*head, *written)
    }

    /// Interrupts the driver if chains were given back since the last call and it wants to know.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn announce(&mut self) -> Result<(), GuestFault> {
        let used = self.queue.next_used();
        if used == self.announced {
            return Ok(());
        }
        // The used index is written before the driver's wish is read.
        fence(Ordering::SeqCst);
        let avail = self.queue.avail_ring();
        let wanted = if self.queue.event_idx_enabled() {
            // Told about when the index passes the driver's mark (virtio 1.2 §2.7.7.2).
            let mark = self.load(avail.saturating_add(4 + 2 * u64::from(self.queue.size())))?;
            let since = used.wrapping_sub(self.announced);
            used.wrapping_sub(mark).wrapping_sub(1) < since
        } else {
            u32::from(self.load(avail)?) & VRING_AVAIL_F_NO_INTERRUPT == 0
        };
        self.announced = used;
        if wanted {
            self.link.signal_queue(self.index);
        }
        Ok(())
    }

    fn load(&self, address: u64) -> Result<u16, GuestFault> {
        self.memory
            .load(GuestAddress(address), Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(|_| GuestFault::RingAccess)
    }

    /// Asks the driver not to notify while the queue is being served anyway.
    ///
    /// # Errors
    /// When the ring cannot be written.
    pub fn silence(&mut self) -> Result<(), GuestFault> {
        self.queue
            .disable_notification(&self.memory)
            .map_err(|_| GuestFault::RingAccess)
    }

    /// Asks the driver to notify again; says whether chains came in meanwhile, which it may not
    /// have notified about.
    ///
    /// # Errors
    /// When the ring cannot be accessed.
    pub fn listen(&mut self) -> Result<bool, GuestFault> {
        let more = self
            .queue
            .enable_notification(&self.memory)
            .map_err(|_| GuestFault::RingAccess)?;
        Ok(more && self.link.may_access_memory())
    }
}
