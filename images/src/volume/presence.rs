//! Which blocks of a volume are its own: the bitmap in memory and its sectors on disk.
//!
//! On disk the map is an array of 512-byte sectors, so that no write of ours spans a unit which a
//! disk may tear:
//!
//! ```text
//! bytes 0..4    CRC-32 (IEEE) of bytes 4..512, little-endian
//! bytes 4..8    "CMAP"
//! bytes 8..16   index of this sector in the map, little-endian
//! bytes 16..512 3968 bits, one a block of 4 KiB, lowest bit first
//! ```
//!
//! A sector of zeros is an empty one; a sparse map file is therefore a valid empty map.
//!
//! In memory, groups of 64 sectors are made when their first bit is set. An untouched volume of any
//! size costs 16 bytes for each GiB or so.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::io::index;

/// Bytes of a map sector.
pub(super) const MAP_SECTOR: usize = 512;
/// Bytes of a map sector, as a file offset.
pub(super) const MAP_SECTOR_U64: u64 = 512;
/// Blocks that one map sector describes.
pub(super) const BLOCKS_PER_SECTOR: u64 = 3968;
const WORDS_PER_SECTOR: u64 = BLOCKS_PER_SECTOR / 64;
const SECTORS_PER_GROUP: u64 = 64;
const MAGIC: &[u8; 4] = b"CMAP";
const HEADER: usize = 16;

/// What is wrong with a map sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapDamage {
    /// The checksum does not fit the contents: a torn write or rot.
    #[error("its checksum is wrong (torn write or damaged disk)")]
    Checksum,
    /// Sound, but of another place in the map.
    #[error("it belongs at index {0} (misplaced write)")]
    Misplaced(u64),
    /// Sound, but not a map sector.
    #[error("it is not a sector of a volume map")]
    Foreign,
    /// A bit is set for a block behind the end of the volume.
    #[error("it names blocks behind the end of the volume")]
    BeyondEnd,
}

#[derive(Debug)]
struct Group {
    words: Box<[AtomicU64]>,
    /// One bit a sector: differs from the disk.
    dirty: AtomicU64,
}

impl Group {
    fn new() -> Self {
        let words = (0..WORDS_PER_SECTOR * SECTORS_PER_GROUP)
            .map(|_| AtomicU64::new(0))
            .collect();
        Self {
            words,
            dirty: AtomicU64::new(0),
        }
    }
}

/// The presence bitmap of a volume.
#[derive(Debug)]
pub(super) struct Presence {
    blocks: u64,
    groups: Box<[OnceLock<Group>]>,
}

/// A run of map sectors to be written back: index of the first and the bytes of all.
#[derive(Debug)]
pub(super) struct DirtyRun {
    pub(super) first: u64,
    pub(super) bytes: Vec<u8>,
}

impl Presence {
    /// A map of `blocks` blocks, all absent.
    pub(super) fn new(blocks: u64) -> Self {
        let groups = sectors_for(blocks).div_ceil(SECTORS_PER_GROUP);
        Self {
            blocks,
            groups: (0..groups).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Takes in sector `sector` as read from disk.
    pub(super) fn load(&self, sector: u64, bytes: &[u8; MAP_SECTOR]) -> Result<(), MapDamage> {
        if bytes.iter().all(|&b| b == 0) {
            return Ok(());
        }
        if crc32fast::hash(&bytes[4..]).to_le_bytes() != bytes[..4] {
            return Err(MapDamage::Checksum);
        }
        if &bytes[4..8] != MAGIC {
            return Err(MapDamage::Foreign);
        }
        let found = word(&bytes[8..16]);
        if found != sector {
            return Err(MapDamage::Misplaced(found));
        }
        for (i, chunk) in (0u64..).zip(bytes[HEADER..].chunks_exact(8)) {
            let bits = word(chunk);
            if bits == 0 {
                continue;
            }
            let first = sector * BLOCKS_PER_SECTOR + i * 64;
            let last = first + u64::from(63 - bits.leading_zeros());
            if last >= self.blocks {
                return Err(MapDamage::BeyondEnd);
            }
            let (group, word, _) = self.place(first);
            group.words[word].fetch_or(bits, Ordering::Release);
        }
        Ok(())
    }

    /// Whether `block` is the volume's own, and how many blocks from it on (at most `max`) are alike.
    pub(super) fn run(&self, block: u64, max: u64) -> (bool, u64) {
        let present = self.get(block);
        let mut len = 1;
        while len < max {
            let at = block + len;
            let left = (64 - at % BLOCKS_PER_SECTOR % 64).min(max - len);
            let bits = self.word_at(at) >> (at % BLOCKS_PER_SECTOR % 64);
            let alike = if present { !bits } else { bits }.trailing_zeros();
            let step = u64::from(alike).min(left);
            len += step;
            if step < left {
                break;
            }
        }
        (present, len)
    }

    /// Whether `block` is the volume's own.
    pub(super) fn get(&self, block: u64) -> bool {
        self.word_at(block) >> (block % BLOCKS_PER_SECTOR % 64) & 1 == 1
    }

    /// The word with the bit of `block`.
    fn word_at(&self, block: u64) -> u64 {
        let sector = block / BLOCKS_PER_SECTOR;
        let Some(group) = self.groups[index(sector / SECTORS_PER_GROUP)].get() else {
            return 0;
        };
        let word = sector % SECTORS_PER_GROUP * WORDS_PER_SECTOR + block % BLOCKS_PER_SECTOR / 64;
        group.words[index(word)].load(Ordering::Acquire)
    }

    /// The group, word index and dirty bit of `block`; makes the group.
    fn place(&self, block: u64) -> (&Group, usize, u64) {
        let sector = block / BLOCKS_PER_SECTOR;
        let group = self.groups[index(sector / SECTORS_PER_GROUP)].get_or_init(Group::new);
        let word = sector % SECTORS_PER_GROUP * WORDS_PER_SECTOR + block % BLOCKS_PER_SECTOR / 64;
        (group, index(word), 1 << (sector % SECTORS_PER_GROUP))
    }

    /// Marks `count` blocks from `first` on as the volume's own.
    pub(super) fn set(&self, first: u64, count: u64) {
        let mut at = first;
        let end = first + count;
        while at < end {
            let bit = at % BLOCKS_PER_SECTOR % 64;
            let step = (64 - bit).min(end - at);
            let mask = (u64::MAX >> (64 - step)) << bit;
            let (group, word, dirty) = self.place(at);
            // The bits before the dirty mark: who sees the mark sees the bits.
            if group.words[word].fetch_or(mask, Ordering::AcqRel) & mask != mask {
                group.dirty.fetch_or(dirty, Ordering::AcqRel);
            }
            at += step;
        }
    }

    /// Takes the dirty sectors of group number `group` as they are now and calls them clean.
    pub(super) fn take_dirty(&self, group: u64) -> Vec<DirtyRun> {
        let mut runs: Vec<DirtyRun> = Vec::new();
        let Some(found) = self.groups[index(group)].get() else {
            return runs;
        };
        let dirty = found.dirty.swap(0, Ordering::AcqRel);
        let mut next = None;
        for i in (0..SECTORS_PER_GROUP).filter(|i| dirty >> i & 1 == 1) {
            let sector = group * SECTORS_PER_GROUP + i;
            let bytes = Self::encode(found, i, sector);
            match runs.last_mut() {
                Some(run) if next == Some(sector) => run.bytes.extend_from_slice(&bytes),
                _ => runs.push(DirtyRun {
                    first: sector,
                    bytes: bytes.to_vec(),
                }),
            }
            next = Some(sector + 1);
        }
        runs
    }

    /// Gives back what [`Presence::take_dirty`] took, because it did not reach the disk.
    pub(super) fn give_back(&self, runs: &[DirtyRun]) {
        for run in runs {
            for (sector, _) in (run.first..).zip(run.bytes.chunks_exact(MAP_SECTOR)) {
                let (group, _, dirty) = self.place(sector * BLOCKS_PER_SECTOR);
                group.dirty.fetch_or(dirty, Ordering::AcqRel);
            }
        }
    }

    /// Number of groups, for [`Presence::take_dirty`].
    pub(super) fn groups(&self) -> u64 {
        sectors_for(self.blocks).div_ceil(SECTORS_PER_GROUP)
    }

    /// Number of blocks present.
    pub(super) fn count(&self) -> u64 {
        let words = self.groups.iter().filter_map(OnceLock::get);
        words
            .flat_map(|group| group.words.iter())
            .map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()))
            .sum()
    }

    fn encode(group: &Group, in_group: u64, sector: u64) -> [u8; MAP_SECTOR] {
        let mut out = [0; MAP_SECTOR];
        out[4..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&sector.to_le_bytes());
        let first = index(in_group * WORDS_PER_SECTOR);
        let words = &group.words[first..first + index(WORDS_PER_SECTOR)];
        for (chunk, word) in out[HEADER..].chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.load(Ordering::Acquire).to_le_bytes());
        }
        let crc = crc32fast::hash(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Map sectors that `blocks` blocks need.
pub(super) fn sectors_for(blocks: u64) -> u64 {
    blocks.div_ceil(BLOCKS_PER_SECTOR)
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |acc, &b| acc << 8 | u64::from(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sectors(presence: &Presence) -> Vec<(u64, [u8; MAP_SECTOR])> {
        let mut out = Vec::new();
        for group in 0..presence.groups() {
            for run in presence.take_dirty(group) {
                for (i, chunk) in (run.first..).zip(run.bytes.chunks_exact(MAP_SECTOR)) {
                    out.push((i, chunk.try_into().unwrap()));
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_and_survives_the_disk(
            blocks in 1u64..300_000,
            writes in prop::collection::vec((0u64..300_000, 1u64..9000), 0..20),
            probes in prop::collection::vec((0u64..300_000, 1u64..9000), 1..20),
        ) {
            let presence = Presence::new(blocks);
            let mut model = vec![false; index(blocks)];
            for (first, count) in writes {
                let first = first % blocks;
                let count = count.min(blocks - first);
                presence.set(first, count);
                model[index(first)..index(first + count)].fill(true);
            }
            let copy = Presence::new(blocks);
            for (i, sector) in sectors(&presence) {
                copy.load(i, &sector).unwrap();
            }
            prop_assert!(sectors(&presence).is_empty());
            for map in [&presence, &copy] {
                let want = model.iter().filter(|&&bit| bit).count();
                prop_assert_eq!(index(map.count()), want);
                for &(first, max) in &probes {
                    let first = first % blocks;
                    let max = max.min(blocks - first);
                    let (present, len) = map.run(first, max);
                    prop_assert_eq!(present, model[index(first)]);
                    let alike = model[index(first)..index(first + max)]
                        .iter()
                        .take_while(|&&bit| bit == present)
                        .count();
                    prop_assert_eq!(index(len), alike);
                }
            }
        }

        #[test]
        fn any_change_of_a_sector_is_noticed(at in 0usize..MAP_SECTOR, flip in 1u8..=255) {
            let presence = Presence::new(10_000);
            presence.set(5000, 70);
            let (i, mut sector) = sectors(&presence)[0];
            sector[at] ^= flip;
            prop_assert!(Presence::new(10_000).load(i, &sector).is_err());
        }
    }

    #[test]
    fn a_misplaced_or_overlong_sector_is_refused() {
        let presence = Presence::new(10_000);
        presence.set(9_999, 1);
        let (i, sector) = sectors(&presence)[0];
        assert_eq!(
            Presence::new(10_000).load(i - 1, &sector),
            Err(MapDamage::Misplaced(i))
        );
        assert_eq!(
            Presence::new(9_999).load(i, &sector),
            Err(MapDamage::BeyondEnd)
        );
    }
}
