//! The state folder.

use std::env;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::Rng;

use super::instance::{InstanceDir, Listed};
use super::lock::OwnerLock;
use super::record::Record;
use cumulet_images::store::AmiStore;

use crate::error::{Context, Error, Kind, Result};
use crate::ids;

const GONE: &str = ".gone-";

/// Where everything of one user is kept.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Opens the state folder, making it when it is not there: `given`, else
    /// `$XDG_DATA_HOME/cumulet`, else `~/.local/share/cumulet`. Finishes deletions that were cut
    /// short.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to someone else.
    pub fn open(given: Option<&Path>) -> Result<Self> {
        let home = Self::look(given)?;
        make_private(&home.root)?;
        for folder in [home.amis(), home.instances()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .context(|| format!("cannot make {}", folder.display()))?;
        }
        home.sweep()?;
        Ok(home)
    }

    /// The state folder as it is, if it is there at all: nothing is made and nothing swept. For those who only look.
    ///
    /// # Errors
    /// As [`Home::root_for`].
    pub fn look(given: Option<&Path>) -> Result<Self> {
        let root = Self::root_for(given)?;
        Ok(Self { root })
    }

    /// Where the state folder is or would be; makes nothing.
    ///
    /// # Errors
    /// When there is no home directory to put it in.
    pub fn root_for(given: Option<&Path>) -> Result<PathBuf> {
        match given {
            Some(path) => std::path::absolute(path)
                .context(|| format!("cannot find the state folder {}", path.display())),
            None => default_root(),
        }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The AMI store.
    #[must_use]
    pub fn amis(&self) -> PathBuf {
        self.root.join("amis")
    }

    /// The key pair made by cumulet.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// What signs metadata tokens and identity documents.
    #[must_use]
    pub fn imds_keys(&self) -> PathBuf {
        self.root.join("imds")
    }

    /// Volumes that belong to no instance.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Takes a volume out of an instance's folder, so that it outlives the instance. It may be out already, or never have
    /// been made.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn keep_volume(&self, instance: &InstanceDir, volume: &str) -> Result<()> {
        let folder = self.volumes();
        let doing = || format!("cannot keep the volume {volume} of {}", instance.id());
        if !ids::is("vol", volume) {
            return Err(Error::internal(doing()));
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .context(doing)?;
        let kept = folder.join(volume);
        match fs::rename(instance.file(volume), &kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(doing);
            }
            _ => {}
        }
        if kept.is_dir() {
            // The AMI under it may not be deleted.
            let store = AmiStore::open(&self.amis()).context(doing)?;
            store.volume_moved(&kept).context(doing)?;
        }
        Ok(())
    }

    fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// The folder of one instance, which need not exist. `id` comes from the user, so anything
    /// but an instance id is refused before it becomes part of a path.
    ///
    /// # Errors
    /// `InvalidInstanceID.Malformed`.
    pub fn instance(&self, id: &str) -> Result<InstanceDir> {
        if !ids::is("i", id) {
            return Err(Error::new(
                Kind::Usage,
                "InvalidInstanceID.Malformed",
                format!("`{id}` is not an instance id"),
            )
            .mend("`cumulet list` shows the ids"));
        }
        Ok(InstanceDir::new(&self.instances(), id))
    }

    /// Held for moments, by whoever makes or removes instance folders or gives out addresses.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn guard(&self) -> Result<OwnerLock> {
        OwnerLock::take(
            &self.instances().join(".lock"),
            "changing the list of instances",
        )
        .context(|| format!("cannot lock {}", self.instances().display()))
    }

    /// Every instance there is, oldest first, each as it truly is now.
    ///
    /// # Errors
    /// When the folder cannot be read. A damaged record is an entry of the list, not an error.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        for id in self.ids()? {
            if let Some(listed) = self.instance(&id)?.look()? {
                found.push(listed);
            }
        }
        found.sort_by_key(|listed| match listed {
            Listed::Good { record, .. } => (Some(record.launch_time), record.instance_id.clone()),
            Listed::Damaged { id, .. } => (None, id.clone()),
        });
        Ok(found)
    }

    /// Finds an instance by its id or by its `Name` tag.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`, or a conflict when several have that name.
    pub fn find(&self, wanted: &str) -> Result<InstanceDir> {
        let missing = || {
            Error::new(
                Kind::NotFound,
                "InvalidInstanceID.NotFound",
                format!("the instance ID or name '{wanted}' does not exist"),
            )
            .mend("`cumulet list` shows what there is")
        };
        if ids::is("i", wanted) {
            let instance = self.instance(wanted)?;
            return match instance.look()? {
                Some(_) => Ok(instance),
                None => Err(missing()),
            };
        }
        let named: Vec<Record> = self
            .list()?
            .into_iter()
            .filter_map(|listed| match listed {
                Listed::Good { record, .. } if record.name() == Some(wanted) => Some(*record),
                _ => None,
            })
            .collect();
        match named.as_slice() {
            [] => Err(missing()),
            [one] => self.instance(&one.instance_id),
            several => {
                let ids: Vec<&str> = several.iter().map(|r| r.instance_id.as_str()).collect();
                Err(Error::new(
                    Kind::Conflict,
                    "InvalidParameterValue",
                    format!("{} instances have the name '{wanted}'", several.len()),
                )
                .mend(format!("use an id: {}", ids.join(", "))))
            }
        }
    }

    /// A private address in 172.31.0.0/20 that no instance has. The caller holds the guard.
    ///
    /// # Errors
    /// `InsufficientFreeAddressesInSubnet`.
    pub fn free_address(&self) -> Result<Ipv4Addr> {
        let taken: Vec<Ipv4Addr> = self
            .list()?
            .into_iter()
            .filter_map(|listed| match listed {
                Listed::Good { record, .. } => Some(record.network.private_ip),
                Listed::Damaged { .. } => None,
            })
            .collect();
        // EC2 reserves the first four addresses and the last one of every subnet.
        let base = u32::from(Ipv4Addr::new(172, 31, 0, 0));
        let (first, count) = (4_u32, 4096_u32 - 5);
        let start = rand::rng().random_range(0..count);
        (0..count)
            .map(|step| Ipv4Addr::from(base + first + (start + step) % count))
            .find(|address| !taken.contains(address))
            .ok_or_else(|| {
                Error::new(
                    Kind::Host,
                    "InsufficientFreeAddressesInSubnet",
                    "the subnet 172.31.0.0/20 has no free address left",
                )
                .mend("terminate instances you no longer need")
            })
    }

    /// Every instance id that has a folder.
    fn ids(&self) -> Result<Vec<String>> {
        let folder = self.instances();
        let doing = || format!("cannot read {}", folder.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).context(doing)? {
            let name = entry.context(doing)?.file_name();
            if let Some(name) = name.to_str().filter(|name| ids::is("i", name)) {
                found.push(name.to_owned());
            }
        }
        Ok(found)
    }

    /// Finishes what a killed process left half done: folders being deleted, folders of instances
    /// that were never committed, instances that were to vanish with their command.
    fn sweep(&self) -> Result<()> {
        let folder = self.instances();
        let Ok(entries) = fs::read_dir(&folder) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(GONE) {
                // Another process may be at the same; whoever is last finds nothing.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        for id in self.ids()? {
            self.instance(&id)?.sweep(self)?;
        }
        Ok(())
    }

    /// Removes an instance's folder: one rename makes it gone, the rest is cleaning up. Volumes that are to outlive the
    /// instance are taken out first.
    ///
    /// # Errors
    /// When the rename fails, or a volume cannot be kept. What cannot be cleaned up now is swept the next time.
    pub fn remove(&self, instance: &InstanceDir) -> Result<()> {
        // A record that cannot be read keeps nothing; its instance is removed at the user's own word.
        let place = instance
            .load()
            .ok()
            .flatten()
            .and_then(|record| record.place);
        for volume in place.iter().flat_map(|place| &place.kept_volumes) {
            self.keep_volume(instance, volume)?;
        }
        let gone = self.instances().join(format!("{GONE}{}", instance.id()));
        match fs::rename(instance.path(), &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.context(|| format!("cannot remove {}", instance.path().display()))?,
        }
        let _ = fs::remove_dir_all(&gone);
        Ok(())
    }
}

fn default_root() -> Result<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(data) = absolute("XDG_DATA_HOME") {
        return Ok(data.join("cumulet"));
    }
    absolute("HOME")
        .map(|home| home.join(".local/share/cumulet"))
        .ok_or_else(|| {
            Error::host(
                "NoStateFolder",
                "there is no home directory ($HOME is not set)",
            )
            .mend("name a state folder with --home or CUMULET_HOME")
        })
}

/// Makes the folder with mode 0700 and makes sure that it is ours alone.
fn make_private(root: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .context(|| format!("cannot make the state folder {}", root.display()))?;
    let meta = fs::metadata(root).context(|| format!("cannot read {}", root.display()))?;
    let me = nix::unistd::geteuid().as_raw();
    if meta.uid() != me {
        return Err(Error::host(
            "StateFolderNotOurs",
            format!(
                "the state folder {} belongs to user {} and this is user {me}",
                root.display(),
                meta.uid()
            ),
        )
        .mend("run as that user, or name another folder with --home or CUMULET_HOME"));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))
            .context(|| format!("cannot make {} private", root.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cumulet_images::volume::{Volume, VolumeSpec};

    use super::*;
    use crate::state::record::tests::{sample, sample_place};

    #[test]
    fn a_volume_that_is_to_stay_outlives_its_instance() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path())).unwrap();
        let (stays, goes) = (ids::new("vol"), ids::new("vol"));
        let mut record = sample();
        let mut place = sample_place();
        place.kept_volumes = vec![stays.clone(), ids::new("vol")];
        record.place = Some(place);
        let dir = home.instance(&record.instance_id).unwrap();
        let guard = home.guard().unwrap();
        let held = dir.create(&guard, record, "a test").unwrap();
        for volume in [&stays, &goes] {
            Volume::create(&dir.file(volume), &VolumeSpec::blank(volume, 1 << 20)).unwrap();
        }
        held.save().unwrap();
        drop(guard);
        held.delete(&home).unwrap();
        assert!(!dir.path().exists());
        assert!(home.volumes().join(&stays).is_dir());
        assert!(!home.volumes().join(&goes).exists());
    }
}
