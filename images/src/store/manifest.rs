//! What the store says of an AMI, and what can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::boot::{Architecture, BootError};
use crate::volume::VolumeError;

/// Version of the manifest that this code writes and reads.
pub const MANIFEST_FORMAT: u32 = 1;

/// An AMI: the contents of its `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ami {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// `ami-` and 17 hexadecimal digits.
    pub id: String,
    /// What the user calls it; need not be unique.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Whom its kernel is for; `None` for images without a kernel.
    #[serde(default)]
    pub architecture: Option<Architecture>,
    /// `/dev/xvda` or `/dev/sda1`.
    pub root_device_name: String,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of it that are not zeros, in steps of 4 KiB.
    pub used_bytes: u64,
    /// When it was registered, as EC2 writes it: `2026-11-21T12:00:00.000Z`.
    pub creation_date: String,
    /// `PRETTY_NAME` of its operating system.
    #[serde(default)]
    pub os: Option<String>,
    /// What it boots; `None` for images without a kernel.
    #[serde(default)]
    pub boot: Option<BootSummary>,
    /// See the module `digest`: `sha256:…`.
    pub digest: String,
    /// Digest of the recipe it was built from, if it was.
    #[serde(default)]
    pub recipe: Option<String>,
}

/// What an AMI boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSummary {
    /// Where the entry was found.
    pub origin: String,
    /// Kernel, within its file system.
    pub kernel: String,
    /// Initial RAM disk, within its file system.
    pub initrd: Option<String>,
    /// The whole command line.
    pub cmdline: String,
}

/// How far an import or verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes to do.
    pub total: u64,
}

/// What an import may be told.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name; the file's own without its extension by default.
    pub name: Option<String>,
    /// One line for people.
    pub description: String,
    /// Overrides what the image suggests.
    pub root_device_name: Option<String>,
    /// Take images that cannot be booted here: data disks, other architectures, damaged tables.
    pub force: bool,
    /// Let the image name other files to be read (qcow2 backing files, VMDK extents). Only for
    /// images of one's own: such an image can read any file that this user can.
    pub allow_other_files: bool,
    /// Recorded as [`Ami::recipe`].
    pub recipe: Option<String>,
}

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process is changing the store.
    #[error("the image store {} is locked by process {owner}; wait for it or stop it", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
        /// Process id, or "unknown".
        owner: String,
    },
    /// No such AMI.
    #[error("no image \"{0}\" in the store (`cumulet images list` shows what is there)")]
    Unknown(String),
    /// A volume begins with it.
    #[error("{id} is in use by volume {volume} in {}; delete that first", path.display())]
    InUse {
        /// The AMI.
        id: String,
        /// The volume.
        volume: String,
        /// Its folder.
        path: PathBuf,
    },
    /// The host's disk is full.
    #[error("no space left for {}; nothing was kept", path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The source is not what it should be.
    #[error("{} cannot be imported: {why}", path.display())]
    Source {
        /// The image file.
        path: PathBuf,
        /// What is wrong with it, and the mend.
        why: String,
    },
    /// Partitions lie outside the image.
    #[error("{} is truncated: {what}", path.display())]
    Truncated {
        /// The image file.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// Nothing in it boots.
    #[error("{} does not boot (--force takes it as a data disk)", path.display())]
    NotBootable {
        /// The image file.
        path: PathBuf,
        /// Why.
        source: BootError,
    },
    /// It is for another processor.
    #[error("{} is for {found}, this machine is {host} (--force takes it anyway)", path.display())]
    Architecture {
        /// The image file.
        path: PathBuf,
        /// The kernel's architecture.
        found: Architecture,
        /// Ours.
        host: Architecture,
    },
    /// A manifest is damaged.
    #[error("{} is not an AMI manifest", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The disk is not what it was.
    #[error(
        "{id} is damaged: its contents have digest {found}, its manifest says {expected}; remove it and import or build it again"
    )]
    Damaged {
        /// The AMI.
        id: String,
        /// Digest of the manifest.
        expected: String,
        /// Digest of the disk.
        found: String,
    },
    /// The volume could not be made.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl StoreError {
    /// Gives a system error its place; a full disk is told apart.
    pub(super) fn io<'a>(
        what: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full {
                path: path.into(),
                source,
            },
            _ => Self::Io {
                what,
                path: path.into(),
                source,
            },
        }
    }
}
