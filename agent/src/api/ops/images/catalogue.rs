//! Which images there are, for whom.

use std::collections::{BTreeMap, BTreeSet};

use cumulet_images::store::{Ami, AmiStore, StoreError};

use super::{ImageState, not_found, unavailable};
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;
use crate::ids;
use crate::size::GIB;
use crate::types;

/// An image as a region sees it.
#[derive(Debug, Clone)]
pub struct Found {
    /// What the store says of it.
    pub ami: Ami,
    /// What the region adds.
    pub state: ImageState,
    /// It belongs to the program rather than to the account.
    pub builtin: bool,
}

impl Found {
    /// One line for people; none when it is empty.
    #[must_use]
    pub fn description(&self) -> Option<String> {
        let text = self.state.description.as_ref();
        let text = text.unwrap_or(&self.ami.description);
        (!text.is_empty()).then(|| text.clone())
    }

    /// EC2's word for its architecture.
    #[must_use]
    pub fn architecture(&self) -> String {
        types::architecture_of(&self.ami)
    }

    /// Size of its disk, and so the least size of a root volume, GiB.
    #[must_use]
    pub fn size_gib(&self) -> i32 {
        i32::try_from(self.ami.size.div_ceil(GIB)).unwrap_or(i32::MAX)
    }

    /// Whether an instance can boot from it. There is no disk behind a built-in one, and nothing to boot.
    ///
    /// # Errors
    /// `InvalidAMIID.Unavailable`.
    pub fn check_bootable(&self) -> Result<(), ApiError> {
        if self.builtin || self.ami.boot.is_some() {
            return Ok(());
        }
        Err(ApiError::new(
            "InvalidAMIID.Unavailable",
            format!(
                "The image id '[{}]' is no longer available: no kernel was found in it",
                self.ami.id
            ),
        ))
    }
}

/// The store of the cloud's state folder; none when the cloud has no folder.
pub(super) fn store(cloud: &Cloud) -> Result<Option<AmiStore>, ApiError> {
    let store = cloud.home().map(|home| AmiStore::open(&home.amis()));
    store.transpose().map_err(|error| failed(&error))
}

/// The store's error as EC2 would tell it.
pub(super) fn failed(error: &StoreError) -> ApiError {
    match error {
        StoreError::Unknown(id) => not_found(&[id]),
        StoreError::Locked { .. } => ApiError::new("Unavailable", error.to_string()),
        _ => {
            let mut message = error.to_string();
            if let Some(cause) = std::error::Error::source(error) {
                message.push_str(": ");
                message.push_str(&cause.to_string());
            }
            ApiError::internal(message)
        }
    }
}

/// All images that the API knows, by id, with this region's state. Not to be called inside `Cloud::read`.
pub(super) fn all(cloud: &Cloud, region: &str) -> Result<BTreeMap<String, Found>, ApiError> {
    let amis = match store(cloud)? {
        Some(store) => store.list().map_err(|error| failed(&error))?,
        None => Vec::new(),
    };
    let own = amis.into_iter().map(|ami| (ami, false));
    let builtin = cloud.builtin_images().into_iter().map(|ami| (ami, true));
    let amis: Vec<(Ami, bool)> = own.chain(builtin).collect();
    let gone = deregistered(cloud)?;
    cloud.read(region, |region| {
        amis.into_iter()
            .filter(|(ami, _)| !gone.contains(&ami.id))
            .map(|(ami, builtin)| {
                let state = region.images.get(&ami.id).cloned();
                let mut state = state.unwrap_or_else(|| ImageState::new(&ami.id));
                state.public |= builtin;
                let id = ami.id.clone();
                (
                    id,
                    Found {
                        ami,
                        state,
                        builtin,
                    },
                )
            })
            .collect()
    })
}

/// Ids of images that were deregistered, in whichever region, while volumes stood on them.
pub(super) fn deregistered(cloud: &Cloud) -> Result<BTreeSet<String>, ApiError> {
    let mut gone = BTreeSet::new();
    for region in cloud.regions() {
        cloud.read(&region, |region| {
            let states = region.images.iter().filter(|state| state.deregistered);
            gone.extend(states.map(|state| state.image_id.clone()));
        })?;
    }
    Ok(gone)
}

/// Checks the form of an image id.
pub(super) fn check_id(image_id: &str) -> Result<(), ApiError> {
    if ids::is("ami", image_id) {
        return Ok(());
    }
    let message = if image_id.starts_with("ami-") {
        format!("Invalid id: \"{image_id}\"")
    } else {
        format!("Invalid id: \"{image_id}\" (expecting \"ami-...\")")
    };
    Err(ApiError::new("InvalidAMIID.Malformed", message))
}

/// Whether the caller may see and launch an image.
pub(super) fn may_see(cloud: &Cloud, call: &Call, state: &ImageState) -> bool {
    call.account == cloud.identity().account || state.shared_with(&call.account)
}

/// The image with this id, if the caller may launch it: for RunInstances. Not to be called inside `Cloud::read` or
/// `Cloud::change`.
///
/// # Errors
/// `InvalidAMIID.Malformed`, `InvalidAMIID.NotFound`, `InvalidAMIID.Unavailable` for one that is disabled.
pub fn usable(cloud: &Cloud, call: &Call, image_id: &str) -> Result<Found, ApiError> {
    let found = seen(cloud, call, image_id)?;
    if found.state.disabled {
        return Err(unavailable(image_id));
    }
    Ok(found)
}

/// The image with this id, if the caller may see it.
pub(super) fn seen(cloud: &Cloud, call: &Call, image_id: &str) -> Result<Found, ApiError> {
    check_id(image_id)?;
    let found = find(cloud, &call.region, image_id)?;
    found
        .filter(|found| may_see(cloud, call, &found.state))
        .ok_or_else(|| not_found(&[image_id]))
}

/// The image with this id, whoever may see it. Not to be called inside `Cloud::read` or `Cloud::change`.
///
/// # Errors
/// When the store or a region cannot be read.
pub fn find(cloud: &Cloud, region: &str, image_id: &str) -> Result<Option<Found>, ApiError> {
    Ok(all(cloud, region)?.remove(image_id))
}

/// Ids of the images whose tags count: those that there are. Not to be called inside `Cloud::read` or `Cloud::change`.
///
/// # Errors
/// When the store or a region cannot be read.
pub fn find_tagged(cloud: &Cloud, region: &str) -> Result<BTreeSet<String>, ApiError> {
    Ok(all(cloud, region)?.into_keys().collect())
}
