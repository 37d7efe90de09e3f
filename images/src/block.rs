//! The seam between storage and the hypervisor: [`BlockBackend`].
//!
//! A backend does not move the guest's data itself. It tells where a range
//! lives ([`Place`]) and the caller moves the bytes straight between guest
//! memory and that file, synchronously or through `io_uring`, without a copy.
//! Only where no file holds the plain bytes (a compressed or encrypted block)
//! does the backend copy through a buffer ([`Place::Buffered`]).
//!
//! Offsets and lengths are in bytes. The caller keeps them multiples of 512.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

/// Bytes in a sector, the unit of virtio-blk (virtio 1.2 §5.2.4) and of partition tables.
pub const SECTOR_SIZE: u64 = 512;

/// Where the bytes of a range are.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In this file, beginning at `offset` bytes.
    File {
        /// The open file that holds the bytes.
        file: BorrowedFd<'a>,
        /// Offset of the first byte in that file.
        offset: u64,
    },
    /// Nowhere: the range reads as zeros (never returned for a write).
    Zeros,
    /// Not in a file as they are: use [`BlockBackend::read_buffered`] or
    /// [`BlockBackend::write_buffered`].
    Buffered,
}

/// The head of a range: `len` bytes that share one [`Place`].
#[derive(Debug, Clone, Copy)]
pub struct Extent<'a> {
    /// Where these bytes are.
    pub place: Place<'a>,
    /// How many bytes, from 1 to the length asked for.
    pub len: u64,
}

/// What a backend can do beyond read and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The guest may only read.
    pub read_only: bool,
    /// [`BlockBackend::discard`] gives space back to the host.
    pub discard: bool,
}

/// A disk that the hypervisor serves to a guest.
///
/// All methods may be called from several threads at once; ordering between
/// overlapping requests is the guest's business, as on a real disk.
pub trait BlockBackend: Send + Sync + fmt::Debug {
    /// Size in bytes, a multiple of [`SECTOR_SIZE`].
    fn size(&self) -> u64;

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Says where the head of `offset..offset + len` can be read.
    ///
    /// # Errors
    /// `InvalidInput` when the range leaves the disk; whatever the store says when the data is
    /// damaged or out of reach.
    fn locate_read(&self, offset: u64, len: u64) -> io::Result<Extent<'_>>;

    /// Prepares a write of `offset..offset + len` and says where its head goes.
    ///
    /// Blocks that the range touches only in part are filled from the parent first, so that the
    /// caller may write just its bytes. When the write is done the caller says so with
    /// [`BlockBackend::complete_write`]; until then reads may still see the old data.
    ///
    /// # Errors
    /// As [`BlockBackend::locate_read`]; `PermissionDenied` on a read-only disk; `StorageFull`.
    fn locate_write(&self, offset: u64, len: u64) -> io::Result<Extent<'_>>;

    /// Tells the backend that a write prepared by [`BlockBackend::locate_write`] has reached the
    /// file. Not called for a failed write.
    ///
    /// # Errors
    /// When the write cannot be recorded; the request must then fail.
    fn complete_write(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Reads bytes that [`BlockBackend::locate_read`] called [`Place::Buffered`].
    ///
    /// # Errors
    /// As [`BlockBackend::locate_read`].
    fn read_buffered(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes bytes that [`BlockBackend::locate_write`] called [`Place::Buffered`].
    ///
    /// # Errors
    /// As [`BlockBackend::locate_write`].
    fn write_buffered(&self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Makes everything completed so far durable: it survives `kill -9` and power loss
    /// (virtio 1.2 §5.2.6.2, `VIRTIO_BLK_T_FLUSH`).
    ///
    /// # Errors
    /// When the host could not make it durable. The guest must see the failure.
    fn flush(&self) -> io::Result<()>;

    /// The guest no longer needs the range; it reads as zeros afterwards and its space is given
    /// back where a whole file system block is covered.
    ///
    /// # Errors
    /// As [`BlockBackend::locate_write`].
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes the range read as zeros; gives the space back if `unmap` and the host can.
    ///
    /// # Errors
    /// As [`BlockBackend::locate_write`].
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}

/// A backend of which nothing can be changed.
#[derive(Debug)]
pub struct ReadOnly<B>(pub B);

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the disk is read-only")
}

impl<B: BlockBackend> BlockBackend for ReadOnly<B> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            read_only: true,
            discard: false,
        }
    }

    fn locate_read(&self, offset: u64, len: u64) -> io::Result<Extent<'_>> {
        self.0.locate_read(offset, len)
    }

    fn locate_write(&self, _: u64, _: u64) -> io::Result<Extent<'_>> {
        Err(refused())
    }

    fn complete_write(&self, _: u64, _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn read_buffered(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_buffered(offset, buf)
    }

    fn write_buffered(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(refused())
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(refused())
    }
}
