//! Writers, deleters and garbage collectors beside each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::world::{Process, Turns, store};
use super::*;

/// What the threads of a race have committed.
type Done = Mutex<BTreeMap<u64, Model>>;

/// Takes snapshots of a chain of its own and of others', deleting some.
fn writer(store: &SnapshotStore, number: u64, seed: u64, done: &Done) {
    let mut rng = StdRng::seed_from_u64(seed ^ number << 32);
    for n in number * 100..number * 100 + 3 {
        let base = {
            let done = done.lock().unwrap();
            let at = rng.random_range(0..=done.len());
            done.iter().nth(at).map(|(n, model)| (*n, model.clone()))
        };
        let (parent, mut model) = base.map_or((None, Model::new()), |(n, m)| (Some(n), m));
        let mut changes = Model::new();
        for _ in 0..2 {
            // Very few contents, so that all rely on each other's blocks.
            changes.insert(rng.random_range(0..3), rng.random_range(0..4) * 2);
        }
        model.extend(&changes);
        match take(store, spec(n, 3, parent), &changes) {
            Ok(_) => {
                done.lock().unwrap().insert(n, model);
            }
            // Its parent was deleted, or a collector without patience took it for dead.
            Err(
                SnapshotError::Unknown(_)
                | SnapshotError::Missing { .. }
                | SnapshotError::Abandoned { .. },
            ) => {}
            Err(e) => panic!("{e:?}"),
        }
        if rng.random_bool(0.6) {
            let victim = {
                let mut done = done.lock().unwrap();
                let at = rng.random_range(0..=done.len());
                let victim = done.keys().nth(at).copied();
                victim.inspect(|n| {
                    done.remove(n);
                })
            };
            if let Some(n) = victim {
                store.delete(&id(n)).unwrap();
            }
        }
    }
}

/// Lets the others go on when a thread ends, by a panic too.
struct Leave<'a>(&'a Turns, usize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

fn race(seed: u64) {
    let shared = Arc::default();
    let done = Done::default();
    let turns = Turns::new(seed, 4, &[]);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (shared, turns, done) = (&shared, &turns, &done);
            scope.spawn(move || {
                let _leave = Leave(turns, number);
                let store = store(&Process::in_turn(shared, turns, number));
                if number < 2 {
                    return writer(&store, number.try_into().unwrap(), seed, done);
                }
                for round in 0..3 {
                    // Dates are all alike here: no patience means that every writer is revoked.
                    let hasty = number == 3 && round == 1 && seed.is_multiple_of(4);
                    let patience = if hasty { Duration::ZERO } else { LEASE_TIMEOUT };
                    store.collect(patience).unwrap();
                }
            });
        }
    });
    let store = store(&Process::new(&shared, None));
    let done = done.into_inner().unwrap();
    let ids: Vec<String> = done.keys().map(|n| id(*n)).collect();
    assert_eq!(store.list().unwrap(), ids, "seed {seed}");
    for (n, model) in &done {
        let report = store.check(Depth::Contents).unwrap();
        assert!(report.is_clean(), "seed {seed}: {:?}", report.faults);
        compare(&store, *n, model);
    }
    is_tidy_after_repair(&store);
}

#[test]
fn any_interleaving_of_writers_deleters_and_collectors_keeps_what_is_committed() {
    let soak = std::env::var_os("CUMULET_SOAK").is_some();
    (0..if soak { 20_000 } else { 300 }).for_each(race);
}

/// A writer does `script[0]` steps, a collector `script[1]`, the writer `script[2]`, and so on.
/// Says whether the script was longer than they.
fn duel(inherits: bool, script: [usize; 3]) -> bool {
    let shared = Arc::default();
    let before = store(&Process::new(&shared, None));
    take(&before, spec(1, 3, None), &[(0, 2)].into()).unwrap();
    if !inherits {
        before.delete(&id(1)).unwrap();
    }
    let [a, b, c] = script;
    let turns = Turns::new(0, 2, &[(0, a), (1, b), (0, c), (1, 1000), (0, 1000)]);
    let (took, counts) = std::thread::scope(|scope| {
        let ours = Process::in_turn(&shared, &turns, 0);
        let theirs = Process::in_turn(&shared, &turns, 1);
        let (writer, collector) = (store(&ours), store(&theirs));
        let turns = &turns;
        let writer = scope.spawn(move || {
            let _leave = Leave(turns, 0);
            let (parent, at) = if inherits { (Some(1), 1) } else { (None, 0) };
            take(&writer, spec(2, 3, parent), &[(at, 2)].into())
        });
        let collector = scope.spawn(move || {
            let _leave = Leave(turns, 1);
            if inherits {
                collector.delete(&id(1)).unwrap();
            }
            collector.gc().unwrap();
        });
        collector.join().unwrap();
        let took = writer.join().unwrap();
        (took, [ours.taken(), theirs.taken()])
    });
    match took {
        Ok(_) if inherits => compare(&before, 2, &[(0, 2), (1, 2)].into()),
        Ok(_) => compare(&before, 2, &[(0, 2)].into()),
        Err(SnapshotError::Unknown(_) | SnapshotError::Missing { .. }) if inherits => {}
        Err(e) => panic!("{e:?}"),
    }
    is_tidy_after_repair(&before);
    a > counts[0] || b > counts[1]
}

#[test]
fn a_writer_and_a_collector_may_interrupt_each_other_anywhere() {
    for inherits in [false, true] {
        for a in 0..30 {
            for b in 0..30 {
                for c in [1, 2, 3, 4, 5, 1000] {
                    if duel(inherits, [a, b, c]) {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn a_block_seen_before_it_is_condemned_outlives_the_writer_that_saw_it() {
    let store = store(&Process::new(&Arc::default(), None));
    take(&store, spec(1, 4, None), &[(0, 2), (1, 4)].into()).unwrap();
    let heir = store.begin(spec(2, 4, Some(1))).unwrap();
    let stranger = store.begin(spec(3, 4, None)).unwrap();
    stranger.write_block(3, &block(4)).unwrap();
    store.delete(&id(1)).unwrap();
    let report = store.gc().unwrap();
    assert_eq!((report.deleted_blocks, report.waiting_blocks), (0, 2));
    // One that begins now does not touch what is condemned.
    let late = take(&store, spec(4, 4, None), &[(2, 4)].into()).unwrap();
    assert_eq!(late.info.new_blocks, 1);
    assert_eq!(heir.commit().unwrap().info.new_blocks, 0);
    assert_eq!(stranger.commit().unwrap().info.new_blocks, 0);
    assert_eq!(store.gc().unwrap(), GcReport::default());
    compare(&store, 2, &[(0, 2), (1, 4)].into());
    compare(&store, 3, &[(3, 4)].into());
    // A child stores condemned blocks again: the parent's may go at any time.
    let child = take(&store, spec(5, 4, Some(2)), &Model::new()).unwrap();
    assert_eq!(child.info.new_blocks, 1);
    for n in [2, 3] {
        store.delete(&id(n)).unwrap();
    }
    assert_eq!(store.gc().unwrap().deleted_blocks, 2);
    compare(&store, 4, &[(2, 4)].into());
    compare(&store, 5, &[(0, 2), (1, 4)].into());
    is_tidy_after_repair(&store);
}

#[test]
fn a_writer_that_slept_too_long_cannot_commit() {
    let store = store(&Process::new(&Arc::default(), None));
    let sleeper = store.begin(spec(1, 4, None)).unwrap();
    sleeper.write_block(0, &block(2)).unwrap();
    assert_eq!(store.repair().unwrap().revoked_writers, 1);
    let refused = sleeper.commit();
    assert!(matches!(refused, Err(SnapshotError::Abandoned { .. })));
    assert!(matches!(store.get(&id(1)), Err(SnapshotError::Unknown(_))));
    assert!(matches!(
        store.delete(&id(1)),
        Err(SnapshotError::Unknown(_))
    ));
    is_tidy_after_repair(&store);
    assert_eq!(stored(&store), 0);
}

#[test]
fn a_writer_at_work_is_not_revoked() {
    let tmp = TempDir::new().unwrap();
    let store = SnapshotStore::open_dir(tmp.path()).unwrap();
    let writer = store.begin(spec(1, 99, None)).unwrap();
    for at in 0..40 {
        let tag = u32::try_from(at * 2 + 100).unwrap();
        writer.write_block(at, &block(tag)).unwrap();
        if at % 10 == 0 {
            assert_eq!(store.gc().unwrap(), GcReport::default());
        }
    }
    writer.commit().unwrap();
    assert_eq!(store.gc().unwrap(), GcReport::default());
    assert_eq!(stored(&store), 40);
}

#[test]
fn snapshots_and_collections_at_once_in_a_folder() {
    let tmp = TempDir::new().unwrap();
    let done = Done::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let open = || SnapshotStore::open_dir(tmp.path()).unwrap();
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let (store, done) = (open(), &done);
                scope.spawn(move || {
                    (0..4).for_each(|round| writer(&store, number * 10 + round, 5, done));
                })
            })
            .collect();
        let (store, over) = (open(), &over);
        let collector = scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                store.gc().unwrap();
            }
        });
        let ended: Vec<_> = writers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        ended.into_iter().for_each(|end| end.unwrap());
    });
    let store = SnapshotStore::open_dir(tmp.path()).unwrap();
    let done = done.into_inner().unwrap();
    done.iter()
        .for_each(|(n, model)| compare(&store, *n, model));
    assert_eq!(store.list().unwrap().len(), done.len());
    is_tidy_after_repair(&store);
}
