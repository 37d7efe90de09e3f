//! The user's cache folder: things that are costly to make, keyed by a digest of their recipe.
//!
//! Rules: an entry appears under its final name only when it is complete (atomic rename); one lock file per kind of
//! entry keeps two builds from colliding; entries that no checkout has used for days go when a new one is made.

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// So long an entry stays that nobody uses: other checkouts may have other recipes.
const KEEP: Duration = Duration::from_secs(3 * 24 * 3600);

/// `$XDG_CACHE_HOME/cumulet` or `~/.cache/cumulet`, made when missing, for this user alone.
pub(crate) fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(
            std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?,
        )
        .join(".cache"),
    };
    let dir = base.join("cumulet");
    private_dir(&dir)?;
    Ok(dir)
}

/// Makes a directory (and its parents) with mode 0700.
pub(crate) fn private_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make {}", dir.display()))
}

/// First 16 hex digits of the SHA-256 of the parts, each ended by a zero byte.
pub(crate) fn key<S: AsRef<[u8]>>(parts: &[S]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Takes the lock file exclusively, waiting for whoever holds it; released on drop.
pub(crate) fn lock(path: &Path) -> Result<Flock<File>> {
    let open = || {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open the lock {}", path.display()))
    };
    match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
            eprintln!("xtask: waiting for another build ({})", path.display());
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
        }
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The directory `KIND-KEY` of the cache, made by `build` (which gets an empty directory to fill) when it is missing.
/// With `costly` entries of the same kind that nobody has used for [`KEEP`] are removed after a build.
pub(crate) fn entry(
    kind: &str,
    key: &str,
    costly: bool,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let root = root()?;
    let entry = root.join(format!("{kind}-{key}"));
    if entry.is_dir() {
        mark_used(&entry);
        return Ok(entry);
    }
    let _lock = lock(&root.join(format!("{kind}.lock")))?;
    if entry.is_dir() {
        return Ok(entry);
    }
    let partial = root.join(format!("{kind}-{key}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot clear {}", partial.display()))?;
    }
    private_dir(&partial)?;
    build(&partial).inspect_err(|_| {
        // The error that matters is the build's; what is left is cleared before the next build anyway.
        let _ = fs::remove_dir_all(&partial);
    })?;
    fs::rename(&partial, &entry).with_context(|| format!("cannot complete {}", entry.display()))?;
    if costly {
        remove_older(&root, kind, &entry)?;
    }
    Ok(entry)
}

/// The directory's time is that of its last use.
fn mark_used(entry: &Path) {
    // A cache that cannot be written is still good to read.
    let _ = File::open(entry).and_then(|dir| dir.set_modified(SystemTime::now()));
}

fn remove_older(root: &Path, kind: &str, keep: &Path) -> Result<()> {
    for found in fs::read_dir(root)? {
        let path = found?.path();
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let is_kind = name
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|key| key.len() == 16 && key.bytes().all(|b| b.is_ascii_hexdigit()));
        let age = fs::metadata(&path)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|used| used.elapsed().ok());
        if is_kind && path != keep && age.is_some_and(|age| age > KEEP) {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove the old {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_long_unused_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, age: Duration| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            let time = SystemTime::now() - age;
            File::open(&path).unwrap().set_modified(time).unwrap();
            path
        };
        let old = KEEP + Duration::from_secs(60);
        let keep = make("kernel-0123456789abcdef", old);
        let used = make("kernel-0123456789abcde0", Duration::ZERO);
        let unused = make("kernel-0123456789abcde1", old);
        let other = make("kernel-6.1-0123456789abcdef", old);
        remove_older(dir.path(), "kernel", &keep).unwrap();
        assert!(keep.exists() && used.exists() && other.exists());
        assert!(!unused.exists());
    }

    #[test]
    fn keys_tell_parts_apart() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["a"]).len(), 16);
    }
}
