//! FAT by `fatfs`.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use fatfs::{Dir, FileSystem as Fat, FsOptions};

use super::reader::seek_to;
use super::{FileSystem, Node, Source, damaged};
use crate::io::{index, len_u64};
use crate::slice::{Slice, le};

/// Bytes kept from the last read: the crate reads the allocation table entry by entry.
const WINDOW: usize = 32 * 1024;
/// A cluster chain is walked from its head at each reopening, so files are read in large steps.
const CHUNK: usize = 1 << 20;
/// Directory entries looked at.
const MAX_ENTRIES: usize = 65_536;

/// Whether the first sector is a FAT boot sector: jump, BIOS parameter block, signature.
pub(super) fn looks_like(slice: &Slice) -> bool {
    let Ok(sector) = slice.bytes::<512>(0) else {
        return false;
    };
    let jump = matches!(sector[0], 0xeb | 0xe9);
    let sector_size = le(&sector, 11, 2);
    let cluster = sector[13];
    let fats = sector[16];
    sector[510..] == [0x55, 0xaa]
        && jump
        && matches!(sector_size, 512 | 1024 | 2048 | 4096)
        && cluster.is_power_of_two()
        && matches!(fats, 1 | 2)
        && (sector[54..57] == *b"FAT" || sector[82..87] == *b"FAT32")
}

pub(super) struct FatFs(Rc<Fat<Disk>>);

struct Disk {
    slice: Slice,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Read for Disk {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.slice.len().saturating_sub(self.at);
        let want = index(left.min(len_u64(buf)));
        if want >= WINDOW {
            self.slice.read(self.at, &mut buf[..want])?;
            self.at += len_u64(&buf[..want]);
            return Ok(want);
        }
        let end = self.at + len_u64(&buf[..want]);
        if self.at < self.window_at || end > self.window_at + len_u64(&self.window) {
            let mut window = vec![0; index(left.min(len_u64(&[0; WINDOW])))];
            self.slice.read(self.at, &mut window)?;
            self.window = window;
            self.window_at = self.at;
        }
        self.slice.charge(want)?;
        let from = index(self.at - self.window_at);
        buf[..want].copy_from_slice(&self.window[from..from + want]);
        self.at = end;
        Ok(want)
    }
}

impl Write for Disk {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = seek_to(self.at, self.slice.len(), to)?;
        Ok(self.at)
    }
}

impl FatFs {
    pub(super) fn open(slice: &Slice) -> io::Result<Self> {
        let disk = Disk {
            slice: slice.clone(),
            at: 0,
            window: Vec::new(),
            window_at: 0,
        };
        let options = FsOptions::new().update_accessed_date(false);
        Ok(Self(Rc::new(Fat::new(disk, options).map_err(error)?)))
    }

    /// Looks a path up by its components, since the crate's own lookup creates long names in memory
    /// for each step anyway.
    fn find(&self, path: &str) -> io::Result<Option<fatfs::DirEntry<'_, Disk>>> {
        let mut dir = self.0.root_dir();
        let mut found = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let entry = lookup(&dir, name)?;
            if entry.is_dir() {
                dir = entry.to_dir();
            }
            found = Some(entry);
        }
        Ok(found)
    }
}

fn lookup<'a>(dir: &Dir<'a, Disk>, name: &str) -> io::Result<fatfs::DirEntry<'a, Disk>> {
    for entry in dir.iter().take(MAX_ENTRIES) {
        let entry = entry.map_err(error)?;
        if entry.file_name().eq_ignore_ascii_case(name)
            || entry.short_file_name().eq_ignore_ascii_case(name)
        {
            return Ok(entry);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

impl fmt::Debug for FatFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FatFs")
    }
}

impl FileSystem for FatFs {
    fn label(&self) -> String {
        self.0.volume_label()
    }

    fn uuid(&self) -> String {
        let id = self.0.volume_id();
        format!("{:04X}-{:04X}", id >> 16, id & 0xffff)
    }

    fn stat(&self, path: &str) -> io::Result<Node> {
        Ok(match self.find(path)? {
            Some(entry) if entry.is_file() => Node::File(entry.len()),
            _ => Node::Dir,
        })
    }

    fn read_link(&self, _: &str) -> io::Result<String> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn read_dir(&self, path: &str) -> io::Result<Vec<String>> {
        let dir = match self.find(path)? {
            Some(entry) if entry.is_dir() => entry.to_dir(),
            Some(_) => return Err(io::ErrorKind::NotADirectory.into()),
            None => self.0.root_dir(),
        };
        dir.iter()
            .take(MAX_ENTRIES)
            .map(|entry| Ok(entry.map_err(error)?.file_name()))
            .collect()
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Source>> {
        Ok(Box::new(FatFile {
            fs: self.0.clone(),
            path: path.to_owned(),
            chunk: Vec::new(),
            chunk_at: 0,
        }))
    }
}

/// An open file. The crate's own borrows its file system, so each chunk opens it anew.
struct FatFile {
    fs: Rc<Fat<Disk>>,
    path: String,
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl Source for FatFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let end = self.chunk_at + len_u64(&self.chunk);
        if offset < self.chunk_at || offset >= end {
            let fs = FatFs(self.fs.clone());
            let Some(entry) = fs.find(&self.path)?.filter(fatfs::DirEntry::is_file) else {
                return Err(io::ErrorKind::IsADirectory.into());
            };
            let mut file = entry.to_file();
            file.seek(SeekFrom::Start(offset)).map_err(error)?;
            let mut chunk = Vec::new();
            file.take(len_u64(&[0; CHUNK]))
                .read_to_end(&mut chunk)
                .map_err(error)?;
            self.chunk = chunk;
            self.chunk_at = offset;
        }
        let from = index(offset - self.chunk_at);
        let have = self.chunk.get(from..).unwrap_or_default();
        let n = have.len().min(buf.len());
        buf[..n].copy_from_slice(&have[..n]);
        Ok(n)
    }
}

fn error(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::Other => damaged(format!("vfat: {e}")),
        _ => e,
    }
}
