//! What can go wrong with snapshots.

use std::io;

/// Why the snapshot store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A system call or a request to the bucket failed.
    #[error("snapshot store: cannot {what} {name}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The object, within the store.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The disk under the store is full.
    #[error("snapshot store: no space left for {name}; no snapshot was registered")]
    Full {
        /// What was being written.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// No such snapshot.
    #[error("no snapshot \"{0}\" in the store")]
    Unknown(String),
    /// The id is taken.
    #[error("snapshot {0} exists already")]
    Exists(String),
    /// An id must be `snap-` and 17 hexadecimal digits.
    #[error("\"{0}\" is no snapshot id (snap- and 17 hexadecimal digits)")]
    Id(String),
    /// A volume's size must be a positive multiple of 512 bytes, at most 64 TiB, and not less than
    /// the parent snapshot's.
    #[error("{size} bytes cannot be the size of snapshot {id}: {why}")]
    Size {
        /// The snapshot.
        id: String,
        /// The size asked for.
        size: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A block or range lies outside the volume.
    #[error("{len} bytes at {offset} leave snapshot {id} of {size} bytes")]
    Range {
        /// The snapshot.
        id: String,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The volume's size.
        size: u64,
    },
    /// The bucket's server ignores `If-None-Match`.
    #[error(
        "this bucket's server overwrites objects although told not to (If-None-Match: *); \
         snapshots would not be safe there"
    )]
    Unsafe,
    /// Garbage collection took the writer for dead, or an earlier write of it failed.
    #[error("snapshot {id} cannot be completed: {why}")]
    Abandoned {
        /// The snapshot.
        id: String,
        /// What happened.
        why: &'static str,
    },
    /// An object that a snapshot needs is not there.
    #[error("snapshot store: {name} is missing")]
    Missing {
        /// The object.
        name: String,
    },
    /// An object is not what was written.
    #[error("snapshot store: {name} is damaged: {why}")]
    Damaged {
        /// The object.
        name: String,
        /// How it was noticed.
        why: String,
    },
    /// An object is from another version of cumulet.
    #[error("snapshot store: {name} has format {found}, this cumulet knows {known}")]
    Format {
        /// The object.
        name: String,
        /// Its format version.
        found: u32,
        /// Ours.
        known: u32,
    },
}

impl SnapshotError {
    /// Gives a system error its object; a full disk and a missing object are told apart.
    pub(super) fn io<'a>(what: &'static str, name: &'a str) -> impl FnOnce(io::Error) -> Self + 'a {
        let name = name.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full { name, source },
            io::ErrorKind::NotFound if what == "read" => Self::Missing { name },
            _ => Self::Io { what, name, source },
        }
    }

    pub(super) fn damaged(name: &str, why: impl Into<String>) -> Self {
        Self::Damaged {
            name: name.into(),
            why: why.into(),
        }
    }
}
