//! The AMI store: a folder of images, each registered whole or not at all.
//!
//! ```text
//! store/
//!   lock                    held for the moment of a change; holds the owner's process id
//!   ami-0123456789abcdef0/
//!     manifest.json         what it is (module `manifest`)
//!     disk.raw              the disk, sparse, never written again
//!     users/                one file a volume over it: the volume's folder
//!   .draft-…/               an import or build at work; its own lock says whether it is alive
//! ```
//!
//! An import writes into a draft, syncs it and renames it. What a killed import leaves is a draft
//! that nobody holds; the next opening of the store removes it.

mod digest;
mod draft;
mod import;
mod lock;
mod manifest;
mod source;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::digest::DIGEST_BLOCK;
pub use self::draft::Draft;
pub use self::manifest::{Ami, BootSummary, ImportOptions, MANIFEST_FORMAT, Progress, StoreError};

use crate::io::sync_dir;
use crate::volume::{Parent, Volume, VolumeSpec};

const MANIFEST: &str = "manifest.json";
const DISK: &str = "disk.raw";
const USERS: &str = "users";
const DRAFT: &str = ".draft-";
const TRASH: &str = ".trash-";

/// A folder of AMIs. Any number of processes may have it open.
#[derive(Debug, Clone)]
pub struct AmiStore {
    dir: PathBuf,
    /// How long a change waits for another process's change.
    patience: Duration,
}

impl AmiStore {
    /// Opens the store in `dir`, making the folder if need be, and clears away what killed imports
    /// have left.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(StoreError::io("make", dir))?;
        let dir = dir.canonicalize().map_err(StoreError::io("find", dir))?;
        let store = Self {
            dir,
            patience: Duration::from_secs(5),
        };
        // When another process is changing the store, it has done this itself.
        if let Ok(_lock) = lock::take(&store.dir, Duration::ZERO) {
            store.clear_left_overs()?;
        }
        Ok(store)
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All AMIs, oldest first. A damaged manifest is logged and left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Ami>, StoreError> {
        let mut out = Vec::new();
        let entries = fs::read_dir(&self.dir).map_err(StoreError::io("read", &self.dir))?;
        for entry in entries {
            let entry = entry.map_err(StoreError::io("read", &self.dir))?;
            let name = entry.file_name();
            let Some(id) = name.to_str().filter(|name| is_id(name)) else {
                continue;
            };
            match self.manifest(id) {
                Ok(ami) => out.push(ami),
                Err(error) => tracing::warn!(id, %error, "left out a damaged image"),
            }
        }
        out.sort_by(|a, b| (&a.creation_date, &a.id).cmp(&(&b.creation_date, &b.id)));
        Ok(out)
    }

    /// The AMI with this id, or the newest with this name.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]; [`StoreError::Manifest`].
    pub fn find(&self, id_or_name: &str) -> Result<Ami, StoreError> {
        if is_id(id_or_name) {
            return self.manifest(id_or_name);
        }
        let named = self.list()?.into_iter().rfind(|ami| ami.name == id_or_name);
        named.ok_or_else(|| StoreError::Unknown(id_or_name.into()))
    }

    /// The newest AMI that was built from `recipe`.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn find_recipe(&self, recipe: &str) -> Result<Option<Ami>, StoreError> {
        let built = |ami: &Ami| ami.recipe.as_deref() == Some(recipe);
        Ok(self.list()?.into_iter().rfind(built))
    }

    /// The raw disk of an AMI. Only to be read.
    #[must_use]
    pub fn disk_path(&self, ami: &Ami) -> PathBuf {
        self.dir.join(&ami.id).join(DISK)
    }

    /// Makes a copy-on-write volume `id` over `ami` in the new folder `dir`; `size` defaults to the
    /// AMI's. While that folder holds the volume, the AMI cannot be deleted.
    ///
    /// # Errors
    /// As [`Volume::create`]; [`StoreError::Unknown`] when the AMI is gone.
    pub fn create_volume(
        &self,
        ami: &Ami,
        dir: &Path,
        id: &str,
        size: Option<u64>,
    ) -> Result<VolumeSpec, StoreError> {
        let _lock = lock::take(&self.dir, self.patience)?;
        let path = self.disk_path(ami);
        if !path.exists() {
            return Err(StoreError::Unknown(ami.id.clone()));
        }
        let folder = std::path::absolute(dir).map_err(StoreError::io("find", dir))?;
        let user = self.user_file(&ami.id, id);
        fs::write(&user, folder.as_os_str().as_encoded_bytes())
            .map_err(StoreError::io("write", &user))?;
        let parent = Parent {
            id: ami.id.clone(),
            path,
            size: ami.size,
        };
        let spec = VolumeSpec::over(id, parent).sized(size.unwrap_or(ami.size));
        match Volume::create(&folder, &spec) {
            Ok(()) => Ok(spec),
            Err(error) => {
                // Left behind it would do no harm: its volume does not exist.
                let _ = fs::remove_file(&user);
                Err(error.into())
            }
        }
    }

    /// Notes that a volume over one of the AMIs lies in another folder now. To be called after it was moved there; may be
    /// called again, and for a volume that stands on no AMI.
    ///
    /// # Errors
    /// [`StoreError::Locked`]; the system's own, and the volume's when it cannot be read.
    pub fn volume_moved(&self, dir: &Path) -> Result<(), StoreError> {
        let spec = Volume::describe(dir)?;
        let Some(parent) = spec.parent else {
            return Ok(());
        };
        let _lock = lock::take(&self.dir, self.patience)?;
        let folder = std::path::absolute(dir).map_err(StoreError::io("find", dir))?;
        let user = self.user_file(&parent.id, &spec.id);
        fs::write(&user, folder.as_os_str().as_encoded_bytes())
            .map_err(StoreError::io("write", &user))
    }

    /// Removes an AMI.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a volume stands on it; [`StoreError::Unknown`];
    /// [`StoreError::Locked`].
    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        let dir = self.dir.join(id);
        if !is_id(id) || !dir.is_dir() {
            return Err(StoreError::Unknown(id.into()));
        }
        let _lock = lock::take(&self.dir, self.patience)?;
        if let Some((volume, path)) = self.user_of(id)? {
            return Err(StoreError::InUse {
                id: id.into(),
                volume,
                path,
            });
        }
        let trash = self.dir.join(format!("{TRASH}{id}"));
        fs::rename(&dir, &trash).map_err(StoreError::io("remove", &dir))?;
        sync_dir(&self.dir).map_err(StoreError::io("sync", &self.dir))?;
        fs::remove_dir_all(&trash).map_err(StoreError::io("remove", &trash))
    }

    /// Reads the whole disk of an AMI and compares its digest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]; [`StoreError::Unknown`]; the system's own.
    pub fn verify(&self, id: &str, progress: &mut dyn FnMut(Progress)) -> Result<Ami, StoreError> {
        let ami = self.find(id)?;
        let path = self.disk_path(&ami);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let size = file
            .metadata()
            .map_err(StoreError::io("examine", &path))?
            .len();
        let found =
            digest::of_file(&file, size, progress).map_err(StoreError::io("read", &path))?;
        if found != ami.digest {
            return Err(StoreError::Damaged {
                id: ami.id,
                expected: ami.digest,
                found,
            });
        }
        Ok(ami)
    }

    fn manifest(&self, id: &str) -> Result<Ami, StoreError> {
        let path = self.dir.join(id).join(MANIFEST);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Unknown(id.into()),
            _ => StoreError::io("read", &path)(source),
        })?;
        serde_json::from_slice(&text).map_err(|source| StoreError::Manifest { path, source })
    }

    fn user_file(&self, ami: &str, volume: &str) -> PathBuf {
        let safe: String = volume
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        self.dir.join(ami).join(USERS).join(safe)
    }

    /// A volume that stands on `id`, with its folder. Entries of volumes long gone are removed.
    fn user_of(&self, id: &str) -> Result<Option<(String, PathBuf)>, StoreError> {
        let dir = self.dir.join(id).join(USERS);
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(StoreError::io("read", &dir))?,
        };
        for entry in entries {
            let path = entry.map_err(StoreError::io("read", &dir))?.path();
            let folder = fs::read(&path).map_err(StoreError::io("read", &path))?;
            let folder = PathBuf::from(String::from_utf8_lossy(&folder).into_owned());
            match Volume::describe(&folder) {
                Ok(spec) if spec.parent.as_ref().is_some_and(|parent| parent.id == id) => {
                    return Ok(Some((spec.id, folder)));
                }
                // Not readable is not gone.
                Err(error) if folder.exists() => {
                    tracing::warn!(%error, "cannot tell whether a volume uses {id}");
                    return Ok(Some(("unknown".into(), folder)));
                }
                _ => fs::remove_file(&path).map_err(StoreError::io("remove", &path))?,
            }
        }
        Ok(None)
    }

    /// Removes drafts whose maker is gone, and half-removed AMIs.
    fn clear_left_overs(&self) -> Result<(), StoreError> {
        let entries = fs::read_dir(&self.dir).map_err(StoreError::io("read", &self.dir))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = entry.path();
            let stale =
                name.starts_with(TRASH) || (name.starts_with(DRAFT) && !draft::is_alive(&path));
            if stale {
                tracing::info!(path = %path.display(), "removing what a killed process left");
                remove_left_over(&path);
            }
        }
        Ok(())
    }
}

/// Removes a folder; what cannot be removed is no reason not to work.
fn remove_left_over(path: &Path) {
    let Err(error) = fs::remove_dir_all(path) else {
        return;
    };
    match error.kind() {
        io::ErrorKind::NotFound => {}
        // A rootless build's tree belongs to other ids of this user's range.
        io::ErrorKind::PermissionDenied => crate::build::remove_mapped(path),
        _ => tracing::warn!(path = %path.display(), %error, "cannot remove a left-over"),
    }
}

/// `ami-` and 17 hexadecimal digits.
fn is_id(name: &str) -> bool {
    name.strip_prefix("ami-").is_some_and(|hex| {
        hex.len() == 17 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    })
}
