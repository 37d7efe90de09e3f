//! Writing disks: a GPT (UEFI 2.10 §5.3) into a plain file, no loop device and no root needed.
//!
//! Written by hand because partition numbers matter to us (a root partition numbered 1 that lies last
//! on the disk can grow), and the `gpt` crate packs the used entries together.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use crate::block::SECTOR_SIZE;
use crate::io::{index, write_all_fd};

/// Where partitions begin: at whole MiB, as everybody does.
pub const ALIGNMENT: u64 = 1 << 20;
/// What the backup table needs at the end of the disk.
pub const TAIL: u64 = 1 << 20;

const ENTRIES: u64 = 128;
const ENTRY_SIZE: u64 = 128;
const TABLE_SECTORS: u64 = ENTRIES * ENTRY_SIZE / SECTOR_SIZE;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// GRUB's core image for BIOS boot.
    BiosBoot,
    /// EFI system partition.
    Esp,
    /// A Linux file system.
    Linux,
}

impl Role {
    /// Type GUID as it lies on the disk, and name.
    fn identity(self) -> ([u8; 16], &'static str) {
        match self {
            Self::BiosBoot => (*b"Hah!IdontNeedEFI", "bios"),
            Self::Esp => (
                [
                    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9,
                    0x3e, 0xc9, 0x3b,
                ],
                "esp",
            ),
            Self::Linux => (
                [
                    0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8,
                    0x47, 0x7d, 0xe4,
                ],
                "root",
            ),
        }
    }
}

/// A partition to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionPlan {
    /// Its number, as in `vda1`: 1 to 128.
    pub number: u32,
    /// What it is for.
    pub role: Role,
    /// First byte, a multiple of the sector size.
    pub start: u64,
    /// Bytes, a multiple of the sector size.
    pub len: u64,
}

/// Writes a GPT with `plan` over the whole of `disk`, which has its final size.
///
/// # Errors
/// `InvalidInput` when a partition does not fit; whatever writing says.
pub fn write_gpt(disk: &File, plan: &[PartitionPlan]) -> io::Result<()> {
    let sectors = disk.metadata()?.len() / SECTOR_SIZE;
    let disk_guid = random_guid();
    let table = table(plan, sectors)?;
    let last = sectors - 1;
    let primary = header(1, last, 2, &disk_guid, &table);
    let backup = header(last, 1, last - TABLE_SECTORS, &disk_guid, &table);
    let put = |lba: u64, bytes: &[u8]| write_all_fd(disk.as_fd(), bytes, lba * SECTOR_SIZE);
    put(0, &protective_mbr(sectors))?;
    put(1, &primary)?;
    put(2, &table)?;
    put(last - TABLE_SECTORS, &table)?;
    put(last, &backup)
}

fn table(plan: &[PartitionPlan], sectors: u64) -> io::Result<Vec<u8>> {
    let wrong = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let first_usable = 2 + TABLE_SECTORS;
    let Some(end_usable) = sectors
        .checked_sub(1 + TABLE_SECTORS)
        .filter(|&end| end > first_usable)
    else {
        return wrong(format!("a disk of {sectors} sectors has no room for a GPT"));
    };
    let mut out = vec![0; index(ENTRIES * ENTRY_SIZE)];
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for part in plan {
        let (first, count) = (part.start / SECTOR_SIZE, part.len / SECTOR_SIZE);
        let end = first + count;
        let number = u64::from(part.number);
        let inside = count > 0 && first >= first_usable && end <= end_usable;
        let free = taken.iter().all(|&(a, b)| end <= a || first >= b);
        if !inside || !free || !(1..=ENTRIES).contains(&number) {
            return wrong(format!(
                "partition {number} (sectors {first} to {end}) does not fit on the disk"
            ));
        }
        taken.push((first, end));
        let (kind, name) = part.role.identity();
        let at = index((number - 1) * ENTRY_SIZE);
        let entry = &mut out[at..at + index(ENTRY_SIZE)];
        entry[..16].copy_from_slice(&kind);
        entry[16..32].copy_from_slice(&random_guid());
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&(end - 1).to_le_bytes());
        for (place, unit) in entry[56..].chunks_exact_mut(2).zip(name.encode_utf16()) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    Ok(out)
}

/// A header in sector `lba`, whose twin is in sector `other` and whose table begins at `table_lba`.
fn header(lba: u64, other: u64, table_lba: u64, disk: &[u8; 16], table: &[u8]) -> [u8; 512] {
    const HEADER_SIZE: usize = 92;
    let last = lba.max(other);
    let mut out = [0; 512];
    out[..8].copy_from_slice(b"EFI PART");
    out[8..12].copy_from_slice(&0x1_0000u32.to_le_bytes());
    out[12] = 92;
    out[24..32].copy_from_slice(&lba.to_le_bytes());
    out[32..40].copy_from_slice(&other.to_le_bytes());
    out[40..48].copy_from_slice(&(2 + TABLE_SECTORS).to_le_bytes());
    out[48..56].copy_from_slice(&(last - TABLE_SECTORS - 1).to_le_bytes());
    out[56..72].copy_from_slice(disk);
    out[72..80].copy_from_slice(&table_lba.to_le_bytes());
    out[80] = 128;
    out[84] = 128;
    out[88..92].copy_from_slice(&crc32fast::hash(table).to_le_bytes());
    let crc = crc32fast::hash(&out[..HEADER_SIZE]);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    out
}

/// One partition of type 0xee over everything, for programs that know only the old table.
fn protective_mbr(sectors: u64) -> [u8; 512] {
    let mut out = [0; 512];
    out[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    out[454..458].copy_from_slice(&1u32.to_le_bytes());
    let count = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    out[458..462].copy_from_slice(&count.to_le_bytes());
    out[510..].copy_from_slice(&[0x55, 0xaa]);
    out
}

/// A version 4 GUID (RFC 9562 §5.4) as it lies on a disk.
fn random_guid() -> [u8; 16] {
    let mut guid: [u8; 16] = rand::random();
    guid[7] = guid[7] & 0x0f | 0x40;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::block::BlockBackend;
    use crate::partition::{self, Scheme};
    use crate::raw::RawDisk;
    use crate::slice::{Budget, Slice};

    fn part(number: u32, role: Role, start: u64, len: u64) -> PartitionPlan {
        PartitionPlan {
            number,
            role,
            start,
            len,
        }
    }

    #[test]
    fn what_is_written_is_read_with_its_numbers() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 << 20).unwrap();
        let root = part(1, Role::Linux, 8 << 20, 7 << 20);
        let plan = [
            root,
            part(14, Role::BiosBoot, 1 << 20, 3 << 20),
            part(15, Role::Esp, 4 << 20, 4 << 20),
        ];
        write_gpt(&file, &plan).unwrap();
        let disk: Arc<dyn BlockBackend> = Arc::new(RawDisk::from_file(file, true).unwrap());
        let found = partition::read(&Slice::whole(&disk, &Budget::new(1 << 20)), |_| false);
        let found = found.unwrap();
        assert_eq!(found.scheme, Scheme::Gpt);
        assert!(found.remarks.is_empty() && found.missing.is_empty());
        let numbers: Vec<u32> = found.partitions.iter().map(|p| p.number).collect();
        assert_eq!(numbers, [1, 14, 15]);
        assert_eq!(found.partitions[0].slice.len(), root.len);
        assert_eq!(found.partitions[2].kind, partition::ESP);
        assert_eq!(
            found.partitions[1].kind,
            "21686148-6449-6e6f-744e-656564454649"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 << 20).unwrap();
        for bad in [
            part(0, Role::Linux, 1 << 20, 1 << 20),
            part(129, Role::Linux, 1 << 20, 1 << 20),
            part(2, Role::Linux, 0, 1 << 20),
            part(2, Role::Linux, 1 << 20, 15 << 20),
            part(2, Role::Linux, 9 << 20, 0),
            part(2, Role::Linux, 8 << 20, 1 << 20),
        ] {
            let plan = [part(1, Role::Linux, 8 << 20, 4 << 20), bad];
            assert!(write_gpt(&file, &plan).is_err(), "{bad:?}");
        }
    }
}
