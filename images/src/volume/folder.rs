//! A volume's folder: made whole or not at all, owned by one process at a time, removed whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::BLOCK_SIZE;
use super::meta::{FORMAT, VolumeError, VolumeSpec};
use super::presence::{MAP_SECTOR_U64, sectors_for};
use crate::block::SECTOR_SIZE;
use crate::io::sync_dir;
use crate::lockfile::{self, LockError};

/// The description.
pub(super) const SPEC: &str = "volume.json";
/// The volume's own blocks, at their own offsets.
pub(super) const DATA: &str = "data";
/// Which blocks those are.
pub(super) const MAP: &str = "map";
/// Locked by the owner, whose process id it holds.
const LOCK: &str = "lock";

/// Largest volume: EBS's own limit (io2 Block Express), 64 TiB.
const MAX_SIZE: u64 = 64 << 40;

/// Makes the folder `dir` for a volume. After an error or a crash there is no `dir`.
pub(super) fn create(dir: &Path, spec: &VolumeSpec) -> Result<(), VolumeError> {
    check(spec)?;
    if dir.symlink_metadata().is_ok() {
        return Err(VolumeError::Exists { path: dir.into() });
    }
    let tmp = beside(dir, ".new");
    mkdir(&tmp)?;
    // A left-over of a crashed maker is taken over; a maker at work holds the lock.
    let lock = lock(&tmp)?;
    let made = fill(&tmp, spec).and_then(|()| {
        renameat2(AT_FDCWD, &tmp, AT_FDCWD, dir, RenameFlags::RENAME_NOREPLACE)
            .map_err(io::Error::from)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => VolumeError::Exists { path: dir.into() },
                _ => VolumeError::io("make", dir)(source),
            })
    });
    if let Err(error) = made {
        if let Err(e) = fs::remove_dir_all(&tmp) {
            tracing::warn!(path = %tmp.display(), error = %e, "left-over of a failed volume");
        }
        return Err(error);
    }
    drop(lock);
    let above = parent_dir(dir);
    sync_dir(above).map_err(VolumeError::io("sync", above))
}

/// Removes the volume in `dir`, unless it is in use.
pub(super) fn remove(dir: &Path) -> Result<(), VolumeError> {
    if !dir.join(SPEC).exists() {
        return Err(VolumeError::Missing { path: dir.into() });
    }
    let lock = lock(dir)?;
    // The description goes first: what a crash leaves behind is no volume any more.
    let spec = dir.join(SPEC);
    fs::remove_file(&spec).map_err(VolumeError::io("remove", &spec))?;
    sync_dir(dir).map_err(VolumeError::io("sync", dir))?;
    fs::remove_dir_all(dir).map_err(VolumeError::io("remove", dir))?;
    drop(lock);
    let above = parent_dir(dir);
    sync_dir(above).map_err(VolumeError::io("sync", above))
}

/// Takes the folder for this process, until the file is closed.
pub(super) fn lock(dir: &Path) -> Result<File, VolumeError> {
    let path = dir.join(LOCK);
    lockfile::take(&path, Duration::ZERO).map_err(|error| match error {
        LockError::Io { what, source } => VolumeError::io(what, &path)(source),
        LockError::Held { owner } => VolumeError::InUse {
            path: dir.into(),
            owner,
        },
    })
}

/// Reads and checks the description.
pub(super) fn read_spec(dir: &Path) -> Result<VolumeSpec, VolumeError> {
    let path = dir.join(SPEC);
    let text = fs::read(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => VolumeError::Missing { path: dir.into() },
        _ => VolumeError::io("read", &path)(source),
    })?;
    let spec: VolumeSpec = match serde_json::from_slice(&text) {
        Ok(spec) => spec,
        Err(source) => {
            return Err(newer(dir, &text).unwrap_or(VolumeError::Description { path, source }));
        }
    };
    match newer(dir, &text) {
        Some(error) => Err(error),
        None => check(&spec).map(|()| spec),
    }
}

/// A newer layout may have fields unknown here: its version is looked at by itself.
fn newer(dir: &Path, text: &[u8]) -> Option<VolumeError> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let found = u32::try_from(value.get("format")?.as_u64()?).unwrap_or(u32::MAX);
    (found != FORMAT).then(|| VolumeError::Format {
        path: dir.into(),
        found,
    })
}

fn check(spec: &VolumeSpec) -> Result<(), VolumeError> {
    let wrong = |why| {
        Err(VolumeError::Size {
            size: spec.size,
            why,
        })
    };
    if spec.size == 0 || !spec.size.is_multiple_of(SECTOR_SIZE) {
        return wrong("it must be a positive multiple of 512");
    }
    if spec.size > MAX_SIZE {
        return wrong("it must not be above 64 TiB");
    }
    if spec
        .parent
        .as_ref()
        .is_some_and(|parent| parent.size > spec.size)
    {
        return wrong("it must not be smaller than the image below it");
    }
    Ok(())
}

fn fill(tmp: &Path, spec: &VolumeSpec) -> Result<(), VolumeError> {
    let map = sectors_for(spec.size.div_ceil(BLOCK_SIZE)) * MAP_SECTOR_U64;
    for (name, len) in [(DATA, spec.size), (MAP, map)] {
        let path = tmp.join(name);
        let file = new_file(&path)?;
        file.set_len(len).map_err(VolumeError::io("size", &path))?;
        file.sync_all().map_err(VolumeError::io("sync", &path))?;
    }
    let path = tmp.join(SPEC);
    let mut file = new_file(&path)?;
    let mut text = serde_json::to_vec_pretty(spec).map_err(|source| VolumeError::Description {
        path: path.clone(),
        source,
    })?;
    text.push(b'\n');
    file.write_all(&text)
        .map_err(VolumeError::io("write", &path))?;
    file.sync_all().map_err(VolumeError::io("sync", &path))?;
    sync_dir(tmp).map_err(VolumeError::io("sync", tmp))
}

fn new_file(path: &Path) -> Result<File, VolumeError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(VolumeError::io("make", path))
}

fn mkdir(path: &Path) -> Result<(), VolumeError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(VolumeError::io("make", path)(e)),
        _ => Ok(()),
    }
}

/// `dir/../.NAME.new` for `dir/../NAME`.
fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(dir.file_name().unwrap_or_default());
    name.push(suffix);
    dir.with_file_name(name)
}

fn parent_dir(dir: &Path) -> &Path {
    match dir.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}
