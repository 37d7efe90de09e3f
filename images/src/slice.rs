//! A range of a disk, read under a budget.
//!
//! Parsers of untrusted images read through a [`Slice`] only. All slices of one examination share a
//! [`Budget`], so that a hostile image (a directory that contains itself, a chain that never ends)
//! costs a bounded number of reads and not the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::block::BlockBackend;
use crate::io::{len_u64, read_at};

/// What a read costs beyond its bytes.
const READ_COST: u64 = 512;
/// What a cached read costs beyond its bytes.
const CACHED_COST: u64 = 64;

/// Bytes that may still be read.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicU64>);

impl Budget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Allows `bytes` more.
    pub fn add(&self, bytes: u64) {
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_add(bytes))
            });
    }

    fn spend(&self, bytes: u64) -> io::Result<()> {
        let spent = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            });
        match spent {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the image needs more reading than any sound image does: it is damaged or hostile",
            )),
        }
    }
}

/// `len` bytes of a disk from `start` on.
#[derive(Debug, Clone)]
pub struct Slice {
    disk: Arc<dyn BlockBackend>,
    budget: Budget,
    start: u64,
    len: u64,
}

impl Slice {
    /// The whole disk.
    #[must_use]
    pub fn whole(disk: &Arc<dyn BlockBackend>, budget: &Budget) -> Self {
        Self {
            disk: disk.clone(),
            budget: budget.clone(),
            start: 0,
            len: disk.size(),
        }
    }

    /// A part of this one; `None` when it leaves it.
    #[must_use]
    pub fn part(&self, start: u64, len: u64) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end <= self.len).then(|| Self {
            start: self.start + start,
            len,
            ..self.clone()
        })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` beyond the end, `QuotaExceeded` when the budget is spent, or the disk's own.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(len_u64(buf));
        if end.is_none_or(|end| end > self.len) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{} bytes at {offset} lie behind the end of the partition ({} bytes)",
                    buf.len(),
                    self.len
                ),
            ));
        }
        self.budget.spend(READ_COST + len_u64(buf))?;
        read_at(&*self.disk, self.start + offset, buf)
    }

    /// Pays for `bytes` that a parser took from memory, so that a loop over cached blocks ends too.
    ///
    /// # Errors
    /// `QuotaExceeded` when the budget is spent.
    pub fn charge(&self, bytes: usize) -> io::Result<()> {
        self.budget
            .spend(CACHED_COST + u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// The `N` bytes at `offset`.
    ///
    /// # Errors
    /// As [`Slice::read`].
    pub fn bytes<const N: usize>(&self, offset: u64) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        self.read(offset, &mut out)?;
        Ok(out)
    }
}

/// Little-endian number at `at`; zero when the bytes are too few.
pub(crate) fn le(bytes: &[u8], at: usize, width: usize) -> u64 {
    let field = bytes.get(at..at + width).unwrap_or_default();
    field
        .iter()
        .rev()
        .fold(0, |acc, &b| acc << 8 | u64::from(b))
}
