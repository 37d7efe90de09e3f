//! Requests as the driver writes them (virtio 1.2 §5.2.6): a 16-byte header, data, a status byte,
//! cut into buffers wherever the driver likes.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::{Address, GuestAddress, GuestMemory, Permissions};

use super::config::{MAX_ZERO_SECTORS, MAX_ZERO_SEGMENTS};
use crate::virtio::Ram;
use crate::virtio::chain::{Buffer, Chain, GuestFault, cut, read_from, total_len};
use cumulet_images::block::SECTOR_SIZE;

/// Bytes of the header.
const HEADER: usize = 16;
/// Bytes of a discard or write-zeroes segment.
const SEGMENT: u64 = 16;

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Done.
    Ok,
    /// Failed, or asked for something outside the disk.
    IoError,
    /// Not a request this device offers.
    Unsupported,
}

impl Status {
    /// The status byte (virtio 1.2 §5.2.6).
    pub(super) fn byte(self) -> u8 {
        let code = match self {
            Self::Ok => VIRTIO_BLK_S_OK,
            Self::IoError => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        code.to_le_bytes()[0]
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Disk to guest, from this byte offset.
    Read(u64),
    /// Guest to disk, at this byte offset.
    Write(u64),
    /// Make everything written durable.
    Flush,
    /// The disk's serial.
    GetId,
    /// Drop ranges.
    Discard,
    /// Zero ranges.
    WriteZeroes,
    /// Refused without looking further.
    Refuse(Status),
}

/// A request, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// What to do.
    pub(super) operation: Operation,
    /// Bytes of data, header and status not counted.
    pub(super) len: u64,
    /// Where the status byte goes; in RAM.
    pub(super) status: GuestAddress,
}

/// Parses a chain.
///
/// # Errors
/// When there is no place for a status byte: the driver cannot be answered.
pub(super) fn parse(memory: &Ram, chain: &Chain) -> Result<Request, GuestFault> {
    let last = chain.writable.iter().rev().find(|buffer| buffer.len > 0);
    let status = last
        .ok_or(GuestFault::NoRoom)?
        .checked_last()
        .filter(|last| memory.check_range(*last, 1, Permissions::Write))
        .ok_or(GuestFault::OutsideMemory)?;
    let data_in = total_len(&chain.writable) - 1;
    let answer = |operation, len| {
        Ok(Request {
            operation,
            len,
            status,
        })
    };

    let mut header = [0; HEADER];
    if !read_from(memory, &chain.readable, &mut header) {
        return answer(Operation::Refuse(Status::IoError), 0);
    }
    let data_out = total_len(&chain.readable) - 16;
    let (kind, sector) = split_header(&header);
    let offset = sector.checked_mul(SECTOR_SIZE);
    match (kind, offset) {
        (VIRTIO_BLK_T_IN, Some(offset)) => answer(Operation::Read(offset), data_in),
        (VIRTIO_BLK_T_OUT, Some(offset)) => answer(Operation::Write(offset), data_out),
        (VIRTIO_BLK_T_IN | VIRTIO_BLK_T_OUT, None) => answer(Operation::Refuse(Status::IoError), 0),
        (VIRTIO_BLK_T_FLUSH, _) => answer(Operation::Flush, 0),
        (VIRTIO_BLK_T_GET_ID, _) => answer(Operation::GetId, data_in),
        (VIRTIO_BLK_T_DISCARD, _) => answer(Operation::Discard, data_out),
        (VIRTIO_BLK_T_WRITE_ZEROES, _) => answer(Operation::WriteZeroes, data_out),
        _ => answer(Operation::Refuse(Status::Unsupported), 0),
    }
}

impl Buffer {
    /// Address of the last byte.
    fn checked_last(&self) -> Option<GuestAddress> {
        self.address.checked_add(u64::from(self.len) - 1)
    }
}

fn split_header(header: &[u8; HEADER]) -> (u32, u64) {
    let mut kind = [0; 4];
    let mut sector = [0; 8];
    kind.copy_from_slice(&header[..4]);
    sector.copy_from_slice(&header[8..]);
    (u32::from_le_bytes(kind), u64::from_le_bytes(sector))
}

/// The data that the device reads (behind the header).
pub(super) fn data_out(chain: &Chain, len: u64) -> impl Iterator<Item = Buffer> {
    cut(&chain.readable, 16, len)
}

/// The data that the device writes (before the status byte).
pub(super) fn data_in(chain: &Chain, len: u64) -> impl Iterator<Item = Buffer> {
    cut(&chain.writable, 0, len)
}

/// A range to discard or zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ZeroRange {
    /// First byte.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) len: u64,
    /// Space may be given back.
    pub(super) unmap: bool,
}

/// Reads the segments of a discard or write-zeroes request and checks them all, before anything is
/// done (virtio 1.2 §5.2.6.2).
pub(super) fn zero_ranges(
    memory: &Ram,
    chain: &Chain,
    request: &Request,
    disk_size: u64,
) -> Result<Vec<ZeroRange>, Status> {
    let count = request.len / SEGMENT;
    let whole = request.len.is_multiple_of(SEGMENT);
    if !whole || count == 0 || count > u64::from(MAX_ZERO_SEGMENTS) {
        return Err(Status::IoError);
    }
    let mut ranges = Vec::new();
    for segment in 0..count {
        let mut bytes = [0; HEADER];
        let buffers: Vec<_> = cut(&chain.readable, 16 + segment * SEGMENT, SEGMENT).collect();
        if !read_from(memory, &buffers, &mut bytes) {
            return Err(Status::IoError);
        }
        ranges.push(zero_range(&bytes, request.operation, disk_size)?);
    }
    Ok(ranges)
}

fn zero_range(
    bytes: &[u8; HEADER],
    operation: Operation,
    disk_size: u64,
) -> Result<ZeroRange, Status> {
    let mut sector = [0; 8];
    let mut words = [[0; 4]; 2];
    sector.copy_from_slice(&bytes[..8]);
    words[0].copy_from_slice(&bytes[8..12]);
    words[1].copy_from_slice(&bytes[12..]);
    let [sectors, flags] = words.map(u32::from_le_bytes);
    let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
    let unknown = flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
    // The flag means something for write-zeroes only (virtio 1.2 §5.2.6.2).
    if unknown || (unmap && operation == Operation::Discard) {
        return Err(Status::Unsupported);
    }
    let offset = u64::from_le_bytes(sector).checked_mul(SECTOR_SIZE);
    let len = u64::from(sectors) * SECTOR_SIZE;
    match offset {
        Some(offset) if sectors <= MAX_ZERO_SECTORS && fits(offset, len, disk_size) => {
            Ok(ZeroRange { offset, len, unmap })
        }
        _ => Err(Status::IoError),
    }
}

/// Whether `offset..offset + len` lies on a disk of `size` bytes.
pub(super) fn fits(offset: u64, len: u64, size: u64) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= size)
}
