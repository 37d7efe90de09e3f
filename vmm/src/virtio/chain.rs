//! Descriptor chains (virtio 1.2 §2.7.5), read once from guest memory and checked for shape, then
//! used from our copy only: what the guest changes afterwards changes nothing here.

use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, Permissions};

use super::Ram;

/// How a driver broke the rules. All of them cost it the device (DEVICE_NEEDS_RESET).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// The available ring's index is further ahead than the queue is long.
    #[error("available index out of range")]
    AvailableIndex,
    /// The ring itself is not (or no longer) in RAM.
    #[error("queue memory not accessible")]
    RingAccess,
    /// A chain that loops, leaves its table, or whose table is not in RAM.
    #[error("broken descriptor chain")]
    BrokenChain,
    /// More descriptors than the queue has entries (virtio 1.2 §2.7.5.3.1).
    #[error("descriptor chain longer than the queue")]
    LongChain,
    /// A device-readable descriptor after a device-writable one (virtio 1.2 §2.7.4.2).
    #[error("readable descriptor behind a writable one")]
    Order,
    /// The chain has no room for the answer (a status byte, a header).
    #[error("no room for the answer in a descriptor chain")]
    NoRoom,
    /// A buffer is not in RAM and the device has no other way to say so.
    #[error("buffer outside guest memory")]
    OutsideMemory,
    /// The driver left out a queue that the device needs.
    #[error("a required queue is disabled")]
    MissingQueue,
}

/// One buffer of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address, not checked yet.
    pub address: GuestAddress,
    /// Bytes.
    pub len: u32,
}

/// A chain's buffers. Kept by its user and refilled, so that popping allocates nothing once the
/// lists have grown to their working size (at most the queue's).
#[derive(Debug, Default)]
pub struct Chain {
    /// Index of the first descriptor, to be given back.
    pub head: u16,
    /// Buffers the device may read, in order.
    pub readable: Vec<Buffer>,
    /// Buffers the device may write, in order.
    pub writable: Vec<Buffer>,
}

impl Chain {
    /// Reads the chain's descriptors; `limit` is the queue's size.
    ///
    /// # Errors
    /// When the chain is not as the specification says.
    pub fn fill(
        &mut self,
        mut descriptors: DescriptorChain<&Ram>,
        limit: u16,
    ) -> Result<(), GuestFault> {
        self.head = descriptors.head_index();
        self.readable.clear();
        self.writable.clear();
        let mut last: Option<Descriptor> = None;
        let mut count = 0;
        for descriptor in &mut descriptors {
            count += 1;
            if count > limit {
                return Err(GuestFault::LongChain);
            }
            let buffer = Buffer {
                address: descriptor.addr(),
                len: descriptor.len(),
            };
            if descriptor.is_write_only() {
                self.writable.push(buffer);
            } else if self.writable.is_empty() {
                self.readable.push(buffer);
            } else {
                return Err(GuestFault::Order);
            }
            last = Some(descriptor);
        }
        // The iterator just ends at anything wrong; a sound chain ends where NEXT is not set.
        match last {
            Some(descriptor) if !descriptor.has_next() => Ok(()),
            _ => Err(GuestFault::BrokenChain),
        }
    }
}

/// Bytes of all buffers.
#[must_use]
pub fn total_len(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| u64::from(buffer.len)).sum()
}

/// The buffers' bytes from `skip` on, at most `len`, cut out as a new list of buffers.
pub fn cut(buffers: &[Buffer], skip: u64, len: u64) -> impl Iterator<Item = Buffer> {
    let (mut skip, mut left) = (skip, len);
    buffers.iter().filter_map(move |buffer| {
        let size = u64::from(buffer.len);
        let dropped = skip.min(size);
        skip -= dropped;
        let taken = (size - dropped).min(left);
        left -= taken;
        if taken == 0 {
            return None;
        }
        // An address beyond the end of the address space stays one that is not in RAM.
        let address = GuestAddress(buffer.address.raw_value().saturating_add(dropped));
        Some(Buffer {
            address,
            len: u32::try_from(taken).unwrap_or(u32::MAX),
        })
    })
}

/// Copies from guest buffers, which may be cut anywhere, into `data`. Says whether all of it was
/// there.
pub fn read_from(memory: &Ram, buffers: &[Buffer], data: &mut [u8]) -> bool {
    let mut done = 0;
    for buffer in buffers {
        let len = (data.len() - done).min(usize::try_from(buffer.len).unwrap_or(usize::MAX));
        let part = &mut data[done..done + len];
        if memory.read_slice(part, buffer.address).is_err() {
            return false;
        }
        done += len;
        if done == data.len() {
            return true;
        }
    }
    done == data.len()
}

/// Copies `data` into guest buffers. Says whether all of it found room in RAM.
pub fn write_to(memory: &Ram, buffers: &[Buffer], data: &[u8]) -> bool {
    let mut done = 0;
    for buffer in buffers {
        let len = (data.len() - done).min(usize::try_from(buffer.len).unwrap_or(usize::MAX));
        if memory
            .write_slice(&data[done..done + len], buffer.address)
            .is_err()
        {
            return false;
        }
        done += len;
        if done == data.len() {
            return true;
        }
    }
    done == data.len()
}

/// A list of host address ranges in guest RAM, for `readv`-like calls.
///
/// The pointers are good as long as the [`Ram`] they came from is mapped; the list's user keeps a
/// clone of it. The bytes may change under the kernel's copy, as with any DMA.
#[derive(Debug, Default)]
pub struct IoVecs {
    list: Vec<libc::iovec>,
}

// SAFETY: the pointers name guest RAM, which is shared memory without an owner thread; they are
// handed to the kernel only and never dereferenced here.
unsafe impl Send for IoVecs {}

impl IoVecs {
    /// Forgets all ranges; keeps the allocation.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Appends a guest buffer; it becomes several ranges where it crosses RAM regions. An empty
    /// one adds nothing. Says whether it lies in RAM.
    #[must_use]
    pub fn push(&mut self, memory: &Ram, buffer: Buffer) -> bool {
        let Ok(len) = usize::try_from(buffer.len) else {
            return false;
        };
        let access = Permissions::ReadWrite;
        let Ok(slices) = GuestMemory::get_slices(memory, buffer.address, len, access) else {
            return false;
        };
        for slice in slices {
            let Ok(slice) = slice else { return false };
            self.list.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        }
        true
    }

    /// The ranges.
    #[must_use]
    pub fn as_slice(&self) -> &[libc::iovec] {
        &self.list
    }

    /// Forgets the first `count` ranges.
    pub fn drop_front(&mut self, count: usize) {
        self.list.drain(..count.min(self.list.len()));
    }

    /// Makes sure that a range begins at byte `offset` of the whole and returns its index, cutting
    /// a range in two if need be. `from` is an index at or before it, at byte `at`.
    pub fn split_at(&mut self, from: usize, at: u64, offset: u64) -> usize {
        let mut index = from;
        let mut at = at;
        while let Some(range) = self.list.get_mut(index) {
            let len = u64::try_from(range.iov_len).unwrap_or(u64::MAX);
            if at == offset {
                return index;
            }
            if offset < at + len {
                let head = usize::try_from(offset - at).unwrap_or(usize::MAX);
                let tail = libc::iovec {
                    iov_base: range.iov_base.wrapping_byte_add(head),
                    iov_len: range.iov_len - head,
                };
                range.iov_len = head;
                self.list.insert(index + 1, tail);
                return index + 1;
            }
            at += len;
            index += 1;
        }
        index
    }

    /// Drops `bytes` from the front of the ranges from index `first` on, which a short transfer has
    /// moved already, and returns the index of the first range left.
    pub fn advance(&mut self, first: usize, mut bytes: usize) -> usize {
        let mut index = first;
        while let Some(range) = self.list.get_mut(index) {
            if bytes < range.iov_len {
                range.iov_base = range.iov_base.wrapping_byte_add(bytes);
                range.iov_len -= bytes;
                break;
            }
            bytes -= range.iov_len;
            range.iov_len = 0;
            index += 1;
        }
        index
    }
}
