//! The AMI store of a state folder, with its errors in the user's terms.

use std::path::Path;

use cumulet_images::build::RECIPES;
use cumulet_images::store::{Ami, AmiStore, StoreError};

use crate::error::{Error, Kind, Result};
use crate::ids;
use crate::state::Home;

/// The store of this state folder.
pub(crate) fn open(home: &Home) -> Result<AmiStore> {
    AmiStore::open(&home.amis()).map_err(|error| translate(&error))
}

/// Finds an AMI by id or name.
pub(crate) fn find(store: &AmiStore, wanted: &str) -> Result<Ami> {
    match store.find(wanted) {
        Err(StoreError::Unknown(_)) => {
            let mut error = translate(&StoreError::Unknown(wanted.to_owned()));
            if RECIPES.contains(&wanted) {
                error = error.mend(format!("`cumulet images build {wanted}` makes it"));
            } else if Path::new(wanted).is_file() {
                error = error.mend(format!("`cumulet images import {wanted}` first"));
            }
            Err(error)
        }
        other => other.map_err(|error| translate(&error)),
    }
}

/// The store's errors in the user's terms.
pub(crate) fn translate(error: &StoreError) -> Error {
    let (kind, code) = match error {
        StoreError::Unknown(wanted) => {
            let message = if ids::is("ami", wanted) {
                format!("The image id '[{wanted}]' does not exist")
            } else {
                format!("there is no image with the name or id '{wanted}'")
            };
            return Error::new(Kind::NotFound, "InvalidAMIID.NotFound", message)
                .mend("`cumulet images list` shows what there is");
        }
        StoreError::Locked { .. } => (Kind::Conflict, "ImageStoreLocked"),
        StoreError::InUse { .. } => (Kind::Conflict, "InvalidAMIID.InUse"),
        StoreError::Full { .. } => (Kind::Host, "InsufficientHostStorage"),
        StoreError::Source { .. }
        | StoreError::Truncated { .. }
        | StoreError::NotBootable { .. } => (Kind::Usage, "InvalidImage"),
        StoreError::Architecture { .. } => (Kind::Usage, "UnsupportedArchitecture"),
        StoreError::Damaged { .. } | StoreError::Manifest { .. } => {
            (Kind::Internal, "ImageDamaged")
        }
        StoreError::Io { .. } | StoreError::Volume(_) => (Kind::Internal, "InternalError"),
    };
    let mut out = Error::new(kind, code, error.to_string());
    if let Some(cause) = std::error::Error::source(error) {
        out = out.because(cause);
    }
    match error {
        StoreError::Full { .. } => {
            out.mend("free space on that file system, or move the state folder with --home")
        }
        StoreError::InUse { path, .. } => match instance_of(path) {
            Some(id) => out.mend(format!(
                "that is the root disk of instance {id}: `cumulet terminate {id}` deletes it"
            )),
            None => out,
        },
        _ => out,
    }
}

/// The instance whose folder holds this volume.
fn instance_of(volume: &Path) -> Option<&str> {
    let id = volume.parent()?.file_name()?.to_str()?;
    ids::is("i", id).then_some(id)
}
