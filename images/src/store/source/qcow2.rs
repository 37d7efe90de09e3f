//! Looking over a qcow2 file before `imago` reads it (QEMU docs/interop/qcow2.txt). All numbers are
//! big-endian.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use crate::block::SECTOR_SIZE;
use crate::io::{index, read_exact_fd};

/// Largest first-level table that QEMU takes, in entries.
const MAX_L1: u64 = 4 << 20;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;

fn be(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes
        .get(at..at + width)
        .unwrap_or_default()
        .iter()
        .fold(0, |acc, &b| acc << 8 | u64::from(b))
}

fn wrong<T>(why: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()))
}

/// Refuses what the reader would stumble over later, or not at all: other files, encryption, and
/// compressed clusters cut off by the end of the file, which would read as garbage.
pub(super) fn check(file: &File, head: &[u8; 512], other_files: bool) -> io::Result<()> {
    let version = be(head, 4, 4);
    if !(2..=3).contains(&version) {
        return wrong(&format!("qcow2 version {version} is unknown"));
    }
    if be(head, 32, 4) != 0 {
        return wrong("it is encrypted");
    }
    let incompatible = if version == 3 { be(head, 72, 8) } else { 0 };
    if (be(head, 8, 8) != 0 || incompatible & 4 != 0) && !other_files {
        return wrong(
            "it stands on another file (backing or data file), which could be any file of this \
             machine; flatten it first (qemu-img convert -O qcow2), or allow it if you trust it",
        );
    }
    if incompatible & 4 != 0 {
        return Ok(());
    }
    let bits = be(head, 20, 4);
    let (entries, at) = (be(head, 36, 4), be(head, 40, 8));
    if !(9..=21).contains(&bits) || entries > MAX_L1 {
        return wrong("its header names an impossible cluster size or table");
    }
    let cut = |_| {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file is truncated: its cluster tables are not all there",
        )
    };
    let mut first = vec![0; index(entries * 8)];
    read_exact_fd(file.as_fd(), &mut first, at).map_err(cut)?;
    let mut second = vec![0; index(1 << bits)];
    // A compressed cluster ends anywhere in its last sector.
    let end = file.metadata()?.len().next_multiple_of(SECTOR_SIZE);
    // With extended entries every other word is a bitmap.
    let step = if incompatible & 16 != 0 { 16 } else { 8 };
    for entry in first.chunks_exact(8) {
        let table = be(entry, 0, 8) & OFFSET;
        if table == 0 {
            continue;
        }
        read_exact_fd(file.as_fd(), &mut second, table).map_err(cut)?;
        for entry in second.chunks_exact(step) {
            let entry = be(entry, 0, 8);
            if entry & COMPRESSED == 0 {
                continue;
            }
            let width = 62 - (bits - 8);
            let offset = entry & ((1 << width) - 1);
            let more = entry >> width & ((1 << (62 - width)) - 1);
            let last = (offset / SECTOR_SIZE + more + 1) * SECTOR_SIZE;
            if last > end {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file is truncated: a compressed cluster is not all there",
                ));
            }
        }
    }
    Ok(())
}
