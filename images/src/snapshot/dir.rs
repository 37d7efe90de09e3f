//! [`Objects`] in a local folder.
//!
//! An object is written to `tmp/`, synced, linked to its name, and the name's folder is synced. So a
//! name never stands for bytes that a power loss can take away. Linking fails when the name is taken:
//! that is put-if-absent, between processes too.
//!
//! `object_store`'s own `LocalFileSystem` does the same if told to (`with_fsync`), one object at a
//! time: two syncs for every block. Here a batch shares the syncs of its folders, and deletions are
//! synced as well.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::objects::{Listed, Objects};
use crate::io::sync_dir;

const DRAFTS: &str = "tmp";

/// A local folder as a place for objects.
#[derive(Debug)]
pub(super) struct Dir {
    root: PathBuf,
    #[cfg(test)]
    pub(super) hook: Option<std::sync::Arc<super::tests::Hook>>,
}

impl Dir {
    /// Opens the folder `root`, making it and the folders `names` in it where they are missing.
    pub(super) fn open(root: &Path, names: &[String]) -> io::Result<Self> {
        let mut changed = BTreeSet::new();
        for name in names.iter().map(String::as_str).chain([DRAFTS]) {
            let mut path = root.join(name);
            while !path.is_dir() {
                changed.insert(path.clone());
                match path.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => path = parent.into(),
                    _ => break,
                }
            }
        }
        let mut parents = BTreeSet::new();
        for path in &changed {
            match fs::create_dir(path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => parents.insert(parent_of(path)),
            };
        }
        for parent in &parents {
            sync_dir(parent)?;
        }
        Ok(Self {
            root: root.into(),
            #[cfg(test)]
            hook: None,
        })
    }

    /// Announces a step that changes the folder, so that tests can stop there.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps))]
    fn step(&self, what: &'static str, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        if let Some(hook) = &self.hook {
            return hook.step(what, path);
        }
        let _ = (what, path);
        Ok(())
    }

    /// Writes a synced draft.
    fn draft(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let name = format!("{:032x}", rand::random::<u128>());
        let path = self.root.join(DRAFTS).join(name);
        let write = || {
            self.step("make", &path)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            self.step("write", &path)?;
            file.write_all(bytes)?;
            self.step("sync", &path)?;
            file.sync_all()
        };
        write().inspect_err(|_| self.drop_draft(&path))?;
        Ok(path)
    }

    /// Best effort: what stays is removed with the drafts of the dead.
    fn drop_draft(&self, path: &Path) {
        if self.step("unlink", path).is_ok() {
            let _ = fs::remove_file(path);
        }
    }

    /// Gives a draft its name, unless that is taken.
    fn publish(&self, draft: &Path, name: &str) -> io::Result<bool> {
        let path = self.root.join(name);
        let linked = self
            .step("link", &path)
            .and_then(|()| fs::hard_link(draft, &path));
        self.drop_draft(draft);
        match linked {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step("sync folder", path)?;
        sync_dir(path)
    }
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}

impl Objects for Dir {
    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.root.join(name))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        let draft = self.draft(bytes)?;
        let new = self.publish(&draft, name)?;
        // When the name was taken, by one who may have died before this.
        self.sync_folder(&parent_of(&self.root.join(name)))?;
        Ok(new)
    }

    fn put_all(&self, objects: &[(String, Vec<u8>)]) -> io::Result<()> {
        let mut drafts = Vec::with_capacity(objects.len());
        let mut written = Ok(());
        for (_, bytes) in objects {
            match self.draft(bytes) {
                Ok(draft) => drafts.push(draft),
                Err(e) => {
                    written = Err(e);
                    break;
                }
            }
        }
        let mut folders = BTreeSet::new();
        for (draft, (name, _)) in drafts.iter().zip(objects) {
            if written.is_err() {
                self.drop_draft(draft);
                continue;
            }
            match self.publish(draft, name) {
                Ok(true) => {
                    folders.insert(parent_of(&self.root.join(name)));
                }
                Ok(false) => written = Err(io::ErrorKind::AlreadyExists.into()),
                Err(e) => written = Err(e),
            }
        }
        written?;
        folders.iter().try_for_each(|path| self.sync_folder(path))
    }

    fn touch(&self, name: &str) -> io::Result<()> {
        let path = self.root.join(name);
        self.step("touch", &path)?;
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_modified(SystemTime::now())
    }

    fn delete_all(&self, names: &[String]) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for name in names {
            let path = self.root.join(name);
            self.step("delete", &path)?;
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                // Not there: perhaps by one who died before the sync.
                _ => folders.insert(parent_of(&path)),
            };
        }
        folders.iter().try_for_each(|path| self.sync_folder(path))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Listed>> {
        let path = self.root.join(folder);
        let mut out = Vec::new();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                out.push(Listed {
                    name,
                    size: meta.len(),
                    modified: meta.modified()?,
                });
            }
        }
        // Their writer may have died between the link and the sync.
        if !out.is_empty() {
            sync_dir(&path)?;
        }
        Ok(out)
    }

    fn now(&self) -> io::Result<SystemTime> {
        Ok(SystemTime::now())
    }

    fn remove_drafts(&self, age: Duration) -> io::Result<u64> {
        let now = SystemTime::now();
        let old: Vec<String> = self
            .list(DRAFTS)?
            .into_iter()
            .filter(|draft| now.duration_since(draft.modified).unwrap_or_default() >= age)
            .map(|draft| format!("{DRAFTS}/{}", draft.name))
            .collect();
        self.delete_all(&old)?;
        Ok(old.len().try_into().unwrap_or(u64::MAX))
    }
}
