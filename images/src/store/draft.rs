//! An AMI in the making.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use super::digest::{self, data_runs};
use super::manifest::MANIFEST_FORMAT;
use super::{
    Ami, AmiStore, BootSummary, DISK, DRAFT, ImportOptions, MANIFEST, Progress, StoreError, USERS,
    lock, remove_left_over,
};
use crate::block::{BlockBackend, SECTOR_SIZE};
use crate::boot::{self, Architecture};
use crate::io::sync_dir;
use crate::raw::RawDisk;

/// A folder of the store that becomes an AMI by [`Draft::commit`] and vanishes without it.
#[derive(Debug)]
pub struct Draft {
    store: AmiStore,
    dir: PathBuf,
    /// Locked while we live.
    _alive: File,
}

/// Whether the maker of the draft in `dir` still runs.
pub(super) fn is_alive(dir: &Path) -> bool {
    matches!(
        lock::take(dir, Duration::ZERO),
        Err(StoreError::Locked { .. })
    )
}

impl AmiStore {
    /// Begins a new AMI.
    ///
    /// # Errors
    /// [`StoreError::Locked`]; the system's own.
    pub fn draft(&self) -> Result<Draft, StoreError> {
        let _lock = lock::take(&self.dir, self.patience)?;
        self.clear_left_overs()?;
        let dir = self
            .dir
            .join(format!("{DRAFT}{:016x}", rand::random::<u64>()));
        fs::create_dir(&dir).map_err(StoreError::io("make", &dir))?;
        let alive = lock::take(&dir, Duration::ZERO)?;
        Ok(Draft {
            store: self.clone(),
            dir,
            _alive: alive,
        })
    }
}

impl Draft {
    /// The folder, for whatever the making needs beside the disk; all but the disk is dropped in the
    /// end.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the raw disk is to be written.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// Registers the disk as an AMI: reads its digest, looks for what it boots, and makes all of it
    /// durable. `source` is what errors call the image.
    ///
    /// # Errors
    /// [`StoreError::NotBootable`], [`StoreError::Architecture`] and [`StoreError::Truncated`] unless
    /// forced; [`StoreError::Full`]; the system's own. The draft is gone in any case.
    pub fn commit(
        self,
        source: &Path,
        options: &ImportOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Ami, StoreError> {
        let path = self.disk();
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let size = file
            .metadata()
            .map_err(StoreError::io("examine", &path))?
            .len();
        let digest =
            digest::of_file(&file, size, progress).map_err(StoreError::io("read", &path))?;
        self.register(source, options, digest)
    }

    /// As [`Draft::commit`] with the digest known.
    pub(super) fn register(
        self,
        source: &Path,
        options: &ImportOptions,
        digest: String,
    ) -> Result<Ami, StoreError> {
        let path = self.disk();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        file.sync_all().map_err(StoreError::io("sync", &path))?;
        let size = file
            .metadata()
            .map_err(StoreError::io("examine", &path))?
            .len();
        let used_bytes = data_runs(&file, size)
            .map_err(StoreError::io("examine", &path))?
            .iter()
            .map(|(start, end)| end - start)
            .sum();
        drop(file);
        let found = Findings::of(&path, source, size, options.force)?;
        let id = format!("ami-{}", &format!("{:032x}", rand::random::<u128>())[..17]);
        let ami = Ami {
            format: MANIFEST_FORMAT,
            name: options.name.clone().unwrap_or_else(|| default_name(source)),
            description: options.description.clone(),
            architecture: found.architecture,
            root_device_name: options
                .root_device_name
                .clone()
                .unwrap_or_else(|| root_device_name(found.os.as_deref())),
            size,
            used_bytes,
            creation_date: now(),
            os: found.os,
            boot: found.boot,
            digest,
            recipe: options.recipe.clone(),
            id,
        };
        self.publish(&ami)?;
        Ok(ami)
    }

    fn publish(&self, ami: &Ami) -> Result<(), StoreError> {
        let disk = self.disk();
        fs::set_permissions(&disk, Permissions::from_mode(0o444))
            .map_err(StoreError::io("protect", &disk))?;
        let entries = fs::read_dir(&self.dir).map_err(StoreError::io("read", &self.dir))?;
        for entry in entries.flatten() {
            let path = entry.path();
            match entry.file_name().to_str() {
                Some(DISK | "lock") => {}
                _ if path.is_dir() => {
                    fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
                }
                _ => fs::remove_file(&path).map_err(StoreError::io("remove", &path))?,
            }
        }
        let users = self.dir.join(USERS);
        fs::create_dir(&users).map_err(StoreError::io("make", &users))?;
        let path = self.dir.join(MANIFEST);
        let mut text = serde_json::to_vec_pretty(ami).map_err(|source| StoreError::Manifest {
            path: path.clone(),
            source,
        })?;
        text.push(b'\n');
        let mut file = File::create(&path).map_err(StoreError::io("make", &path))?;
        file.write_all(&text)
            .map_err(StoreError::io("write", &path))?;
        file.sync_all().map_err(StoreError::io("sync", &path))?;
        sync_dir(&self.dir).map_err(StoreError::io("sync", &self.dir))?;
        let _lock = lock::take(&self.store.dir, self.store.patience)?;
        let target = self.store.dir.join(&ami.id);
        fs::rename(&self.dir, &target).map_err(StoreError::io("register", &target))?;
        let _ = fs::remove_file(target.join("lock"));
        sync_dir(&self.store.dir).map_err(StoreError::io("sync", &self.store.dir))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a commit there is nothing of this name.
        remove_left_over(&self.dir);
    }
}

/// What is known of a disk by looking into it.
struct Findings {
    architecture: Option<Architecture>,
    os: Option<String>,
    boot: Option<BootSummary>,
}

impl Findings {
    fn of(path: &Path, source: &Path, size: u64, force: bool) -> Result<Self, StoreError> {
        let none = Self {
            architecture: None,
            os: None,
            boot: None,
        };
        if size < 2 * SECTOR_SIZE && force {
            return Ok(none);
        }
        let raw = RawDisk::open(path, true).map_err(StoreError::io("open", path))?;
        let disk: Arc<dyn BlockBackend> = Arc::new(raw);
        let missing = boot::missing_partitions(&disk);
        if let (Some(what), false) = (missing.into_iter().next(), force) {
            return Err(StoreError::Truncated {
                path: source.into(),
                what,
            });
        }
        let os = boot::os_name(&disk);
        let files = match boot::resolve(&disk) {
            Ok(files) => files,
            Err(error) if force => {
                tracing::info!(%error, "image without a kernel");
                return Ok(Self { os, ..none });
            }
            Err(error) => {
                return Err(StoreError::NotBootable {
                    path: source.into(),
                    source: error,
                });
            }
        };
        if let (Some(found), Some(host), false) =
            (files.architecture, Architecture::of_host(), force)
            && found != host
        {
            return Err(StoreError::Architecture {
                path: source.into(),
                found,
                host,
            });
        }
        Ok(Self {
            architecture: files.architecture,
            os,
            boot: Some(BootSummary {
                origin: files.origin,
                kernel: files.kernel.path(),
                initrd: files.initrd.map(|initrd| initrd.path()),
                cmdline: files.cmdline,
            }),
        })
    }
}

/// EC2 images of Debian and Amazon say `/dev/xvda`, the others `/dev/sda1`.
fn root_device_name(os: Option<&str>) -> String {
    match os {
        Some(os) if os.starts_with("Debian") || os.starts_with("Amazon") => "/dev/xvda".into(),
        _ => "/dev/sda1".into(),
    }
}

fn default_name(source: &Path) -> String {
    let name = source.file_stem().unwrap_or(source.as_os_str());
    name.to_string_lossy().into_owned()
}

fn now() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].000Z");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}
