//! The snapshot store: what EBS keeps of a volume when it takes a snapshot.
//!
//! ```text
//! format                     which version the store has
//! blocks/ab/<digest>.<n>     512 KiB of a volume, compressed (module `block`)
//! snapshots/snap-…           a manifest: which blocks at which index (module `manifest`)
//! leases/snap-….<n>          a writer at work (module `lease`)
//! condemned/<n>  waits/<n>   blocks that garbage collection is about to delete (module `gc`)
//! tmp/                       drafts, in a local folder only
//! ```
//!
//! Blocks of zeros are not stored, equal blocks once. A manifest is complete in itself, so any
//! snapshot of a chain can be deleted. The appearance of the manifest is the commit; before it there
//! is no snapshot. docs/snapshots.md tells why garbage collection is safe beside writers.
//!
//! All calls block. With a bucket they must not be made from within an async task (use
//! `spawn_blocking`).

mod block;
mod bucket;
mod check;
mod dir;
mod error;
mod gc;
mod lease;
mod manifest;
mod objects;
mod reader;
#[cfg(feature = "s3")]
mod s3;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;

pub use self::block::{Digest, SNAPSHOT_BLOCK};
pub use self::check::{CheckReport, Depth};
pub use self::error::SnapshotError;
pub use self::gc::GcReport;
pub use self::lease::LEASE_TIMEOUT;
pub use self::manifest::{MAX_VOLUME, Manifest, SNAPSHOT_FORMAT, SnapshotInfo};
pub use self::reader::{ChangedBlock, SnapshotReader, changed_blocks};
#[cfg(feature = "s3")]
pub use self::s3::S3Options;
pub use self::writer::{SnapshotSpec, SnapshotWriter};

use self::bucket::Bucket;
use self::dir::Dir;
use self::objects::Objects;

const SNAPSHOTS: &str = "snapshots";
const MARKER: &str = "format";
const MARKER_TEXT: &[u8] = b"cumulet snapshot store 1\n";
/// In place of a manifest: the writer was taken for dead and can no longer commit. No manifest is
/// this short.
const TOMBSTONE: &[u8] = b"revoked\n";
const TOMBSTONE_LEN: u64 = 8;

/// An open store; clones are the same store. Any number of processes may use it at once.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    objects: Arc<dyn Objects>,
}

impl SnapshotStore {
    /// Opens the store in the local folder `path`, which is made if it is not there.
    ///
    /// # Errors
    /// [`SnapshotError::Format`] for a store of another version, or the system's own.
    pub fn open_dir(path: &Path) -> Result<Self, SnapshotError> {
        let name = path.display().to_string();
        let dir = Dir::open(path, &folders()).map_err(SnapshotError::io("make", &name))?;
        Self::open(Arc::new(dir))
    }

    /// Opens the store in a bucket, under `prefix` (which may be empty).
    ///
    /// # Errors
    /// As [`SnapshotStore::open_dir`]; [`SnapshotError::Unsafe`] when the bucket puts over what is
    /// there although told not to.
    pub fn open_bucket(bucket: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, SnapshotError> {
        let bucket = Bucket::new(bucket, prefix).map_err(SnapshotError::io("open", "bucket"))?;
        let store = Self::open(Arc::new(bucket))?;
        match store.objects.put_new(MARKER, MARKER_TEXT) {
            Ok(false) => Ok(store),
            Ok(true) => Err(SnapshotError::Unsafe),
            Err(e) => Err(SnapshotError::io("write", MARKER)(e)),
        }
    }

    fn open(objects: Arc<dyn Objects>) -> Result<Self, SnapshotError> {
        let found = match objects.get(MARKER) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                objects
                    .put_new(MARKER, MARKER_TEXT)
                    .map_err(SnapshotError::io("write", MARKER))?;
                objects.get(MARKER)
            }
            found => found,
        };
        let found = found.map_err(SnapshotError::io("read", MARKER))?;
        if found == MARKER_TEXT {
            return Ok(Self { objects });
        }
        let text = String::from_utf8_lossy(&found);
        match text.trim().rsplit(' ').next().map(str::parse) {
            Some(Ok(found)) => Err(SnapshotError::Format {
                name: MARKER.into(),
                found,
                known: SNAPSHOT_FORMAT,
            }),
            _ => Err(SnapshotError::damaged(MARKER, "it is no snapshot store's")),
        }
    }

    /// The ids of all completed snapshots, in order.
    ///
    /// # Errors
    /// The system's own.
    pub fn list(&self) -> Result<Vec<String>, SnapshotError> {
        let mut ids: Vec<String> = self
            .objects
            .list(SNAPSHOTS)
            .map_err(SnapshotError::io("list", SNAPSHOTS))?
            .into_iter()
            .filter(|found| found.size != TOMBSTONE_LEN)
            .map(|found| found.name)
            .filter(|id| manifest_name(id).is_ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The manifest of a completed snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::Unknown`], [`SnapshotError::Damaged`], [`SnapshotError::Format`] or the
    /// system's own.
    pub fn get(&self, id: &str) -> Result<Manifest, SnapshotError> {
        let name = manifest_name(id)?;
        match self.read_manifest(id)? {
            Some(object) => Manifest::decode(&name, id, &object),
            None => Err(SnapshotError::Unknown(id.into())),
        }
    }

    /// Deletes a snapshot, readable or not. Others keep their blocks; those that no one else has are
    /// freed by the next [`SnapshotStore::gc`]. When this returns, the deletion is durable.
    ///
    /// # Errors
    /// [`SnapshotError::Unknown`] or the system's own.
    pub fn delete(&self, id: &str) -> Result<(), SnapshotError> {
        let name = manifest_name(id)?;
        if self.read_manifest(id)?.is_none() {
            return Err(SnapshotError::Unknown(id.into()));
        }
        self.objects
            .delete(&name)
            .map_err(SnapshotError::io("delete", &name))
    }

    /// Begins a snapshot; it exists once [`SnapshotWriter::commit`] has returned.
    ///
    /// # Errors
    /// [`SnapshotError::Id`], [`SnapshotError::Exists`], [`SnapshotError::Size`],
    /// [`SnapshotError::Unknown`] for the parent, or the system's own.
    pub fn begin(&self, spec: SnapshotSpec) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::begin(self, spec)
    }

    /// Opens a snapshot for reading. It can be read until it is deleted.
    ///
    /// # Errors
    /// As [`SnapshotStore::get`].
    pub fn reader(&self, id: &str) -> Result<SnapshotReader, SnapshotError> {
        Ok(SnapshotReader::new(self.objects.clone(), self.get(id)?))
    }

    /// The bytes of a manifest; `None` when there is none.
    fn read_manifest(&self, id: &str) -> Result<Option<Vec<u8>>, SnapshotError> {
        let name = manifest_name(id)?;
        match self.objects.get(&name) {
            Ok(object) if object == TOMBSTONE => Ok(None),
            Ok(object) => Ok(Some(object)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(SnapshotError::io("read", &name)(e)),
        }
    }
}

/// The object of snapshot `id`; checks the id, so that no name leaves its folder.
fn manifest_name(id: &str) -> Result<String, SnapshotError> {
    let digits = id.strip_prefix("snap-").unwrap_or_default();
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if digits.len() == 17 && digits.bytes().all(hex) {
        return Ok(format!("{SNAPSHOTS}/{id}"));
    }
    Err(SnapshotError::Id(id.into()))
}

fn folders() -> Vec<String> {
    let plain = [SNAPSHOTS, lease::LEASES, gc::CONDEMNED, gc::WAITS];
    let shards = (0..=u8::MAX).map(block::shard_name);
    plain.into_iter().map(String::from).chain(shards).collect()
}
