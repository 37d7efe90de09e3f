//! An interface whose queues vhost-net serves: this process only starts and ends it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::handler::Parts;
use super::vhost::{QUEUE_FEATURES, RingEvents, VhostNet};
use crate::event_loop::EventHandler;
use crate::virtio::VirtQueue;

/// Both queues while they are vhost's.
///
/// They are attached to the tap exactly while vhost may touch guest memory: not while the machine
/// is paused, the driver has turned bus mastering off, or the device waits for a reset.
pub(super) struct KernelPath {
    vhost: Arc<dyn VhostNet>,
    /// To receive and to transmit, in order.
    queues: Vec<VirtQueue>,
    parts: Parts,
    error: EventFd,
    /// vhost knows the queues.
    begun: bool,
    attached: bool,
    paused: bool,
    ended: bool,
}

impl KernelPath {
    /// Both queues, not given to vhost yet.
    pub(super) fn new(
        vhost: Arc<dyn VhostNet>,
        queues: Vec<VirtQueue>,
        parts: Parts,
    ) -> io::Result<Self> {
        Ok(Self {
            vhost,
            queues,
            parts,
            error: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            begun: false,
            attached: false,
            paused: false,
            ended: false,
        })
    }

    /// Signalled when vhost finds that the driver broke the rules; open as long as this object.
    pub(super) fn error(&self) -> &EventFd {
        &self.error
    }

    /// Gives the queues to vhost. Says no if it cannot serve this driver: a queue without an MSI-X
    /// vector, or rings that are not in one piece.
    ///
    /// # Errors
    /// When the host refuses. Then and after a no, the queues are to be taken back.
    pub(super) fn begin(&mut self, features: u64, paused: bool) -> io::Result<bool> {
        let rings: Option<Vec<_>> = self.queues.iter().map(VirtQueue::rings).collect();
        let Some(rings) = rings else {
            return Ok(false);
        };
        let Some(calls) = self.parts.link.hand_over_interrupts()? else {
            return Ok(false);
        };
        self.vhost.set_features(features & QUEUE_FEATURES)?;
        let queues = (0..).zip(&self.queues);
        for ((index, queue), (rings, call)) in queues.zip(rings.iter().zip(&calls)) {
            let events = RingEvents {
                kick: queue.kick(),
                call,
                error: &self.error,
            };
            self.vhost.set_ring(index, rings, &events)?;
        }
        self.begun = true;
        self.paused = paused;
        self.attach_or_detach()?;
        self.parts.metrics.vhost.store(1, Ordering::Relaxed);
        Ok(true)
    }

    /// The machine is paused, or goes on.
    pub(super) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.follow();
    }

    /// The driver still wants to be interrupted by what was handed over to vhost.
    pub(super) fn fits(&self) -> bool {
        self.parts.link.interrupts_stay_handed_over()
    }

    /// Attaches or detaches the queues, as the guest and its user want it now.
    pub(super) fn follow(&mut self) {
        if let Err(error) = self.attach_or_detach() {
            self.parts.link.fail(&format!("vhost-net: {error}"));
            self.detach();
        }
    }

    fn attach_or_detach(&mut self) -> io::Result<()> {
        let link = &self.parts.link;
        let wanted = !self.paused && !self.ended && link.may_access_memory() && !link.failed();
        if !wanted {
            self.detach();
        } else if !self.attached {
            // From here on there is something to detach, even if only the first succeeds.
            self.attached = true;
            for (index, queue) in (0..).zip(&self.queues) {
                self.vhost.attach(index, self.parts.backend.as_raw_fd())?;
                // The driver may have notified while nobody listened.
                queue.kick_again();
            }
        }
        Ok(())
    }

    fn detach(&mut self) {
        if !std::mem::take(&mut self.attached) {
            return;
        }
        for index in [0, 1] {
            // Refused only for a queue that was never described.
            if let Err(error) = self.vhost.detach(index) {
                tracing::error!(device = self.parts.link.name(), %error, "vhost-net goes on");
            }
        }
    }

    /// Takes the queues from vhost: when this returns it touches no guest memory any more.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.detach();
        self.parts.link.take_back_interrupts();
        self.parts.metrics.vhost.store(0, Ordering::Relaxed);
    }

    /// Ends, and gives the queues to be served by this process from where vhost left off.
    ///
    /// # Errors
    /// When vhost does not say where that is.
    pub(super) fn take_queues(&mut self) -> io::Result<Vec<VirtQueue>> {
        let begun = self.begun;
        self.end();
        let mut queues = std::mem::take(&mut self.queues);
        if begun {
            for (index, queue) in (0..).zip(&mut queues) {
                queue.take_back(self.vhost.next_available(index)?);
                queue.kick_again();
            }
        }
        Ok(queues)
    }
}

impl EventHandler for KernelPath {
    fn ready(&mut self, _source: u64, _events: EventSet) {
        // Its value does not matter.
        let _ = self.error.read();
        if !self.ended {
            self.parts
                .link
                .fail("vhost-net found a descriptor or a ring that breaks the rules");
            self.detach();
        }
    }
}
