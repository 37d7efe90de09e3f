//! Serves an interface's queues and its tap on the event loop.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

use super::metrics::count;
use super::receive::PostedBuffers;
use super::{HEADER, NetBackend, NetMetrics};
use crate::event_loop::{EventHandler, EventLoopHandle, Token};
use crate::virtio::chain::{Chain, GuestFault, IoVecs, cut, total_len, write_to};
use crate::virtio::{Link, Ram, VirtQueue};

/// Event source: the guest posted receive buffers.
pub(super) const RECEIVE: u64 = 0;
/// Event source: the guest has frames to send.
pub(super) const TRANSMIT: u64 = 1;
/// Event source: the tap.
pub(super) const TAP: u64 = 2;

/// Largest frame with its header that a tap gives: 64 KiB of IP, Ethernet, VLAN tag.
const MAX_FRAME: usize = HEADER + 14 + 4 + 65535;
const MAX_FRAME_BYTES: u64 = 65565;

/// Frames received before others get their turn.
const RECEIVE_BUDGET: u32 = 128;

/// Bytes sent before the guest hears of it, though there is more to send.
const SENT_AT_ONCE: u64 = 32 << 10;

/// Offset of `num_buffers` in the header.
const NUM_BUFFERS: u64 = 10;

/// How the driver wants frames.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// A frame may be spread over several chains (MRG_RXBUF).
    pub(super) mergeable: bool,
    /// Frames may say something about their checksum (GUEST_CSUM).
    pub(super) checksum: bool,
}

/// What the handler works with, besides its queues.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) backend: Arc<dyn NetBackend>,
    pub(super) memory: Ram,
    pub(super) link: Arc<Link>,
    pub(super) events: EventLoopHandle,
    pub(super) metrics: Arc<NetMetrics>,
}

/// What runs on the event loop.
pub(super) struct NetHandler {
    receive: VirtQueue,
    transmit: VirtQueue,
    parts: Parts,
    mode: Mode,
    tap: Option<Token>,
    /// What the tap is watched for now.
    watched: EventSet,
    posted: PostedBuffers,
    used: Vec<(u16, u32)>,
    /// A frame read before there was room for it; its first `held` bytes.
    bounce: Vec<u8>,
    held: usize,
    starved: bool,
    blocked: bool,
    chain: Chain,
    ranges: IoVecs,
    paused: bool,
    stopped: bool,
}

impl NetHandler {
    pub(super) fn new(receive: VirtQueue, transmit: VirtQueue, parts: Parts, mode: Mode) -> Self {
        Self {
            receive,
            transmit,
            parts,
            mode,
            tap: None,
            watched: EventSet::IN,
            posted: PostedBuffers::default(),
            used: Vec::new(),
            bounce: Vec::new(),
            held: 0,
            starved: false,
            blocked: false,
            chain: Chain::default(),
            ranges: IoVecs::default(),
            paused: false,
            stopped: false,
        }
    }

    /// The tap's registration, with [`EventSet::IN`] watched.
    pub(super) fn set_tap(&mut self, token: Token) {
        self.tap = Some(token);
    }

    /// Takes the tap from the loop and serves nothing any more.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.forget_tap();
    }

    /// The machine is paused: nothing is received or sent until it goes on.
    pub(super) fn set_paused(&mut self, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        self.watch();
        if !paused {
            // What was asked for meanwhile was not looked at.
            self.receive.kick_again();
            self.transmit.kick_again();
        }
    }

    fn forget_tap(&mut self) {
        if let Some(token) = self.tap.take() {
            self.parts.events.remove(token);
        }
    }

    fn fd(&self) -> RawFd {
        self.parts.backend.as_raw_fd()
    }

    /// Watches the tap for what can go on now: frames unless there are no buffers for them, room
    /// only if there was none. So a level-triggered loop does not spin.
    fn watch(&mut self) {
        let mut events = EventSet::empty();
        if !self.starved && !self.paused {
            events |= EventSet::IN;
        }
        if self.blocked && !self.paused {
            events |= EventSet::OUT;
        }
        if events == self.watched {
            return;
        }
        self.watched = events;
        if let Some(token) = self.tap
            && let Err(error) = self.parts.events.modify(token, events)
        {
            self.tap_failed(&error);
        }
    }

    /// The tap is gone (deleted, or its namespace): nothing to wait for any more.
    fn tap_failed(&mut self, error: &io::Error) {
        if self.tap.is_some() {
            tracing::warn!(device = self.parts.link.name(), %error, "the tap failed; no more frames");
            self.forget_tap();
        }
    }

    /// Receives what the tap has, as long as the guest has buffers for it.
    fn receive(&mut self) -> Result<(), GuestFault> {
        for _ in 0..RECEIVE_BUDGET {
            self.refill()?;
            let step = if self.held > 0 {
                self.deliver_held()?
            } else {
                self.read_frame()?
            };
            if step == Step::Wait {
                break;
            }
        }
        self.watch();
        self.receive.announce()
    }

    /// Takes posted chains until the largest frame fits, or there are no more.
    fn refill(&mut self) -> Result<(), GuestFault> {
        let spread = self.mode.mergeable;
        while (spread || self.posted.is_empty())
            && self.posted.room(spread) < MAX_FRAME_BYTES
            && !self.posted.full()
            && self.receive.pop(&mut self.chain)?
        {
            let limit = self.receive.size();
            self.posted.add(&self.parts.memory, &self.chain, limit)?;
        }
        Ok(())
    }

    /// Reads a frame: straight into guest memory if any frame fits there, else aside.
    fn read_frame(&mut self) -> Result<Step, GuestFault> {
        let spread = self.mode.mergeable;
        if self.posted.is_empty() {
            // Frames stay in the tap's own queue until there are buffers.
            return self.starve();
        }
        if self.posted.room(spread) >= MAX_FRAME_BYTES {
            return match read(self.fd(), self.posted.ranges(spread)) {
                Ok(len) => self.deliver(len).map(|()| Step::Go),
                Err(error) => Ok(self.nothing_read(&error)),
            };
        }
        self.bounce.resize(MAX_FRAME, 0);
        let aside = libc::iovec {
            iov_base: self.bounce.as_mut_ptr().cast(),
            iov_len: self.bounce.len(),
        };
        match read(self.fd(), &[aside]) {
            Ok(len) => {
                self.held = len;
                Ok(Step::Go)
            }
            Err(error) => Ok(self.nothing_read(&error)),
        }
    }

    fn nothing_read(&mut self, error: &io::Error) -> Step {
        if error.kind() != io::ErrorKind::WouldBlock {
            self.tap_failed(error);
        }
        Step::Wait
    }

    /// Copies the frame that was read aside, if it fits now.
    fn deliver_held(&mut self) -> Result<Step, GuestFault> {
        let spread = self.mode.mergeable;
        let len = u64::try_from(self.held).unwrap_or(u64::MAX);
        if self.posted.room(spread) < len {
            let never = self.posted.full() || (!spread && !self.posted.is_empty());
            if !never {
                return self.starve();
            }
            count(&self.parts.metrics.rx_dropped, 1);
            self.held = 0;
            return Ok(Step::Go);
        }
        let frame = &self.bounce[..self.held];
        if !write_to(&self.parts.memory, self.posted.buffers(), frame) {
            return Err(GuestFault::OutsideMemory);
        }
        let len = std::mem::take(&mut self.held);
        self.deliver(len).map(|()| Step::Go)
    }

    /// Waits for buffers, unless some came just now.
    fn starve(&mut self) -> Result<Step, GuestFault> {
        if self.receive.listen()? {
            self.receive.silence()?;
            return Ok(Step::Go);
        }
        self.starved = true;
        count(&self.parts.metrics.rx_starved, 1);
        Ok(Step::Wait)
    }

    /// Gives the guest a frame of `len` bytes that is in its buffers already.
    fn deliver(&mut self, len: usize) -> Result<(), GuestFault> {
        if len < HEADER {
            count(&self.parts.metrics.rx_dropped, 1);
            return Ok(());
        }
        let bytes = u64::try_from(len).unwrap_or(u64::MAX);
        self.posted.fill(bytes, &mut self.used);
        let chains = u16::try_from(self.used.len()).unwrap_or(u16::MAX);
        self.patch_header(NUM_BUFFERS, &chains.to_le_bytes())?;
        if !self.mode.checksum {
            // The tap marks frames as checked; this driver does not know what that means
            // (virtio 1.2 §5.1.6.4.1).
            self.patch_header(0, &[0])?;
        }
        self.receive.push_together(&self.used)?;
        self.posted.drop_front(self.used.len());
        count(&self.parts.metrics.rx_frames, 1);
        count(&self.parts.metrics.rx_bytes, bytes);
        Ok(())
    }

    /// Writes into the header at the beginning of the posted buffers, however they are cut.
    fn patch_header(&self, offset: u64, bytes: &[u8]) -> Result<(), GuestFault> {
        let memory = &self.parts.memory;
        let buffers = self.posted.buffers();
        if let Some(first) = buffers.first()
            && u64::from(first.len) >= offset + 2
        {
            let at = GuestAddress(first.address.0.saturating_add(offset));
            return memory
                .write_slice(bytes, at)
                .map_err(|_| GuestFault::OutsideMemory);
        }
        let len = u64::try_from(bytes.len()).unwrap_or(0);
        let place: Vec<_> = cut(buffers, offset, len).collect();
        if write_to(memory, &place, bytes) {
            Ok(())
        } else {
            Err(GuestFault::OutsideMemory)
        }
    }

    /// Sends what the guest has made available, but not more than a queue's worth.
    ///
    /// After frames were sent, what the tap has by then (acknowledgements, as a rule) goes to the guest before the queue is
    /// looked at again, and only a queue that was found empty wants to be notified: meanwhile a busy guest adds frames
    /// without leaving guest mode for a notification.
    ///
    /// The guest hears of what was sent while more is being sent: its TCP has only a few frames under way in the device
    /// and prepares the next ones when it hears of these.
    fn transmit(&mut self) -> Result<(), GuestFault> {
        let mut budget = self.transmit.size();
        let mut untold = 0;
        self.transmit.silence()?;
        loop {
            let before = budget;
            while budget > 0 && self.transmit.pop(&mut self.chain)? {
                budget -= 1;
                if !self.send()? {
                    self.transmit.undo_pop();
                    self.blocked = true;
                    count(&self.parts.metrics.tx_blocked, 1);
                    self.watch();
                    return self.transmit.announce();
                }
                self.transmit.push(self.chain.head, 0)?;
                untold += total_len(&self.chain.readable);
                if untold >= SENT_AT_ONCE {
                    self.transmit.announce()?;
                    untold = 0;
                }
            }
            if budget == 0 {
                self.transmit.kick_again();
                break;
            }
            if budget < before {
                self.transmit.announce()?;
                if self.tap.is_some() && !self.starved {
                    self.receive()?;
                }
            } else if self.transmit.listen()? {
                self.transmit.silence()?;
            } else {
                return Ok(());
            }
        }
        self.transmit.announce()
    }

    /// Sends the popped chain's frame; says no if the tap is full. One that the tap does not take
    /// for another reason is lost, as on a wire.
    fn send(&mut self) -> Result<bool, GuestFault> {
        self.ranges.clear();
        for buffer in &self.chain.readable {
            if !self.ranges.push(&self.parts.memory, *buffer) {
                return Err(GuestFault::OutsideMemory);
            }
        }
        let metrics = &self.parts.metrics;
        let len = total_len(&self.chain.readable);
        let whole = len > u64::try_from(HEADER).unwrap_or(0) && len <= MAX_FRAME_BYTES;
        if !whole || self.tap.is_none() {
            count(&metrics.tx_dropped, 1);
            return Ok(true);
        }
        match write(self.fd(), self.ranges.as_slice()) {
            Ok(()) => {
                count(&metrics.tx_frames, 1);
                count(&metrics.tx_bytes, len);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => {
                tracing::debug!(device = self.parts.link.name(), %error, "frame not sent");
                count(&metrics.tx_dropped, 1);
                Ok(true)
            }
        }
    }

    fn tap_ready(&mut self, events: EventSet) -> Result<(), GuestFault> {
        if events.contains(EventSet::OUT) && self.blocked {
            self.blocked = false;
            self.transmit()?;
            self.watch();
        }
        if events.contains(EventSet::IN) && !self.starved {
            self.receive()?;
        }
        let broken = EventSet::ERROR | EventSet::HANG_UP;
        if events.intersects(broken) && !events.contains(EventSet::IN) {
            self.tap_failed(&io::Error::other("hung up"));
        }
        Ok(())
    }

    fn buffers_posted(&mut self) -> Result<(), GuestFault> {
        if !self.starved {
            return Ok(());
        }
        self.starved = false;
        self.receive.silence()?;
        self.receive()
    }
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Go,
    Wait,
}

/// Reads one frame into memory ranges.
fn read(fd: RawFd, ranges: &[libc::iovec]) -> io::Result<usize> {
    let count = libc::c_int::try_from(ranges.len()).map_err(io::Error::other)?;
    // SAFETY: the ranges are guest RAM, which the handler keeps mapped, or its own buffer.
    retry(|| unsafe { libc::readv(fd, ranges.as_ptr(), count) }).and_then(|len| match len {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        len => Ok(len),
    })
}

/// Writes one frame from memory ranges.
fn write(fd: RawFd, ranges: &[libc::iovec]) -> io::Result<()> {
    let count = libc::c_int::try_from(ranges.len()).map_err(io::Error::other)?;
    // SAFETY: the ranges are guest RAM, which the handler keeps mapped.
    retry(|| unsafe { libc::writev(fd, ranges.as_ptr(), count) }).map(drop)
}

fn retry(call: impl Fn() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(len) = usize::try_from(call()) {
            return Ok(len);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

impl EventHandler for NetHandler {
    fn ready(&mut self, source: u64, events: EventSet) {
        if self.stopped {
            return;
        }
        if self.parts.link.failed() {
            // Frames wait in the tap until the driver has reset the device.
            self.forget_tap();
            return;
        }
        if self.paused {
            // The tap is watched for nothing; that it is gone is told all the same.
            if source == TAP && events.intersects(EventSet::ERROR | EventSet::HANG_UP) {
                self.tap_failed(&io::Error::other("hung up"));
            }
            return;
        }
        let served = match source {
            RECEIVE => self.buffers_posted(),
            TRANSMIT if self.blocked => Ok(()),
            TRANSMIT => self.transmit(),
            _ => self.tap_ready(events),
        };
        if let Err(fault) = served {
            self.parts.link.fail(&fault.to_string());
        }
    }
}
