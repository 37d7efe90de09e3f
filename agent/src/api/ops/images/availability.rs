//! Images that are deprecated (hidden from others after a time) or disabled (not launched until enabled again).

use time::Duration;

use super::attribute::owned;
use super::edit;
use crate::api::shapes::common::Done;
use crate::api::shapes::images::{EnableImageDeprecationRequest, OneImageRequest};
use crate::api::wire::Timestamp;
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;

/// EC2's limit, for images that are not public.
const MAX_AHEAD: Duration = Duration::days(3652);

pub(super) fn enable_image_deprecation(
    cloud: &Cloud,
    call: &Call,
    request: EnableImageDeprecationRequest,
) -> Result<Done, ApiError> {
    let at = request
        .deprecate_at
        .ok_or_else(|| ApiError::missing("deprecateAt"))?;
    let found = owned(cloud, call, request.image_id.as_deref())?;
    let now = Timestamp::now();
    if at < now || at.0 > now.0 + MAX_AHEAD {
        return Err(ApiError::value(
            "deprecateAt",
            &at.text(),
            "It must be in the future, and at most ten years ahead.",
        ));
    }
    change(cloud, call, &found.ami.id, |state| {
        state.deprecated_at = Some(to_minute(at));
    })
}

/// EC2 rounds to the nearest minute.
fn to_minute(at: Timestamp) -> Timestamp {
    let moved = at.0 + Duration::seconds(30);
    let minute = moved
        .replace_second(0)
        .and_then(|at| at.replace_nanosecond(0));
    minute.map_or(at, Timestamp)
}

pub(super) fn disable_image_deprecation(
    cloud: &Cloud,
    call: &Call,
    request: OneImageRequest,
) -> Result<Done, ApiError> {
    let found = owned(cloud, call, request.image_id.as_deref())?;
    change(cloud, call, &found.ami.id, |state| {
        state.deprecated_at = None;
    })
}

/// A disabled image is nobody's but its owner's, also when it is enabled again.
pub(super) fn disable_image(
    cloud: &Cloud,
    call: &Call,
    request: OneImageRequest,
) -> Result<Done, ApiError> {
    let found = owned(cloud, call, request.image_id.as_deref())?;
    change(cloud, call, &found.ami.id, |state| {
        state.disabled = true;
        state.public = false;
        state.accounts.clear();
    })
}

pub(super) fn enable_image(
    cloud: &Cloud,
    call: &Call,
    request: OneImageRequest,
) -> Result<Done, ApiError> {
    let found = owned(cloud, call, request.image_id.as_deref())?;
    change(cloud, call, &found.ami.id, |state| {
        state.disabled = false;
    })
}

fn change(
    cloud: &Cloud,
    call: &Call,
    image_id: &str,
    change: impl FnOnce(&mut super::ImageState),
) -> Result<Done, ApiError> {
    cloud.change(&call.region, |region| {
        call.go()?;
        change(edit(region, image_id)?);
        Ok(Done::yes())
    })
}
