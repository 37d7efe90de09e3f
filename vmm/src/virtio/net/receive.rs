//! Buffers that the guest has posted for frames to come: popped once, kept until a frame fills
//! them.

use crate::virtio::Ram;
use crate::virtio::chain::{Buffer, Chain, GuestFault, IoVecs, total_len};

/// Memory ranges beyond which no more chains are taken: what one `readv` takes, less a chain.
const MAX_RANGES: usize = 1024 - 256;

/// One posted chain.
#[derive(Debug, Clone, Copy)]
struct Posted {
    head: u16,
    len: u64,
    /// How many of `buffers` and `ranges` are this chain's.
    buffers: usize,
    ranges: usize,
}

/// All posted chains, in order.
#[derive(Debug, Default)]
pub(super) struct PostedBuffers {
    chains: Vec<Posted>,
    buffers: Vec<Buffer>,
    ranges: IoVecs,
    bytes: u64,
}

impl PostedBuffers {
    /// Takes a popped chain in. `limit` is the queue's size.
    ///
    /// # Errors
    /// When its buffers are not in RAM, or more chains are posted than the queue has.
    pub(super) fn add(
        &mut self,
        memory: &Ram,
        chain: &Chain,
        limit: u16,
    ) -> Result<(), GuestFault> {
        if self.chains.len() >= usize::from(limit) {
            return Err(GuestFault::AvailableIndex);
        }
        let ranges = self.ranges.as_slice().len();
        for buffer in &chain.writable {
            if !self.ranges.push(memory, *buffer) {
                return Err(GuestFault::OutsideMemory);
            }
            self.buffers.push(*buffer);
        }
        let len = total_len(&chain.writable);
        self.bytes += len;
        self.chains.push(Posted {
            head: chain.head,
            len,
            buffers: chain.writable.len(),
            ranges: self.ranges.as_slice().len() - ranges,
        });
        Ok(())
    }

    /// No more chains may be added before some are used.
    pub(super) fn full(&self) -> bool {
        self.ranges.as_slice().len() >= MAX_RANGES
    }

    /// Nothing is posted.
    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Bytes that one frame can fill: of all chains if it may be spread, else of the first.
    pub(super) fn room(&self, spread: bool) -> u64 {
        match self.chains.first() {
            Some(_) if spread => self.bytes,
            Some(first) => first.len,
            None => 0,
        }
    }

    /// Memory ranges of what [`PostedBuffers::room`] counts.
    pub(super) fn ranges(&self, spread: bool) -> &[libc::iovec] {
        let all = self.ranges.as_slice();
        match self.chains.first() {
            Some(first) if !spread => &all[..first.ranges],
            _ => all,
        }
    }

    /// Guest buffers, all of them, in order.
    pub(super) fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// Says which chains a frame of `len` bytes fills, as used elements, into `used`.
    pub(super) fn fill(&self, mut len: u64, used: &mut Vec<(u16, u32)>) {
        used.clear();
        for chain in &self.chains {
            let here = chain.len.min(len);
            used.push((chain.head, u32::try_from(here).unwrap_or(u32::MAX)));
            len -= here;
            if len == 0 {
                break;
            }
        }
    }

    /// Forgets the first `count` chains: they are used.
    pub(super) fn drop_front(&mut self, count: usize) {
        let gone = &self.chains[..count.min(self.chains.len())];
        let buffers: usize = gone.iter().map(|chain| chain.buffers).sum();
        let ranges: usize = gone.iter().map(|chain| chain.ranges).sum();
        self.bytes -= gone.iter().map(|chain| chain.len).sum::<u64>();
        self.chains.drain(..count.min(self.chains.len()));
        self.buffers.drain(..buffers);
        self.ranges.drop_front(ranges);
    }
}
