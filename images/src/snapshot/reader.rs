//! Reading snapshots, and what changed between two.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::block::{BLOCK, Digest, Key, SNAPSHOT_BLOCK, decode};
use super::error::SnapshotError;
use super::manifest::{Manifest, SnapshotInfo};
use super::objects::Objects;
use crate::io::{index, len_u64};

/// Plain blocks that a reader keeps: 4 MiB.
const CACHED: usize = 8;

/// An open snapshot. May be used by several threads at once.
#[derive(Debug)]
pub struct SnapshotReader {
    objects: Arc<dyn Objects>,
    manifest: Manifest,
    /// The last used block is in front.
    cache: Mutex<VecDeque<(Key, Arc<Vec<u8>>)>>,
}

impl SnapshotReader {
    pub(super) fn new(objects: Arc<dyn Objects>, manifest: Manifest) -> Self {
        Self {
            objects,
            manifest,
            cache: Mutex::default(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> &SnapshotInfo {
        &self.manifest.info
    }

    /// Which blocks it has.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Fills `buf` with the volume's bytes from `offset` on.
    ///
    /// # Errors
    /// [`SnapshotError::Range`] when that leaves the volume; [`SnapshotError::Damaged`] or
    /// [`SnapshotError::Missing`] with the block's name; the system's own. `buf` then holds nothing
    /// of use.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SnapshotError> {
        let info = &self.manifest.info;
        let inside = offset
            .checked_add(len_u64(buf))
            .is_some_and(|end| end <= info.volume_size);
        if !inside {
            return Err(SnapshotError::Range {
                id: info.id.clone(),
                offset,
                len: len_u64(buf),
                size: info.volume_size,
            });
        }
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let from = index(at % SNAPSHOT_BLOCK);
            let len = rest.len().min(BLOCK - from);
            let (head, tail) = rest.split_at_mut(len);
            match self.block(at / SNAPSHOT_BLOCK)? {
                Some(block) => head.copy_from_slice(&block[from..from + len]),
                None => head.fill(0),
            }
            at += len_u64(head);
            rest = tail;
        }
        Ok(())
    }

    /// A whole block of 512 KiB, behind the volume's end zeros; `None` for a block of zeros.
    ///
    /// # Errors
    /// As [`SnapshotReader::read_at`].
    pub fn block(&self, number: u64) -> Result<Option<Arc<Vec<u8>>>, SnapshotError> {
        let Some(key) = self.manifest.key(number) else {
            return Ok(None);
        };
        if let Some(block) = self.cached(key) {
            return Ok(Some(block));
        }
        let block = Arc::new(fetch(&*self.objects, &key)?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|(other, _)| *other != key);
        cache.push_front((key, block.clone()));
        cache.truncate(CACHED);
        Ok(Some(block))
    }

    fn cached(&self, key: Key) -> Option<Arc<Vec<u8>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cache.iter().position(|(other, _)| *other == key)?;
        let hit = cache.remove(at)?;
        let block = hit.1.clone();
        cache.push_front(hit);
        Some(block)
    }
}

/// Reads and checks a block.
pub(super) fn fetch(objects: &dyn Objects, key: &Key) -> Result<Vec<u8>, SnapshotError> {
    let name = key.name();
    let object = objects
        .get(&name)
        .map_err(SnapshotError::io("read", &name))?;
    decode(key, &object)
}

/// A block that two snapshots do not share (EBS direct APIs, `ListChangedBlocks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedBlock {
    /// Its index.
    pub index: u64,
    /// What the first snapshot has there; `None` for zeros.
    pub first: Option<Digest>,
    /// What the second snapshot has there; `None` for zeros.
    pub second: Option<Digest>,
}

/// The blocks whose content differs, by rising index.
#[must_use]
pub fn changed_blocks(first: &Manifest, second: &Manifest) -> Vec<ChangedBlock> {
    let mut out = Vec::new();
    let mut a = first.blocks().peekable();
    let mut b = second.blocks().peekable();
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return out,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((i, _)), Some((j, _))) => i.cmp(j),
        };
        let left = if order.is_le() { a.next() } else { None };
        let right = if order.is_ge() { b.next() } else { None };
        let changed = ChangedBlock {
            index: left.or(right).map_or(0, |(index, _)| index),
            first: left.map(|(_, digest)| digest),
            second: right.map(|(_, digest)| digest),
        };
        if changed.first != changed.second {
            out.push(changed);
        }
    }
}
