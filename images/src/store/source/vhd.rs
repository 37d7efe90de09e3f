//! VHD, fixed and dynamic (Microsoft, "Virtual Hard Disk Image Format Specification" 1.0).
//! All numbers are big-endian.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::sparse::{Grain, MAX_GRAINS, Sparse, table};
use super::{Run, Source};
use crate::block::SECTOR_SIZE;
use crate::io::read_exact_fd;

const FOOTER: usize = 512;
const FOOTER_U64: u64 = 512;

/// A fixed VHD: the disk's bytes and a footer.
#[derive(Debug)]
struct Fixed {
    file: File,
    size: u64,
}

impl Source for Fixed {
    fn size(&self) -> u64 {
        self.size
    }

    fn run(&mut self, offset: u64) -> io::Result<Run> {
        Ok(Run::Data(self.size - offset))
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read_exact_fd(self.file.as_fd(), buf, offset)
    }
}

fn be(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width]
        .iter()
        .fold(0, |acc, &b| acc << 8 | u64::from(b))
}

fn wrong<T>(why: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()))
}

/// One's complement of the sum of all bytes but the checksum's own.
fn checksum_fits(block: &[u8], at: usize) -> bool {
    let sum = block
        .iter()
        .enumerate()
        .filter(|(i, _)| !(at..at + 4).contains(i))
        .fold(0u32, |sum, (_, &b)| sum.wrapping_add(u32::from(b)));
    u64::from(!sum) == be(block, at, 4)
}

/// The VHD in `file`; `None` when it is none.
pub(super) fn open(file: &File) -> io::Result<Option<Box<dyn Source>>> {
    let len = file.metadata()?.len();
    if len < FOOTER_U64 {
        return Ok(None);
    }
    let mut footer = [0; FOOTER];
    read_exact_fd(file.as_fd(), &mut footer, len - FOOTER_U64)?;
    let mut whole = footer.starts_with(b"conectix");
    if !whole {
        // A dynamic disk begins with a copy: without the footer it was cut off.
        read_exact_fd(file.as_fd(), &mut footer, 0)?;
        if !footer.starts_with(b"conectix") {
            return Ok(None);
        }
    }
    whole &= checksum_fits(&footer, 64);
    if !whole {
        return wrong("the VHD footer is damaged or missing: the file is truncated");
    }
    let size = be(&footer, 48, 8);
    if size == 0 || !size.is_multiple_of(SECTOR_SIZE) {
        return wrong("the VHD footer names an impossible size");
    }
    match be(&footer, 60, 4) {
        2 if size <= len - FOOTER_U64 => Ok(Some(Box::new(Fixed {
            file: file.try_clone()?,
            size,
        }))),
        2 => wrong("the VHD is shorter than its footer says: the file is truncated"),
        3 => Ok(Some(Box::new(dynamic(file, size, be(&footer, 16, 8))?))),
        4 => wrong(
            "it is a differencing VHD, which stands on another file: merge it into its parent first",
        ),
        kind => wrong(&format!("VHD type {kind} is unknown")),
    }
}

fn dynamic(file: &File, size: u64, header_at: u64) -> io::Result<Sparse> {
    let mut header = [0; 1024];
    read_exact_fd(file.as_fd(), &mut header, header_at)?;
    if !header.starts_with(b"cxsparse") || !checksum_fits(&header, 36) {
        return wrong("the header of the dynamic VHD is damaged");
    }
    let (table_at, entries, block) = (be(&header, 16, 8), be(&header, 28, 4), be(&header, 32, 4));
    if !block.is_power_of_two() || !(4096..=1 << 28).contains(&block) || entries > MAX_GRAINS {
        return wrong("the header of the dynamic VHD names an impossible block size or table");
    }
    if entries < size.div_ceil(block) {
        return wrong("the block table of the dynamic VHD is shorter than its disk");
    }
    // Each block is preceded by a bitmap of its sectors, padded to whole sectors. Sectors never
    // written are zeros in the block as well, so the bitmap need not be read.
    let bitmap = (block / SECTOR_SIZE / 8).next_multiple_of(SECTOR_SIZE);
    let grains = table(file, table_at, entries)?
        .iter()
        .map(|bytes| match be(bytes, 0, 4) {
            0xffff_ffff => Grain::Zeros,
            sector => Grain::At(sector * SECTOR_SIZE + bitmap),
        })
        .collect();
    Ok(Sparse {
        file: file.try_clone()?,
        size,
        grain_size: block,
        grains,
    })
}
