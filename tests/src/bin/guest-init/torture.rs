//! Random block operations against a model: every sector's content is known at any time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::command::Args;
use crate::disk;
use crate::mem::Pages;
use cumulet_tests::pattern::Rng;
use cumulet_tests::pattern::fill;

const SECTOR: usize = 512;
/// Longest request, in sectors: 256 KiB, so that most requests have many segments.
const LONGEST: u64 = 512;

/// What a sector holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Unknown,
    Zeros,
    Seed(u64),
}

/// Operations done, by kind.
#[derive(Default)]
struct Counts {
    writes: u64,
    reads: u64,
    flushes: u64,
    discards: u64,
    zeroes: u64,
}

/// `{"disk", "seed", "ops", "len", "threads", "direct", "discard"}`: each thread works on its own
/// `len` bytes, beginning at the start of the disk.
pub(crate) fn run(args: &Args) -> Result<Value> {
    let path = disk::find(args)?;
    let (seed, ops) = (args.number("seed")?, args.number("ops")?);
    let len = args.number_or("len", 4 << 20)?;
    let (direct, discard) = (args.flag("direct"), args.flag("discard"));
    let threads = args.number_or("threads", 1)?;
    let results: Vec<Result<Counts>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|index| {
                let path = &path;
                scope.spawn(move || {
                    let rng = Rng::new(seed.wrapping_add(index << 32));
                    Worker::new(path, index * len, len, direct, rng)?.run(ops, discard)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
            .collect()
    });
    let mut sum = Counts::default();
    for result in results {
        let counts = result?;
        sum.writes += counts.writes;
        sum.reads += counts.reads;
        sum.flushes += counts.flushes;
        sum.discards += counts.discards;
        sum.zeroes += counts.zeroes;
    }
    Ok(json!({
        "writes": sum.writes, "reads": sum.reads, "flushes": sum.flushes,
        "discards": sum.discards, "zeroes": sum.zeroes,
    }))
}

struct Worker {
    file: File,
    base: u64,
    sectors: Vec<Content>,
    buf: Pages,
    rng: Rng,
}

impl Worker {
    fn new(path: &Path, base: u64, len: u64, direct: bool, rng: Rng) -> Result<Self> {
        let count = usize::try_from(len)? / SECTOR;
        ensure!(count > 0, "nothing to work on");
        Ok(Self {
            file: disk::open(path, true, direct)?,
            base,
            sectors: vec![Content::Unknown; count],
            buf: Pages::new(usize::try_from(LONGEST)? * SECTOR)?,
            rng,
        })
    }

    fn run(mut self, ops: u64, discard: bool) -> Result<Counts> {
        let mut counts = Counts::default();
        for op in 0..ops {
            let (first, count) = self.range()?;
            match self.rng.below(20) {
                0..=8 => {
                    self.write(first, count)?;
                    counts.writes += 1;
                }
                9..=16 => {
                    self.read(first, count)
                        .with_context(|| format!("operation {op}"))?;
                    counts.reads += 1;
                }
                17 => {
                    self.file.sync_data().context("fsync")?;
                    counts.flushes += 1;
                }
                18 if discard => {
                    disk::discard_range(&self.file, self.bytes(first, count))?;
                    self.set(first, count, Content::Unknown);
                    counts.discards += 1;
                }
                _ => {
                    disk::zero_range(&self.file, self.bytes(first, count))?;
                    self.set(first, count, Content::Zeros);
                    counts.zeroes += 1;
                }
            }
        }
        // At the end everything that is known must be there.
        self.file.sync_all().context("fsync")?;
        let all = self.sectors.len();
        let step = usize::try_from(LONGEST)?;
        for first in (0..all).step_by(step) {
            self.read(first, step.min(all - first))
                .context("final check")?;
        }
        Ok(counts)
    }

    fn range(&mut self) -> Result<(usize, usize)> {
        let all = self.sectors.len() as u64;
        let first = self.rng.below(all);
        let count = 1 + self.rng.below(LONGEST.min(all - first));
        Ok((usize::try_from(first)?, usize::try_from(count)?))
    }

    fn at(&self, sector: usize) -> u64 {
        self.base + (sector * SECTOR) as u64
    }

    fn bytes(&self, first: usize, count: usize) -> [u64; 2] {
        [self.at(first), (count * SECTOR) as u64]
    }

    fn set(&mut self, first: usize, count: usize, content: Content) {
        self.sectors[first..first + count].fill(content);
    }

    fn write(&mut self, first: usize, count: usize) -> Result<()> {
        let (seed, at) = (self.rng.next_u64(), self.at(first));
        let buf = &mut self.buf.bytes()[..count * SECTOR];
        fill(buf, seed, at);
        self.file
            .write_all_at(buf, at)
            .with_context(|| format!("write of {count} sectors at byte {at}"))?;
        self.set(first, count, Content::Seed(seed));
        Ok(())
    }

    fn read(&mut self, first: usize, count: usize) -> Result<()> {
        let at = self.at(first);
        let buf = &mut self.buf.bytes()[..count * SECTOR];
        self.file
            .read_exact_at(buf, at)
            .with_context(|| format!("read of {count} sectors at byte {at}"))?;
        let mut expected = [0; SECTOR];
        for (index, found) in buf.chunks_exact(SECTOR).enumerate() {
            let position = at + (index * SECTOR) as u64;
            match self.sectors[first + index] {
                Content::Unknown => continue,
                Content::Zeros => expected.fill(0),
                Content::Seed(seed) => fill(&mut expected, seed, position),
            }
            ensure!(
                found == expected,
                "sector at byte {position} is wrong: begins {:02x?}, should begin {:02x?}",
                &found[..16],
                &expected[..16]
            );
        }
        Ok(())
    }
}
