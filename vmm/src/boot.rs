//! Where kernel, initial RAM disk and command line come from.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use cumulet_images::block::BlockBackend;
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

/// Bytes copied at a time out of an image's file system.
const COPY: usize = 256 << 10;

/// What one boot needs.
#[derive(Debug)]
pub struct Payload {
    /// The kernel.
    pub kernel: BootFile,
    /// The initial RAM disk.
    pub initrd: Option<BootFile>,
    /// The whole command line.
    pub cmdline: String,
}

/// Where each boot gets its payload from. All of it is open already.
#[derive(Debug)]
pub enum BootSource {
    /// Files of the host.
    Files {
        /// Kernel.
        kernel: File,
        /// Initial RAM disk.
        initrd: Option<File>,
        /// Command line.
        cmdline: String,
    },
    /// Whatever the first disk holds at that moment, read through the disk itself, so that the
    /// guest's last kernel update counts.
    Disk {
        /// The first disk.
        disk: Arc<dyn BlockBackend>,
        /// Added to the command line found.
        extra_cmdline: String,
    },
}

/// Why there is nothing to boot.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A descriptor of a file.
    #[error("boot.kernel: cannot use the open file")]
    File(#[from] io::Error),
    /// The image.
    #[error("boot.disk: cannot boot from disks[0]")]
    Image(#[from] cumulet_images::boot::BootError),
}

impl BootSource {
    /// What to boot now.
    ///
    /// # Errors
    /// When the image holds nothing bootable.
    pub fn payload(&self) -> Result<Payload, SourceError> {
        match self {
            Self::Files {
                kernel,
                initrd,
                cmdline,
            } => Ok(Payload {
                kernel: BootFile::Host(kernel.try_clone()?),
                initrd: match initrd {
                    Some(file) => Some(BootFile::Host(file.try_clone()?)),
                    None => None,
                },
                cmdline: cmdline.clone(),
            }),
            Self::Disk {
                disk,
                extra_cmdline,
            } => {
                let found = cumulet_images::boot::resolve(disk)?;
                tracing::info!(origin = found.origin, cmdline = found.cmdline, "booting");
                let mut cmdline = found.cmdline;
                if !extra_cmdline.is_empty() {
                    cmdline.push(' ');
                    cmdline.push_str(extra_cmdline);
                }
                Ok(Payload {
                    kernel: BootFile::Image(Box::new(found.kernel)),
                    initrd: found
                        .initrd
                        .map(|file| BootFile::Image(Box::new(file) as Box<dyn ImageFile>)),
                    cmdline,
                })
            }
        }
    }
}

/// A file inside a disk image.
pub trait ImageFile: Read + Seek {}
impl<T: Read + Seek> ImageFile for T {}

/// A kernel or initial RAM disk.
pub enum BootFile {
    /// A file of the host: read straight into guest RAM.
    Host(File),
    /// A file inside a disk image.
    Image(Box<dyn ImageFile>),
}

impl BootFile {
    /// Size in bytes; the position is at the start afterwards.
    ///
    /// # Errors
    /// When the file cannot be sought.
    pub fn size(&mut self) -> io::Result<u64> {
        let size = self.seek(SeekFrom::End(0))?;
        self.rewind()?;
        Ok(size)
    }
}

impl std::fmt::Debug for BootFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(file) => file.fmt(f),
            Self::Image(_) => f.write_str("ImageFile"),
        }
    }
}

impl Read for BootFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Host(file) => file.read(buf),
            Self::Image(file) => file.read(buf),
        }
    }
}

impl Seek for BootFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Host(file) => file.seek(position),
            Self::Image(file) => file.seek(position),
        }
    }
}

impl ReadVolatile for BootFile {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        match self {
            Self::Host(file) => file.read_volatile(buf),
            Self::Image(file) => {
                // All of it: guest memory takes a short read for the end of the file.
                let mut copy = vec![0; buf.len().min(COPY)];
                let mut done = 0;
                while done < buf.len() {
                    let want = copy.len().min(buf.len() - done);
                    let read = file
                        .read(&mut copy[..want])
                        .map_err(VolatileMemoryError::IOError)?;
                    if read == 0 {
                        break;
                    }
                    buf.offset(done)?.copy_from(&copy[..read]);
                    done += read;
                }
                Ok(done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn an_image_file_fills_a_volatile_slice() {
        let data: Vec<u8> = (0..600_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let mut file = BootFile::Image(Box::new(Cursor::new(data.clone())));
        assert_eq!(file.size().unwrap(), 600_000);
        let mut target = vec![0; data.len()];
        let mut slice = VolatileSlice::from(target.as_mut_slice());
        // Guest memory asks once for each region.
        assert_eq!(file.read_volatile(&mut slice).unwrap(), data.len());
        assert_eq!(target, data);
    }
}
