//! Read-only file systems of an image: ext2/3/4, XFS and FAT.
//!
//! Parsing is done by crates; what they have in common, and how symbolic links are followed, is
//! here. Paths are absolute within the file system; nothing of the host is ever opened.

mod ext4;
mod reader;
mod vfat;
mod xfs;

use std::fmt;
use std::io;

pub use self::reader::FileReader;
pub(crate) use self::reader::seek_to;

use crate::slice::{Slice, le};

/// Symbolic links followed on one path, as Linux does.
const MAX_LINKS: u32 = 40;
/// Longest path.
const MAX_PATH: usize = 4096;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A regular file of this many bytes.
    File(u64),
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Other,
}

/// What kind of file system a slice seems to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext2, ext3 or ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// FAT12, FAT16 or FAT32.
    Vfat,
    /// Known by sight, but not readable here.
    Foreign(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Vfat => "vfat",
            Self::Foreign(name) => name,
        })
    }
}

/// Looks at magic numbers. `None` when nothing is recognised (or readable).
#[must_use]
pub fn probe(slice: &Slice) -> Option<Kind> {
    let magic = |at: u64, want: &[u8]| {
        let mut found = [0; 16];
        let found = &mut found[..want.len().min(16)];
        slice.read(at, found).is_ok() && found == want
    };
    if magic(0x438, &[0x53, 0xef]) {
        return Some(Kind::Ext4);
    }
    if magic(0, b"XFSB") {
        return Some(Kind::Xfs);
    }
    for (at, want, name) in [
        (0x1_0040, b"_BHRfS_M".as_slice(), "btrfs"),
        (0x400, &[0x10, 0x20, 0xf5, 0xf2], "f2fs"),
        (0, b"LUKS\xba\xbe", "LUKS (encrypted)"),
        (0x200, b"LABELONE", "LVM"),
        (4086, b"SWAPSPACE2", "swap"),
        (0, b"hsqs", "squashfs"),
        (3, b"NTFS    ", "NTFS"),
        (0x8001, b"CD001", "ISO 9660"),
    ] {
        if magic(at, want) {
            return Some(Kind::Foreign(name));
        }
    }
    vfat::looks_like(slice).then_some(Kind::Vfat)
}

/// One file system. Its paths are absolute and free of links.
trait FileSystem: fmt::Debug {
    fn label(&self) -> String;
    /// As `root=UUID=` wants it.
    fn uuid(&self) -> String;
    fn stat(&self, path: &str) -> io::Result<Node>;
    fn read_link(&self, path: &str) -> io::Result<String>;
    fn read_dir(&self, path: &str) -> io::Result<Vec<String>>;
    fn open(&self, path: &str) -> io::Result<Box<dyn Source>>;
}

/// An open file: bytes at an offset.
trait Source {
    /// Reads some bytes; 0 at the end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

/// A mounted file system.
#[derive(Debug)]
pub struct Tree {
    kind: Kind,
    fs: Box<dyn FileSystem>,
}

impl Tree {
    /// Opens the file system in `slice`.
    ///
    /// # Errors
    /// `Unsupported` with the reason when it is not one we can read; whatever is wrong with it
    /// otherwise.
    pub fn open(slice: &Slice) -> io::Result<Self> {
        let Some(kind) = probe(slice) else {
            return Err(unsupported("no known file system".into()));
        };
        let fs: Box<dyn FileSystem> = match kind {
            Kind::Ext4 => Box::new(ext4::Ext4Fs::open(slice)?),
            Kind::Xfs => Box::new(xfs::XfsFs::open(slice)?),
            Kind::Vfat => Box::new(vfat::FatFs::open(slice)?),
            Kind::Foreign(name) => return Err(unsupported(format!("{name} cannot be read here"))),
        };
        Ok(Self { kind, fs })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its label, empty if none.
    #[must_use]
    pub fn label(&self) -> String {
        self.fs.label()
    }

    /// Its identifier as `root=UUID=` wants it.
    #[must_use]
    pub fn uuid(&self) -> String {
        self.fs.uuid()
    }

    /// What `path` names, links followed.
    ///
    /// # Errors
    /// `NotFound`; `InvalidData` when the file system is damaged.
    pub fn stat(&self, path: &str) -> io::Result<Node> {
        Ok(self.resolve(path)?.1)
    }

    /// Names in a directory, without `.` and `..`, sorted. Names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn read_dir(&self, path: &str) -> io::Result<Vec<String>> {
        let (path, node) = self.resolve(path)?;
        if node != Node::Dir {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mut names = self.fs.read_dir(&path)?;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// As [`Tree::stat`]; `InvalidInput` when it is no regular file.
    pub fn open_file(&self, path: &str) -> io::Result<FileReader> {
        let (path, node) = self.resolve(path)?;
        let Node::File(size) = node else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path} is not a regular file"),
            ));
        };
        Ok(FileReader::new(self.fs.open(&path)?, size))
    }

    /// Reads a file of at most `max` bytes as text (lossily: what is not UTF-8 cannot matter to us).
    ///
    /// # Errors
    /// As [`Tree::open_file`]; `FileTooLarge`.
    pub fn read_text(&self, path: &str, max: u64) -> io::Result<String> {
        let mut file = self.open_file(path)?;
        if file.len() > max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{path} has {} bytes; at most {max} make sense", file.len()),
            ));
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Follows `path` to a path without links, and says what is there.
    fn resolve(&self, path: &str) -> io::Result<(String, Node)> {
        let mut todo: Vec<String> = components(path);
        let mut done = String::from("/");
        let mut node = Node::Dir;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if node != Node::Dir {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            if name == ".." {
                done.truncate(done.rfind('/').unwrap_or(0).max(1));
                continue;
            }
            let before = done.len();
            if !done.ends_with('/') {
                done.push('/');
            }
            done.push_str(&name);
            if done.len() > MAX_PATH {
                return Err(io::ErrorKind::InvalidFilename.into());
            }
            node = self.fs.stat(&done)?;
            if node == Node::Link {
                links += 1;
                let target = self.fs.read_link(&done)?;
                if links > MAX_LINKS || target.len() > MAX_PATH {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{path} leads through too many symbolic links"),
                    ));
                }
                done.truncate(if target.starts_with('/') { 1 } else { before });
                todo.extend(components(&target));
                node = Node::Dir;
            }
        }
        Ok((done, node))
    }
}

/// The parts of a path, last first.
fn components(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .rev()
        .map(str::to_owned)
        .collect()
}

fn unsupported(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

fn damaged(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// 16 bytes as a UUID is written.
fn uuid_text(b: &[u8; 16]) -> String {
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Reads a little-endian number of a slice.
fn field(slice: &Slice, at: u64, width: usize) -> io::Result<u64> {
    let mut bytes = [0; 8];
    let bytes = &mut bytes[..width.min(8)];
    slice.read(at, bytes)?;
    Ok(le(bytes, 0, width))
}
