//! A file of an image as `Read` and `Seek`.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use super::Source;
use crate::io::{index, len_u64};

/// An open file of an image. Reads are streamed; nothing is kept in memory.
pub struct FileReader {
    source: Box<dyn Source>,
    size: u64,
    at: u64,
}

impl FileReader {
    pub(super) fn new(source: Box<dyn Source>, size: u64) -> Self {
        Self {
            source,
            size,
            at: 0,
        }
    }

    /// Bytes of the file.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader")
            .field("size", &self.size)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Read for FileReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = index(self.size.saturating_sub(self.at).min(len_u64(buf)));
        let mut done = 0;
        while done < want {
            let n = self
                .source
                .read_at(self.at, &mut buf[done..want])?
                .min(want - done);
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += len_u64(&buf[..n]);
            done += n;
        }
        Ok(done)
    }
}

impl Seek for FileReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = seek_to(self.at, self.size, to)?;
        Ok(self.at)
    }
}

/// Where a seek leads.
pub(crate) fn seek_to(at: u64, size: u64, to: SeekFrom) -> io::Result<u64> {
    let target = match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::Current(by) => at.checked_add_signed(by),
        SeekFrom::End(by) => size.checked_add_signed(by),
    };
    target.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
