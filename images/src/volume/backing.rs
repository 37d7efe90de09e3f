//! The few system calls a volume makes on its own files, behind a seam so that tests can let any
//! of them fail and can lose what was not yet synced.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FallocateFlags, fallocate};

use crate::io::{file_offset, len_u64, write_all_fd};

/// One of a volume's files.
pub(super) trait Backing: Send + Sync + fmt::Debug {
    /// The file itself, for callers that move bytes past us.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Writes all of `buf` at `offset`.
    fn write(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    /// Zeros the range and gives its space back.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Zeros the range and keeps its space.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// A file of the host.
#[derive(Debug)]
pub(super) struct HostFile(pub(super) File);

impl HostFile {
    fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
        loop {
            return match fallocate(&self.0, mode, file_offset(offset)?, file_offset(len)?) {
                Ok(()) => Ok(true),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::EOPNOTSUPP) => Ok(false),
                Err(e) => Err(e.into()),
            };
        }
    }

    /// Zeros by writing, for file systems which know no better.
    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; 256 * 1024];
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let now = (end - at).min(len_u64(&zeros));
            write_all_fd(self.0.as_fd(), &zeros[..crate::io::index(now)], at)?;
            at += now;
        }
        Ok(())
    }
}

impl Backing for HostFile {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        write_all_fd(self.0.as_fd(), buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if self.allocate(mode, offset, len)? {
            return Ok(());
        }
        self.write_zeros(offset, len)
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let mode = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if self.allocate(mode, offset, len)? {
            return Ok(());
        }
        self.write_zeros(offset, len)
    }
}
