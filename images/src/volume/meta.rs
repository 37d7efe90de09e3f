//! What `volume.json` says, and what can go wrong with a volume.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::presence::MapDamage;

/// Version of the folder's layout that this code writes and reads.
pub const FORMAT: u32 = 1;

/// What a volume is: the contents of its `volume.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// Layout version, [`FORMAT`].
    pub format: u32,
    /// `vol-…`, or any name its owner likes.
    pub id: String,
    /// Bytes, a multiple of 512, not less than the parent's.
    pub size: u64,
    /// What it begins with; a blank volume begins with zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// The image whose bytes show through where the volume has none of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// `ami-…` (or `snap-…` later).
    pub id: String,
    /// A raw file; when relative, from the volume's folder.
    pub path: PathBuf,
    /// Its size in bytes. Checked when the volume is opened.
    pub size: u64,
}

impl VolumeSpec {
    /// A volume that begins with zeros.
    #[must_use]
    pub fn blank(id: impl Into<String>, size: u64) -> Self {
        Self {
            format: FORMAT,
            id: id.into(),
            size,
            parent: None,
        }
    }

    /// A volume over `parent`, of the parent's size.
    #[must_use]
    pub fn over(id: impl Into<String>, parent: Parent) -> Self {
        Self {
            format: FORMAT,
            id: id.into(),
            size: parent.size,
            parent: Some(parent),
        }
    }

    /// The same with another size.
    #[must_use]
    pub fn sized(mut self, size: u64) -> Self {
        self.size = size;
        self
    }
}

/// Why a volume cannot be made, opened or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A system call failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried: "open", "write" …
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something is there already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// No volume there.
    #[error("{} is not a volume: it has no volume.json", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("volume {} is in use by process {owner}; stop that first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Process id, or "unknown".
        owner: String,
    },
    /// `volume.json` is not ours or not whole.
    #[error("{} is not a volume description", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A newer cumulet made it.
    #[error("volume {} has format {found}; this cumulet knows {FORMAT}", path.display())]
    Format {
        /// The folder.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A size that no disk can have.
    #[error("{size} bytes is no size for a volume: {why}")]
    Size {
        /// The size asked for.
        size: u64,
        /// The rule it breaks.
        why: &'static str,
    },
    /// The parent is not the file it was.
    #[error("parent {id} of volume {} has {found} bytes instead of {expected}: {} was changed or replaced", volume.display(), path.display())]
    ParentChanged {
        /// The volume's folder.
        volume: PathBuf,
        /// The parent's id.
        id: String,
        /// The parent's file.
        path: PathBuf,
        /// Bytes recorded.
        expected: u64,
        /// Bytes now.
        found: u64,
    },
    /// A file of the volume is not as long as it must be.
    #[error("{} has {found} bytes instead of {expected}: it was truncated or replaced", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes it must have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// The map of own blocks is damaged; going on could serve old data.
    #[error("{}: map sector {sector} (volume bytes from {offset}) is damaged", path.display())]
    Map {
        /// The map file.
        path: PathBuf,
        /// Number of the bad 512-byte sector.
        sector: u64,
        /// First byte of the volume it speaks of.
        offset: u64,
        /// What is wrong with it.
        source: MapDamage,
    },
}

impl VolumeError {
    /// Gives a system error its place.
    pub(super) fn io<'a>(
        what: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}
