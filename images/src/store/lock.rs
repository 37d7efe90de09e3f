//! The store's lock: held for the moment of a change.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::StoreError;
use crate::lockfile::{self, LockError};

const LOCK: &str = "lock";

/// Takes the lock of the folder `dir`, waiting up to `patience`. Free again when the file is closed.
pub(super) fn take(dir: &Path, patience: Duration) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    lockfile::take(&path, patience).map_err(|error| match error {
        LockError::Io { what, source } => StoreError::io(what, &path)(source),
        LockError::Held { owner } => StoreError::Locked {
            path: dir.into(),
            owner,
        },
    })
}
