//! Importing an image file: one pass that copies what is not zeros and digests it on the way.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::digest::{DIGEST_BLOCK, DiskDigest};
use super::source::{self, Run, Source};
use super::{Ami, AmiStore, ImportOptions, Progress, StoreError};
use crate::io::{index, is_zero, len_u64, write_all_fd};

/// Zeros in steps of this many bytes become holes.
const HOLE: usize = 4096;

impl AmiStore {
    /// Registers the image `path` (raw, qcow2, VHD or VMDK) as an AMI. The file is copied; only what
    /// is not zeros takes space. `progress` hears of every step.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong with the image, or that the disk is full; then nothing is
    /// kept.
    pub fn import(
        &self,
        path: &Path,
        options: &ImportOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Ami, StoreError> {
        let mut source = source::open(path, options.allow_other_files)?;
        let draft = self.draft()?;
        let digest = copy(&mut *source, path, &draft.disk(), progress)?;
        draft.register(path, options, digest)
    }
}

fn copy(
    source: &mut dyn Source,
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<String, StoreError> {
    let size = source.size();
    let file = File::create_new(to).map_err(StoreError::io("make", to))?;
    file.set_len(size).map_err(StoreError::io("size", to))?;
    let unreadable = |e: std::io::Error| StoreError::Source {
        path: from.into(),
        why: e.to_string(),
    };
    let mut digest = DiskDigest::new(size);
    let mut buf = vec![0; index(DIGEST_BLOCK)];
    let mut at = 0;
    while at < size {
        progress(Progress {
            done: at,
            total: size,
        });
        match source.run(at).map_err(unreadable)? {
            // Blocks wholly within the zeros are passed over.
            Run::Zeros(len) if at + len == size => break,
            Run::Zeros(len) if (at + len) / DIGEST_BLOCK > at / DIGEST_BLOCK => {
                at = (at + len) / DIGEST_BLOCK * DIGEST_BLOCK;
                continue;
            }
            _ => {}
        }
        let block = &mut buf[..index(DIGEST_BLOCK.min(size - at))];
        read_block(source, at, block).map_err(unreadable)?;
        digest.add(at / DIGEST_BLOCK, block);
        for (i, chunk) in block.chunks(HOLE).enumerate() {
            if !is_zero(chunk) {
                let offset = at + len_u64(&[0; HOLE]) * u64::try_from(i).unwrap_or(0);
                write_all_fd(file.as_fd(), chunk, offset).map_err(StoreError::io("write", to))?;
            }
        }
        at += len_u64(block);
    }
    progress(Progress {
        done: size,
        total: size,
    });
    Ok(digest.finish())
}

/// Reads a block run by run, so that zeros need no reading.
fn read_block(source: &mut dyn Source, start: u64, block: &mut [u8]) -> std::io::Result<()> {
    let mut at = start;
    let mut rest = block;
    while !rest.is_empty() {
        let (len, zeros) = match source.run(at)? {
            Run::Data(len) => (len, false),
            Run::Zeros(len) => (len, true),
        };
        let len = len.min(len_u64(rest));
        let (now, later) = rest.split_at_mut(index(len));
        if zeros {
            now.fill(0);
        } else {
            source.read(at, now)?;
        }
        at += len;
        rest = later;
    }
    Ok(())
}
