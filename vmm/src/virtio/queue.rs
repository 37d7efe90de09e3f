//! A virtqueue in use: takes chains from the driver, gives them back, and interrupts only when the
//! driver wants it (EVENT_IDX or the ring's flags, virtio 1.2 §2.7.7).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::chain::{Chain, GuestFault};
use super::{Link, Ram};

/// One active queue.
pub struct VirtQueue {
    queue: Queue,
    memory: Ram,
    link: Arc<Link>,
    index: u16,
    kick: EventFd,
    /// Chains given back since the driver was last told.
    unannounced: bool,
}

impl VirtQueue {
    /// `queue` is ready and valid in `memory`; `kick` gets signalled by the driver.
    #[must_use]
    pub fn new(queue: Queue, index: u16, kick: EventFd, memory: Ram, link: Arc<Link>) -> Self {
        Self {
            queue,
            memory,
            link,
            index,
            kick,
            unannounced: false,
        }
    }

    /// The event that the driver's notifications signal.
    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Entries, as the driver chose.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Takes the notification, so that the event loop does not report it again.
    pub fn acknowledge_kick(&self) {
        // An error says that nobody kicked, which is as good.
        let _ = self.kick.read();
    }

    /// Makes the event loop call the handler again, for work left over.
    pub fn kick_again(&self) {
        // Fails only when the event is signalled already.
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
        self.unannounced = true;
        self.queue
            .add_used(&self.memory, head, written)
            .map_err(|_| GuestFault::RingAccess)
    }

    /// Interrupts the driver if chains were given back since the last call and it wants to know.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn announce(&mut self) -> Result<(), GuestFault> {
        if std::mem::take(&mut self.unannounced) && self.wanted()? {
            self.link.signal_queue(self.index);
        }
        Ok(())
    }

    fn wanted(&mut self) -> Result<bool, GuestFault> {
        if self.queue.event_idx_enabled() {
            return self
                .queue
                .needs_notification(&self.memory)
                .map_err(|_| GuestFault::RingAccess);
        }
        // The used index is written before the flags are read.
        fence(Ordering::SeqCst);
        let flags: u16 = self
            .memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(|_| GuestFault::RingAccess)?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
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
