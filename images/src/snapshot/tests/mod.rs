//! The snapshot store against a model, with damage, full disks, crashes and races.

mod chain;
mod crash;

mod damage;

mod race;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::block::BLOCK;
use super::*;

/// A step of a [`Dir`]: what it does and to which path.
type Step = (&'static str, PathBuf);

/// Sees every step of a [`Dir`] and can stop it there.
#[derive(Debug, Default)]
pub(super) struct Hook {
    log: Mutex<Vec<Step>>,
    /// From this step on, all fail: the process is dead, or the disk is full.
    fail: Option<(usize, io::ErrorKind)>,
}

impl Hook {
    fn failing(at: usize, kind: io::ErrorKind) -> Arc<Self> {
        Arc::new(Self {
            fail: Some((at, kind)),
            ..Self::default()
        })
    }

    fn steps(&self) -> Vec<Step> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn step(&self, what: &'static str, path: &Path) -> io::Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push((what, path.into()));
        match self.fail {
            // A full disk can still delete.
            Some((at, kind)) if log.len() > at => match (kind, what) {
                (io::ErrorKind::StorageFull, "delete" | "unlink" | "sync folder") => Ok(()),
                _ => Err(kind.into()),
            },
            _ => Ok(()),
        }
    }
}

/// Opens the store in `path` with a hook.
fn hooked(path: &Path, hook: &Arc<Hook>) -> SnapshotStore {
    let mut dir = Dir::open(path, &folders()).unwrap();
    // The marker is no part of what is tested.
    SnapshotStore::open_dir(path).unwrap();
    dir.hook = Some(hook.clone());
    SnapshotStore {
        objects: Arc::new(dir),
    }
}

/// What the blocks of a volume hold: tag by index; 0 and missing are zeros.
type Model = BTreeMap<u64, u32>;

/// A block that says its tag everywhere. Odd tags do not compress.
fn block(tag: u32) -> Vec<u8> {
    thread_local! {
        static MADE: RefCell<BTreeMap<u32, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    }
    MADE.with_borrow_mut(|made| made.entry(tag).or_insert_with(|| make_block(tag)).clone())
}

fn make_block(tag: u32) -> Vec<u8> {
    if tag.is_multiple_of(2) {
        return tag.to_le_bytes().repeat(BLOCK / 4);
    }
    let mut x = u64::from(tag) << 20 | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    (0..BLOCK / 8).flat_map(|_| next()).collect()
}

fn id(n: u64) -> String {
    format!("snap-{n:017x}")
}

fn spec(n: u64, blocks: u64, parent: Option<u64>) -> SnapshotSpec {
    SnapshotSpec {
        id: Some(id(n)),
        volume_id: "vol-1".into(),
        volume_size: blocks * SNAPSHOT_BLOCK,
        parent: parent.map(id),
        description: String::new(),
    }
}

/// Takes a snapshot, writing only `changes`.
fn take(
    store: &SnapshotStore,
    spec: SnapshotSpec,
    changes: &Model,
) -> Result<Manifest, SnapshotError> {
    let writer = store.begin(spec)?;
    for (&at, &tag) in changes {
        writer.write_block(at, &block(tag))?;
    }
    writer.commit()
}

/// Asserts that a snapshot holds what the model says.
fn compare(store: &SnapshotStore, n: u64, model: &Model) {
    let reader = store.reader(&id(n)).unwrap();
    let blocks = reader.info().volume_size / SNAPSHOT_BLOCK;
    let mut found = vec![0xee; BLOCK];
    for at in 0..blocks {
        reader.read_at(at * SNAPSHOT_BLOCK, &mut found).unwrap();
        let want = block(model.get(&at).copied().unwrap_or(0));
        assert!(found == want, "block {at} of snapshot {n}");
    }
}

/// Bytes and names of all blocks.
fn stored(store: &SnapshotStore) -> usize {
    gc::list_blocks(&*store.objects).unwrap().len()
}

/// Asserts that nothing is damaged, and after a repair that nothing is there but what is used.
fn is_tidy_after_repair(store: &SnapshotStore) {
    let report = store.check(Depth::Contents).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    store.repair().unwrap();
    let report = store.check(Depth::Contents).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    assert_eq!(report.other_blocks, 0);
    assert_eq!(gc::list(&*store.objects, lease::LEASES).unwrap().len(), 0);
    assert_eq!(store.repair().unwrap(), GcReport::default());
}
