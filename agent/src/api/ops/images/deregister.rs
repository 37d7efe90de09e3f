//! DeregisterImage.

use cumulet_images::store::StoreError;

use super::attribute::owned;
use super::catalogue::{deregistered, failed, store};
use super::edit;
use crate::api::shapes::images::{DeregisterImageRequest, DeregisterImageResult};
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;

/// Takes an image away, from all regions as it was in all. EC2 allows that also while instances run from it, and so does
/// this: then the image's disk stays, unseen by the API, until the last volume over it is gone ([`reap`]).
pub(super) fn deregister_image(
    cloud: &Cloud,
    call: &Call,
    request: DeregisterImageRequest,
) -> Result<DeregisterImageResult, ApiError> {
    let found = owned(cloud, call, request.image_id.as_deref())?;
    found.state.protection.check(&found.ami.id)?;
    call.go()?;
    cloud.change(&call.region, |region| {
        edit(region, &found.ami.id)?.deregistered = true;
        Ok(())
    })?;
    // Should this fail, the image is gone for the API all the same.
    if let Err(error) = reap(cloud) {
        tracing::warn!(id = found.ami.id, %error, "the image is deregistered, its disk is still there");
    }
    Ok(DeregisterImageResult {
        done: true,
        delete_snapshot_results: Vec::new(),
    })
}

/// Removes the disks of deregistered images on which no volume stands any more, and forgets what regions say of images
/// that the command line has removed. To be called when the agent starts and when a volume was deleted, outside of
/// `Cloud::read` and `Cloud::change`.
///
/// # Errors
/// When the store cannot be changed; what was to be removed is tried again the next time.
pub fn reap(cloud: &Cloud) -> Result<(), ApiError> {
    let gone = deregistered(cloud)?;
    let (Some(home), Some(store)) = (cloud.home(), store(cloud)?) else {
        return Ok(());
    };
    if !gone.is_empty() {
        // No launch may choose the image while we look who uses it.
        let _guard = home.guard()?;
        for id in gone {
            match store.delete(&id) {
                Ok(()) | Err(StoreError::Unknown(_) | StoreError::InUse { .. }) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
    }
    let unknown = |id: &str| matches!(store.find(id), Err(StoreError::Unknown(_)));
    for region in cloud.regions() {
        let ids = cloud.read(&region, |region| -> Vec<String> {
            let states = region.images.iter();
            states.map(|state| state.image_id.clone()).collect()
        })?;
        let stale: Vec<String> = ids.into_iter().filter(|id| unknown(id)).collect();
        if stale.is_empty() {
            continue;
        }
        cloud.change(&region, |region| {
            for id in &stale {
                region.images.remove(id);
            }
            Ok(())
        })?;
    }
    Ok(())
}
