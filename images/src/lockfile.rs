//! A lock file: locked by the kernel for its owner, with the owner's process id in it for people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Why a lock was not taken.
pub(crate) enum LockError {
    /// A system call on the lock file failed.
    Io {
        /// What was tried: "open", "lock".
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process has it.
    Held {
        /// Its process id, or "unknown".
        owner: String,
    },
}

/// Takes the lock `path`, waiting up to `patience`. Free again when the file is closed.
pub(crate) fn take(path: &Path, patience: Duration) -> Result<File, LockError> {
    let fault = |what| move |source| LockError::Io { what, source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(fault("open"))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => return Err(held(&mut file)),
            Err(TryLockError::Error(source)) => return Err(fault("lock")(source)),
        }
    }
    // Only told to people; the lock itself is the kernel's. On a full disk it cannot be written, and
    // there the lock is needed to delete something.
    let _ = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn held(file: &mut File) -> LockError {
    let mut owner = String::new();
    let known = file.read_to_string(&mut owner).is_ok() && !owner.trim().is_empty();
    let owner = if known { owner.trim() } else { "unknown" };
    LockError::Held {
        owner: owner.into(),
    }
}
