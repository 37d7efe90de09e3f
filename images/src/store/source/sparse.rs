//! What dynamic VHD and sparse VMDK have in common: a table of grains in one file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::{Run, Source};
use crate::io::{index, len_u64, read_exact_fd};

/// Where a grain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// Nowhere: zeros.
    Zeros,
    /// In the file at this byte.
    At(u64),
    /// Deflated in the file, behind a marker at this byte (streamOptimized VMDK).
    Deflated(u64),
}

/// A disk of equal grains.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) grain_size: u64,
    /// One entry a grain.
    pub(super) grains: Vec<Grain>,
}

/// Largest grain table: 64 Mi entries would be a disk of 4 TiB in 64 KiB grains.
pub(super) const MAX_GRAINS: u64 = 64 << 20;

impl Source for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn run(&mut self, offset: u64) -> io::Result<Run> {
        let number = offset / self.grain_size;
        let zeros =
            |i: u64| self.grains.get(index(i)).copied().unwrap_or(Grain::Zeros) == Grain::Zeros;
        let first = zeros(number);
        let mut end = number + 1;
        while end * self.grain_size < self.size && zeros(end) == first {
            end += 1;
        }
        let len = (end * self.grain_size).min(self.size) - offset;
        Ok(if first {
            Run::Zeros(len)
        } else {
            Run::Data(len)
        })
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let number = at / self.grain_size;
            let within = at % self.grain_size;
            let len = (self.grain_size - within).min(len_u64(rest));
            let (now, later) = rest.split_at_mut(index(len));
            match self
                .grains
                .get(index(number))
                .copied()
                .unwrap_or(Grain::Zeros)
            {
                Grain::Zeros => now.fill(0),
                Grain::At(start) => read_exact_fd(self.file.as_fd(), now, start + within)
                    .map_err(|e| truncated(e, at))?,
                Grain::Deflated(start) => {
                    let grain = self.inflate(start).map_err(|e| truncated(e, at))?;
                    now.copy_from_slice(&grain[index(within)..index(within + len)]);
                }
            }
            at += len;
            rest = later;
        }
        Ok(())
    }
}

impl Sparse {
    /// Unpacks the grain behind the marker at `start`: sector number (8 bytes), length (4), zlib data.
    fn inflate(&self, start: u64) -> io::Result<Vec<u8>> {
        let mut marker = [0; 12];
        read_exact_fd(self.file.as_fd(), &mut marker, start)?;
        let len = crate::slice::le(&marker, 8, 4);
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        if len > 2 * self.grain_size + 4096 {
            return Err(wrong(format!("a compressed grain of {len} bytes")));
        }
        let mut packed = vec![0; index(len)];
        read_exact_fd(self.file.as_fd(), &mut packed, start + 12)?;
        let limit = index(self.grain_size);
        let mut out = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, limit)
            .map_err(|e| wrong(format!("a compressed grain is damaged: {e}")))?;
        out.resize(limit, 0);
        Ok(out)
    }
}

fn truncated(e: io::Error, at: u64) -> io::Error {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        let why = format!("the file is truncated: data of the disk's byte {at} is missing");
        return io::Error::new(e.kind(), why);
    }
    e
}

/// Reads a table of 32-bit numbers.
pub(super) fn table(file: &File, at: u64, entries: u64) -> io::Result<Vec<[u8; 4]>> {
    let mut bytes = vec![0; index(entries * 4)];
    read_exact_fd(file.as_fd(), &mut bytes, at)?;
    Ok(bytes.as_chunks::<4>().0.to_vec())
}
