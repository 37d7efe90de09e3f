//! Writing a snapshot.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use time::macros::format_description;

use super::block::shard_name;
use super::block::{BLOCK, Digest, Key, SNAPSHOT_BLOCK, decode, encode, len_in_volume};
use super::error::SnapshotError;
use super::gc;
use super::lease::Lease;
use super::manifest::{MAX_VOLUME, Manifest, SnapshotInfo};
use super::objects::Objects;
use super::{SnapshotStore, TOMBSTONE, manifest_name};
use crate::block::SECTOR_SIZE;
use crate::io::{is_zero, len_u64};

/// Blocks put together: they share syncs in a folder and round trips to a bucket. Bounds a writer's
/// memory to 16 MiB and what its callers hold.
const BATCH: usize = 32;

/// What a snapshot is to be.
#[derive(Debug, Clone, Default)]
pub struct SnapshotSpec {
    /// `snap-` and 17 hexadecimal digits, never used before; made up if `None`.
    pub id: Option<String>,
    /// The volume it is taken of.
    pub volume_id: String,
    /// The volume's size in bytes.
    pub volume_size: u64,
    /// A snapshot whose blocks it takes over where none are written.
    pub parent: Option<String>,
    /// Kept as it is.
    pub description: String,
}

/// A snapshot in the making. Blocks come in any order, from any number of threads; of two writes to
/// one index the later counts, and blocks never written are the parent's, or zeros.
///
/// Dropping it gives up: there is no snapshot, and the next garbage collection frees its blocks.
#[derive(Debug)]
pub struct SnapshotWriter {
    objects: Arc<dyn Objects>,
    info: SnapshotInfo,
    session: u64,
    lease: Lease,
    condemned: HashSet<Key>,
    state: Mutex<State>,
    /// Calls of `write_block` that have not returned with success: still running, failed, panicked.
    unsettled: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    blocks: BTreeMap<u64, Key>,
    /// Blocks of the store that may be relied on, as far as looked up, and the writer's own.
    known: HashMap<Digest, Key>,
    /// The folders of blocks that were looked up.
    listed: HashSet<u8>,
    queue: Vec<(String, Vec<u8>)>,
    new_blocks: u64,
    new_bytes: u64,
}

impl SnapshotWriter {
    pub(super) fn begin(store: &SnapshotStore, spec: SnapshotSpec) -> Result<Self, SnapshotError> {
        let id = spec.id.unwrap_or_else(new_id);
        manifest_name(&id)?;
        let size = spec.volume_size;
        let refuse = |id: &str, why| {
            Err(SnapshotError::Size {
                id: id.into(),
                size,
                why,
            })
        };
        if size == 0 || !size.is_multiple_of(SECTOR_SIZE) || size > MAX_VOLUME {
            return refuse(&id, "it is no multiple of 512 from 512 bytes to 64 TiB");
        }
        if store.read_manifest(&id)?.is_some() {
            return Err(SnapshotError::Exists(id));
        }
        let session = rand::random();
        // The order matters: from here on nothing is deleted that is not condemned already.
        let lease = Lease::take(&store.objects, &id, session)?;
        let condemned = gc::condemned(&*store.objects)?;
        let inherited = match &spec.parent {
            Some(parent) => {
                let parent = store.get(parent)?;
                if parent.info.volume_size > size {
                    return refuse(&id, "it is less than the parent snapshot's");
                }
                parent.blocks
            }
            None => Vec::new(),
        };
        let writer = Self {
            objects: store.objects.clone(),
            info: SnapshotInfo {
                volume_id: spec.volume_id,
                volume_size: size,
                parent: spec.parent,
                start_time: now(),
                description: spec.description,
                writer: format!("{session:016x}"),
                new_blocks: 0,
                new_bytes: 0,
                id,
            },
            session,
            lease,
            condemned,
            state: Mutex::default(),
            unsettled: AtomicU64::new(0),
        };
        writer.inherit(inherited)?;
        Ok(writer)
    }

    /// What it will be. `new_blocks` and `new_bytes` are known at the end only.
    #[must_use]
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Writes block `number`: 512 KiB, or what the volume has of its last block.
    ///
    /// # Errors
    /// [`SnapshotError::Range`] when that is no block of the volume. After any other error the
    /// snapshot cannot be completed.
    pub fn write_block(&self, number: u64, data: &[u8]) -> Result<(), SnapshotError> {
        let len = len_in_volume(number, self.info.volume_size);
        if data.is_empty() || data.len() != len {
            return Err(SnapshotError::Range {
                id: self.info.id.clone(),
                offset: number.saturating_mul(SNAPSHOT_BLOCK),
                len: len_u64(data),
                size: self.info.volume_size,
            });
        }
        self.unsettled.fetch_add(1, Ordering::AcqRel);
        if is_zero(data) {
            self.state().blocks.remove(&number);
        } else if len == BLOCK {
            self.store_block(number, data)?;
        } else {
            let mut padded = data.to_vec();
            padded.resize(BLOCK, 0);
            self.store_block(number, &padded)?;
        }
        self.lease.renew()?;
        self.unsettled.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }

    /// Tells garbage collection that the writer is alive. Only needed when more than half an hour
    /// may pass between two blocks.
    ///
    /// # Errors
    /// When it was taken for dead, or the system's own.
    pub fn renew(&self) -> Result<(), SnapshotError> {
        self.lease.renew()
    }

    /// Completes the snapshot. When this returns it is durable; when it fails, there is none, except
    /// that after a failed request to the store (power, network) it may appear: then the id is taken.
    ///
    /// # Errors
    /// [`SnapshotError::Abandoned`] when garbage collection took the writer for dead or a block
    /// could not be written; [`SnapshotError::Exists`]; [`SnapshotError::Full`]; the system's own.
    pub fn commit(self) -> Result<Manifest, SnapshotError> {
        let Self {
            objects,
            mut info,
            mut lease,
            state,
            unsettled,
            ..
        } = self;
        if unsettled.into_inner() > 0 {
            return Err(SnapshotError::Abandoned {
                id: info.id,
                why: "an earlier write of it failed",
            });
        }
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        put(&*objects, &state.queue)?;
        info.new_blocks = state.new_blocks;
        info.new_bytes = state.new_bytes;
        let name = manifest_name(&info.id)?;
        let manifest = Manifest {
            blocks: state.blocks.into_iter().collect(),
            info,
        };
        let object = manifest
            .encode()
            .map_err(SnapshotError::io("pack", &name))?;
        let put = match objects.put_new(&name, &object) {
            // Perhaps it is there all the same, or will be: settle it.
            Err(first) => match objects.put_new(&name, TOMBSTONE) {
                Ok(true) => return Err(SnapshotError::io("write", &name)(first)),
                Ok(false) => Ok(false),
                // A full disk takes no tombstone either, but there nothing can come later.
                Err(_) if is_full(&first) && is_missing(&*objects, &name) => {
                    return Err(SnapshotError::io("write", &name)(first));
                }
                Err(_) => Err(first),
            },
            put => put,
        };
        let there = match put {
            Ok(true) => return Ok(manifest),
            Ok(false) => objects.get(&name),
            Err(e) => Err(e),
        };
        match there {
            Ok(there) if there == object => Ok(manifest),
            Ok(there) if there == TOMBSTONE => Err(SnapshotError::Abandoned {
                id: manifest.info.id,
                why: "garbage collection took its writer for dead",
            }),
            Ok(_) => Err(SnapshotError::Exists(manifest.info.id)),
            Err(e) => {
                lease.leave();
                Err(SnapshotError::io("write", &name)(e))
            }
        }
    }

    /// Gives up.
    pub fn abort(self) {}

    /// Takes over the parent's blocks. Those that are condemned are stored again: garbage collection
    /// may delete them as soon as their last snapshot goes.
    fn inherit(&self, blocks: Vec<(u64, Key)>) -> Result<(), SnapshotError> {
        let (dying, sound): (Vec<_>, Vec<_>) = blocks
            .into_iter()
            .partition(|(_, key)| self.condemned.contains(key));
        self.state().blocks.extend(sound);
        for (number, key) in dying {
            let name = key.name();
            let object = self
                .objects
                .get(&name)
                .map_err(SnapshotError::io("read", &name))?;
            self.store_block(number, &decode(&key, &object)?)?;
        }
        Ok(())
    }

    fn store_block(&self, number: u64, plain: &[u8]) -> Result<(), SnapshotError> {
        let digest = Digest::of(plain);
        let key = {
            let mut state = self.state();
            if state
                .blocks
                .get(&number)
                .is_some_and(|key| key.digest == digest)
            {
                return Ok(());
            }
            self.look_up(&mut state, digest.0[0])?;
            if let Some(&key) = state.known.get(&digest) {
                state.blocks.insert(number, key);
                return Ok(());
            }
            let key = Key {
                digest,
                session: self.session,
            };
            state.known.insert(digest, key);
            state.blocks.insert(number, key);
            key
        };
        let name = key.name();
        let object = encode(plain).map_err(SnapshotError::io("pack", &name))?;
        let batch = {
            let mut state = self.state();
            state.new_blocks += 1;
            state.new_bytes += len_u64(&object);
            state.queue.push((name, object));
            if state.queue.len() < BATCH {
                return Ok(());
            }
            std::mem::take(&mut state.queue)
        };
        put(&*self.objects, &batch)
    }

    /// Learns which blocks of a folder are in the store already.
    fn look_up(&self, state: &mut State, shard: u8) -> Result<(), SnapshotError> {
        if state.listed.contains(&shard) {
            return Ok(());
        }
        let folder = shard_name(shard);
        let found = self
            .objects
            .list(&folder)
            .map_err(SnapshotError::io("list", &folder))?;
        for found in found {
            if let Some(key) = Key::parse(&found.name)
                && !self.condemned.contains(&key)
            {
                state.known.entry(key.digest).or_insert(key);
            }
        }
        state.listed.insert(shard);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic in between, `unsettled` keeps the writer from committing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(objects: &dyn Objects, batch: &[(String, Vec<u8>)]) -> Result<(), SnapshotError> {
    let Some((first, _)) = batch.first() else {
        return Ok(());
    };
    objects
        .put_all(batch)
        .map_err(|e: io::Error| SnapshotError::io("write", first)(e))
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn is_missing(objects: &dyn Objects, name: &str) -> bool {
    objects
        .get(name)
        .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

fn new_id() -> String {
    format!("snap-{}", &format!("{:032x}", rand::random::<u128>())[..17])
}

fn now() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].000Z");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}
