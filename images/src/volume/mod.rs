//! Copy-on-write volumes: a disk that begins as an image and costs nothing until it is written.
//!
//! A volume is a folder:
//!
//! ```text
//! volume.json   what it is: size, parent image, format version
//! data          sparse, as long as the volume: own blocks at their own offsets
//! map           which 4 KiB blocks are the volume's own (module `presence`)
//! lock          locked by the process that has it open
//! ```
//!
//! A block that is in the map is read from `data`, any other from the parent, and beyond the parent
//! (or without one) it is zeros. A block once in the map never leaves it, so that after a discard the
//! parent does not shine through again.
//!
//! # What is durable when
//! [`BlockBackend::flush`] first takes a copy of the changed map sectors, then syncs `data`, then
//! writes the copies to `map` and syncs that. So no block is in the durable map before its bytes are
//! durable, and when `flush` has returned, every write completed before it survives `kill -9` and
//! power loss. Of later writes any part may survive. A failed sync is final for this opening: the
//! kernel may have dropped what it could not write, so every later flush fails as well.
//!
//! # Locks
//! `fills` (one stripe) and `flush` are never held together.

mod backing;
mod folder;
mod meta;
mod presence;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::unistd::{Whence, lseek};

pub use self::meta::{FORMAT, Parent, VolumeError, VolumeSpec};
pub use self::presence::MapDamage;

use self::backing::{Backing, HostFile};
use self::presence::{DirtyRun, MAP_SECTOR, MAP_SECTOR_U64, Presence, sectors_for};
use crate::block::{BlockBackend, Capabilities, Extent, Place, SECTOR_SIZE};
use crate::io::{index, len_u64, read_exact_fd};

/// Bytes of a block, the unit of copy-on-write.
pub const BLOCK_SIZE: u64 = 4096;
const BLOCK: usize = 4096;
const FILL_STRIPES: u64 = 16;
/// Map sectors written back under one sync of the data: bounds a flush's memory.
const FLUSH_BATCH: usize = 2048 * MAP_SECTOR;

/// An open volume; at most one process has it open.
#[derive(Debug)]
pub struct Volume {
    spec: VolumeSpec,
    dir: PathBuf,
    data: Box<dyn Backing>,
    map: Box<dyn Backing>,
    parent: Option<File>,
    presence: Presence,
    /// Blocks completed from the parent whose first write is still on its way; striped by block.
    fills: Vec<Mutex<HashSet<u64>>>,
    /// Holds whether a sync has failed.
    flush: Mutex<bool>,
    _lock: Option<File>,
}

impl Volume {
    /// Makes the volume `spec` in the new folder `dir`. Nothing is copied; the cost does not depend
    /// on its size. When this returns, the volume survives power loss.
    ///
    /// # Errors
    /// [`VolumeError::Exists`], [`VolumeError::Size`] or the system's own; nothing is left behind.
    pub fn create(dir: &Path, spec: &VolumeSpec) -> Result<(), VolumeError> {
        folder::create(dir, spec)
    }

    /// Opens the volume in `dir`, for this process alone.
    ///
    /// # Errors
    /// [`VolumeError::InUse`] when another has it; an error that names the damage when a file of it
    /// or its parent is not what it was.
    pub fn open(dir: &Path) -> Result<Self, VolumeError> {
        let spec = folder::read_spec(dir)?;
        let lock = folder::lock(dir)?;
        let data = open_exact(&dir.join(folder::DATA), spec.size)?;
        let blocks = spec.size.div_ceil(BLOCK_SIZE);
        let map_path = dir.join(folder::MAP);
        let map = open_exact(&map_path, sectors_for(blocks) * MAP_SECTOR_U64)?;
        let parent = match &spec.parent {
            Some(parent) => Some(open_parent(dir, parent)?),
            None => None,
        };
        let presence = Presence::new(blocks);
        load_map(&map, &map_path, &presence)?;
        Ok(Self {
            data: Box::new(HostFile(data)),
            map: Box::new(HostFile(map)),
            parent,
            presence,
            fills: stripes(),
            flush: Mutex::new(false),
            _lock: Some(lock),
            dir: dir.into(),
            spec,
        })
    }

    /// Removes the volume in `dir` with all its data.
    ///
    /// # Errors
    /// [`VolumeError::InUse`], [`VolumeError::Missing`] or the system's own.
    pub fn remove(dir: &Path) -> Result<(), VolumeError> {
        folder::remove(dir)
    }

    /// Reads what the volume in `dir` is, without opening it.
    ///
    /// # Errors
    /// [`VolumeError::Missing`], [`VolumeError::Description`], [`VolumeError::Format`].
    pub fn describe(dir: &Path) -> Result<VolumeSpec, VolumeError> {
        folder::read_spec(dir)
    }

    /// What it is.
    #[must_use]
    pub fn spec(&self) -> &VolumeSpec {
        &self.spec
    }

    /// Bytes that are its own rather than its parent's.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.presence.count() * BLOCK_SIZE
    }

    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        let aligned = offset.is_multiple_of(SECTOR_SIZE) && len.is_multiple_of(SECTOR_SIZE);
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.spec.size);
        if aligned && inside && len > 0 {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{len} bytes at {offset} is no range of volume {} ({} bytes)",
                self.spec.id, self.spec.size
            ),
        ))
    }

    fn parent_size(&self) -> u64 {
        self.spec.parent.as_ref().map_or(0, |parent| parent.size)
    }

    /// The blocks of the range that it covers only in part, and which must therefore hold the
    /// parent's bytes first. (The volume's last block ends where the volume ends.)
    fn partial(&self, offset: u64, len: u64) -> impl Iterator<Item = u64> {
        let end = offset + len;
        let first = offset / BLOCK_SIZE;
        let last = (end - 1) / BLOCK_SIZE;
        let head = !offset.is_multiple_of(BLOCK_SIZE);
        let tail = !end.is_multiple_of(BLOCK_SIZE) && end != self.spec.size;
        let head = (head || (tail && first == last)).then_some(first);
        let tail = (tail && Some(last) != head).then_some(last);
        head.into_iter().chain(tail)
    }

    fn stripe(&self, block: u64) -> MutexGuard<'_, HashSet<u64>> {
        // The set is consistent between any two of its operations: a panic elsewhere is no harm.
        self.fills[index(block % FILL_STRIPES)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes `block` from the parent, once.
    fn fill(&self, block: u64) -> io::Result<()> {
        if self.presence.get(block) {
            return Ok(());
        }
        let mut filled = self.stripe(block);
        // Looked at again under the lock: `settle` marks the block before it forgets the fill.
        if self.presence.get(block) || filled.contains(&block) {
            return Ok(());
        }
        let offset = block * BLOCK_SIZE;
        let len = index(BLOCK_SIZE.min(self.spec.size - offset));
        let mut buf = [0; BLOCK];
        if let Some(parent) = &self.parent {
            let from_parent = index(self.parent_size().saturating_sub(offset)).min(len);
            read_exact_fd(parent.as_fd(), &mut buf[..from_parent], offset)?;
        }
        self.data.write(&buf[..len], offset)?;
        filled.insert(block);
        Ok(())
    }

    /// The range has been written: its blocks are the volume's own.
    fn settle(&self, offset: u64, len: u64) {
        let first = offset / BLOCK_SIZE;
        let count = (offset + len).div_ceil(BLOCK_SIZE) - first;
        self.presence.set(first, count);
        for block in self.partial(offset, len) {
            self.stripe(block).remove(&block);
        }
    }

    /// Zeros a range, by a hole or in place.
    fn clear(&self, offset: u64, len: u64, hole: bool) -> io::Result<()> {
        for block in self.partial(offset, len) {
            self.fill(block)?;
        }
        if hole {
            self.data.punch(offset, len)?;
        } else {
            self.data.zero(offset, len)?;
        }
        self.settle(offset, len);
        Ok(())
    }

    /// As [`Volume::clear`] with holes, but leaves alone what reads as zeros anyhow, so that a
    /// discard of a whole new disk costs nothing.
    fn discard_range(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let block = at / BLOCK_SIZE;
            let blocks = end.div_ceil(BLOCK_SIZE) - block;
            let (present, run) = self.presence.run(block, blocks);
            let stop = ((block + run) * BLOCK_SIZE).min(end);
            let zero_from = self.parent_size().next_multiple_of(BLOCK_SIZE).max(at);
            let stop_own = if present { stop } else { stop.min(zero_from) };
            if at < stop_own {
                self.clear(at, stop_own - at, true)?;
            }
            at = stop;
        }
        Ok(())
    }

    fn write_back(&self, runs: &[DirtyRun], failed: &mut bool) -> io::Result<()> {
        let name = |what: &str, e: io::Error| {
            io::Error::new(
                e.kind(),
                format!("{}: cannot {what}: {e}", self.dir.display()),
            )
        };
        if let Err(e) = self.data.sync() {
            *failed = true;
            return Err(name("sync data", e));
        }
        if runs.is_empty() {
            return Ok(());
        }
        for run in runs {
            self.map
                .write(&run.bytes, run.first * MAP_SECTOR_U64)
                .map_err(|e| name("write map", e))?;
        }
        self.map.sync().map_err(|e| {
            *failed = true;
            name("sync map", e)
        })
    }
}

impl BlockBackend for Volume {
    fn size(&self) -> u64 {
        self.spec.size
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            read_only: false,
            discard: true,
        }
    }

    fn locate_read(&self, offset: u64, len: u64) -> io::Result<Extent<'_>> {
        self.check(offset, len)?;
        let first = offset / BLOCK_SIZE;
        let blocks = (offset + len).div_ceil(BLOCK_SIZE) - first;
        let (present, run) = self.presence.run(first, blocks);
        let len = len.min((first + run) * BLOCK_SIZE - offset);
        if present {
            let file = self.data.fd();
            return Ok(Extent {
                place: Place::File { file, offset },
                len,
            });
        }
        let below = self.parent_size().saturating_sub(offset);
        Ok(match &self.parent {
            Some(parent) if below > 0 => Extent {
                place: Place::File {
                    file: parent.as_fd(),
                    offset,
                },
                len: len.min(below),
            },
            _ => Extent {
                place: Place::Zeros,
                len,
            },
        })
    }

    fn locate_write(&self, offset: u64, len: u64) -> io::Result<Extent<'_>> {
        self.check(offset, len)?;
        for block in self.partial(offset, len) {
            self.fill(block)?;
        }
        let file = self.data.fd();
        Ok(Extent {
            place: Place::File { file, offset },
            len,
        })
    }

    fn complete_write(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        self.settle(offset, len);
        Ok(())
    }

    fn read_buffered(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_buffered(&self, _offset: u64, _buf: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&self) -> io::Result<()> {
        let mut failed = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(io::Error::other(format!(
                "{}: an earlier sync failed, so flushed data can no longer be promised; \
                 mend the host's disk and start the instance again",
                self.dir.display()
            )));
        }
        let groups = self.presence.groups();
        let mut next = 0;
        loop {
            let mut runs = Vec::new();
            let mut bytes = 0;
            while next < groups && bytes < FLUSH_BATCH {
                let taken = self.presence.take_dirty(next);
                bytes += taken.iter().map(|run| run.bytes.len()).sum::<usize>();
                runs.extend(taken);
                next += 1;
            }
            if let Err(e) = self.write_back(&runs, &mut failed) {
                self.presence.give_back(&runs);
                return Err(e);
            }
            if next == groups {
                return Ok(());
            }
        }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        self.discard_range(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check(offset, len)?;
        if unmap {
            return self.discard_range(offset, len);
        }
        self.clear(offset, len, false)
    }
}

impl Drop for Volume {
    /// A tidy close keeps unflushed writes too; a crash may lose them, as on any disk.
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::error!(volume = %self.spec.id, %error, "closing without a flush");
        }
    }
}

fn stripes() -> Vec<Mutex<HashSet<u64>>> {
    (0..FILL_STRIPES).map(|_| Mutex::default()).collect()
}

fn open_exact(path: &Path, expected: u64) -> Result<File, VolumeError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(VolumeError::io("open", path))?;
    let found = file
        .metadata()
        .map_err(VolumeError::io("examine", path))?
        .len();
    if found != expected {
        return Err(VolumeError::Length {
            path: path.into(),
            expected,
            found,
        });
    }
    Ok(file)
}

fn open_parent(dir: &Path, parent: &Parent) -> Result<File, VolumeError> {
    let path = dir.join(&parent.path);
    let file = File::open(&path).map_err(VolumeError::io("open the parent image", &path))?;
    let found = file
        .metadata()
        .map_err(VolumeError::io("examine", &path))?
        .len();
    if found != parent.size {
        return Err(VolumeError::ParentChanged {
            volume: dir.into(),
            id: parent.id.clone(),
            path,
            expected: parent.size,
            found,
        });
    }
    Ok(file)
}

/// Reads the parts of the map that exist; holes are empty sectors.
fn load_map(map: &File, path: &Path, presence: &Presence) -> Result<(), VolumeError> {
    let seek = |from: u64, whence| {
        let from = crate::io::file_offset(from).map_err(VolumeError::io("read", path))?;
        match lseek(map, from, whence) {
            Ok(at) => Ok(u64::try_from(at).ok()),
            Err(nix::errno::Errno::ENXIO) => Ok(None),
            Err(e) => Err(VolumeError::io("read", path)(e.into())),
        }
    };
    let mut at = 0;
    let mut buf = vec![0; 128 * MAP_SECTOR];
    while let Some(start) = seek(at, Whence::SeekData)? {
        let Some(end) = seek(start, Whence::SeekHole)? else {
            break;
        };
        at = start - start % MAP_SECTOR_U64;
        while at < end {
            let now = (end - at)
                .next_multiple_of(MAP_SECTOR_U64)
                .min(len_u64(&buf));
            let part = &mut buf[..index(now)];
            read_exact_fd(map.as_fd(), part, at).map_err(VolumeError::io("read", path))?;
            let (sectors, _) = part.as_chunks::<MAP_SECTOR>();
            for (sector, bytes) in (at / MAP_SECTOR_U64..).zip(sectors) {
                presence
                    .load(sector, bytes)
                    .map_err(|source| VolumeError::Map {
                        path: path.into(),
                        sector,
                        offset: sector * presence::BLOCKS_PER_SECTOR * BLOCK_SIZE,
                        source,
                    })?;
            }
            at += now;
        }
    }
    Ok(())
}
