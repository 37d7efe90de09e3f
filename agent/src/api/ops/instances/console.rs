//! What the guest has said on its serial line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::find;
use crate::api::wire::{Timestamp, shapes};
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;

/// EC2 keeps this much (EC2 API reference, GetConsoleOutput).
const LIMIT: usize = 64 * 1024;

shapes! {
    /// Request of GetConsoleOutput.
    input ConsoleRequest {
        /// Id.
        instance_id: String = "InstanceId",
        /// The newest output, not that of the last boot or stop.
        latest: Option<bool> = "Latest",
    }
    /// Answer of GetConsoleOutput.
    output ConsoleResult {
        /// Id.
        instance_id: String = "instanceId",
        /// When it was last written to.
        timestamp: Timestamp = "timestamp",
        /// Base64.
        output: Option<String> = "output",
    }
    /// Request of GetConsoleScreenshot.
    input ScreenshotRequest {
        /// Id.
        instance_id: String = "InstanceId",
        /// Wakes the screen.
        wake_up: Option<bool> = "WakeUp",
    }
    /// Answer of GetConsoleScreenshot.
    output ScreenshotResult {
        /// JPEG, base64.
        image_data: Option<String> = "imageData",
        /// Id.
        instance_id: String = "instanceId",
    }
}

pub(super) fn get_console_output(
    cloud: &Cloud,
    call: &Call,
    request: ConsoleRequest,
) -> Result<ConsoleResult, ApiError> {
    let id = request.instance_id;
    cloud.read(&call.region, |region| find(region, &id).map(drop))??;
    // What is there is always the newest, so `Latest` changes nothing.
    let _ = request.latest;
    let bytes = cloud.console(&id, LIMIT)?;
    Ok(ConsoleResult {
        instance_id: id,
        timestamp: Timestamp::now(),
        output: (!bytes.is_empty()).then(|| STANDARD.encode(bytes)),
    })
}

pub(super) fn get_console_screenshot(
    cloud: &Cloud,
    call: &Call,
    request: ScreenshotRequest,
) -> Result<ScreenshotResult, ApiError> {
    cloud.read(&call.region, |region| {
        find(region, &request.instance_id).map(drop)
    })??;
    Err(ApiError::unsupported(
        "instances here have a serial console and no screen: use GetConsoleOutput",
    ))
}
