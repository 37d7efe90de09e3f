//! Plain reads and writes over a [`BlockBackend`], for code that wants bytes rather than places.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::uio::{pread, pwrite};

use crate::block::{BlockBackend, Place, SECTOR_SIZE};

/// Reads exactly `buf.len()` bytes at any `offset` (no alignment needed).
///
/// # Errors
/// `UnexpectedEof` when the range leaves the disk or its file is shorter than promised; whatever
/// the backend says otherwise.
pub fn read_at(disk: &dyn BlockBackend, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let end = offset.checked_add(len_u64(buf));
    if end.is_none_or(|end| end > disk.size()) {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "read of {} bytes at {offset} leaves the disk of {} bytes",
                buf.len(),
                disk.size()
            ),
        ));
    }
    let mut at = offset;
    let mut rest = buf;
    while !rest.is_empty() {
        let head = at % SECTOR_SIZE;
        let start = at - head;
        let want = (head + len_u64(rest)).next_multiple_of(SECTOR_SIZE);
        let extent = disk.locate_read(start, want)?;
        let usable = (extent.len - head).min(len_u64(rest));
        let (now, later) = rest.split_at_mut(index(usable));
        match extent.place {
            Place::File { file, offset } => read_exact_fd(file, now, offset + head)?,
            Place::Zeros => now.fill(0),
            Place::Buffered => {
                let mut sectors = vec![0; index((head + usable).next_multiple_of(SECTOR_SIZE))];
                disk.read_buffered(start, &mut sectors)?;
                now.copy_from_slice(&sectors[index(head)..index(head + usable)]);
            }
        }
        at += usable;
        rest = later;
    }
    Ok(())
}

/// Writes `buf` at `offset`, both multiples of [`SECTOR_SIZE`].
///
/// # Errors
/// Whatever the backend or the file below says.
pub fn write_at(disk: &dyn BlockBackend, offset: u64, buf: &[u8]) -> io::Result<()> {
    let mut at = offset;
    let mut rest = buf;
    while !rest.is_empty() {
        let extent = disk.locate_write(at, len_u64(rest))?;
        let (now, later) = rest.split_at(index(extent.len));
        match extent.place {
            Place::File { file, offset } => write_all_fd(file, now, offset)?,
            Place::Buffered => disk.write_buffered(at, now)?,
            Place::Zeros => {
                return Err(io::Error::other("backend has no place for a write"));
            }
        }
        disk.complete_write(at, extent.len)?;
        at += extent.len;
        rest = later;
    }
    Ok(())
}

/// `pread` until `buf` is full.
pub(crate) fn read_exact_fd(file: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        let at = file_offset(offset + len_u64(&buf[..done]))?;
        match pread(file.as_fd(), &mut buf[done..], at) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("file ends before byte {at}"),
                ));
            }
            Ok(n) => done += n,
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// `pwrite` until all of `buf` is written.
pub(crate) fn write_all_fd(file: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        let at = file_offset(offset + len_u64(&buf[..done]))?;
        match pwrite(file.as_fd(), &buf[done..], at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Makes a folder's entries durable.
pub(crate) fn sync_dir(path: &std::path::Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A file offset as the kernel wants it.
pub(crate) fn file_offset(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("offset {offset} is beyond any file"),
        )
    })
}

/// A length or offset that is known to lie within a buffer in memory.
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && tail.iter().all(|&byte| byte == 0)
}

/// The length of a buffer as a disk length.
pub(crate) fn len_u64(buf: &[u8]) -> u64 {
    u64::try_from(buf.len()).unwrap_or(u64::MAX)
}
