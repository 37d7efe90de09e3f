//! Damaged and missing objects: noticed, named, never served.

use std::fs;

use tempfile::TempDir;

use super::*;

struct Fixture {
    tmp: TempDir,
    store: SnapshotStore,
}

impl Fixture {
    /// Two snapshots; block 0 is of both, block 1 differs.
    fn new() -> Self {
        let tmp = TempDir::new().unwrap();
        let store = SnapshotStore::open_dir(tmp.path()).unwrap();
        take(&store, spec(1, 4, None), &[(0, 1), (1, 2)].into()).unwrap();
        take(&store, spec(2, 4, Some(1)), &[(1, 4)].into()).unwrap();
        Self { tmp, store }
    }

    fn key(&self, snapshot: u64, at: u64) -> block::Key {
        self.store.get(&id(snapshot)).unwrap().key(at).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }
}

#[test]
fn no_flipped_or_lost_byte_of_a_block_is_ever_served() {
    for tag in [1, 2] {
        let plain = block(tag);
        let object = block::encode(&plain).unwrap();
        let key = block::Key {
            digest: Digest::of(&plain),
            session: 5,
        };
        assert!(block::decode(&key, &object).unwrap() == plain);
        let step = (object.len() / 150).max(1);
        let all = (0..48).chain((48..object.len()).step_by(step));
        for at in all {
            let mut bad = object.clone();
            bad[at] ^= 0x10;
            let error = block::decode(&key, &bad).unwrap_err();
            assert!(error.to_string().contains(&key.name()), "{error}");
            assert!(block::decode(&key, &object[..at]).is_err());
        }
        let other = block::Key {
            digest: Digest::of(&block(3)),
            ..key
        };
        assert!(matches!(
            block::decode(&other, &object),
            Err(SnapshotError::Damaged { .. })
        ));
    }
}

#[test]
fn no_changed_manifest_is_believed() {
    let f = Fixture::new();
    let name = manifest_name(&id(2)).unwrap();
    let want = f.store.get(&id(2)).unwrap();
    let object = fs::read(f.path(&name)).unwrap();
    for at in 0..object.len() {
        let mut bad = object.clone();
        bad[at] ^= 1;
        match Manifest::decode(&name, &id(2), &bad) {
            // zstd has bits without meaning.
            Ok(found) => assert!(found == want && at >= 48),
            Err(error) => assert!(error.to_string().contains(&name), "{error}"),
        }
        assert!(Manifest::decode(&name, &id(2), &object[..at]).is_err());
    }
    assert!(Manifest::decode(&name, &id(3), &object).is_err());
}

#[test]
fn a_damaged_and_a_missing_block_are_named_with_their_snapshots() {
    let f = Fixture::new();
    let shared = f.key(1, 0);
    let single = f.key(2, 1);
    let path = f.path(&shared.name());
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::remove_file(f.path(&single.name())).unwrap();

    let reader = f.store.reader(&id(2)).unwrap();
    let error = reader.read_at(4096, &mut [0; 512]).unwrap_err();
    assert!(matches!(&error, SnapshotError::Damaged { name, .. } if *name == shared.name()));
    let error = reader.read_at(SNAPSHOT_BLOCK, &mut [0; 512]).unwrap_err();
    assert!(matches!(&error, SnapshotError::Missing { name } if *name == single.name()));
    // Elsewhere it can still be read.
    reader.read_at(2 * SNAPSHOT_BLOCK, &mut [0; 512]).unwrap();

    let report = f.store.check(Depth::Contents).unwrap();
    assert_eq!(report.faults.len(), 2, "{:?}", report.faults);
    assert_eq!(report.broken[&id(1)], [0]);
    assert_eq!(report.broken[&id(2)], [0, 1]);
    let names = f.store.check(Depth::Names).unwrap();
    assert_eq!(names.faults.len(), 1, "{:?}", names.faults);
    assert_eq!(names.whole, [id(1)]);
    // Neither of them removes a block that a snapshot has, damaged or not.
    f.store.repair().unwrap();
    assert!(f.path(&shared.name()).exists());
}

#[test]
fn nothing_is_collected_while_a_manifest_cannot_be_read() {
    let f = Fixture::new();
    let kept = f.key(2, 1);
    let name = manifest_name(&id(2)).unwrap();
    let mut bytes = fs::read(f.path(&name)).unwrap();
    bytes[20] ^= 1;
    fs::write(f.path(&name), bytes).unwrap();
    f.store.delete(&id(1)).unwrap();
    for refused in [f.store.gc(), f.store.repair()] {
        assert!(matches!(refused, Err(SnapshotError::Damaged { name: n, .. }) if n == name));
    }
    assert!(f.path(&kept.name()).exists());
    let report = f.store.check(Depth::Names).unwrap();
    assert!(report.broken.contains_key(&id(2)) && !report.is_clean());
    // The way out: give the snapshot up.
    f.store.delete(&id(2)).unwrap();
    f.store.gc().unwrap();
    assert_eq!(stored(&f.store), 0);
}

#[test]
fn a_damaged_list_of_condemned_blocks_stops_writers_until_repaired() {
    let f = Fixture::new();
    let path = f.path("condemned/00000000000000000000000000000001");
    fs::write(&path, b"rubbish").unwrap();
    let refused = f.store.begin(spec(3, 4, None)).map(|_| ());
    assert!(matches!(refused, Err(SnapshotError::Damaged { .. })));
    assert!(!f.store.check(Depth::Names).unwrap().is_clean());
    f.store.repair().unwrap();
    f.store.begin(spec(3, 4, None)).unwrap();
}

#[test]
fn a_store_of_another_version_is_not_opened() {
    let tmp = TempDir::new().unwrap();
    fs::write(tmp.path().join(MARKER), "cumulet snapshot store 2\n").unwrap();
    let refused = SnapshotStore::open_dir(tmp.path()).map(|_| ());
    assert!(matches!(
        refused,
        Err(SnapshotError::Format { found: 2, .. })
    ));
}
