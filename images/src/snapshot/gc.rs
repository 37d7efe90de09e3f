//! Garbage collection: deleting the blocks of no snapshot, beside writers and other collectors.
//!
//! 1. *Condemn.* List the blocks, then the leases, then read the manifests. Blocks that no manifest
//!    has, and that no writer at work has stored, are put on a list in `condemned/`.
//! 2. *Wait.* List the leases again, after the list has appeared: these writers may rely on a
//!    condemned block without knowing. They are noted in `waits/`. A writer that begins later reads
//!    the lists first and never takes a condemned block; if its bytes are needed it stores them anew,
//!    under another name.
//! 3. *Delete.* When all the writers noted are gone, read the manifests again. What a list condemns
//!    and still no manifest has, no one can ever come to rely on: it is deleted.
//!
//! A condemned block stays condemned, even when a writer of step 2 has committed it: it is then kept
//! as long as its snapshots are. A list goes when all its blocks are gone, and as names are used
//! once, they never return. Hence any step may be repeated, by anyone, at any time later: a
//! collector that crashes or sleeps needs no lock and no cleaning up. docs/snapshots.md has the proof.
//!
//! A manifest that cannot be read ends the collection: its blocks are not known.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use super::block::{Key, shard_name};
use super::error::SnapshotError;
use super::lease::{self, Held, LEASE_TIMEOUT};
use super::manifest::{Kind, seal, unseal};
use super::objects::Objects;
use super::{SNAPSHOTS, SnapshotStore, TOMBSTONE_LEN};

/// Lists of condemned blocks.
pub(super) const CONDEMNED: &str = "condemned";
/// For each such list, the writers that it waits for.
pub(super) const WAITS: &str = "waits";
/// How long a tombstone is kept: no writer sleeps for so long and then commits.
const TOMBSTONE_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a garbage collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Blocks deleted.
    pub deleted_blocks: u64,
    /// Their bytes, compressed.
    pub deleted_bytes: u64,
    /// Blocks that will be deleted when the writers at work have ended and it is called again.
    pub waiting_blocks: u64,
    /// Writers taken for dead.
    pub revoked_writers: u64,
    /// Half-written files removed.
    pub drafts: u64,
}

type Blocks = HashMap<Key, u64>;

impl SnapshotStore {
    /// Deletes the blocks of no snapshot and what dead writers left. Writers at work go on; what
    /// they may rely on is kept for the next call. May be called by several processes at once.
    ///
    /// # Errors
    /// When a manifest cannot be read ([`SnapshotError::Damaged`], with its name): then nothing is
    /// deleted. The system's own.
    pub fn gc(&self) -> Result<GcReport, SnapshotError> {
        self.collect(LEASE_TIMEOUT)
    }

    /// Cleans up after a crash: as [`SnapshotStore::gc`], but every writer is taken for dead at once.
    /// One that is not cannot complete its snapshot any more; no data is harmed. Lists of condemned
    /// blocks that cannot be read are removed, so no other collection may run meanwhile.
    ///
    /// # Errors
    /// As [`SnapshotStore::gc`].
    pub fn repair(&self) -> Result<GcReport, SnapshotError> {
        for name in list(&*self.objects, CONDEMNED)? {
            if let Err(SnapshotError::Damaged { name, why }) = read_list(&*self.objects, &name) {
                tracing::warn!(%name, %why, "removing a damaged list of condemned blocks");
                delete(&*self.objects, &name)?;
            }
        }
        for name in list(&*self.objects, WAITS)? {
            if let Err(SnapshotError::Damaged { name, .. }) = read_waits(&*self.objects, &name) {
                // Who was waited for is found anew.
                delete(&*self.objects, &name)?;
            }
        }
        self.collect(Duration::ZERO)
    }

    pub(super) fn collect(&self, timeout: Duration) -> Result<GcReport, SnapshotError> {
        let objects = &*self.objects;
        let mut report = GcReport {
            drafts: objects
                .remove_drafts(timeout)
                .map_err(SnapshotError::io("remove", "drafts"))?,
            revoked_writers: lease::revoke(objects, timeout)?,
            ..GcReport::default()
        };
        self.bury()?;
        let blocks = list_blocks(objects)?;
        self.condemn(&blocks)?;
        let mut ready = Vec::new();
        for name in list(objects, CONDEMNED)? {
            let Some(keys) = read_list(objects, &name)? else {
                continue;
            };
            if self.writers_gone(&name)? {
                ready.push((name, keys));
            } else {
                let there = keys.iter().filter(|key| blocks.contains_key(key)).count();
                report.waiting_blocks += u64::try_from(there).unwrap_or(u64::MAX);
            }
        }
        if !ready.is_empty() {
            // Read only now, after the last of those writers has ended.
            let used = self.used()?;
            for (name, keys) in ready {
                self.execute(&name, &keys, &used, &blocks, &mut report)?;
            }
        }
        Ok(report)
    }

    /// Step 1.
    fn condemn(&self, blocks: &Blocks) -> Result<(), SnapshotError> {
        let objects = &*self.objects;
        let writers = lease::held(objects)?;
        let known = condemned(objects)?;
        let used = self.used()?;
        let mut unused: Vec<Key> = blocks
            .keys()
            .filter(|key| !used.contains(key) && !known.contains(key))
            .filter(|key| !writers.iter().any(|writer| writer.session == key.session))
            .copied()
            .collect();
        if unused.is_empty() {
            return Ok(());
        }
        unused.sort_unstable();
        let name = format!("{CONDEMNED}/{:032x}", rand::random::<u128>());
        let content: Vec<u8> = unused.iter().flat_map(|key| key.to_bytes()).collect();
        put(objects, &name, Kind::Condemned, &content)
    }

    /// Step 3 for the list `name`.
    fn execute(
        &self,
        name: &str,
        keys: &[Key],
        used: &HashSet<Key>,
        blocks: &Blocks,
        report: &mut GcReport,
    ) -> Result<(), SnapshotError> {
        let objects = &*self.objects;
        let (kept, dying): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|key| used.contains(key));
        let names: Vec<String> = dying.iter().map(|key| key.name()).collect();
        objects
            .delete_all(&names)
            .map_err(SnapshotError::io("delete", names.first().map_or("", |n| n)))?;
        for size in dying.iter().filter_map(|key| blocks.get(key)) {
            report.deleted_blocks += 1;
            report.deleted_bytes += size;
        }
        if kept.is_empty() {
            delete(objects, &format!("{CONDEMNED}/{name}"))?;
            delete(objects, &format!("{WAITS}/{name}"))?;
        }
        Ok(())
    }

    /// Step 2: whether every writer that began before the list appeared has ended.
    fn writers_gone(&self, list: &str) -> Result<bool, SnapshotError> {
        let objects = &*self.objects;
        let waits = read_waits(objects, list)?;
        let held = lease::held(objects)?;
        if let Some(waits) = waits {
            return Ok(!held.iter().any(|lease| waits.contains(&lease.name)));
        }
        if held.is_empty() {
            return Ok(true);
        }
        let names: Vec<String> = held.into_iter().map(|Held { name, .. }| name).collect();
        let name = format!("{WAITS}/{list}");
        put(objects, &name, Kind::Waits, names.join("\n").as_bytes())?;
        Ok(false)
    }

    /// The blocks of all snapshots.
    pub(super) fn used(&self) -> Result<HashSet<Key>, SnapshotError> {
        let mut used = HashSet::new();
        for id in self.list()? {
            match self.get(&id) {
                Ok(manifest) => used.extend(manifest.blocks.iter().map(|(_, key)| *key)),
                // Deleted since the listing.
                Err(SnapshotError::Unknown(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(used)
    }

    /// Removes old tombstones.
    fn bury(&self) -> Result<(), SnapshotError> {
        let objects = &*self.objects;
        let listed = objects
            .list(SNAPSHOTS)
            .map_err(SnapshotError::io("list", SNAPSHOTS))?;
        let stones = listed.into_iter().filter(|l| l.size == TOMBSTONE_LEN);
        let mut stones = stones.peekable();
        if stones.peek().is_none() {
            return Ok(());
        }
        let now = objects
            .now()
            .map_err(SnapshotError::io("date", SNAPSHOTS))?;
        let old = stones
            .filter(|stone| now.duration_since(stone.modified).unwrap_or_default() > TOMBSTONE_AGE);
        for stone in old {
            delete(objects, &format!("{SNAPSHOTS}/{}", stone.name))?;
        }
        Ok(())
    }
}

/// All condemned blocks.
pub(super) fn condemned(objects: &dyn Objects) -> Result<HashSet<Key>, SnapshotError> {
    let mut out = HashSet::new();
    for name in list(objects, CONDEMNED)? {
        out.extend(read_list(objects, &name)?.unwrap_or_default());
    }
    Ok(out)
}

/// The blocks of a list; `None` when it is gone, and its blocks with it.
pub(super) fn read_list(
    objects: &dyn Objects,
    name: &str,
) -> Result<Option<Vec<Key>>, SnapshotError> {
    let name = format!("{CONDEMNED}/{name}");
    let Some(content) = read(objects, &name, Kind::Condemned)? else {
        return Ok(None);
    };
    let (keys, rest) = content.as_chunks::<{ Key::LEN }>();
    if !rest.is_empty() {
        return Err(SnapshotError::damaged(&name, "it is cut off"));
    }
    Ok(Some(keys.iter().copied().map(Key::from_bytes).collect()))
}

fn read_waits(objects: &dyn Objects, name: &str) -> Result<Option<HashSet<String>>, SnapshotError> {
    let name = format!("{WAITS}/{name}");
    let content = read(objects, &name, Kind::Waits)?;
    Ok(content.map(|content| {
        let text = String::from_utf8_lossy(&content);
        text.lines().map(String::from).collect()
    }))
}

fn read(objects: &dyn Objects, name: &str, kind: Kind) -> Result<Option<Vec<u8>>, SnapshotError> {
    match objects.get(name) {
        Ok(object) => unseal(kind, name, &object).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(SnapshotError::io("read", name)(e)),
    }
}

fn put(objects: &dyn Objects, name: &str, kind: Kind, content: &[u8]) -> Result<(), SnapshotError> {
    seal(kind, content)
        .and_then(|object| objects.put_new(name, &object))
        .map(|_| ())
        .map_err(SnapshotError::io("write", name))
}

fn delete(objects: &dyn Objects, name: &str) -> Result<(), SnapshotError> {
    objects
        .delete(name)
        .map_err(SnapshotError::io("delete", name))
}

pub(super) fn list(objects: &dyn Objects, folder: &str) -> Result<Vec<String>, SnapshotError> {
    let found = objects
        .list(folder)
        .map_err(SnapshotError::io("list", folder))?;
    Ok(found.into_iter().map(|listed| listed.name).collect())
}

/// The stored blocks with their lengths.
pub(super) fn list_blocks(objects: &dyn Objects) -> Result<Blocks, SnapshotError> {
    let mut out = HashMap::new();
    for shard in 0..=u8::MAX {
        let folder = shard_name(shard);
        let found = objects
            .list(&folder)
            .map_err(SnapshotError::io("list", &folder))?;
        for found in found {
            if let Some(key) = Key::parse(&found.name) {
                out.insert(key, found.size);
            }
        }
    }
    Ok(out)
}
