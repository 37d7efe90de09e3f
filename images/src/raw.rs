//! A raw disk: a file or block device whose bytes are the disk's bytes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::block::{BlockBackend, Capabilities, Extent, Place, SECTOR_SIZE};

/// Zeros written at once where the host cannot zero a range by itself.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A raw file or block device. Holds a lock on it: exclusive when writable, shared when read-only,
/// so that two machines cannot write the same disk.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    size: u64,
    read_only: bool,
}

impl RawDisk {
    /// Opens a disk.
    ///
    /// # Errors
    /// Whatever opening says; `ResourceBusy` when another process uses the disk; `InvalidInput`
    /// when it is not one sector or several.
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(!read_only).open(path)?;
        Self::from_file(file, read_only)
    }

    /// Uses an open file, as [`RawDisk::open`] does.
    ///
    /// # Errors
    /// As [`RawDisk::open`].
    pub fn from_file(mut file: File, read_only: bool) -> io::Result<Self> {
        let locked = if read_only {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "the disk is in use by another process; stop that one first",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Works for block devices too, whose metadata says 0.
        let bytes = file.seek(SeekFrom::End(0))?;
        // A guest could not reach the rest of a sector, and a file with such a rest is most likely cut
        // off, or no disk.
        if bytes == 0 || bytes % SECTOR_SIZE != 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a disk has a whole number of sectors of {SECTOR_SIZE} bytes, this one has {bytes} \
                     bytes: is it cut off? (`truncate -s %{SECTOR_SIZE} FILE` fills it up with zeros)"
                ),
            ));
        }
        Ok(Self {
            file,
            size: bytes,
            read_only,
        })
    }

    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{len} bytes at {offset} leave the disk of {} bytes",
                    self.size
                ),
            )),
        }
    }

    fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the disk is read-only",
            ));
        }
        self.check(offset, len)
    }

    fn extent(&self, offset: u64, len: u64) -> Extent<'_> {
        Extent {
            place: Place::File {
                file: self.file.as_fd(),
                offset,
            },
            len,
        }
    }

    fn fallocate(&self, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
        let as_off = |value: u64| {
            libc::off_t::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        };
        let (offset, len) = (as_off(offset)?, as_off(len)?);
        loop {
            // SAFETY: the descriptor is open for the life of `self`; no memory is passed.
            if unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            offset,
            len,
        )
    }

    fn write_zero_bytes(&self, mut offset: u64, len: u64) -> io::Result<()> {
        let end = offset + len;
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let chunk = &ZEROS[..left.min(ZEROS.len())];
            self.file.write_all_at(chunk, offset)?;
            offset += u64::try_from(chunk.len()).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// The host's file system or device cannot do this to a range.
fn unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(libc::ENODEV)
}

impl BlockBackend for RawDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            read_only: self.read_only,
            discard: !self.read_only,
        }
    }

    fn locate_read(&self, offset: u64, len: u64) -> io::Result<Extent<'_>> {
        self.check(offset, len)?;
        Ok(self.extent(offset, len))
    }

    fn locate_write(&self, offset: u64, len: u64) -> io::Result<Extent<'_>> {
        self.check_write(offset, len)?;
        Ok(self.extent(offset, len))
    }

    fn complete_write(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_buffered(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(offset, u64::try_from(buf.len()).map_err(io::Error::other)?)?;
        self.file.read_exact_at(buf, offset)
    }

    fn write_buffered(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_write(offset, u64::try_from(buf.len()).map_err(io::Error::other)?)?;
        self.file.write_all_at(buf, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        let first = if unmap {
            self.punch(offset, len)
        } else {
            self.fallocate(mode, offset, len)
        };
        match first {
            Err(error) if unsupported(&error) => self.write_zero_bytes(offset, len),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn disk(sectors: u64) -> (tempfile::NamedTempFile, RawDisk) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(sectors * SECTOR_SIZE).unwrap();
        let disk = RawDisk::open(file.path(), false).unwrap();
        (file, disk)
    }

    #[test]
    fn places_are_the_same_offsets_in_the_file() {
        let (_file, disk) = disk(8);
        assert_eq!(disk.size(), 4096);
        for extent in [disk.locate_read(512, 3584), disk.locate_write(512, 3584)] {
            let extent = extent.unwrap();
            assert_eq!(extent.len, 3584);
            assert!(matches!(extent.place, Place::File { offset: 512, .. }));
        }
        disk.write_buffered(512, b"hello").unwrap();
        let mut data = [0; 5];
        disk.read_buffered(512, &mut data).unwrap();
        assert_eq!(&data, b"hello");
        disk.flush().unwrap();
    }

    #[test]
    fn ranges_beyond_the_disk_are_refused() {
        let (_file, disk) = disk(8);
        for (offset, len) in [(4096, 512), (3584, 1024), (u64::MAX, 512), (0, u64::MAX)] {
            for error in [
                disk.locate_read(offset, len).unwrap_err(),
                disk.locate_write(offset, len).unwrap_err(),
                disk.discard(offset, len).unwrap_err(),
                disk.write_zeroes(offset, len, false).unwrap_err(),
            ] {
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            }
        }
    }

    #[test]
    fn discarded_ranges_read_as_zeros_and_give_space_back() {
        let (file, disk) = disk(8192);
        let data = vec![0xa5; 1 << 20];
        disk.write_buffered(0, &data).unwrap();
        disk.flush().unwrap();
        let full = file.as_file().metadata().unwrap().blocks();
        disk.discard(4096, (1 << 20) - 8192).unwrap();
        disk.write_zeroes(0, 1024, false).unwrap();
        disk.write_zero_bytes(1024, 512).unwrap();
        disk.flush().unwrap();
        let mut back = vec![1; 1 << 20];
        disk.read_buffered(0, &mut back).unwrap();
        assert!(back[..1536].iter().all(|byte| *byte == 0));
        assert!(back[1536..4096].iter().all(|byte| *byte == 0xa5));
        assert!(back[4096..(1 << 20) - 4096].iter().all(|byte| *byte == 0));
        assert!(back[(1 << 20) - 4096..].iter().all(|byte| *byte == 0xa5));
        assert!(file.as_file().metadata().unwrap().blocks() < full);
    }

    #[test]
    fn a_disk_has_one_writer_or_many_readers() {
        let (file, disk) = disk(8);
        for read_only in [false, true] {
            let error = RawDisk::open(file.path(), read_only).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        }
        drop(disk);
        let reader = RawDisk::open(file.path(), true).unwrap();
        let _second = RawDisk::open(file.path(), true).unwrap();
        assert!(RawDisk::open(file.path(), false).is_err());
        assert!(reader.capabilities().read_only);
        let error = reader.locate_write(0, 512).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_disk_has_whole_sectors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [0, 511, 4097] {
            file.as_file().set_len(bytes).unwrap();
            let error = RawDisk::open(file.path(), false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.contains(&format!("{bytes} bytes")), "{text}");
        }
    }
}
