//! Partition tables, read-only: GPT (UEFI 2.10 §5.3), MBR with logical partitions, or none.
//!
//! The reader is our own because the table comes from an untrusted image: the `gpt` crate asserts on
//! some header fields instead of refusing them.

use std::io;

use crate::slice::{Slice, le};

const SECTOR: u64 = 512;
/// Largest table we look at; the usual one has 128.
const MAX_ENTRIES: u64 = 1024;
/// Logical partitions of an MBR that are followed.
const MAX_LOGICAL: usize = 64;

/// Type of an extended boot partition (Boot Loader Specification).
pub const XBOOTLDR: &str = "bc13c2ff-59e6-4262-a352-b275fd6f7172";
/// Type of an EFI system partition.
pub const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// How the disk is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// GUID partition table.
    Gpt,
    /// DOS partition table.
    Mbr,
    /// None: one file system fills the disk.
    Whole,
}

/// One partition.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its number as Linux counts (`vda1` is 1); 0 for the whole disk.
    pub number: u32,
    /// Type GUID in small letters, or `0x83` on an MBR; empty for the whole disk.
    pub kind: String,
    /// What `root=PARTUUID=` names; empty for the whole disk.
    pub uuid: String,
    /// Its bytes.
    pub slice: Slice,
}

/// A disk's partitions.
#[derive(Debug, Clone)]
pub struct Table {
    /// How it is divided.
    pub scheme: Scheme,
    /// What it is divided into; used entries only, in table order.
    pub partitions: Vec<Partition>,
    /// What is wrong with it, though it could be read.
    pub remarks: Vec<String>,
    /// Partitions that lie outside the disk, in words.
    pub missing: Vec<String>,
}

/// Why there are no partitions.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The disk could not be read.
    #[error("cannot read the partition table")]
    Io(#[from] io::Error),
    /// Neither a table nor a known file system.
    #[error(
        "the image has no partition table and no file system known here at its beginning; \
         is it a disk image?"
    )]
    None,
    /// A GPT of which no copy is sound.
    #[error("the GUID partition table is damaged: {0}")]
    Damaged(String),
}

/// Reads the partition table of `disk`. `is_fs` says whether a file system begins where it is asked.
///
/// # Errors
/// When the disk cannot be read or there is nothing to be found.
pub fn read(disk: &Slice, is_fs: impl Fn(&Slice) -> bool) -> Result<Table, PartitionError> {
    if disk.len() < 2 * SECTOR {
        return Err(PartitionError::None);
    }
    let mbr: [u8; 512] = disk.bytes(0)?;
    let boot_signature = mbr[510..] == [0x55, 0xaa];
    let entries = mbr_entries(&mbr);
    let protective = boot_signature && entries.iter().any(|e| e.kind == 0xee);
    let header: [u8; 8] = disk.bytes(SECTOR)?;
    if protective || &header == b"EFI PART" {
        return gpt(disk);
    }
    if is_fs(disk) {
        return Ok(Table {
            scheme: Scheme::Whole,
            partitions: vec![Partition {
                number: 0,
                kind: String::new(),
                uuid: String::new(),
                slice: disk.clone(),
            }],
            remarks: Vec::new(),
            missing: Vec::new(),
        });
    }
    if boot_signature && entries.iter().any(MbrEntry::used) {
        return mbr_table(disk, &mbr);
    }
    Err(PartitionError::None)
}

fn gpt(disk: &Slice) -> Result<Table, PartitionError> {
    match gpt_at(disk, 1) {
        Ok(table) => Ok(table),
        Err(PartitionError::Damaged(why)) => {
            // The copy in the last sector is where it belongs unless the disk has been grown.
            match gpt_at(disk, disk.len() / SECTOR - 1) {
                Ok(mut table) => {
                    table.remarks.push(format!(
                        "the first GPT is damaged ({why}); its copy was used"
                    ));
                    Ok(table)
                }
                Err(_) => Err(PartitionError::Damaged(why)),
            }
        }
        Err(other) => Err(other),
    }
}

fn gpt_at(disk: &Slice, lba: u64) -> Result<Table, PartitionError> {
    let damaged = |why: String| Err(PartitionError::Damaged(why));
    let mut header: [u8; 512] = disk.bytes(lba * SECTOR)?;
    if &header[..8] != b"EFI PART" {
        return damaged(format!("no GPT header in sector {lba}"));
    }
    let header_len = le(&header, 12, 4);
    let (entry_lba, count, width) = (le(&header, 72, 8), le(&header, 80, 4), le(&header, 84, 4));
    let table_crc = le(&header, 88, 4);
    let header_crc = le(&header, 16, 4);
    if !(92..=512).contains(&header_len) {
        return damaged(format!("a header of {header_len} bytes"));
    }
    header[16..20].fill(0);
    if u64::from(crc32fast::hash(&header[..crate::io::index(header_len)])) != header_crc {
        return damaged("header checksum".into());
    }
    if !width.is_power_of_two() || !(128..=4096).contains(&width) || count > MAX_ENTRIES {
        return damaged(format!("{count} entries of {width} bytes"));
    }
    let Some(at) = entry_lba.checked_mul(SECTOR) else {
        return damaged(format!("entries at sector {entry_lba}"));
    };
    let mut table = vec![0; crate::io::index(count * width)];
    match disk.read(at, &mut table) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return damaged(format!("entries at sector {entry_lba}"));
        }
        other => other?,
    }
    if u64::from(crc32fast::hash(&table)) != table_crc {
        return damaged("entry checksum".into());
    }
    let mut out = Table {
        scheme: Scheme::Gpt,
        partitions: Vec::new(),
        remarks: Vec::new(),
        missing: Vec::new(),
    };
    for (number, entry) in (1..).zip(table.chunks_exact(crate::io::index(width))) {
        if entry[..16].iter().all(|&b| b == 0) {
            continue;
        }
        let (first, last) = (le(entry, 32, 8), le(entry, 40, 8));
        match span(
            disk,
            first,
            last.checked_sub(first).and_then(|n| n.checked_add(1)),
        ) {
            Some(slice) => out.partitions.push(Partition {
                number,
                kind: guid(&entry[..16]),
                uuid: guid(&entry[16..32]),
                slice,
            }),
            None => out.missing.push(format!(
                "partition {number} (sectors {first} to {last}) lies outside the image of {} \
                 sectors",
                disk.len() / SECTOR
            )),
        }
    }
    Ok(out)
}

/// The partition of `count` sectors from `first`, when it lies within the disk.
fn span(disk: &Slice, first: u64, count: Option<u64>) -> Option<Slice> {
    let count = count.filter(|&n| n > 0)?;
    disk.part(first.checked_mul(SECTOR)?, count.checked_mul(SECTOR)?)
}

/// A GUID as it is written: the first three fields little-endian (UEFI 2.10 Appendix A).
fn guid(b: &[u8]) -> String {
    let hex = |bytes: &mut dyn Iterator<Item = &u8>| {
        bytes.map(|b| format!("{b:02x}")).collect::<String>()
    };
    format!(
        "{}-{}-{}-{}-{}",
        hex(&mut b[..4].iter().rev()),
        hex(&mut b[4..6].iter().rev()),
        hex(&mut b[6..8].iter().rev()),
        hex(&mut b[8..10].iter()),
        hex(&mut b[10..16].iter())
    )
}

#[derive(Debug, Clone, Copy)]
struct MbrEntry {
    kind: u8,
    first: u64,
    count: u64,
}

impl MbrEntry {
    fn used(&self) -> bool {
        self.kind != 0 && self.count != 0
    }

    fn extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

fn mbr_entries(sector: &[u8; 512]) -> [MbrEntry; 4] {
    [446, 462, 478, 494].map(|at| MbrEntry {
        kind: sector[at + 4],
        first: le(sector, at + 8, 4),
        count: le(sector, at + 12, 4),
    })
}

fn mbr_table(disk: &Slice, mbr: &[u8; 512]) -> Result<Table, PartitionError> {
    let disk_id = le(mbr, 440, 4);
    let mut out = Table {
        scheme: Scheme::Mbr,
        partitions: Vec::new(),
        remarks: Vec::new(),
        missing: Vec::new(),
    };
    let add = |out: &mut Table, number: u32, entry: MbrEntry, base: u64| match span(
        disk,
        base + entry.first,
        Some(entry.count),
    ) {
        Some(slice) => out.partitions.push(Partition {
            number,
            kind: format!("0x{:02x}", entry.kind),
            uuid: format!("{disk_id:08x}-{number:02x}"),
            slice,
        }),
        None => out.remarks.push(format!(
            "partition {number} lies outside the image of {} sectors",
            disk.len() / SECTOR
        )),
    };
    for (number, entry) in (1..).zip(mbr_entries(mbr)) {
        if !entry.used() {
            continue;
        }
        if !entry.extended() {
            add(&mut out, number, entry, 0);
            continue;
        }
        // A chain of tables: each names one logical partition and the next table.
        let base = entry.first;
        let mut next = Some(base);
        let mut logical = 5;
        for _ in 0..MAX_LOGICAL {
            let Some(at) = next else { break };
            let Ok(sector) = disk.bytes::<512>(at * SECTOR) else {
                out.remarks
                    .push("the chain of logical partitions leaves the image".into());
                break;
            };
            if sector[510..] != [0x55, 0xaa] {
                break;
            }
            let [partition, link, ..] = mbr_entries(&sector);
            if partition.used() {
                add(&mut out, logical, partition, at);
                logical += 1;
            }
            next = (link.used() && link.extended()).then_some(base + link.first);
        }
    }
    Ok(out)
}
