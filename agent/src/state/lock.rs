//! Locks that the kernel drops with the last process that holds them.
//!
//! These are open-file-description locks (`F_OFD_SETLK`, Linux 3.15): they belong to the open
//! file, so a child that inherits the descriptor keeps them, and anyone may *ask* whether the lock
//! is held without taking it (`F_OFD_GETLK`), so that listing never gets in the way of starting.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// A lock that this process holds, perhaps together with others that inherited it.
#[derive(Debug)]
pub struct OwnerLock {
    file: File,
}

/// Who holds a lock, as they wrote it down when they took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder(String);

impl Holder {
    /// Its process, if it wrote that down.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let rest = self.0.strip_prefix("pid ")?;
        rest.split(' ').next()?.parse().ok()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn whole_file(kind: i32) -> libc::flock {
    let small = |value: i32| libc::c_short::try_from(value).unwrap_or_default();
    libc::flock {
        l_type: small(kind),
        l_whence: small(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

impl OwnerLock {
    /// Takes the lock, or says who holds it.
    ///
    /// # Errors
    /// When the file cannot be opened or locked for another reason than being held.
    pub fn try_take(path: &Path, what: &str) -> io::Result<Result<Self, Holder>> {
        let file = open(path, true)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => {
                let mut lock = Self { file };
                lock.sign(what);
                Ok(Ok(lock))
            }
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(Err(read_holder(file))),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the lock, waiting for its holder.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn take(path: &Path, what: &str) -> io::Result<Self> {
        let file = open(path, true)?;
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole_file(libc::F_WRLCK))) {
                Ok(_) => break,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut lock = Self { file };
        lock.sign(what);
        Ok(lock)
    }

    /// Takes over a lock that the parent process took and let us inherit.
    ///
    /// # Errors
    /// When the descriptor is not open, or someone else holds the lock after all.
    pub fn adopt(fd: RawFd) -> io::Result<Self> {
        if fd <= libc::STDERR_FILENO {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the caller names a descriptor it inherited for this purpose alone; that it is
        // open is checked by the fcntl below, and nobody else in this process uses it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK)))?;
        Ok(Self { file })
    }

    /// Writes down who we are, for messages only: on a full disk that fails, and the lock is needed
    /// there to delete something.
    pub fn sign(&mut self, what: &str) {
        let _ = self
            .file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| write!(self.file, "pid {} ({what})", std::process::id()));
    }

    /// Who holds the lock at `path`, if anyone does. Takes nothing.
    ///
    /// # Errors
    /// When the file exists and cannot be asked. No file, no holder.
    pub fn holder(path: &Path) -> io::Result<Option<Holder>> {
        let file = match open(path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut asked = whole_file(libc::F_WRLCK);
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked))?;
        if i32::from(asked.l_type) == libc::F_UNLCK {
            Ok(None)
        } else {
            Ok(Some(read_holder(file)))
        }
    }
}

impl AsFd for OwnerLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_holder(file: File) -> Holder {
    let mut text = String::new();
    let known = file.take(200).read_to_string(&mut text).is_ok() && !text.is_empty();
    Holder(if known {
        text
    } else {
        "another process".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_and_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(OwnerLock::holder(&path).unwrap(), None);
        let held = OwnerLock::try_take(&path, "a test").unwrap().unwrap();
        let holder = OwnerLock::holder(&path).unwrap().unwrap();
        let pid = std::process::id();
        assert_eq!(holder.to_string(), format!("pid {pid} (a test)"));
        assert_eq!(holder.pid(), i32::try_from(pid).ok());
        assert_eq!(
            OwnerLock::try_take(&path, "another").unwrap().unwrap_err(),
            holder
        );
        drop(held);
        assert_eq!(OwnerLock::holder(&path).unwrap(), None);
    }

    #[test]
    fn a_duplicate_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = OwnerLock::try_take(&path, "a test").unwrap().unwrap();
        let copy = held.as_fd().try_clone_to_owned().unwrap();
        drop(held);
        assert!(OwnerLock::holder(&path).unwrap().is_some());
        drop(copy);
        assert!(OwnerLock::holder(&path).unwrap().is_none());
    }
}
