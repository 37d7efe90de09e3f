//! Images that are protected against being deregistered (EC2 user guide, "Protect an Amazon EC2 AMI from deregistration").

use serde::{Deserialize, Serialize};
use time::Duration;

use super::attribute::owned;
use super::{ImageState, edit};
use crate::api::shapes::images::{
    EnableDeregistrationProtectionRequest, OneImageRequest, ProtectionResult,
};
use crate::api::wire::Timestamp;
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;

/// How long protection with a cooldown lasts after it was disabled.
const COOLDOWN: Duration = Duration::hours(24);

/// Whether an image may be deregistered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// It may.
    #[default]
    Off,
    /// It may not.
    On {
        /// Nor for some time after this was disabled.
        cooldown: bool,
    },
    /// From then on.
    Until(Timestamp),
}

impl Protection {
    /// EC2's words for it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::On { cooldown: true } => "enabled-with-cooldown".to_owned(),
            Self::On { cooldown: false } => "enabled-without-cooldown".to_owned(),
            Self::Until(at) if at > Timestamp::now() => format!("disabled after {}", at.text()),
            Self::Off | Self::Until(_) => "disabled".to_owned(),
        }
    }

    /// Refuses to deregister a protected image.
    ///
    /// # Errors
    /// `OperationNotPermitted`.
    pub(super) fn check(self, image_id: &str) -> Result<(), ApiError> {
        let why = match self {
            Self::On { .. } => {
                "Disable it with DisableImageDeregistrationProtection and try again".to_owned()
            }
            Self::Until(at) if at > Timestamp::now() => format!("It ends at {}", at.text()),
            Self::Off | Self::Until(_) => return Ok(()),
        };
        Err(ApiError::new(
            "OperationNotPermitted",
            format!("The image '{image_id}' is protected from deregistration. {why}."),
        ))
    }
}

pub(super) fn enable(
    cloud: &Cloud,
    call: &Call,
    request: EnableDeregistrationProtectionRequest,
) -> Result<ProtectionResult, ApiError> {
    let cooldown = request.with_cooldown == Some(true);
    change(cloud, call, request.image_id.as_deref(), |state| {
        state.protection = Protection::On { cooldown };
    })
}

pub(super) fn disable(
    cloud: &Cloud,
    call: &Call,
    request: OneImageRequest,
) -> Result<ProtectionResult, ApiError> {
    change(cloud, call, request.image_id.as_deref(), |state| {
        state.protection = match state.protection {
            Protection::On { cooldown: true } => {
                Protection::Until(Timestamp(Timestamp::now().0 + COOLDOWN))
            }
            Protection::On { cooldown: false } => Protection::Off,
            other => other,
        };
    })
}

fn change(
    cloud: &Cloud,
    call: &Call,
    image_id: Option<&str>,
    change: impl FnOnce(&mut ImageState),
) -> Result<ProtectionResult, ApiError> {
    let found = owned(cloud, call, image_id)?;
    cloud.change(&call.region, |region| {
        call.go()?;
        change(edit(region, &found.ami.id)?);
        Ok(ProtectionResult {
            done: "true".to_owned(),
        })
    })
}
