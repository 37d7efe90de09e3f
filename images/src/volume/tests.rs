//! Volumes against a model: plain use, crashes at every step, and damaged files.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, atomic::AtomicU32};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::io::{read_at, write_at};

const SECTOR: usize = 512;

/// A sector that says its tag everywhere.
fn sector(tag: u32) -> Vec<u8> {
    tag.to_le_bytes().repeat(SECTOR / 4)
}

/// The tag of a sector, `None` when it is torn.
fn tag(bytes: &[u8]) -> Option<u32> {
    let first = u32::from_le_bytes(bytes[..4].try_into().ok()?);
    bytes
        .chunks(4)
        .all(|c| c == first.to_le_bytes())
        .then_some(first)
}

fn parent_file(dir: &Path, sectors: u32) -> Parent {
    let path = dir.join("disk.raw");
    let bytes: Vec<u8> = (1..=sectors)
        .flat_map(|i| sector(0x1000_0000 + i))
        .collect();
    fs::write(&path, &bytes).unwrap();
    Parent {
        id: "ami-1".into(),
        path,
        size: len_u64(&bytes),
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(u64, u64),
    Discard(u64, u64),
    Zeroes(u64, u64, bool),
    Flush,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let range = || (0u64..160, prop_oneof![4 => 1u64..20, 1 => 1u64..160]);
    prop_oneof![
        8 => range().prop_map(|(a, b)| Op::Write(a, b)),
        2 => range().prop_map(|(a, b)| Op::Discard(a, b)),
        2 => (range(), any::<bool>()).prop_map(|((a, b), unmap)| Op::Zeroes(a, b, unmap)),
        2 => Just(Op::Flush),
        1 => Just(Op::Reopen),
    ]
}

/// What each sector may hold: the last entry is what it holds now, the first what was flushed.
struct Model(Vec<Vec<u32>>);

impl Model {
    fn new(spec: &VolumeSpec) -> Self {
        let below = spec.parent.as_ref().map_or(0, |p| p.size / 512);
        let tag = |i| {
            if i < below {
                0x1000_0001 + u32::try_from(i).unwrap()
            } else {
                0
            }
        };
        Self((0..spec.size / 512).map(|i| vec![tag(i)]).collect())
    }

    fn put(&mut self, first: u64, count: u64, tag: impl Fn(u32) -> u32) {
        for (n, i) in (0..).zip(first..first + count) {
            self.0[index(i)].push(tag(n));
        }
    }

    fn flushed(&mut self) {
        for sector in &mut self.0 {
            sector.drain(..sector.len() - 1);
        }
    }
}

/// Applies an operation the way the hypervisor would, data past the volume's eyes.
fn apply(vol: &Volume, model: &mut Model, op: &Op, next: &AtomicU32) -> io::Result<()> {
    let sectors = vol.size() / 512;
    let clip = |a: u64, b: u64| (a % sectors, b.min(sectors - a % sectors));
    match *op {
        Op::Write(a, b) => {
            let (first, count) = clip(a, b);
            let base = next.fetch_add(1000, std::sync::atomic::Ordering::Relaxed);
            model.put(first, count, |n| base + n);
            let bytes: Vec<u8> = (base..).take(index(count)).flat_map(sector).collect();
            vol.locate_write(first * 512, count * 512)?;
            vol.data.write(&bytes, first * 512)?;
            vol.complete_write(first * 512, count * 512)
        }
        Op::Discard(a, b) => {
            let (first, count) = clip(a, b);
            model.put(first, count, |_| 0);
            vol.discard(first * 512, count * 512)
        }
        Op::Zeroes(a, b, unmap) => {
            let (first, count) = clip(a, b);
            model.put(first, count, |_| 0);
            vol.write_zeroes(first * 512, count * 512, unmap)
        }
        Op::Flush => {
            vol.flush()?;
            model.flushed();
            Ok(())
        }
        Op::Reopen => Ok(()),
    }
}

fn contents(vol: &Volume) -> Vec<Option<u32>> {
    let mut bytes = vec![0; index(vol.size())];
    read_at(vol, 0, &mut bytes).unwrap();
    bytes.chunks(SECTOR).map(tag).collect()
}

fn spec(dir: &Path, parent: Option<u32>, sectors: u64) -> VolumeSpec {
    match parent {
        Some(n) => VolumeSpec::over("vol-1", parent_file(dir, n)).sized(sectors * 512),
        None => VolumeSpec::blank("vol-1", sectors * 512),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: soak(64), ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_disk(
        parent in prop::option::of(1u32..90),
        grow in 0u64..70,
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let tmp = TempDir::new().unwrap();
        let sectors = u64::from(parent.unwrap_or(1)) + grow;
        let spec = spec(tmp.path(), parent, sectors);
        let dir = tmp.path().join("vol");
        Volume::create(&dir, &spec).unwrap();
        let mut vol = Volume::open(&dir).unwrap();
        let mut model = Model::new(&spec);
        let next = AtomicU32::new(1);
        for op in &ops {
            apply(&vol, &mut model, op, &next).unwrap();
            if matches!(op, Op::Reopen) {
                drop(vol);
                vol = Volume::open(&dir).unwrap();
            }
            let want: Vec<_> = model.0.iter().map(|s| s.last().copied()).collect();
            prop_assert_eq!(contents(&vol), want);
        }
    }

    /// Power fails at the n-th write or sync; of what was not synced each sector survives or not.
    #[test]
    fn keeps_what_was_flushed_whenever_power_fails(
        parent in prop::option::of(1u32..90),
        grow in 0u64..70,
        ops in prop::collection::vec(op(), 1..40),
        steps in 0u32..60,
        luck in any::<u64>(),
    ) {
        let tmp = TempDir::new().unwrap();
        let sectors = u64::from(parent.unwrap_or(1)) + grow;
        let spec = spec(tmp.path(), parent, sectors);
        let dir = tmp.path().join("vol");
        Volume::create(&dir, &spec).unwrap();
        let crash = Arc::new(Mutex::new(Crash { steps, dead: false, luck }));
        let mut vol = Volume::open(&dir).unwrap();
        Unsafe::wrap(&mut vol.data, &crash);
        Unsafe::wrap(&mut vol.map, &crash);
        let mut model = Model::new(&spec);
        let next = AtomicU32::new(1);
        for op in &ops {
            if apply(&vol, &mut model, op, &next).is_err() {
                break;
            }
        }
        crash.lock().unwrap().dead = true;
        drop(vol);
        let vol = Volume::open(&dir).unwrap();
        for (i, (found, allowed)) in contents(&vol).into_iter().zip(&model.0).enumerate() {
            prop_assert!(
                found.is_some_and(|tag| allowed.contains(&tag)),
                "sector {} holds {:?}, allowed {:?}", i, found, allowed
            );
        }
    }
}

/// More cases when `CUMULET_SOAK=1` says that there is time.
fn soak(cases: u32) -> u32 {
    if std::env::var_os("CUMULET_SOAK").is_some() {
        cases * 200
    } else {
        cases
    }
}

/// When and how the power fails.
#[derive(Debug)]
struct Crash {
    steps: u32,
    dead: bool,
    luck: u64,
}

impl Crash {
    /// Counts a step; false when the power is gone.
    fn step(&mut self) -> bool {
        self.dead |= self.steps == 0;
        self.steps = self.steps.saturating_sub(1);
        !self.dead
    }

    fn coin(&mut self) -> bool {
        self.luck = self
            .luck
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.luck >> 40 & 1 == 1
    }
}

/// A file whose unsynced sectors may be lost when it is closed after a crash.
#[derive(Debug)]
struct Unsafe {
    below: HostFile,
    crash: Arc<Mutex<Crash>>,
    /// Durable contents of the sectors written since the last sync.
    durable: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Unsafe {
    fn wrap(file: &mut Box<dyn Backing>, crash: &Arc<Mutex<Crash>>) {
        let below = HostFile(File::from(file.fd().try_clone_to_owned().unwrap()));
        *file = Box::new(Self {
            below,
            crash: crash.clone(),
            durable: Mutex::default(),
        });
    }

    fn change(&self, offset: u64, len: u64, bytes: &[u8]) -> io::Result<()> {
        let alive = self.crash.lock().unwrap().step();
        let mut durable = self.durable.lock().unwrap();
        for (i, chunk) in (offset / 512..(offset + len).div_ceil(512)).zip(bytes.chunks(SECTOR)) {
            durable.entry(i).or_insert_with(|| {
                let mut old = vec![0; SECTOR];
                read_exact_fd(self.below.fd(), &mut old, i * 512).unwrap();
                old
            });
            // A write at which the power fails is torn anywhere between two sectors.
            if alive || self.crash.lock().unwrap().coin() {
                self.below.write(chunk, i * 512)?;
            }
        }
        if alive {
            Ok(())
        } else {
            Err(io::Error::other("power failed"))
        }
    }
}

impl Backing for Unsafe {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.below.fd()
    }
    fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.change(offset, len_u64(buf), buf)
    }
    fn sync(&self) -> io::Result<()> {
        if !self.crash.lock().unwrap().step() {
            return Err(io::Error::other("power failed"));
        }
        self.durable.lock().unwrap().clear();
        Ok(())
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, &vec![0; index(len)])
    }
    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, &vec![0; index(len)])
    }
}

impl Drop for Unsafe {
    fn drop(&mut self) {
        for (i, old) in self.durable.get_mut().unwrap().iter() {
            if self.crash.lock().unwrap().coin() {
                self.below.write(old, i * 512).unwrap();
            }
        }
    }
}

#[test]
fn writers_of_neighbouring_sectors_do_not_undo_each_other() {
    let tmp = TempDir::new().unwrap();
    let dir = tmp.path().join("vol");
    let spec = spec(tmp.path(), Some(800), 800);
    Volume::create(&dir, &spec).unwrap();
    let vol = Volume::open(&dir).unwrap();
    std::thread::scope(|scope| {
        for lane in 0..8u32 {
            let vol = &vol;
            scope.spawn(move || {
                for i in (u64::from(lane)..800).step_by(8) {
                    write_at(vol, i * 512, &sector(7 + lane)).unwrap();
                    if i % 64 == 0 {
                        vol.flush().unwrap();
                    }
                }
            });
        }
    });
    let want: Vec<_> = (0..800u32).map(|i| Some(7 + i % 8)).collect();
    assert_eq!(contents(&vol), want);
    drop(vol);
    assert_eq!(contents(&Volume::open(&dir).unwrap()), want);
}

#[test]
fn a_block_is_completed_once_however_writes_interleave() {
    let tmp = TempDir::new().unwrap();
    let dir = tmp.path().join("vol");
    Volume::create(&dir, &spec(tmp.path(), Some(8), 8)).unwrap();
    let vol = Volume::open(&dir).unwrap();
    vol.locate_write(0, 512).unwrap();
    vol.data.write(&sector(1), 0).unwrap();
    vol.locate_write(512, 512).unwrap();
    vol.complete_write(0, 512).unwrap();
    vol.data.write(&sector(2), 512).unwrap();
    vol.complete_write(512, 512).unwrap();
    let old = (3..=8).map(|i| Some(0x1000_0000 + i));
    let want: Vec<_> = [Some(1), Some(2)].into_iter().chain(old).collect();
    assert_eq!(contents(&vol), want);
}

#[test]
fn a_failed_sync_is_never_forgotten() {
    let tmp = TempDir::new().unwrap();
    let dir = tmp.path().join("vol");
    Volume::create(&dir, &VolumeSpec::blank("vol-1", 1 << 20)).unwrap();
    let mut vol = Volume::open(&dir).unwrap();
    let crash = Arc::new(Mutex::new(Crash {
        steps: 1,
        dead: false,
        luck: 1,
    }));
    Unsafe::wrap(&mut vol.data, &crash);
    vol.locate_write(0, 512).unwrap();
    vol.complete_write(0, 512).unwrap();
    assert!(vol.flush().is_err());
    *crash.lock().unwrap() = Crash {
        steps: 100,
        dead: false,
        luck: 1,
    };
    let error = vol.flush().unwrap_err().to_string();
    assert!(error.contains("earlier sync failed"), "{error}");
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let tmp = TempDir::new().unwrap();
    let dir = tmp.path().join("vol");
    Volume::create(&dir, &VolumeSpec::blank("vol-1", 1 << 20)).unwrap();
    let first = Volume::open(&dir).unwrap();
    let error = Volume::open(&dir).unwrap_err();
    let me = std::process::id().to_string();
    assert!(
        matches!(&error, VolumeError::InUse { owner, .. } if *owner == me),
        "{error}"
    );
    assert!(matches!(
        Volume::remove(&dir),
        Err(VolumeError::InUse { .. })
    ));
    drop(first);
    Volume::open(&dir).unwrap();
    Volume::remove(&dir).unwrap();
    assert!(!dir.exists());
}

#[test]
fn damage_is_named_and_never_served() {
    let tmp = TempDir::new().unwrap();
    let dir = tmp.path().join("vol");
    let spec = spec(tmp.path(), Some(64), 40_000);
    Volume::create(&dir, &spec).unwrap();
    let vol = Volume::open(&dir).unwrap();
    write_at(&vol, 0, &sector(9)).unwrap();
    write_at(&vol, BLOCK_SIZE * presence::BLOCKS_PER_SECTOR, &sector(9)).unwrap();
    drop(vol);
    let map = dir.join("map");
    let good = fs::read(&map).unwrap();
    let mut bad = good.clone();
    bad[SECTOR + 100] ^= 4;
    fs::write(&map, &bad).unwrap();
    let error = Volume::open(&dir).unwrap_err();
    assert!(
        matches!(
            error,
            VolumeError::Map {
                sector: 1,
                source: MapDamage::Checksum,
                ..
            }
        ),
        "{error}"
    );
    fs::write(&map, &good[SECTOR..]).unwrap();
    assert!(matches!(
        Volume::open(&dir),
        Err(VolumeError::Length { .. })
    ));
    fs::write(&map, &good).unwrap();
    Volume::open(&dir).unwrap();
    fs::write(tmp.path().join("disk.raw"), b"short").unwrap();
    assert!(matches!(
        Volume::open(&dir),
        Err(VolumeError::ParentChanged { .. })
    ));
}

#[test]
fn creation_refuses_what_cannot_be_and_takes_over_left_overs() {
    let tmp = TempDir::new().unwrap();
    let dir = tmp.path().join("vol");
    let create = |spec: &VolumeSpec| Volume::create(&dir, spec);
    for size in [0, 100, 1 << 60] {
        assert!(matches!(
            create(&VolumeSpec::blank("v", size)),
            Err(VolumeError::Size { .. })
        ));
    }
    let small = spec(tmp.path(), Some(8), 4);
    assert!(matches!(create(&small), Err(VolumeError::Size { .. })));
    fs::create_dir(tmp.path().join(".vol.new")).unwrap();
    fs::write(tmp.path().join(".vol.new/data"), b"half").unwrap();
    create(&VolumeSpec::blank("v", 1 << 20)).unwrap();
    assert!(matches!(
        create(&VolumeSpec::blank("v", 1 << 20)),
        Err(VolumeError::Exists { .. })
    ));
    assert_eq!(
        fs::read_dir(tmp.path()).unwrap().count(),
        2,
        "only the parent and the volume"
    );
    let vol = Volume::open(&dir).unwrap();
    assert!(contents(&vol).iter().all(|t| *t == Some(0)));
}

#[test]
fn size_costs_nothing_and_discard_gives_space_back() {
    use std::os::unix::fs::MetadataExt;
    let tmp = TempDir::new().unwrap();
    let dir = tmp.path().join("vol");
    Volume::create(&dir, &VolumeSpec::blank("v", 8 << 40)).unwrap();
    let vol = Volume::open(&dir).unwrap();
    let used = || fs::metadata(dir.join("data")).unwrap().blocks() * 512;
    assert_eq!(
        used() + fs::metadata(dir.join("map")).unwrap().blocks() * 512,
        0
    );
    vol.discard(0, 8 << 40).unwrap();
    assert_eq!(vol.own_bytes(), 0, "zeros need no discard");
    write_at(&vol, 4 << 40, &vec![1; 1 << 20]).unwrap();
    vol.flush().unwrap();
    assert!(used() >= 1 << 20);
    vol.discard(0, 8 << 40).unwrap();
    vol.flush().unwrap();
    assert_eq!(used(), 0);
    let newer = fs::read_to_string(dir.join("volume.json"))
        .unwrap()
        .replace("\"format\": 1", "\"format\": 2");
    drop(vol);
    fs::write(dir.join("volume.json"), newer).unwrap();
    assert!(matches!(
        Volume::open(&dir),
        Err(VolumeError::Format { found: 2, .. })
    ));
}
