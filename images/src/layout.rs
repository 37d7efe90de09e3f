//! Writing disks: a GPT into a plain file, no loop device and no root needed.

use std::fs::File;
use std::io;

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types;

use crate::block::SECTOR_SIZE;

/// Where partitions begin: at whole MiB, as everybody does.
pub const ALIGNMENT: u64 = 1 << 20;
/// What the backup table needs at the end of the disk.
pub const TAIL: u64 = 1 << 20;

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

/// A partition to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionPlan {
    /// Its number, as in `vda1`.
    pub number: u32,
    /// What it is for.
    pub role: Role,
    /// First byte, a multiple of [`ALIGNMENT`].
    pub start: u64,
    /// Bytes, a multiple of the sector size.
    pub len: u64,
}

/// Writes a GPT with `plan` over the whole of `disk`, which has its final size.
///
/// # Errors
/// When a partition does not fit or the file cannot be written.
pub fn write_gpt(disk: File, plan: &[PartitionPlan]) -> io::Result<()> {
    let sectors = disk.metadata()?.len() / SECTOR_SIZE;
    let mut disk = Box::new(disk);
    let protected = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(protected)
        .overwrite_lba0(&mut disk)
        .map_err(io::Error::other)?;
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(disk, None)
        .map_err(io::Error::other)?;
    for part in plan {
        let (kind, name) = match part.role {
            Role::BiosBoot => (partition_types::BIOS, "bios"),
            Role::Esp => (partition_types::EFI, "esp"),
            Role::Linux => (partition_types::LINUX_FS, "root"),
        };
        let (first, count) = (part.start / SECTOR_SIZE, part.len / SECTOR_SIZE);
        if part.number == 0 || count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("partition {} of {count} sectors", part.number),
            ));
        }
        table
            .add_partition_at(name, part.number, first, count, kind, 0)
            .map_err(|e| io::Error::other(format!("partition {}: {e}", part.number)))?;
    }
    table.write().map_err(io::Error::other)?;
    Ok(())
}
