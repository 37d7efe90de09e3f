//! One instance's folder: looking at it, and holding it to change it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::atomic::write_atomically;
use super::home::Home;
use super::lock::{Holder, OwnerLock};
use super::record::{Record, State, StateReason, VERSION};
use crate::error::{Context, Error, Kind, Result};

/// The folder of one instance. Anyone may look; to change it, hold it.
#[derive(Debug, Clone)]
pub struct InstanceDir {
    path: PathBuf,
    id: String,
}

/// What a look at an instance shows.
#[derive(Debug)]
pub enum Listed {
    /// The record, corrected by whether anyone holds the instance.
    Good {
        /// As it truly is.
        record: Box<Record>,
        /// Who runs or changes it now.
        holder: Option<Holder>,
    },
    /// There is a record and it cannot be understood.
    Damaged {
        /// `i-…`.
        id: String,
        /// Why.
        error: Error,
    },
}

impl InstanceDir {
    pub(super) fn new(instances: &Path, id: &str) -> Self {
        Self {
            path: instances.join(id),
            id: id.to_owned(),
        }
    }

    /// `i-…`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Reads the record as written. `None`: never committed, or gone.
    ///
    /// # Errors
    /// When it is there and cannot be read or understood.
    pub fn load(&self) -> Result<Option<Record>> {
        let path = self.file("instance.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).context(|| format!("cannot read {}", path.display()));
            }
        };
        #[derive(serde::Deserialize)]
        struct Form {
            version: u32,
        }
        let damaged = |error: &serde_json::Error| {
            Error::internal(format!("the record {} is damaged", path.display()))
                .because(error)
                .mend("its disks are still in that folder; mend the JSON or remove the folder")
        };
        let form: Form = serde_json::from_slice(&bytes).map_err(|error| damaged(&error))?;
        if form.version != VERSION {
            return Err(Error::new(
                Kind::Conflict,
                "UnsupportedRecord",
                format!(
                    "{} has form {} and this cumulet knows form {VERSION}",
                    path.display(),
                    form.version
                ),
            )
            .mend("use the cumulet that made it"));
        }
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| damaged(&error))
    }

    /// Who runs or changes the instance now.
    ///
    /// # Errors
    /// When the lock cannot be asked.
    pub fn holder(&self) -> Result<Option<Holder>> {
        OwnerLock::holder(&self.lock_path())
            .context(|| format!("cannot ask for the lock of {}", self.id))
    }

    /// The instance as it truly is. `None` when there is no such instance.
    ///
    /// # Errors
    /// When the lock cannot be asked.
    pub fn look(&self) -> Result<Option<Listed>> {
        // The holder first: a record read after it is at least as new.
        let mut holder = self.holder()?;
        loop {
            let mut record = match self.load() {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(None),
                Err(error) => {
                    return Ok(Some(Listed::Damaged {
                        id: self.id.clone(),
                        error,
                    }));
                }
            };
            if holder.is_none() && settle(&mut record) == Settled::Abandoned {
                // Perhaps someone took it between the two looks.
                holder = self.holder()?;
                if holder.is_some() {
                    continue;
                }
                if !record.keep || record.state == State::ShuttingDown {
                    return Ok(None);
                }
            }
            return Ok(Some(Listed::Good {
                record: Box::new(record),
                holder,
            }));
        }
    }

    /// Takes the instance to change it and puts its record right.
    ///
    /// # Errors
    /// A conflict naming the holder when someone has it; `InvalidInstanceID.NotFound` when it is
    /// gone.
    pub fn hold(&self, home: &Home, what: &str) -> Result<Held> {
        let gone = || {
            Error::new(
                Kind::NotFound,
                "InvalidInstanceID.NotFound",
                format!("the instance ID '{}' does not exist", self.id),
            )
        };
        if !self.path.is_dir() {
            return Err(gone());
        }
        let lock = OwnerLock::try_take(&self.lock_path(), what)
            .context(|| format!("cannot lock {}", self.id))?
            .map_err(|holder| {
                Error::new(
                    Kind::Conflict,
                    "IncorrectInstanceState",
                    format!("{} is held by {holder}", self.id),
                )
                .mend("wait for it to finish")
            })?;
        let record = self.load()?.ok_or_else(gone)?;
        let mut held = Held {
            dir: self.clone(),
            lock,
            record,
        };
        if held.record.state == State::ShuttingDown {
            held.delete(home)?;
            return Err(gone());
        }
        if settle(&mut held.record) == Settled::Abandoned {
            if !held.record.keep {
                held.delete(home)?;
                return Err(gone());
            }
            held.save()?;
        }
        Ok(held)
    }

    /// Makes the folder and holds it; nothing is committed before [`Held::save`]. The caller holds
    /// the guard until then ([`Home::guard`]).
    ///
    /// # Errors
    /// When the folder or its lock cannot be made.
    pub fn create(&self, _guard: &OwnerLock, record: Record, what: &str) -> Result<Held> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.path)
            .context(|| format!("cannot make {}", self.path.display()))?;
        let lock = OwnerLock::take(&self.lock_path(), what)
            .context(|| format!("cannot lock {}", self.id))?;
        Ok(Held {
            dir: self.clone(),
            lock,
            record,
        })
    }

    /// Removes the folder if it is an abandoned one; see [`Home::open`].
    pub(super) fn sweep(&self, home: &Home) -> Result<()> {
        if self.holder()?.is_some() {
            return Ok(());
        }
        match self.load() {
            Ok(Some(record)) => {
                let over = record.state == State::ShuttingDown
                    || (!record.keep && record.state != State::Stopped);
                if over {
                    // Whoever comes second finds it held or gone, and both are fine.
                    let _ = self.hold(home, "sweeping");
                }
                Ok(())
            }
            Ok(None) => {
                // Never committed. Under the guard nobody is between making and locking it.
                let guard = home.guard()?;
                let unheld = self.holder()?.is_none();
                if unheld && matches!(self.load(), Ok(None)) {
                    home.remove(self)?;
                }
                drop(guard);
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Settled {
    /// The record is as its last writer meant it to stay.
    AsWritten,
    /// The record said that someone is at it, and nobody is.
    Abandoned,
}

/// Corrects the record of an instance that nobody holds.
fn settle(record: &mut Record) -> Settled {
    match record.state {
        State::Stopped | State::Terminated => return Settled::AsWritten,
        State::ShuttingDown => {}
        State::Stopping => {
            record.state = State::Stopped;
        }
        State::Pending | State::Running => {
            record.state = State::Stopped;
            record.state_reason = Some(StateReason::internal(
                "the process that ran the instance was killed, or the host went down",
            ));
        }
    }
    Settled::Abandoned
}

/// The right to change an instance. While it lives nobody else has it.
#[derive(Debug)]
pub struct Held {
    /// The folder.
    pub dir: InstanceDir,
    /// Kept open by everyone who shares the instance: supervisor and VMM.
    pub lock: OwnerLock,
    /// The record as last written or about to be.
    pub record: Record,
}

impl Held {
    /// Takes over an instance whose lock the parent process took for us.
    ///
    /// # Errors
    /// When the lock was not inherited after all, or the record is not there.
    pub fn adopt(dir: InstanceDir, lock: OwnerLock) -> Result<Self> {
        let record = dir
            .load()?
            .ok_or_else(|| Error::internal(format!("{} was never committed", dir.id())))?;
        Ok(Self { dir, lock, record })
    }

    /// Commits the record. When it returns, the change survives power loss.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed on disk.
    pub fn save(&self) -> Result<()> {
        let path = self.dir.file("instance.json");
        let mut bytes = serde_json::to_vec_pretty(&self.record)
            .context(|| format!("cannot write the record of {}", self.dir.id()))?;
        bytes.push(b'\n');
        write_atomically(&path, &bytes).context(|| format!("cannot write {}", path.display()))
    }

    /// Commits a new state with its reason.
    ///
    /// # Errors
    /// As [`Held::save`].
    pub fn enter(&mut self, state: State, reason: Option<StateReason>) -> Result<()> {
        self.record.state = state;
        self.record.state_reason = reason;
        self.save()
    }

    /// Deletes the instance with all its disks. One rename decides, so that it works on a full
    /// disk too and a kill in the middle leaves nothing half deleted.
    ///
    /// # Errors
    /// When the folder cannot be renamed.
    pub fn delete(self, home: &Home) -> Result<()> {
        home.remove(&self.dir)
    }
}
