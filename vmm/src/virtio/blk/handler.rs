//! Serves a disk's queues on the event loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cumulet_images::block::{BlockBackend, SECTOR_SIZE};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

use super::BlkMetrics;
use super::metrics::count;
use super::request::{Operation, Request, Status, data_in, data_out, fits, parse, zero_ranges};
use super::ring::{Completion, Ring};
use super::transfer::{Direction, Transfer};
use crate::event_loop::EventHandler;
use crate::virtio::chain::{Buffer, Chain, GuestFault, write_to};
use crate::virtio::{Link, Ram, VirtQueue};

/// The event source number of the ring; queues have theirs.
pub(super) const RING_SOURCE: u64 = u64::MAX;

/// Bytes of the serial (virtio 1.2 §5.2.6, `VIRTIO_BLK_ID_BYTES`).
pub(super) const SERIAL_LEN: usize = 20;

/// The disk itself, as long as the device lives.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) backend: Arc<dyn BlockBackend>,
    pub(super) serial: [u8; SERIAL_LEN],
    pub(super) metrics: Arc<BlkMetrics>,
    /// Writes may be answered before they are durable.
    pub(super) writeback: Arc<AtomicBool>,
}

/// A queue and how many of its requests are in flight.
struct Served {
    queue: VirtQueue,
    in_flight: u16,
}

/// What runs on the event loop.
pub(super) struct BlkHandler {
    disk: Disk,
    queues: Vec<Option<Served>>,
    memory: Ram,
    link: Arc<Link>,
    ring: Option<Ring>,
    transfers: Vec<Transfer>,
    free: Vec<usize>,
    chain: Chain,
    buffers: Vec<Buffer>,
    /// The host can read what is cached, and only that.
    cached_reads: bool,
    stopped: bool,
}

impl BlkHandler {
    pub(super) fn new(
        disk: Disk,
        queues: Vec<Option<VirtQueue>>,
        memory: Ram,
        link: Arc<Link>,
        ring: Option<Ring>,
    ) -> Self {
        let served = |queue| Served {
            queue,
            in_flight: 0,
        };
        Self {
            disk,
            queues: queues.into_iter().map(|q| q.map(served)).collect(),
            memory,
            link,
            ring,
            transfers: Vec::new(),
            free: Vec::new(),
            chain: Chain::default(),
            buffers: Vec::new(),
            cached_reads: true,
            stopped: false,
        }
    }

    /// Ends all service: waits for what is in flight, answers nothing any more, and gives the ring
    /// back.
    pub(super) fn stop(&mut self) -> Option<Ring> {
        self.stopped = true;
        let mut ring = self.ring.take()?;
        while ring.in_flight() > 0 {
            while let Some(completion) = ring.reap() {
                self.part_done(completion);
            }
            if ring.in_flight() > 0
                && let Err(error) = ring.wait()
            {
                tracing::error!(device = self.link.name(), %error, "cannot wait for io_uring");
                // The kernel may still use the memory: it must stay mapped.
                std::mem::forget(self.memory.clone());
                return None;
            }
        }
        Some(ring)
    }

    fn served(&mut self, index: u16) -> Result<&mut Served, GuestFault> {
        self.queues
            .get_mut(usize::from(index))
            .and_then(Option::as_mut)
            .ok_or(GuestFault::MissingQueue)
    }

    /// Serves what is available in a queue, but not more than its length, so that others get
    /// their turn.
    fn serve(&mut self, index: u16) -> Result<(), GuestFault> {
        let mut budget = self.served(index)?.queue.size();
        loop {
            self.served(index)?.queue.silence()?;
            while budget > 0 {
                let mut chain = std::mem::take(&mut self.chain);
                let popped = self.served(index)?.queue.pop(&mut chain);
                self.chain = chain;
                if !popped? {
                    break;
                }
                budget -= 1;
                self.start(index)?;
            }
            self.submit()?;
            let queue = &mut self.served(index)?.queue;
            if budget == 0 {
                queue.kick_again();
                break;
            }
            if !queue.listen()? {
                break;
            }
        }
        self.announce()
    }

    fn announce(&mut self) -> Result<(), GuestFault> {
        self.queues
            .iter_mut()
            .flatten()
            .try_for_each(|served| served.queue.announce())
    }

    /// Begins the request in `self.chain`, and ends it where it needs no waiting.
    fn start(&mut self, index: u16) -> Result<(), GuestFault> {
        let request = parse(&self.memory, &self.chain)?;
        let status = match request.operation {
            Operation::Read(offset) => {
                return self.start_transfer(index, &request, Direction::Read, offset);
            }
            Operation::Write(offset) => {
                return self.start_transfer(index, &request, Direction::Write, offset);
            }
            Operation::Flush => self.flush(),
            Operation::GetId => self.get_id(&request),
            Operation::Discard | Operation::WriteZeroes => self.zero(&request),
            Operation::Refuse(status) => status,
        };
        let written = if request.operation == Operation::GetId && status == Status::Ok {
            request.len
        } else {
            0
        };
        self.answer(index, self.chain.head, (request.status, status), written)
    }

    fn flush(&self) -> Status {
        let status = self.report("flush", self.disk.backend.flush());
        if status == Status::Ok {
            count(&self.disk.metrics.flushes, 1);
        }
        status
    }

    fn get_id(&self, request: &Request) -> Status {
        let buffers: Vec<_> = data_in(&self.chain, request.len).collect();
        let room = usize::try_from(request.len).unwrap_or(0);
        if room >= SERIAL_LEN && write_to(&self.memory, &buffers, &self.disk.serial) {
            Status::Ok
        } else {
            Status::IoError
        }
    }

    fn zero(&self, request: &Request) -> Status {
        let backend = &self.disk.backend;
        let capabilities = backend.capabilities();
        let discard = request.operation == Operation::Discard;
        if capabilities.read_only {
            return Status::IoError;
        }
        if discard && !capabilities.discard {
            return Status::Unsupported;
        }
        let ranges = match zero_ranges(&self.memory, &self.chain, request, backend.size()) {
            Ok(ranges) => ranges,
            Err(status) => return status,
        };
        let done = ranges.iter().filter(|r| r.len > 0).try_for_each(|range| {
            if discard {
                backend.discard(range.offset, range.len)
            } else {
                backend.write_zeroes(range.offset, range.len, range.unmap)
            }
        });
        let status = self.report("discard or write zeroes", done.and_then(|()| self.settle()));
        if status == Status::Ok {
            count(&self.disk.metrics.discards, 1);
        }
        status
    }

    /// In write-through mode everything written is durable before it is answered
    /// (virtio 1.2 §5.2.6.2).
    fn settle(&self) -> io::Result<()> {
        if self.disk.writeback.load(Ordering::Acquire) {
            Ok(())
        } else {
            self.disk.backend.flush()
        }
    }

    fn report(&self, what: &str, result: io::Result<()>) -> Status {
        match result {
            Ok(()) => Status::Ok,
            Err(error) => {
                // The guest is told; it can cause this as often as it likes.
                tracing::debug!(device = self.link.name(), what, %error, "request failed");
                Status::IoError
            }
        }
    }

    fn start_transfer(
        &mut self,
        index: u16,
        request: &Request,
        direction: Direction,
        offset: u64,
    ) -> Result<(), GuestFault> {
        let on_disk = request.len.is_multiple_of(SECTOR_SIZE)
            && fits(offset, request.len, self.disk.backend.size());
        let refused = direction == Direction::Write && self.disk.backend.capabilities().read_only;
        if !on_disk || refused {
            let answer = (request.status, Status::IoError);
            return self.answer(index, self.chain.head, answer, 0);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.transfers.push(Transfer::default());
            self.transfers.len() - 1
        });
        let transfer = &mut self.transfers[slot];
        transfer.queue = index;
        transfer.head = self.chain.head;
        transfer.status = request.status;
        transfer.direction = direction;
        transfer.len = request.len;
        self.buffers.clear();
        match direction {
            Direction::Read => self.buffers.extend(data_in(&self.chain, request.len)),
            Direction::Write => self.buffers.extend(data_out(&self.chain, request.len)),
        }
        let backend = &*self.disk.backend;
        let planned = transfer.plan(backend, &self.memory, &self.buffers, offset);
        if planned.is_ok() && self.waits_in_ring(index, slot)? && self.push(slot) {
            let served = self.served(index)?;
            served.in_flight += 1;
            if served.in_flight > served.queue.size() {
                // The same descriptors were offered again while they are in use.
                return Err(GuestFault::AvailableIndex);
            }
            return Ok(());
        }
        count(&self.disk.metrics.direct, 1);
        let transfer = &mut self.transfers[slot];
        let done = match planned {
            Ok(()) if transfer.done => Ok(()),
            Ok(()) => transfer.run(&*self.disk.backend),
            Err(error) => Err(error),
        };
        let failed = self.report("transfer", done) != Status::Ok;
        self.transfers[slot].failed = failed;
        self.finish(slot)
    }

    /// Decides how a transfer goes: through the ring, or at once.
    ///
    /// * Writes go at once: they end in the page cache, and `io_uring` would only hand them to
    ///   another thread of the kernel for that.
    /// * A read that is alone goes at once if its data is in the page cache.
    /// * All other reads go through the ring, where they wait side by side.
    fn waits_in_ring(&mut self, index: u16, slot: usize) -> Result<bool, GuestFault> {
        let Some(ring) = &self.ring else {
            return Ok(false);
        };
        let in_flight = ring.in_flight();
        let transfer = &self.transfers[slot];
        let parts = transfer.parts().len();
        if parts == 0 || transfer.direction == Direction::Write {
            return Ok(false);
        }
        if in_flight == 0 && self.served(index)?.queue.waiting()? == 0 {
            if !self.cached_reads {
                return Ok(false);
            }
            match self.transfers[slot].run_cached() {
                Ok(true) => return Ok(false),
                Ok(false) => {}
                Err(_) => {
                    // This file system cannot say whether it would wait.
                    self.cached_reads = false;
                    return Ok(false);
                }
            }
        }
        if self.ring.as_ref().is_some_and(|ring| ring.has_room(parts)) {
            return Ok(true);
        }
        self.submit()?;
        Ok(self.ring.as_ref().is_some_and(|ring| ring.has_room(parts)))
    }

    /// Queues all parts of a transfer; says whether any is in the ring now.
    fn push(&mut self, slot: usize) -> bool {
        let Some(ring) = &mut self.ring else {
            return false;
        };
        let transfer = &mut self.transfers[slot];
        let mut pushed = 0;
        for (at, part) in (0_u64..).zip(transfer.parts()) {
            let tag = u64::try_from(slot).unwrap_or(u64::MAX) << 32 | at;
            let ranges = transfer.ranges(part);
            // SAFETY: the transfer is not touched before its last part is reaped, and its guest
            // memory is kept mapped by `self.memory`; `stop` waits for all of them.
            if !unsafe { ring.push(transfer.direction, part, ranges, tag) } {
                break;
            }
            pushed += 1;
        }
        transfer.outstanding = pushed;
        // The caller has asked for room, so either all went in or none.
        transfer.failed = pushed > 0 && pushed < transfer.parts().len();
        if pushed > 0 {
            count(&self.disk.metrics.batched, 1);
        }
        pushed > 0
    }

    /// Submits what was pushed and ends what has completed.
    fn submit(&mut self) -> Result<(), GuestFault> {
        let Some(ring) = &mut self.ring else {
            return Ok(());
        };
        match ring.submit() {
            Ok(true) => count(&self.disk.metrics.batches, 1),
            Ok(false) => return Ok(()),
            Err(error) => {
                // What is in the ring is waited for when the driver resets the device.
                self.link.fail(&format!("io_uring failed: {error}"));
                return Ok(());
            }
        }
        self.reap()
    }

    fn reap(&mut self) -> Result<(), GuestFault> {
        while let Some(completion) = self.ring.as_mut().and_then(Ring::reap) {
            if let Some(slot) = self.part_done(completion) {
                let index = self.transfers[slot].queue;
                self.served(index)?.in_flight -= 1;
                self.finish(slot)?;
            }
        }
        Ok(())
    }

    /// Takes a completion; returns the transfer if that was its last part.
    fn part_done(&mut self, completion: Completion) -> Option<usize> {
        let slot = usize::try_from(completion.tag >> 32).ok()?;
        let index = usize::try_from(completion.tag & 0xffff_ffff).ok()?;
        let transfer = self.transfers.get_mut(slot)?;
        let result = match u64::try_from(completion.result) {
            // A short transfer is ended here; a whole one only has to be recorded.
            Ok(moved) => transfer.finish_part(&*self.disk.backend, index, moved),
            Err(_) => match -completion.result {
                libc::EAGAIN | libc::EINTR => transfer.finish_part(&*self.disk.backend, index, 0),
                code => Err(io::Error::from_raw_os_error(code)),
            },
        };
        transfer.outstanding -= 1;
        let last = transfer.outstanding == 0;
        if self.report("transfer", result) != Status::Ok {
            self.transfers[slot].failed = true;
        }
        last.then_some(slot)
    }

    /// Answers a transfer that has come to its end.
    fn finish(&mut self, slot: usize) -> Result<(), GuestFault> {
        let transfer = &self.transfers[slot];
        let (direction, len) = (transfer.direction, transfer.len);
        let (index, head, place) = (transfer.queue, transfer.head, transfer.status);
        let mut status = if transfer.failed {
            Status::IoError
        } else {
            Status::Ok
        };
        self.free.push(slot);
        if status == Status::Ok && direction == Direction::Write {
            status = self.report("write-through", self.settle());
        }
        let metrics = &self.disk.metrics;
        let written = match (status, direction) {
            (Status::Ok, Direction::Read) => {
                count(&metrics.reads, 1);
                count(&metrics.read_bytes, len);
                len
            }
            (Status::Ok, Direction::Write) => {
                count(&metrics.writes, 1);
                count(&metrics.write_bytes, len);
                0
            }
            _ => 0,
        };
        self.answer(index, head, (place, status), written)
    }

    /// Writes the status byte and gives the chain back. `written` are the data bytes before it.
    fn answer(
        &mut self,
        index: u16,
        head: u16,
        (place, status): (GuestAddress, Status),
        written: u64,
    ) -> Result<(), GuestFault> {
        if status != Status::Ok {
            count(&self.disk.metrics.errors, 1);
        }
        self.memory
            .write_obj(status.byte(), place)
            .map_err(|_| GuestFault::OutsideMemory)?;
        let written = u32::try_from(written + 1).unwrap_or(u32::MAX);
        self.served(index)?.queue.push(head, written)
    }
}

impl EventHandler for BlkHandler {
    fn ready(&mut self, source: u64, _events: EventSet) {
        let served = if source == RING_SOURCE {
            if self.link.failed() {
                // Nobody is answered any more, but the completions must not wait for ever.
                while let Some(completion) = self.ring.as_mut().and_then(Ring::reap) {
                    self.part_done(completion);
                }
                return;
            }
            self.reap().and_then(|()| self.announce())
        } else {
            let index = u16::try_from(source).unwrap_or(u16::MAX);
            if self.stopped || self.link.failed() {
                return;
            }
            count(&self.disk.metrics.kicks, 1);
            self.serve(index)
        };
        if let Err(fault) = served {
            self.link.fail(&fault.to_string());
        }
    }
}
