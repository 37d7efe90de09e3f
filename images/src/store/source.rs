//! Disk image formats as sources of bytes: raw, qcow2 (by `imago`), VHD and VMDK.
//!
//! A source reads the one file it was given. Formats that can name other files (qcow2 backing and
//! data files, VMDK extents) are refused unless the user allowed it: such a name can be any file of
//! the host.

mod qcow2;
mod sparse;
mod vhd;
mod vmdk;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use imago::file::File as ImagoFile;
use imago::qcow2::Qcow2;
use imago::vmdk::Vmdk;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping, PermissiveImplicitOpenGate,
};

use super::StoreError;
use super::digest::data_runs;
use crate::block::SECTOR_SIZE;
use crate::io::{len_u64, read_exact_fd};

/// What a source has at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// This many bytes that must be read.
    Data(u64),
    /// This many zeros.
    Zeros(u64),
}

/// A disk image being imported.
pub(super) trait Source {
    /// Bytes of the disk.
    fn size(&self) -> u64;
    /// What is at `offset`, which is below the size. Never longer than the rest of the disk.
    fn run(&mut self, offset: u64) -> io::Result<Run>;
    /// Fills `buf` from `offset`; the range lies within the disk.
    fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// Opens the image `path`, of whatever format it is.
pub(super) fn open(path: &Path, other_files: bool) -> Result<Box<dyn Source>, StoreError> {
    let file = File::open(path).map_err(|error| StoreError::Source {
        path: path.into(),
        why: error.to_string(),
    })?;
    let meta = file.metadata().map_err(StoreError::io("examine", path))?;
    let wrong = |why: &str| {
        Err(StoreError::Source {
            path: path.into(),
            why: why.into(),
        })
    };
    if !meta.is_file() {
        return wrong("it is not a regular file");
    }
    let mut head = [0; 512];
    let have = crate::io::index(meta.len().min(512));
    read_exact_fd(file.as_fd(), &mut head[..have], 0).map_err(StoreError::io("read", path))?;
    let bad = |e: io::Error| StoreError::Source {
        path: path.into(),
        why: e.to_string(),
    };
    for (magic, name) in [
        (&[0x1f, 0x8b][..], "gzip"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
    ] {
        if head.starts_with(magic) {
            return wrong(&format!("it is {name}-compressed: unpack it first"));
        }
    }
    if head.starts_with(b"vhdxfile") {
        return wrong("VHDX is not read here: convert it first (qemu-img convert -O qcow2)");
    }
    if head.starts_with(b"QFI\xfb") {
        qcow2::check(&file, &head, other_files).map_err(bad)?;
        return Imago::qcow2(path, file, other_files).map_err(bad);
    }
    if head.starts_with(b"KDMV") {
        return Ok(Box::new(vmdk::open(file).map_err(bad)?));
    }
    if head.starts_with(b"# Disk DescriptorFile") {
        if other_files {
            return Imago::vmdk(path).map_err(bad);
        }
        return wrong(
            "it is a VMDK descriptor that names other files; allow that if you trust it, or convert \
             it first (qemu-img convert -O qcow2)",
        );
    }
    if let Some(vhd) = vhd::open(&file).map_err(bad)? {
        return Ok(vhd);
    }
    if meta.len() == 0 || !meta.len().is_multiple_of(SECTOR_SIZE) {
        return Err(StoreError::Truncated {
            path: path.into(),
            what: format!(
                "{} bytes are no whole number of sectors of 512 bytes",
                meta.len()
            ),
        });
    }
    let raw = Raw::new(file, meta.len()).map_err(StoreError::io("examine", path))?;
    Ok(Box::new(raw))
}

/// A raw file with holes.
#[derive(Debug)]
struct Raw {
    file: File,
    size: u64,
    runs: Vec<(u64, u64)>,
}

impl Raw {
    fn new(file: File, size: u64) -> io::Result<Self> {
        let runs = data_runs(&file, size)?;
        Ok(Self { file, size, runs })
    }
}

impl Source for Raw {
    fn size(&self) -> u64 {
        self.size
    }

    fn run(&mut self, offset: u64) -> io::Result<Run> {
        let i = self.runs.partition_point(|(_, end)| *end <= offset);
        Ok(match self.runs.get(i) {
            Some((start, end)) if *start <= offset => Run::Data(end - offset),
            Some((start, _)) => Run::Zeros(start - offset),
            None => Run::Zeros(self.size - offset),
        })
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read_exact_fd(self.file.as_fd(), buf, offset)
    }
}

/// A format that `imago` reads.
struct Imago {
    access: FormatAccess<ImagoFile>,
    /// Length of the file, when all data must be in it.
    file_len: Option<u64>,
}

impl Imago {
    fn qcow2(path: &Path, file: File, other_files: bool) -> io::Result<Box<dyn Source>> {
        let len = file.metadata()?.len();
        let (image, file_len) = if other_files {
            let builder = Qcow2::<ImagoFile>::builder_path(path);
            (builder.open(PermissiveImplicitOpenGate::default())?, None)
        } else {
            // Given the open file, it never learns a path; the gate refuses any other.
            let builder = Qcow2::<ImagoFile>::builder(ImagoFile::try_from(file)?);
            (builder.open(DenyImplicitOpenGate::default())?, Some(len))
        };
        let access = FormatAccess::new(image);
        Ok(Box::new(Self { access, file_len }))
    }

    fn vmdk(path: &Path) -> io::Result<Box<dyn Source>> {
        let builder = Vmdk::<ImagoFile>::builder_path(path);
        let access = FormatAccess::new(builder.open(PermissiveImplicitOpenGate::default())?);
        Ok(Box::new(Self {
            access,
            file_len: None,
        }))
    }
}

impl Source for Imago {
    fn size(&self) -> u64 {
        self.access.size()
    }

    fn run(&mut self, offset: u64) -> io::Result<Run> {
        let rest = self.access.size() - offset;
        let (mapping, len) = self.access.get_mapping(offset, rest)?;
        let len = len.clamp(1, rest);
        Ok(match mapping {
            Mapping::Zero { .. } => Run::Zeros(len),
            Mapping::Raw { offset: at, .. } => {
                // Beyond the end the file would read as zeros: a truncated download.
                let end = at.saturating_add(len);
                if self.file_len.is_some_and(|file| end > file) {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!(
                            "the file is truncated: data of the disk's byte {offset} is missing"
                        ),
                    ));
                }
                Run::Data(len)
            }
            _ => Run::Data(len),
        })
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        debug_assert!(offset + len_u64(buf) <= self.access.size());
        self.access.read(buf, offset)
    }
}
