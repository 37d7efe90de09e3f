//! Making an instance on disk and getting a kept one ready for its next start: one way for the command line and the agent.
//!
//! ```text
//!  record, checked ──► create ──► folder, lock, volumes ──► committed ──► supervise::launch
//!                                  └ any failure: nothing is left
//!  kept instance ────► ready ───► held, put right, pending: committed ──► supervise::launch_kept
//! ```

use cumulet_images::store::{Ami, StoreError};
use cumulet_images::volume::{Volume, VolumeSpec};
use time::OffsetDateTime;

use crate::amis;
use crate::error::{Context, Error, Result};
use crate::fault;
use crate::size::Size;
use crate::state::record::{Disk, DiskKind, Hardware, ImageRef, Record, State};
use crate::state::{Held, Home, InstanceDir};
use crate::types::{self, InstanceType};

/// Makes the instance on disk and commits it, held by us as `who`. Until it returns there is no instance; if it fails, nothing
/// is left. A record without a private address (0.0.0.0) is given a free one.
///
/// # Errors
/// When there is no free address, the image is gone or held by another process, or something cannot be written.
pub(crate) fn create(
    home: &Home,
    mut record: Record,
    image: Option<&Ami>,
    who: &str,
) -> Result<Held> {
    let dir = home.instance(&record.instance_id)?;
    let guard = home.guard()?;
    if record.network.private_ip.is_unspecified() {
        record.network.private_ip = home.free_address()?;
    }
    let held = dir.create(&guard, record, who)?;
    let made = volumes(home, &held, image).and_then(|()| held.save());
    drop(guard);
    if let Err(error) = made {
        let _ = held.delete(home);
        return Err(error);
    }
    Ok(held)
}

/// Takes a stopped instance to start it again: it has a new launch time, what `change` says of it, and is pending.
///
/// # Errors
/// As [`InstanceDir::hold`] and [`Held::save`], and what `change` refuses.
pub(crate) fn ready(
    home: &Home,
    dir: &InstanceDir,
    who: &str,
    change: impl FnOnce(&mut Record) -> Result<()>,
) -> Result<Held> {
    let mut held = dir.hold(home, who)?;
    held.record.launch_time = OffsetDateTime::now_utc();
    change(&mut held.record)?;
    held.enter(State::Pending, None)?;
    Ok(held)
}

/// What an instance remembers of its image.
pub(crate) fn image(ami: &Ami) -> ImageRef {
    ImageRef {
        id: ami.id.clone(),
        name: ami.name.clone(),
        architecture: types::architecture_of(ami),
    }
}

/// The hardware of a type, with nothing special about it.
///
/// # Errors
/// When it has more vCPUs than a machine can have.
pub(crate) fn hardware(kind: &InstanceType) -> Result<Hardware> {
    Ok(Hardware {
        instance_type: kind.name.clone(),
        vcpus: u8::try_from(kind.vcpus).map_err(|_| Error::invalid("too many vCPUs"))?,
        memory_mib: kind.memory_mib,
        nested: false,
        direct: None,
        extra_cmdline: String::new(),
        trace: false,
    })
}

/// Makes every volume of the record. Scratch disks are made at each start.
fn volumes(home: &Home, held: &Held, image: Option<&Ami>) -> Result<()> {
    for disk in &held.record.disks {
        let folder = held.dir.file(&disk.file_name());
        match (disk.kind, image) {
            (DiskKind::Scratch, _) => {}
            (DiskKind::Root, Some(ami)) => {
                let made =
                    amis::open(home)?.create_volume(ami, &folder, &disk.id, Some(disk.size.0));
                match made {
                    Ok(_) => fault::point("volume.made"),
                    Err(error @ (StoreError::Unknown(_) | StoreError::Locked { .. })) => {
                        return Err(amis::translate(&error));
                    }
                    Err(error) => return Err(error).context(|| cannot_make(disk)),
                }
            }
            (DiskKind::Root, None) => {
                return Err(Error::internal(cannot_make(disk) + ": there is no image"));
            }
            (DiskKind::Data, _) => {
                let Size(size) = disk.size;
                Volume::create(&folder, &VolumeSpec::blank(&disk.id, size))
                    .context(|| cannot_make(disk))?;
            }
        }
    }
    Ok(())
}

fn cannot_make(disk: &Disk) -> String {
    format!("cannot make {} ({})", disk.id, disk.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;
    use crate::state::record::tests::sample;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path())).unwrap();
        (folder, home)
    }

    fn left(home: &Home) -> usize {
        let entries = std::fs::read_dir(home.root().join("instances")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != ".lock").count()
    }

    #[test]
    fn an_address_is_given_out_unless_there_is_one() {
        let (_folder, home) = home();
        let mut record = sample();
        record.network.private_ip = std::net::Ipv4Addr::UNSPECIFIED;
        let made = create(&home, record, None, "a test").unwrap();
        assert_eq!(made.record.network.private_ip.octets()[..2], [172, 31]);
        let made = create(&home, sample(), None, "a test").unwrap();
        assert_eq!(
            made.record.network.private_ip.octets(),
            [172, 31, 0, 10],
            "the agent chooses itself"
        );
        let volume = made.dir.file(&made.record.disks[0].file_name());
        assert!(volume.is_dir(), "{}", volume.display());
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let (_folder, home) = home();
        let mut record = sample();
        record.disks.push(Disk {
            kind: DiskKind::Root,
            id: ids::new("vol"),
            device: "/dev/sda1".into(),
            size: Size(1 << 30),
        });
        let error = create(&home, record, None, "a test").unwrap_err();
        assert!(error.to_string().contains("/dev/sda1"), "{error}");
        assert_eq!(left(&home), 0);
    }

    #[test]
    fn what_is_made_ready_is_pending_and_launched_now() {
        let (_folder, home) = home();
        let made = create(&home, sample(), None, "a test").unwrap();
        let dir = made.dir.clone();
        let busy = ready(&home, &dir, "another", |_| Ok(())).unwrap_err();
        assert_eq!(busy.code, "IncorrectInstanceState");
        drop(made);
        let refused = ready(&home, &dir, "a test", |_| Err(Error::invalid("no")));
        assert_eq!(refused.unwrap_err().message, "no");
        assert_eq!(dir.load().unwrap().unwrap().state, State::Stopped);
        let held = ready(&home, &dir, "a test", |record| {
            record.tags.insert("Name".into(), "web".into());
            Ok(())
        })
        .unwrap();
        let record = dir.load().unwrap().unwrap();
        assert_eq!(record, held.record);
        assert_eq!((record.state, record.name()), (State::Pending, Some("web")));
        assert!(record.launch_time > OffsetDateTime::UNIX_EPOCH);
    }
}
