//! ext2/3/4 by `ext4-view`, which replays a dirty journal in memory.

use std::error::Error;
use std::io;

use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType};

use super::{FileSystem, Node, Source, damaged, field};
use crate::io::{index, len_u64};
use crate::slice::Slice;

/// Bytes read ahead of a small read: metadata comes in small pieces.
const WINDOW: usize = 16 * 1024;
/// More would be a table of descriptors that no sound file system has.
const MAX_GROUPS: u64 = 1 << 19;

#[derive(Debug)]
pub(super) struct Ext4Fs(Ext4);

struct Reader {
    slice: Slice,
    window: Vec<u8>,
    window_at: u64,
}

impl Ext4Read for Reader {
    fn read(
        &mut self,
        start: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        if dst.len() >= WINDOW {
            return Ok(self.slice.read(start, dst)?);
        }
        let end = start.saturating_add(len_u64(dst));
        let inside = start >= self.window_at && end <= self.window_at + len_u64(&self.window);
        if !inside {
            let len = self
                .slice
                .len()
                .saturating_sub(start)
                .min(len_u64(&[0; WINDOW]));
            let mut window = vec![0; index(len).max(dst.len())];
            self.slice.read(start, &mut window)?;
            self.window = window;
            self.window_at = start;
        }
        self.slice.charge(dst.len())?;
        let from = index(start - self.window_at);
        dst.copy_from_slice(&self.window[from..from + dst.len()]);
        Ok(())
    }
}

impl Ext4Fs {
    pub(super) fn open(slice: &Slice) -> io::Result<Self> {
        check_geometry(slice)?;
        let reader = Reader {
            slice: slice.clone(),
            window: Vec::new(),
            window_at: 0,
        };
        Ext4::load(Box::new(reader)).map(Self).map_err(error)
    }
}

/// The crate allocates by what the superblock says; so that must be sane first.
fn check_geometry(slice: &Slice) -> io::Result<()> {
    const SUPERBLOCK: u64 = 1024;
    let get = |at, width| field(slice, SUPERBLOCK + at, width);
    let blocks_low = get(0x4, 4)?;
    let log_block = get(0x18, 4)?;
    let per_group = get(0x20, 4)?;
    let wide = get(0x60, 4)? & 0x80 != 0;
    let blocks = blocks_low | if wide { get(0x150, 4)? << 32 } else { 0 };
    if log_block > 6 {
        return Err(damaged("ext4: impossible block size".into()));
    }
    let size = blocks.checked_mul(1024 << log_block);
    if size.is_none_or(|size| size > slice.len()) {
        return Err(damaged(format!(
            "ext4: the file system is larger than its partition ({blocks} blocks of {} bytes in \
             {} bytes): the image is truncated or damaged",
            1024 << log_block,
            slice.len()
        )));
    }
    if per_group < 64 || blocks / per_group > MAX_GROUPS {
        return Err(damaged("ext4: impossible block groups".into()));
    }
    Ok(())
}

impl FileSystem for Ext4Fs {
    fn label(&self) -> String {
        self.0.label().to_str().unwrap_or_default().to_owned()
    }

    fn uuid(&self) -> String {
        self.0.uuid().to_string()
    }

    fn stat(&self, path: &str) -> io::Result<Node> {
        let meta = self.0.symlink_metadata(path).map_err(error)?;
        Ok(match meta.file_type() {
            FileType::Regular => Node::File(meta.len()),
            FileType::Directory => Node::Dir,
            FileType::Symlink => Node::Link,
            _ => Node::Other,
        })
    }

    fn read_link(&self, path: &str) -> io::Result<String> {
        let target = self.0.read_link(path).map_err(error)?;
        target
            .to_str()
            .map(str::to_owned)
            .map_err(|_| damaged(format!("{path}: link target is not UTF-8")))
    }

    fn read_dir(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.0.read_dir(path).map_err(error)? {
            if let Ok(name) = entry.map_err(error)?.file_name().as_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Source>> {
        Ok(Box::new(self.0.open(path).map_err(error)?))
    }
}

impl Source for ext4_view::File {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if self.position() != offset {
            self.seek_to(offset).map_err(error)?;
        }
        self.read_bytes(buf).map_err(error)
    }
}

fn error(e: Ext4Error) -> io::Error {
    match e {
        Ext4Error::NotFound => io::ErrorKind::NotFound.into(),
        Ext4Error::NotADirectory => io::ErrorKind::NotADirectory.into(),
        Ext4Error::Io(source) => match source.downcast::<io::Error>() {
            Ok(e) => *e,
            Err(other) => io::Error::other(other),
        },
        other => damaged(format!("ext4: {other}")),
    }
}
