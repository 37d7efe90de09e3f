//! A boot file: one file of the image, or several which count as one.

use std::io::{self, Read, Seek, SeekFrom};

use crate::fs::{FileReader, seek_to};
use crate::io::{index, len_u64};

/// A kernel or initial RAM disk, streamed from the image.
///
/// Several initrds of one entry are joined, each padded with zeros to a multiple of 4 bytes, as boot
/// loaders do.
#[derive(Debug)]
pub struct BootFile {
    paths: Vec<String>,
    parts: Vec<Part>,
    size: u64,
    at: u64,
}

#[derive(Debug)]
struct Part {
    file: FileReader,
    start: u64,
}

impl BootFile {
    /// Joins `files`, each with its path.
    pub(super) fn join(files: Vec<(String, FileReader)>) -> Self {
        let mut joined = Self {
            paths: Vec::new(),
            parts: Vec::new(),
            size: 0,
            at: 0,
        };
        for (path, file) in files {
            let start = joined.size.next_multiple_of(4);
            joined.size = start + file.len();
            joined.paths.push(path);
            joined.parts.push(Part { file, start });
        }
        joined
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it is in its file system; joined files separated by a space.
    #[must_use]
    pub fn path(&self) -> String {
        self.paths.join(" ")
    }
}

impl Read for BootFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.size || buf.is_empty() {
            return Ok(0);
        }
        let i = self.parts.partition_point(|part| part.start <= self.at);
        let Some(part) = i.checked_sub(1).and_then(|i| self.parts.get_mut(i)) else {
            return Ok(0);
        };
        let within = self.at - part.start;
        let n = if within < part.file.len() {
            part.file.seek(SeekFrom::Start(within))?;
            part.file.read(buf)?
        } else {
            // Between this part and the next.
            let next = self.parts.get(i).map_or(self.size, |part| part.start);
            let n = index((next - self.at).min(len_u64(buf)));
            buf[..n].fill(0);
            n
        };
        self.at += len_u64(&buf[..n]);
        Ok(n)
    }
}

impl Seek for BootFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = seek_to(self.at, self.size, to)?;
        Ok(self.at)
    }
}
