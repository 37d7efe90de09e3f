//! Plain use: chains against a model, in memory, in a folder, in an `object_store`.

use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::world::{Process, store};
use super::*;

/// A chain of 50 snapshots with random writes, zeros and growth; members deleted at random with
/// garbage collections in between; all that is left compared byte for byte after each step.
fn chain(store: &SnapshotStore, seed: u64, len: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut models: BTreeMap<u64, Model> = BTreeMap::new();
    let mut now = Model::new();
    let mut blocks = 6;
    for n in 0..len {
        if rng.random_bool(0.1) {
            blocks += 1;
        }
        let mut changes = Model::new();
        for _ in 0..rng.random_range(0..4) {
            // Few tags: contents return, in other places too.
            changes.insert(rng.random_range(0..blocks), rng.random_range(0..12));
        }
        now.extend(&changes);
        let parent = models.last_key_value().map(|(n, _)| *n);
        let changes = if parent.is_some() { &changes } else { &now };
        let manifest = take(store, spec(n, blocks, parent), changes).unwrap();
        assert!(manifest.info.new_blocks <= changes.len().try_into().unwrap());
        models.insert(n, now.clone());
        compare(store, n, &now);
    }
    let mut order: Vec<u64> = models.keys().copied().collect();
    order.shuffle(&mut rng);
    while let Some(n) = order.pop() {
        store.delete(&id(n)).unwrap();
        models.remove(&n);
        if rng.random_bool(0.3) || order.is_empty() {
            store.gc().unwrap();
        }
        if order.len().is_multiple_of(8) {
            models
                .iter()
                .for_each(|(n, model)| compare(store, *n, model));
            assert!(store.check(Depth::Contents).unwrap().is_clean());
        }
    }
    assert_eq!(stored(store), 0);
    assert_eq!(store.list().unwrap(), Vec::<String>::new());
}

#[test]
fn a_chain_of_50_is_its_model_in_memory() {
    for seed in 0..3 {
        chain(&store(&Process::new(&Arc::default(), None)), seed, 50);
    }
}

#[test]
fn a_chain_of_50_is_its_model_in_a_folder() {
    let tmp = TempDir::new().unwrap();
    chain(&SnapshotStore::open_dir(tmp.path()).unwrap(), 7, 50);
}

#[test]
fn a_chain_is_its_model_in_an_object_store() {
    let bucket = Arc::new(InMemory::new());
    chain(
        &SnapshotStore::open_bucket(bucket, "some/prefix").unwrap(),
        8,
        12,
    );
}

#[test]
fn any_range_reads_as_written_and_the_last_block_may_be_short() {
    let store = store(&Process::new(&Arc::default(), None));
    let size = 2 * SNAPSHOT_BLOCK + 1536;
    let spec = SnapshotSpec {
        volume_size: size,
        ..spec(1, 0, None)
    };
    let writer = store.begin(spec).unwrap();
    let volume = [block(1), vec![0; BLOCK], block(2)[..1536].to_vec()].concat();
    writer.write_block(2, &volume[2 * BLOCK..]).unwrap();
    writer.write_block(0, &volume[..BLOCK]).unwrap();
    for (at, len) in [(2, BLOCK), (3, 512), (u64::MAX, BLOCK), (0, 512), (0, 0)] {
        let refused = writer.write_block(at, &vec![1; len]);
        assert!(matches!(refused, Err(SnapshotError::Range { .. })));
    }
    let manifest = writer.commit().unwrap();
    assert_eq!(manifest.info.new_blocks, 2);
    let reader = store.reader(&id(1)).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..200 {
        let from = rng.random_range(0..=volume.len());
        let to = rng.random_range(from..=volume.len());
        let mut buf = vec![0xee; to - from];
        reader.read_at(from.try_into().unwrap(), &mut buf).unwrap();
        assert!(buf == volume[from..to]);
    }
    let beyond = reader.read_at(size - 1, &mut [0; 2]);
    assert!(matches!(beyond, Err(SnapshotError::Range { .. })));
}

#[test]
fn equal_blocks_are_stored_once_and_zeros_not_at_all() {
    let store = store(&Process::new(&Arc::default(), None));
    let first = take(
        &store,
        spec(1, 9, None),
        &[(0, 2), (1, 2), (2, 0), (3, 4)].into(),
    );
    assert_eq!(first.unwrap().info.new_blocks, 2);
    assert_eq!(stored(&store), 2);
    // Another volume, another writer, the same bytes; and the parent's block becomes zeros.
    let other = take(&store, spec(2, 9, None), &[(5, 4)].into()).unwrap();
    assert_eq!((other.info.new_blocks, other.info.new_bytes), (0, 0));
    let child = take(&store, spec(3, 9, Some(1)), &[(3, 0)].into()).unwrap();
    assert_eq!(child.blocks().map(|(at, _)| at).collect::<Vec<_>>(), [0, 1]);
    // Nothing changed: nothing is written but the manifest.
    let same = take(&store, spec(4, 9, Some(3)), &Model::new()).unwrap();
    assert_eq!(same.info.new_bytes, 0);
    assert_eq!(stored(&store), 2);
}

#[test]
fn compressible_blocks_are_compressed_and_others_kept_as_they_are() {
    let small = block::encode(&block(2)).unwrap();
    let large = block::encode(&block(1)).unwrap();
    assert!(small.len() < BLOCK / 100);
    assert_eq!(large.len(), BLOCK + 24);
}

#[test]
fn changed_blocks_are_those_whose_content_differs() {
    let store = store(&Process::new(&Arc::default(), None));
    let a = take(
        &store,
        spec(1, 9, None),
        &[(0, 2), (1, 4), (2, 6), (8, 8)].into(),
    )
    .unwrap();
    let b = take(
        &store,
        spec(2, 9, Some(1)),
        &[(1, 10), (2, 0), (3, 6)].into(),
    )
    .unwrap();
    let of = |tag| Some(Digest::of(&block(tag)));
    let found: Vec<_> = changed_blocks(&a, &b)
        .into_iter()
        .map(|c| (c.index, c.first, c.second))
        .collect();
    let want = [(1, of(4), of(10)), (2, of(6), None), (3, None, of(6))];
    assert_eq!(found, want);
    assert!(changed_blocks(&a, &a).is_empty());
    assert_eq!(a.block(8), of(8));
}

#[test]
fn threads_may_write_one_snapshot() {
    let tmp = TempDir::new().unwrap();
    let store = SnapshotStore::open_dir(tmp.path()).unwrap();
    let model: Model = (0..160)
        .map(|at| (at, u32::try_from(at).unwrap() % 90))
        .collect();
    let writer = store.begin(spec(1, 160, None)).unwrap();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (writer, model) = (&writer, &model);
            scope.spawn(move || {
                for (&at, &tag) in model.iter().filter(|(at, _)| *at % 4 == part) {
                    writer.write_block(at, &block(tag)).unwrap();
                }
            });
        }
    });
    let manifest = writer.commit().unwrap();
    assert_eq!(manifest.info.new_blocks, 89);
    compare(&store, 1, &model);
    is_tidy_after_repair(&store);
}

/// Two writers of one id, with nothing to tell them apart but themselves.
fn second_commit_fails(store: &SnapshotStore) {
    let first = store.begin(spec(1, 4, None)).unwrap();
    let second = store.begin(spec(1, 4, None)).unwrap();
    let kept = first.commit().unwrap();
    assert!(matches!(second.commit(), Err(SnapshotError::Exists(_))));
    assert_eq!(store.get(&id(1)).unwrap(), kept);
}

#[test]
fn of_two_commits_of_one_id_the_second_fails() {
    let tmp = TempDir::new().unwrap();
    second_commit_fails(&store(&Process::new(&Arc::default(), None)));
    second_commit_fails(&SnapshotStore::open_dir(tmp.path()).unwrap());
    let bucket = Arc::new(InMemory::new());
    second_commit_fails(&SnapshotStore::open_bucket(bucket, "").unwrap());
}

#[test]
fn what_cannot_be_begun_is_refused() {
    let store = store(&Process::new(&Arc::default(), None));
    take(&store, spec(1, 4, None), &Model::new()).unwrap();
    let begin = |spec| store.begin(spec).map(|_| ());
    let named = |id: &str| SnapshotSpec {
        id: Some(id.into()),
        ..spec(2, 4, None)
    };
    assert!(matches!(
        begin(spec(1, 4, None)),
        Err(SnapshotError::Exists(_))
    ));
    for bad in ["", "snap-1", "../../../etc/x", "snap-0123456789ABCDEF0"] {
        assert!(matches!(begin(named(bad)), Err(SnapshotError::Id(_))));
    }
    assert!(matches!(
        begin(spec(2, 4, Some(9))),
        Err(SnapshotError::Unknown(_))
    ));
    assert!(matches!(
        begin(spec(2, 3, Some(1))),
        Err(SnapshotError::Size { .. })
    ));
    assert!(matches!(
        begin(spec(2, 0, None)),
        Err(SnapshotError::Size { .. })
    ));
    assert!(matches!(store.get(&id(2)), Err(SnapshotError::Unknown(_))));
    assert!(matches!(
        store.delete(&id(2)),
        Err(SnapshotError::Unknown(_))
    ));
    is_tidy_after_repair(&store);
}

#[test]
fn a_dropped_or_aborted_writer_leaves_nothing_after_gc() {
    let tmp = TempDir::new().unwrap();
    let store = SnapshotStore::open_dir(tmp.path()).unwrap();
    for n in 0..2 {
        let writer = store.begin(spec(n, 99, None)).unwrap();
        for at in 0..40 {
            let tag = u32::try_from(at * 2 + 100).unwrap();
            writer.write_block(at, &block(tag)).unwrap();
        }
        assert!(stored(&store) > 0);
        if n == 0 {
            writer.abort();
        } else {
            drop(writer);
        }
        assert_eq!(store.gc().unwrap().waiting_blocks, 0);
        assert_eq!(stored(&store), 0);
    }
    is_tidy_after_repair(&store);
}

/// Against a real server: `CUMULET_S3_ENDPOINT=http://127.0.0.1:5000`, with a bucket named
/// `cumulet-test` (for instance `moto_server`).
#[cfg(feature = "s3")]
#[test]
#[ignore = "needs an S3 server"]
fn a_chain_is_its_model_in_an_s3_bucket() {
    let store = SnapshotStore::open_s3(&S3Options {
        bucket: "cumulet-test".into(),
        prefix: format!("test-{:x}", rand::random::<u64>()),
        endpoint: std::env::var("CUMULET_S3_ENDPOINT").ok(),
        keys: Some(("test".into(), "test".into())),
        region: None,
    })
    .unwrap();
    chain(&store, 9, 12);
    second_commit_fails(&store);
    is_tidy_after_repair(&store);
}
