//! Processes killed and disks full at every step.

use std::cell::Cell;
use std::collections::BTreeSet;

use tempfile::TempDir;

use super::world::{Kill, Process, store};
use super::*;

/// What has been promised so far: the models of the snapshots whose commit has returned, and those
/// whose deletion has begun.
#[derive(Default)]
struct Promises {
    committed: BTreeMap<u64, Model>,
    deleting: BTreeSet<u64>,
    begun: BTreeMap<u64, Model>,
}

/// Takes snapshots, deletes and collects, until something fails.
fn life(store: &SnapshotStore, promises: &mut Promises) -> Result<(), SnapshotError> {
    let snapshot = |promises: &mut Promises, n, parent: Option<u64>, changes: Model| {
        let mut model = parent.map_or_else(Model::new, |p| promises.committed[&p].clone());
        model.extend(&changes);
        promises.begun.insert(n, model.clone());
        take(store, spec(n, 5, parent), &changes)?;
        promises.committed.insert(n, model);
        Ok::<_, SnapshotError>(())
    };
    snapshot(promises, 1, None, [(0, 2), (1, 4), (2, 6)].into())?;
    snapshot(promises, 2, Some(1), [(1, 8), (3, 10)].into())?;
    let other = store.begin(spec(9, 5, Some(2)))?;
    promises.deleting.insert(1);
    store.delete(&id(1))?;
    store.gc()?;
    drop(other);
    snapshot(promises, 3, Some(2), [(0, 12), (1, 4), (4, 2)].into())?;
    promises.deleting.insert(2);
    store.delete(&id(2))?;
    store.gc()?;
    snapshot(promises, 4, Some(3), [(1, 8), (2, 6)].into())
}

/// Everything promised is there; what was not promised is there whole or not at all.
fn verify(store: &SnapshotStore, promises: &Promises) {
    let there = store.list().unwrap();
    for (n, model) in &promises.begun {
        let found = there.contains(&id(*n));
        let gone = promises.deleting.contains(n);
        assert!(
            found || gone || !promises.committed.contains_key(n),
            "{n} is lost"
        );
        if found {
            compare(store, *n, model);
        }
    }
    is_tidy_after_repair(store);
    // And the store can be used.
    let fresh = take(store, spec(77, 5, None), &[(0, 2), (4, 90)].into());
    fresh.unwrap();
    compare(store, 77, &[(0, 2), (4, 90)].into());
}

#[test]
fn a_process_killed_at_any_step_breaks_no_promise() {
    for done in [false, true] {
        for at in 0.. {
            let shared = Arc::default();
            let kill = Kill {
                at,
                done,
                kind: io::ErrorKind::Other,
            };
            let process = Process::new(&shared, Some(kill));
            let mut promises = Promises::default();
            let ended = life(&store(&process), &mut promises);
            verify(&store(&Process::new(&shared, None)), &promises);
            if !process.died() {
                ended.unwrap();
                assert!(at > 30, "only {at} steps");
                break;
            }
        }
    }
}

#[test]
fn a_disk_full_at_any_step_leaves_nothing_half_registered() {
    for at in 0.. {
        let shared = Arc::default();
        let kill = Kill {
            at,
            done: false,
            kind: io::ErrorKind::StorageFull,
        };
        let process = Process::new(&shared, Some(kill));
        let mut promises = Promises::default();
        let ended = life(&store(&process), &mut promises);
        if !process.died() {
            return;
        }
        assert!(
            matches!(ended, Err(SnapshotError::Full { .. })),
            "{ended:?}"
        );
        // Writers went away in an orderly manner: no repair is needed to take up their blocks.
        let after = store(&Process::new(&shared, None));
        assert_eq!(after.gc().unwrap().revoked_writers, 0);
        after.gc().unwrap();
        assert_eq!(after.check(Depth::Contents).unwrap().other_blocks, 0);
        verify(&after, &promises);
    }
}

#[test]
fn a_writer_that_ignores_a_failed_write_cannot_commit() {
    let shared = Arc::default();
    let kill = Kill {
        at: 1,
        done: false,
        kind: io::ErrorKind::StorageFull,
    };
    let full = store(&Process::new(&shared, Some(kill)));
    let writer = full.begin(spec(1, 99, None)).unwrap();
    let tags = (0..40).map(|at| (at, 100 + 2 * u32::try_from(at).unwrap()));
    let failed = tags
        .filter(|(at, tag)| writer.write_block(*at, &block(*tag)).is_err())
        .count();
    assert!(failed > 0);
    let refused = writer.commit();
    assert!(matches!(refused, Err(SnapshotError::Abandoned { .. })));
    let after = store(&Process::new(&shared, None));
    assert!(after.list().unwrap().is_empty());
    is_tidy_after_repair(&after);
}

/// Runs [`life`] in a folder, failing at every `stride`th step.
fn folder_life(stride: usize, kind: io::ErrorKind) {
    let mut at = 0;
    let last = Cell::new(false);
    while !last.get() {
        let tmp = TempDir::new().unwrap();
        let hook = Hook::failing(at, kind);
        let mut promises = Promises::default();
        let ended = life(&hooked(tmp.path(), &hook), &mut promises);
        if hook.steps().len() <= at {
            ended.unwrap();
            last.set(true);
        } else if kind == io::ErrorKind::StorageFull && ended.is_err() {
            assert!(
                matches!(ended, Err(SnapshotError::Full { .. })),
                "{ended:?}"
            );
        }
        verify(&SnapshotStore::open_dir(tmp.path()).unwrap(), &promises);
        let drafts = std::fs::read_dir(tmp.path().join("tmp")).unwrap();
        assert_eq!(drafts.count(), 0);
        at += stride;
    }
    assert!(at > 100);
}

#[test]
fn a_folder_survives_a_kill_at_every_system_call() {
    folder_life(1, io::ErrorKind::Other);
}

#[test]
fn a_folder_on_a_full_disk_keeps_what_was_promised() {
    let soak = std::env::var_os("CUMULET_SOAK").is_some();
    folder_life(if soak { 1 } else { 4 }, io::ErrorKind::StorageFull);
}

/// A name stands for synced bytes only, and what a call has promised is in a synced folder.
#[test]
fn a_folder_syncs_bytes_before_names_and_names_before_it_returns() {
    let tmp = TempDir::new().unwrap();
    let hook = Arc::new(Hook::default());
    let store = hooked(tmp.path(), &hook);
    let mut seen = 0;
    let mut unsynced_drafts: BTreeSet<PathBuf> = BTreeSet::new();
    let mut unsynced_folders: BTreeSet<PathBuf> = BTreeSet::new();
    let mut links = 0;
    let mut replay = || {
        let log = hook.steps();
        for (what, path) in &log[seen..] {
            let folder = path.parent().unwrap().to_path_buf();
            match *what {
                "write" => {
                    unsynced_drafts.insert(path.clone());
                }
                "sync" => {
                    unsynced_drafts.remove(path);
                }
                "link" => {
                    links += 1;
                    assert!(unsynced_drafts.is_empty(), "{path:?} is named too early");
                    if folder.ends_with(SNAPSHOTS) {
                        assert!(
                            unsynced_folders.is_empty(),
                            "{path:?} comes before its blocks"
                        );
                    }
                    unsynced_folders.insert(folder);
                }
                "delete" => {
                    unsynced_folders.insert(folder);
                }
                "sync folder" => {
                    unsynced_folders.remove(path);
                }
                _ => {}
            }
        }
        seen = log.len();
        assert!(unsynced_folders.is_empty(), "{unsynced_folders:?}");
    };
    take(&store, spec(1, 9, None), &[(0, 2), (1, 4), (2, 6)].into()).unwrap();
    replay();
    take(&store, spec(2, 9, Some(1)), &[(0, 8)].into()).unwrap();
    replay();
    store.delete(&id(1)).unwrap();
    replay();
    store.gc().unwrap();
    replay();
    assert!(links >= 8);
}
