//! Leases: how a writer says that it is at work.
//!
//! A writer puts its lease before it looks at anything it will rely on, renews it while it writes,
//! and deletes it when it has committed or given up for good. While it lasts, garbage collection
//! deletes nothing that the writer may have seen.
//!
//! A lease that was not renewed for long is *revoked*: a tombstone takes the place of the manifest
//! (put-if-absent), then the lease is deleted. Either the tombstone or the manifest comes first, and
//! the other put fails. So a writer that was only asleep cannot commit over blocks that are gone;
//! how long "long" is decides whom it annoys, never whether data is safe.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::error::SnapshotError;
use super::objects::Objects;
use super::{TOMBSTONE, manifest_name};

/// Folder of the leases.
pub(super) const LEASES: &str = "leases";
/// A writer that has not written for so long is taken for dead by [`super::SnapshotStore::gc`].
pub const LEASE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How often a working writer renews its lease.
const RENEWAL: Duration = Duration::from_secs(300);

/// A writer's lease; deleted when dropped, unless it is to be left to garbage collection.
#[derive(Debug)]
pub(super) struct Lease {
    objects: Arc<dyn Objects>,
    name: String,
    renewed: Mutex<Instant>,
    keep: bool,
}

impl Lease {
    pub(super) fn take(
        objects: &Arc<dyn Objects>,
        id: &str,
        session: u64,
    ) -> Result<Self, SnapshotError> {
        let name = format!("{LEASES}/{id}.{session:016x}");
        // Made first: if the put fails but took place, the drop still deletes it.
        let lease = Self {
            objects: objects.clone(),
            renewed: Mutex::new(Instant::now()),
            keep: false,
            name,
        };
        objects
            .put_new(&lease.name, b"")
            .map_err(SnapshotError::io("write", &lease.name))?;
        Ok(lease)
    }

    /// Renews the lease if it is time.
    pub(super) fn renew(&self) -> Result<(), SnapshotError> {
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed.elapsed() < RENEWAL {
            return Ok(());
        }
        self.objects
            .touch(&self.name)
            .map_err(SnapshotError::io("renew", &self.name))?;
        *renewed = Instant::now();
        Ok(())
    }

    /// Leaves the lease in the store: the fate of the manifest is not known.
    pub(super) fn leave(&mut self) {
        self.keep = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = self.objects.delete(&self.name) {
            // Garbage collection will take the writer for dead in an hour.
            tracing::warn!(lease = %self.name, %error, "a lease stays behind");
        }
    }
}

/// A lease found in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Its name within the folder; used once.
    pub(super) name: String,
    /// The writer's random number, as in the names of its blocks.
    pub(super) session: u64,
    modified: SystemTime,
}

/// The writers at work.
pub(super) fn held(objects: &dyn Objects) -> Result<Vec<Held>, SnapshotError> {
    let found = objects
        .list(LEASES)
        .map_err(SnapshotError::io("list", LEASES))?;
    let held = found.into_iter().filter_map(|found| {
        let (_, session) = found.name.split_once('.')?;
        Some(Held {
            session: u64::from_str_radix(session, 16).ok()?,
            name: found.name,
            modified: found.modified,
        })
    });
    Ok(held.collect())
}

/// Revokes the leases that were not renewed for `timeout`; says how many.
pub(super) fn revoke(objects: &dyn Objects, timeout: Duration) -> Result<u64, SnapshotError> {
    let held = held(objects)?;
    if held.is_empty() {
        return Ok(0);
    }
    let now = objects.now().map_err(SnapshotError::io("date", LEASES))?;
    let mut count = 0;
    for lease in held {
        // A date in the future (a clock set back) is as good as now.
        if now.duration_since(lease.modified).unwrap_or_default() < timeout {
            continue;
        }
        let id = lease.name.split_once('.').map_or("", |(id, _)| id);
        let manifest = manifest_name(id)?;
        objects
            .put_new(&manifest, TOMBSTONE)
            .map_err(SnapshotError::io("write", &manifest))?;
        let name = format!("{LEASES}/{}", lease.name);
        objects
            .delete(&name)
            .map_err(SnapshotError::io("delete", &name))?;
        count += 1;
    }
    Ok(count)
}
