//! A read or write laid out over the backend's extents, and its synchronous execution.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use cumulet_images::block::{BlockBackend, Place};
use vm_memory::GuestAddress;

use crate::virtio::Ram;
use crate::virtio::chain::{Buffer, IoVecs, cut, read_from, write_to};

/// Most ranges of one `preadv` (UIO_MAXIOV in Linux).
const MAX_RANGES: usize = 1024;
/// Bytes copied at once where the backend has no file to point to.
const BOUNCE: u64 = 64 * 1024;

/// Direction of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Disk to guest.
    Read,
    /// Guest to disk.
    Write,
}

/// Bytes that lie in one file, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// The backend's file; open as long as the backend lives.
    pub(super) file: RawFd,
    /// Offset in that file.
    pub(super) file_offset: u64,
    /// Offset on the disk.
    disk_offset: u64,
    /// Bytes.
    pub(super) len: u64,
    /// Memory ranges, by index, `first..end`.
    first: usize,
    end: usize,
}

/// One read or write. Kept and reused, so that steady state allocates nothing.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Which queue it came from.
    pub(super) queue: u16,
    /// Its chain's head.
    pub(super) head: u16,
    /// Where its status byte goes.
    pub(super) status: GuestAddress,
    /// Which way.
    pub(super) direction: Direction,
    /// Bytes in all.
    pub(super) len: u64,
    /// Parts that are with `io_uring` now.
    pub(super) outstanding: usize,
    /// Some part failed.
    pub(super) failed: bool,
    /// All parts were moved already.
    pub(super) done: bool,
    ranges: IoVecs,
    parts: Vec<Part>,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            queue: 0,
            head: 0,
            status: GuestAddress(0),
            direction: Direction::Read,
            len: 0,
            outstanding: 0,
            failed: false,
            done: false,
            ranges: IoVecs::default(),
            parts: Vec::new(),
        }
    }
}

impl Transfer {
    /// The parts that a file serves.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Memory ranges of a part.
    pub(super) fn ranges(&self, part: &Part) -> &[libc::iovec] {
        &self.ranges.as_slice()[part.first..part.end]
    }

    /// Lays `len` bytes at `offset` of the disk out over extents and memory. What no file can serve
    /// (zeros, compressed blocks) is done here at once.
    ///
    /// # Errors
    /// `InvalidInput` for buffers outside RAM; whatever the backend says.
    pub(super) fn plan(
        &mut self,
        backend: &dyn BlockBackend,
        memory: &Ram,
        buffers: &[Buffer],
        offset: u64,
    ) -> io::Result<()> {
        self.outstanding = 0;
        self.failed = false;
        self.done = false;
        self.parts.clear();
        self.ranges.clear();
        for buffer in buffers {
            if !self.ranges.push(memory, *buffer) {
                return Err(outside());
            }
        }
        let mut done = 0;
        let mut first = 0;
        while done < self.len {
            let at = offset + done;
            let left = self.len - done;
            let extent = match self.direction {
                Direction::Read => backend.locate_read(at, left)?,
                Direction::Write => backend.locate_write(at, left)?,
            };
            if extent.len == 0 || extent.len > left {
                return Err(io::Error::other(
                    "the disk's backend gave an impossible extent",
                ));
            }
            let end = self.ranges.split_at(first, done, done + extent.len);
            match extent.place {
                Place::File { file, offset } => self.add_part(Part {
                    file: file.as_raw_fd(),
                    file_offset: offset,
                    disk_offset: at,
                    len: extent.len,
                    first,
                    end,
                }),
                Place::Zeros if self.direction == Direction::Write => {
                    return Err(io::Error::other("the disk's backend writes to nowhere"));
                }
                Place::Zeros => fill_zeros(memory, buffers, done, extent.len)?,
                Place::Buffered => self.bounce(backend, memory, buffers, (done, at, extent.len))?,
            }
            first = end;
            done += extent.len;
        }
        Ok(())
    }

    /// Appends a part, or makes the last one longer if this one follows it in the same file.
    fn add_part(&mut self, part: Part) {
        if let Some(last) = self.parts.last_mut()
            && last.file == part.file
            && last.file_offset.checked_add(last.len) == Some(part.file_offset)
            && last.disk_offset + last.len == part.disk_offset
        {
            last.len += part.len;
            last.end = part.end;
        } else {
            self.parts.push(part);
        }
    }

    fn bounce(
        &self,
        backend: &dyn BlockBackend,
        memory: &Ram,
        buffers: &[Buffer],
        (mut done, mut at, len): (u64, u64, u64),
    ) -> io::Result<()> {
        let end = at + len;
        let start = at;
        let capacity = usize::try_from(len.min(BOUNCE)).map_err(io::Error::other)?;
        let mut bytes = vec![0; capacity];
        while at < end {
            let size = (end - at).min(BOUNCE);
            let chunk = &mut bytes[..usize::try_from(size).map_err(io::Error::other)?];
            let guest: Vec<_> = cut(buffers, done, size).collect();
            let moved = match self.direction {
                Direction::Read => {
                    backend.read_buffered(at, chunk)?;
                    write_to(memory, &guest, chunk)
                }
                Direction::Write => {
                    let read = read_from(memory, &guest, chunk);
                    if read {
                        backend.write_buffered(at, chunk)?;
                    }
                    read
                }
            };
            if !moved {
                return Err(outside());
            }
            at += size;
            done += size;
        }
        match self.direction {
            Direction::Read => Ok(()),
            Direction::Write => backend.complete_write(start, len),
        }
    }

    /// Reads all parts if none of them has to wait for a device; says whether that was so. If not,
    /// they have yet to be read, all of them.
    ///
    /// # Errors
    /// `Unsupported` when the host cannot tell.
    pub(super) fn run_cached(&mut self) -> io::Result<bool> {
        for part in &self.parts {
            let ranges = self.ranges(part);
            let ranges = &ranges[..ranges.len().min(MAX_RANGES)];
            match vectored(self.direction, part.file, ranges, part.file_offset, true) {
                Ok(got) if u64::try_from(got).ok() == Some(part.len) => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
                // Short, or it would wait, or a real error: the usual way finds out.
                _ => return Ok(false),
            }
        }
        self.done = true;
        Ok(true)
    }

    /// Moves all parts now, with plain system calls.
    ///
    /// # Errors
    /// What the host says; `UnexpectedEof` when the file is shorter than its disk.
    pub(super) fn run(&mut self, backend: &dyn BlockBackend) -> io::Result<()> {
        for index in 0..self.parts.len() {
            self.finish_part(backend, index, 0)?;
        }
        Ok(())
    }

    /// Moves what is left of a part of which `done` bytes were moved already, and completes it.
    ///
    /// # Errors
    /// As [`Transfer::run`].
    pub(super) fn finish_part(
        &mut self,
        backend: &dyn BlockBackend,
        index: usize,
        done: u64,
    ) -> io::Result<()> {
        let part = self.parts[index];
        let moved = usize::try_from(done).map_err(io::Error::other)?;
        let mut first = self.ranges.advance(part.first, moved);
        let mut offset = part.file_offset + done;
        let mut left = part.len - done;
        while left > 0 {
            let end = part.end.min(first + MAX_RANGES);
            let ranges = &self.ranges.as_slice()[first..end];
            let got = vectored(self.direction, part.file, ranges, offset, false)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            first = self.ranges.advance(first, got);
            let got = u64::try_from(got).map_err(io::Error::other)?;
            offset += got;
            left = left.saturating_sub(got);
        }
        match self.direction {
            Direction::Read => Ok(()),
            Direction::Write => backend.complete_write(part.disk_offset, part.len),
        }
    }
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "buffer outside guest memory")
}

fn fill_zeros(memory: &Ram, buffers: &[Buffer], done: u64, len: u64) -> io::Result<()> {
    static ZEROS: [u8; 4096] = [0; 4096];
    for buffer in cut(buffers, done, len) {
        let mut at = 0;
        while at < buffer.len {
            let size = (buffer.len - at).min(4096);
            let piece = cut(std::slice::from_ref(&buffer), at.into(), size.into());
            let zeros = &ZEROS[..usize::try_from(size).map_err(io::Error::other)?];
            for part in piece {
                if !write_to(memory, &[part], zeros) {
                    return Err(outside());
                }
            }
            at += size;
        }
    }
    Ok(())
}

/// `preadv2` or `pwritev2`, if need be only of what is in the page cache; a signal does not end it.
fn vectored(
    direction: Direction,
    file: RawFd,
    ranges: &[libc::iovec],
    offset: u64,
    cached_only: bool,
) -> io::Result<usize> {
    let flags = if cached_only { libc::RWF_NOWAIT } else { 0 };
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let count = libc::c_int::try_from(ranges.len()).map_err(io::Error::other)?;
    loop {
        // SAFETY: the ranges lie in guest RAM, which the handler keeps mapped; the kernel checks
        // the descriptor, which the backend keeps open.
        let moved = unsafe {
            match direction {
                Direction::Read => libc::preadv2(file, ranges.as_ptr(), count, offset, flags),
                Direction::Write => libc::pwritev2(file, ranges.as_ptr(), count, offset, flags),
            }
        };
        if let Ok(moved) = usize::try_from(moved) {
            return Ok(moved);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
