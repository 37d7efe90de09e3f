//! Volumes. For now those that launches make.

use crate::api::actions::{Action, action};
use crate::api::filters::{Filters, Values, maybe, one};
use crate::api::paging::page;
use crate::api::shapes::common::{Filter, Tag, tag_set};
use crate::api::wire::{Timestamp, shapes};
use crate::api::{ApiError, Call};
use crate::cloud::instance::{Device, Volume};
use crate::cloud::{Cloud, Region};
use crate::ids;

shapes! {
    /// Request of DescribeVolumes.
    input DescribeVolumesRequest {
        /// Ids.
        volume_ids: Vec<String> = "VolumeId",
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Page size.
        max_results: Option<i32> = "MaxResults",
        /// Page.
        next_token: Option<String> = "NextToken",
    }
    /// Answer of DescribeVolumes.
    output DescribeVolumesResult {
        /// Volumes.
        volumes: Vec<VolumeOutput> = "volumeSet",
        /// Next page.
        next_token: Option<String> = "nextToken",
    }
    /// `Volume`.
    output VolumeOutput {
        /// IOPS.
        iops: Option<i32> = "iops",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// `gp3`, …
        volume_type: String = "volumeType",
        /// Whether several instances may have it.
        multi_attach_enabled: bool = "multiAttachEnabled",
        /// MiB/s.
        throughput: Option<i32> = "throughput",
        /// Id.
        volume_id: String = "volumeId",
        /// GiB.
        size: i32 = "size",
        /// The snapshot it was made from.
        snapshot_id: String = "snapshotId",
        /// Zone.
        availability_zone: String = "availabilityZone",
        /// `in-use`, `available`.
        state: String = "status",
        /// When it was made.
        create_time: Timestamp = "createTime",
        /// Where it is attached.
        attachments: Vec<VolumeAttachment> = "attachmentSet",
        /// Whether it is encrypted.
        encrypted: bool = "encrypted",
    }
    /// `VolumeAttachment`.
    output VolumeAttachment {
        /// Whether it goes with the instance.
        delete_on_termination: bool = "deleteOnTermination",
        /// Id.
        volume_id: String = "volumeId",
        /// The instance.
        instance_id: String = "instanceId",
        /// `/dev/sda1`.
        device: String = "device",
        /// `attached`.
        state: String = "status",
        /// Since when.
        attach_time: Timestamp = "attachTime",
    }
}

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![action("DescribeVolumes", describe_volumes)]
}

fn describe_volumes(
    cloud: &Cloud,
    call: &Call,
    request: DescribeVolumesRequest,
) -> Result<DescribeVolumesResult, ApiError> {
    if !request.volume_ids.is_empty() && request.max_results.is_some() {
        return Err(ApiError::combination(
            "The parameter volumeSet cannot be used with the parameter maxResults",
        ));
    }
    let filters = Filters::new(&request.filters)?;
    filters.check(|name| values(&show(&Volume::default(), None), name))?;
    cloud.read(&call.region, |region| {
        for id in &request.volume_ids {
            if !ids::is("vol", id) {
                return Err(ApiError::new(
                    "InvalidParameterValue",
                    format!("Value ({id}) for parameter volumeId is invalid. Expected: 'vol-...'."),
                ));
            }
            if region.volumes.get(id).is_none() {
                return Err(ApiError::new(
                    "InvalidVolume.NotFound",
                    format!("The volume '{id}' does not exist."),
                ));
            }
        }
        let mut found = Vec::new();
        for volume in region.volumes.iter() {
            let named =
                request.volume_ids.is_empty() || request.volume_ids.contains(&volume.volume_id);
            let shown = show(volume, device(region, volume));
            if filters.pass(&volume.tags, |name| values(&shown, name))? && named {
                found.push(shown);
            }
        }
        let paging = (request.max_results, request.next_token.as_deref());
        let page = page(found, |v| v.volume_id.clone(), paging, 5..=1000)?;
        Ok(DescribeVolumesResult {
            volumes: page.items,
            next_token: page.next,
        })
    })?
}

/// Where a volume is attached.
fn device<'a>(region: &'a Region, volume: &Volume) -> Option<(&'a str, &'a Device)> {
    let instance = region.instances.get(volume.instance_id.as_deref()?)?;
    let device = instance
        .devices
        .iter()
        .find(|device| device.volume_id == volume.volume_id)?;
    Some((&instance.instance_id, device))
}

fn show(volume: &Volume, place: Option<(&str, &Device)>) -> VolumeOutput {
    VolumeOutput {
        iops: volume.iops,
        tags: tag_set(&volume.tags),
        volume_type: volume.volume_type.clone(),
        multi_attach_enabled: false,
        throughput: volume.throughput,
        volume_id: volume.volume_id.clone(),
        size: volume.size,
        snapshot_id: String::new(),
        availability_zone: volume.zone.clone(),
        state: if place.is_some() {
            "in-use"
        } else {
            "available"
        }
        .to_owned(),
        create_time: volume.create_time,
        attachments: place
            .map(|(instance, device)| VolumeAttachment {
                delete_on_termination: device.delete_on_termination,
                volume_id: volume.volume_id.clone(),
                instance_id: instance.to_owned(),
                device: device.name.clone(),
                state: "attached".to_owned(),
                attach_time: device.attach_time,
            })
            .into_iter()
            .collect(),
        encrypted: false,
    }
}

/// The values that the filter `name` looks at (EC2 API reference, DescribeVolumes, "Filter").
fn values(shown: &VolumeOutput, name: &str) -> Values {
    let place = shown.attachments.first();
    match name {
        "attachment.attach-time" => maybe(place.map(|a| a.attach_time.text())),
        "attachment.delete-on-termination" => {
            maybe(place.map(|a| a.delete_on_termination.to_string()))
        }
        "attachment.device" => maybe(place.map(|a| a.device.clone())),
        "attachment.instance-id" => maybe(place.map(|a| a.instance_id.clone())),
        "attachment.status" => maybe(place.map(|a| a.state.clone())),
        "availability-zone" => one(&shown.availability_zone),
        "create-time" => one(shown.create_time.text()),
        "encrypted" => one(shown.encrypted.to_string()),
        "fast-restored" => one("false"),
        "multi-attach-enabled" => one("false"),
        "size" => one(shown.size.to_string()),
        "snapshot-id" => one(&shown.snapshot_id),
        "status" => one(&shown.state),
        "volume-id" => one(&shown.volume_id),
        "volume-type" => one(&shown.volume_type),
        _ => None,
    }
}
