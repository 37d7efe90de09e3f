//! DescribeImages.

use super::catalogue::{Found, all, check_id, may_see};
use super::not_found;
use crate::api::filters::{Filters, Values, maybe, one};
use crate::api::paging::page;
use crate::api::shapes::common::tag_set;
use crate::api::shapes::images::{
    DescribeImagesRequest, DescribeImagesResult, Image, ImageBlockDevice, ImageEbs,
};
use crate::api::wire::Timestamp;
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;

/// Owners that EC2 knows by a word, and whose images are not here.
const FOREIGN_OWNERS: &[&str] = &["amazon", "aws-marketplace", "aws-backup-vault"];
/// The account of Amazon's own images on EC2.
const AMAZON: &str = "137112412989";

pub(super) fn describe_images(
    cloud: &Cloud,
    call: &Call,
    request: DescribeImagesRequest,
) -> Result<DescribeImagesResult, ApiError> {
    let filters = Filters::new(&request.filters)?;
    for id in &request.image_ids {
        check_id(id)?;
    }
    for account in request.owners.iter().chain(&request.executable_users) {
        check_account(account)?;
    }
    filters.check(|name| values(&Image::default(), name))?;
    let mut seen = all(cloud, &call.region)?;
    seen.retain(|_, found| may_see(cloud, call, &found.state));
    let (deprecated, disabled) = (
        request.include_deprecated == Some(true),
        request.include_disabled == Some(true),
    );
    let now = Timestamp::now();
    let missing: Vec<&str> = request
        .image_ids
        .iter()
        .map(String::as_str)
        .filter(|id| !seen.contains_key(*id))
        .collect();
    if !missing.is_empty() {
        return Err(not_found(&missing));
    }
    let owner = &cloud.identity().account;
    let mut images = Vec::new();
    for (id, found) in seen {
        let asked = request.image_ids.contains(&id)
            || (request.image_ids.is_empty()
                && (disabled || !found.state.disabled)
                && (deprecated
                    || owner == &call.account
                    || found.state.deprecated_at.is_none_or(|at| at > now)));
        let owned = request.owners.is_empty()
            || request.owners.iter().any(|wanted| match wanted.as_str() {
                "self" => !found.builtin && owner == &call.account,
                "amazon" | AMAZON => found.builtin,
                account => !found.builtin && account == owner,
            });
        let executable = request.executable_users.is_empty()
            || request
                .executable_users
                .iter()
                .any(|user| may_launch(&found, user, &call.account));
        let image = image(&found, owner);
        let passes = filters.pass(&found.state.tags, |name| values(&image, name))?;
        if asked && owned && executable && passes {
            images.push(image);
        }
    }
    let paging = (request.max_results, request.next_token.as_deref());
    let page = page(images, |image| image.image_id.clone(), paging, 1..=1000)?;
    Ok(DescribeImagesResult {
        images: page.items,
        next_token: page.next,
    })
}

/// An account, or one of the words for some.
fn check_account(text: &str) -> Result<(), ApiError> {
    let digits = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits || ["self", "all"].contains(&text) || FOREIGN_OWNERS.contains(&text) {
        return Ok(());
    }
    Err(ApiError::new(
        "InvalidUserID.Malformed",
        format!("Invalid user id: \"{text}\""),
    ))
}

/// Whether the image's launch permissions name a user: `all`, `self` or an account.
fn may_launch(found: &Found, user: &str, caller: &str) -> bool {
    match user {
        "all" => found.state.public,
        "self" => found.state.accounts.contains(caller),
        account => found.state.accounts.contains(account),
    }
}

/// The image's one disk.
pub(super) fn devices(found: &Found) -> Vec<ImageBlockDevice> {
    vec![ImageBlockDevice {
        device_name: found.ami.root_device_name.clone(),
        ebs: ImageEbs {
            delete_on_termination: true,
            volume_size: found.size_gib(),
            volume_type: "gp3".to_owned(),
            encrypted: false,
        },
    }]
}

fn image(found: &Found, owner: &str) -> Image {
    let ami = &found.ami;
    let owner = if found.builtin { AMAZON } else { owner };
    Image {
        image_id: ami.id.clone(),
        image_location: format!("{owner}/{}", ami.name),
        state: if found.state.disabled {
            "disabled"
        } else {
            "available"
        }
        .to_owned(),
        owner_id: owner.to_owned(),
        owner_alias: found.builtin.then(|| "amazon".to_owned()),
        creation_date: ami.creation_date.clone(),
        public: found.state.public,
        architecture: found.architecture(),
        image_type: "machine".to_owned(),
        platform_details: "Linux/UNIX".to_owned(),
        usage_operation: "RunInstances".to_owned(),
        block_device_mappings: devices(found),
        description: found.description(),
        ena_support: true,
        hypervisor: "xen".to_owned(),
        name: ami.name.clone(),
        root_device_name: ami.root_device_name.clone(),
        root_device_type: "ebs".to_owned(),
        virtualization_type: "hvm".to_owned(),
        product_codes: Vec::new(),
        deprecation_time: found.state.deprecated_at.map(Timestamp::text),
        deregistration_protection: found.state.protection.name(),
        imds_support: found.state.imds_support(),
        tags: tag_set(&found.state.tags),
    }
}

/// An image's values of the filters of DescribeImages (EC2 API reference).
fn values(image: &Image, filter: &str) -> Values {
    let devices = &image.block_device_mappings;
    let each = |value: fn(&ImageBlockDevice) -> String| Some(devices.iter().map(value).collect());
    match filter {
        "architecture" => one(&image.architecture),
        "imds-support" => maybe(image.imds_support.as_ref()),
        "block-device-mapping.delete-on-termination" => {
            each(|device| device.ebs.delete_on_termination.to_string())
        }
        "block-device-mapping.device-name" => each(|device| device.device_name.clone()),
        "block-device-mapping.volume-size" => each(|device| device.ebs.volume_size.to_string()),
        "block-device-mapping.volume-type" => each(|device| device.ebs.volume_type.clone()),
        "block-device-mapping.encrypted" => each(|device| device.ebs.encrypted.to_string()),
        "creation-date" => one(&image.creation_date),
        "description" => maybe(image.description.as_ref()),
        "ena-support" => one(image.ena_support.to_string()),
        "hypervisor" => one(&image.hypervisor),
        "image-id" => one(&image.image_id),
        "image-type" => one(&image.image_type),
        "is-public" => one(image.public.to_string()),
        "manifest-location" => one(&image.image_location),
        "name" => one(&image.name),
        "owner-alias" => maybe(image.owner_alias.as_ref()),
        "owner-id" => one(&image.owner_id),
        "platform-details" => one(&image.platform_details),
        "root-device-name" => one(&image.root_device_name),
        "root-device-type" => one(&image.root_device_type),
        "state" => one(&image.state),
        "usage-operation" => one(&image.usage_operation),
        "virtualization-type" => one(&image.virtualization_type),
        // Filters of EC2 by what no image here has.
        "block-device-mapping.snapshot-id"
        | "boot-mode"
        | "image-allowed"
        | "kernel-id"
        | "platform"
        | "product-code"
        | "product-code.type"
        | "ramdisk-id"
        | "source-image-id"
        | "source-image-region"
        | "source-instance-id"
        | "sriov-net-support"
        | "state-reason-code"
        | "state-reason-message"
        | "tpm-support" => Some(Vec::new()),
        _ => None,
    }
}
