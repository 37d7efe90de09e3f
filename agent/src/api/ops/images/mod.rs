//! Images: the AMIs of the image store, as every region sees them.
//!
//! The store says which AMIs there are: what the command line builds or imports is told at once, in every region. What
//! the API adds (tags, launch permissions, another description) is a region's [`ImageState`], made on the first change.
//!
//! The handlers here read the store before they lock a region: [`find`] and [`usable`] must not be called inside
//! [`Cloud::read`] or [`Cloud::change`].

mod attribute;
mod availability;
mod catalogue;
mod deregister;
mod describe;
mod protection;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::api::actions::{Action, action};
use crate::api::shapes::images::{RegisterImageRequest, RegisterImageResult};
use crate::api::wire::Timestamp;
use crate::api::{ApiError, Call};
use crate::cloud::table::{Resource, Tags};
use crate::cloud::{Cloud, Region};

pub use catalogue::{Found, find, find_tagged, usable};
pub use deregister::reap;
pub use protection::Protection;

/// What a region says of an image beyond the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageState {
    /// `ami-…`.
    pub image_id: String,
    /// Accounts that may launch it beside its owner.
    #[serde(default)]
    pub accounts: BTreeSet<String>,
    /// Whether everybody may.
    #[serde(default)]
    pub public: bool,
    /// Instead of the store's.
    #[serde(default)]
    pub description: Option<String>,
    /// It cannot be launched until it is enabled again.
    #[serde(default)]
    pub disabled: bool,
    /// From when on others no longer see it, unless they name it or ask for deprecated ones.
    #[serde(default)]
    pub deprecated_at: Option<Timestamp>,
    /// Whether it may be deregistered.
    #[serde(default)]
    pub protection: Protection,
    /// `ImdsSupport` is `v2.0`: its software needs no IMDSv1. Instances have it so by default, whatever the image says.
    #[serde(default)]
    pub imds_v2: bool,
    /// It is gone for the API, and stays on disk only while volumes stand on it.
    #[serde(default)]
    pub deregistered: bool,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
}

impl Resource for ImageState {
    const KIND: &'static str = "image";

    fn id(&self) -> &str {
        &self.image_id
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }

    fn tags_mut(&mut self) -> &mut Tags {
        &mut self.tags
    }
}

impl ImageState {
    /// The state of an image that nobody has changed.
    #[must_use]
    pub fn new(image_id: &str) -> Self {
        Self {
            image_id: image_id.to_owned(),
            ..Self::default()
        }
    }

    /// EC2's word for what the image says of the metadata service.
    #[must_use]
    pub fn imds_support(&self) -> Option<String> {
        self.imds_v2.then(|| "v2.0".to_owned())
    }

    /// Whether this account, which is not the owner, may see and launch it.
    #[must_use]
    pub fn shared_with(&self, account: &str) -> bool {
        self.public || self.accounts.contains(account)
    }
}

/// The state of an image in this region, to be changed.
///
/// # Errors
/// Never, as things are; a table that lost what was just put into it.
pub fn edit<'a>(region: &'a mut Region, image_id: &str) -> Result<&'a mut ImageState, ApiError> {
    if region.images.get(image_id).is_none() {
        region.images.insert(ImageState::new(image_id));
    }
    let state = region.images.edit(image_id);
    state.ok_or_else(|| ApiError::internal(format!("the state of {image_id} is lost")))
}

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action("DescribeImages", describe::describe_images),
        action("DescribeImageAttribute", attribute::describe),
        action("ModifyImageAttribute", attribute::modify),
        action("ResetImageAttribute", attribute::reset),
        action("DeregisterImage", deregister::deregister_image),
        action(
            "EnableImageDeprecation",
            availability::enable_image_deprecation,
        ),
        action(
            "DisableImageDeprecation",
            availability::disable_image_deprecation,
        ),
        action("EnableImageDeregistrationProtection", protection::enable),
        action("DisableImageDeregistrationProtection", protection::disable),
        action("DisableImage", availability::disable_image),
        action("EnableImage", availability::enable_image),
        action("RegisterImage", register_image),
    ]
}

/// EC2's error for an image that there is not.
#[must_use]
pub fn not_found(image_ids: &[&str]) -> ApiError {
    let message = match image_ids {
        [one] => format!("The image id '[{one}]' does not exist"),
        several => format!("The image ids '[{}]' do not exist", several.join(", ")),
    };
    ApiError::new("InvalidAMIID.NotFound", message)
}

/// EC2's error for an image that is disabled.
fn unavailable(image_id: &str) -> ApiError {
    ApiError::new(
        "InvalidAMIID.Unavailable",
        format!("The image ID '{image_id}' is not available"),
    )
}

fn register_image(
    _cloud: &Cloud,
    _call: &Call,
    _request: RegisterImageRequest,
) -> Result<RegisterImageResult, ApiError> {
    Err(ApiError::unsupported(
        "RegisterImage needs snapshots, which cumulet does not have yet. \
         `cumulet images import FILE` makes an AMI of a disk image",
    ))
}
