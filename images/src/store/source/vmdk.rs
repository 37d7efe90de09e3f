//! VMDK in one file: monolithicSparse and streamOptimized (VMware, "Virtual Disk Format 5.0").
//! All numbers are little-endian; offsets count sectors.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::sparse::{Grain, MAX_GRAINS, Sparse, table};
use crate::block::SECTOR_SIZE;
use crate::io::read_exact_fd;
use crate::slice::le;

/// The grain directory is in the footer at the end of the file.
const AT_END: u64 = u64::MAX;
const COMPRESSED: u64 = 1 << 16;

pub(super) fn open(file: File) -> io::Result<Sparse> {
    let wrong = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
    let len = file.metadata()?.len();
    let mut header = [0; 512];
    read_exact_fd(file.as_fd(), &mut header, 0)?;
    if le(&header, 56, 8) == AT_END {
        // Footer, then the end-of-stream marker: three sectors before the end is the footer's mark.
        let Some(at) = len.checked_sub(2 * SECTOR_SIZE) else {
            return wrong("the VMDK is truncated");
        };
        read_exact_fd(file.as_fd(), &mut header, at)?;
        if !header.starts_with(b"KDMV") {
            return wrong("the VMDK has no footer: the file is truncated");
        }
    }
    let flags = le(&header, 8, 4);
    let (capacity, grain) = (le(&header, 12, 8), le(&header, 20, 8));
    let (per_table, directory) = (le(&header, 44, 4), le(&header, 56, 8));
    if !grain.is_power_of_two() || !(8..=2048).contains(&grain) || !(1..=4096).contains(&per_table)
    {
        return wrong("the VMDK header names an impossible grain size");
    }
    let count = capacity.div_ceil(grain);
    if capacity == 0 || count > MAX_GRAINS {
        return wrong("the VMDK header names an impossible size");
    }
    let Some(directory) = directory.checked_mul(SECTOR_SIZE) else {
        return wrong("the VMDK header names an impossible grain directory");
    };
    let compressed = flags & COMPRESSED != 0;
    if compressed && le(&header, 77, 2) != 1 {
        return wrong("the VMDK is compressed in an unknown way");
    }
    let mut grains = Vec::new();
    for entry in table(&file, directory, count.div_ceil(per_table))? {
        let left = count - u64::try_from(grains.len()).unwrap_or(count);
        let entries = per_table.min(left);
        let at = le(&entry, 0, 4) * SECTOR_SIZE;
        if at == 0 {
            grains.extend((0..entries).map(|_| Grain::Zeros));
            continue;
        }
        grains.extend(
            table(&file, at, entries)?
                .iter()
                .map(|entry| match le(entry, 0, 4) {
                    0 | 1 => Grain::Zeros,
                    sector if compressed => Grain::Deflated(sector * SECTOR_SIZE),
                    sector => Grain::At(sector * SECTOR_SIZE),
                }),
        );
    }
    // A descriptor inside names its parent; only a disk that stands on none is whole.
    let (at, sectors) = (le(&header, 28, 8), le(&header, 36, 8));
    if (1..=1 << 20).contains(&at) && (1..=128).contains(&sectors) {
        let mut text = vec![0; crate::io::index(sectors * SECTOR_SIZE)];
        read_exact_fd(file.as_fd(), &mut text, at * SECTOR_SIZE)?;
        let text = String::from_utf8_lossy(&text).to_ascii_lowercase();
        let parent = text
            .lines()
            .find_map(|line| line.strip_prefix("parentcid="));
        if parent.is_some_and(|id| id.trim_end_matches('\0').trim() != "ffffffff") {
            return wrong("it stands on another VMDK: merge it into its parent first");
        }
    }
    Ok(Sparse {
        file,
        size: capacity * SECTOR_SIZE,
        grain_size: grain * SECTOR_SIZE,
        grains,
    })
}
