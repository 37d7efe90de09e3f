//! The digest of a disk: what it holds, whatever it is stored in.
//!
//! SHA-256 over the text `cumulet-disk-1`, a zero byte, the size, and for each block of 512 KiB that
//! is not all zeros its number and its own SHA-256 (numbers little-endian, 64 bits). Holes and zeros
//! are the same thing, so the cost grows with the data, not with the size.

use std::io;
use std::os::fd::AsFd;

use nix::unistd::{Whence, lseek};
use sha2::{Digest, Sha256};

use super::Progress;
use crate::io::{file_offset, index, is_zero, len_u64, read_exact_fd};

/// Bytes of a digest block; the block size of EBS snapshots.
pub const DIGEST_BLOCK: u64 = 512 * 1024;

/// Takes in a disk's blocks in rising order.
#[derive(Debug)]
pub(super) struct DiskDigest(Sha256);

impl DiskDigest {
    pub(super) fn new(size: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"cumulet-disk-1\0");
        hash.update(size.to_le_bytes());
        Self(hash)
    }

    /// Adds block number `number`; blocks of zeros are passed over.
    pub(super) fn add(&mut self, number: u64, block: &[u8]) {
        if is_zero(block) {
            return;
        }
        self.0.update(number.to_le_bytes());
        self.0.update(Sha256::digest(block));
    }

    /// `sha256:` and the hexadecimal digits.
    pub(super) fn finish(self) -> String {
        let hex: String = self
            .0
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        format!("sha256:{hex}")
    }
}

/// Runs of a sparse file that may hold data, as (start, end).
pub(super) fn data_runs(file: impl AsFd + Copy, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let seek = |from: u64, whence| match lseek(file, file_offset(from)?, whence) {
            Ok(at) => Ok(u64::try_from(at).ok()),
            Err(nix::errno::Errno::ENXIO) => Ok(None),
            Err(e) => Err(io::Error::from(e)),
        };
        let Some(start) = seek(at, Whence::SeekData)? else {
            break;
        };
        let end = seek(start, Whence::SeekHole)?.unwrap_or(size).min(size);
        if start >= end {
            break;
        }
        runs.push((start, end));
        at = end;
    }
    Ok(runs)
}

/// The digest of a raw file.
pub(super) fn of_file(
    file: impl AsFd + Copy,
    size: u64,
    progress: &mut dyn FnMut(Progress),
) -> io::Result<String> {
    let runs = data_runs(file, size)?;
    let mut report = Progress {
        done: 0,
        total: runs.iter().map(|(start, end)| end - start).sum(),
    };
    let mut digest = DiskDigest::new(size);
    let mut buf = vec![0; index(DIGEST_BLOCK)];
    let mut next = 0;
    for (start, end) in runs {
        for number in (start / DIGEST_BLOCK).max(next)..end.div_ceil(DIGEST_BLOCK) {
            let at = number * DIGEST_BLOCK;
            let block = &mut buf[..index(DIGEST_BLOCK.min(size - at))];
            read_exact_fd(file.as_fd(), block, at)?;
            digest.add(number, block);
            next = number + 1;
            report.done = (report.done + len_u64(block)).min(report.total);
            progress(report);
        }
    }
    report.done = report.total;
    progress(report);
    Ok(digest.finish())
}
