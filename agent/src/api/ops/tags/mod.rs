//! Tags on everything.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::images;
use crate::api::actions::{Action, action};
use crate::api::filters::{Filters, one};
use crate::api::paging::page;
use crate::api::shapes::common::{Done, TagInput};
use crate::api::shapes::tags::{
    DescribeTagsRequest, DescribeTagsResult, TagDescription, TagsRequest,
};
use crate::api::tagging::{check, check_key, is_reserved};
use crate::api::{ApiError, Call};
use crate::cloud::table::{Resource, Tags};
use crate::cloud::{Cloud, Region};
use crate::ids;

/// EC2's limit on the resources of a request.
const MAX_RESOURCES: usize = 1000;

/// Of what can be tagged: prefix of the id, EC2's code, and its words before the id, when there is none with that id.
const NOT_FOUND: &[(&str, &str, &str)] = &[
    ("i", "InvalidInstanceID.NotFound", "instance ID"),
    ("vol", "InvalidVolume.NotFound", "volume"),
    ("snap", "InvalidSnapshot.NotFound", "snapshot"),
    ("ami", "InvalidAMIID.NotFound", "image id"),
    ("key", "InvalidKeyPair.NotFound", "keyPair ID"),
    ("sg", "InvalidGroup.NotFound", "security group"),
    (
        "sgr",
        "InvalidSecurityGroupRuleId.NotFound",
        "security group rule ID",
    ),
    ("vpc", "InvalidVpcID.NotFound", "vpc ID"),
    ("subnet", "InvalidSubnetID.NotFound", "subnet ID"),
    (
        "igw",
        "InvalidInternetGatewayID.NotFound",
        "internetGateway ID",
    ),
    ("rtb", "InvalidRouteTableID.NotFound", "routeTable ID"),
    ("acl", "InvalidNetworkAclID.NotFound", "networkAcl ID"),
    ("dopt", "InvalidDhcpOptionID.NotFound", "dhcpOption ID"),
    (
        "eni",
        "InvalidNetworkInterfaceID.NotFound",
        "networkInterface ID",
    ),
    ("eipalloc", "InvalidAllocationID.NotFound", "allocation ID"),
    (
        "lt",
        "InvalidLaunchTemplateId.NotFound",
        "launch template ID",
    ),
    (
        "pg",
        "InvalidPlacementGroupId.NotFound",
        "placement group ID",
    ),
];

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action("CreateTags", create_tags),
        action("DeleteTags", delete_tags),
        action("DescribeTags", describe_tags),
    ]
}

/// EC2's error for a resource that there is not, by the prefix of its id.
#[must_use]
pub fn not_found(resource_id: &str) -> ApiError {
    if let Some((prefix, code, words)) = NOT_FOUND.iter().find(|row| ids::is(row.0, resource_id)) {
        return match *prefix {
            "ami" => images::not_found(&[resource_id]),
            "vol" | "snap" => {
                ApiError::new(code, format!("The {words} '{resource_id}' does not exist."))
            }
            _ => ApiError::new(code, format!("The {words} '{resource_id}' does not exist")),
        };
    }
    ApiError::new("InvalidID", format!("The ID '{resource_id}' is not valid"))
}

/// Changes the tags of all named resources, or of none.
fn change_tags(
    cloud: &Cloud,
    call: &Call,
    resources: &[String],
    change: impl Fn(&mut Tags) -> Result<(), ApiError>,
) -> Result<Done, ApiError> {
    if resources.is_empty() {
        return Err(ApiError::missing("resourceIdSet"));
    }
    if resources.len() > MAX_RESOURCES {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("The request names more than {MAX_RESOURCES} resources"),
        ));
    }
    let images = live_images(cloud, call, resources.iter().any(|id| ids::is("ami", id)))?;
    cloud.change(&call.region, |region| {
        for id in resources {
            change(tags_of(region, &images, id)?)?;
        }
        call.go()?;
        Ok(Done::yes())
    })
}

fn tags_of<'a>(
    region: &'a mut Region,
    images: &BTreeSet<String>,
    id: &str,
) -> Result<&'a mut Tags, ApiError> {
    if ids::is("ami", id) {
        if !images.contains(id) {
            return Err(not_found(id));
        }
        return Ok(images::edit(region, id)?.tags_mut());
    }
    region.edit_tags(id).ok_or_else(|| not_found(id))
}

/// Images that may be tagged; looked up only when they are `wanted`.
fn live_images(cloud: &Cloud, call: &Call, wanted: bool) -> Result<BTreeSet<String>, ApiError> {
    if wanted {
        images::find_tagged(cloud, &call.region)
    } else {
        Ok(BTreeSet::new())
    }
}

fn create_tags(cloud: &Cloud, call: &Call, request: TagsRequest) -> Result<Done, ApiError> {
    if request.tags.is_empty() {
        return Err(ApiError::missing("tagSet"));
    }
    change_tags(cloud, call, &request.resources, |tags| {
        *tags = check(tags, &request.tags)?;
        Ok(())
    })
}

/// Removes the named tags: those whose value is given only when they have it. Without names, all that the user made.
fn delete_tags(cloud: &Cloud, call: &Call, request: TagsRequest) -> Result<Done, ApiError> {
    for tag in &request.tags {
        check_key(&tag.key)?;
    }
    change_tags(cloud, call, &request.resources, |tags| {
        if request.tags.is_empty() {
            tags.retain(|key, _| is_reserved(key));
        }
        for TagInput { key, value } in &request.tags {
            let fits = match (tags.get(key), value) {
                (Some(have), Some(value)) => have == value,
                (have, None) => have.is_some(),
                (None, Some(_)) => false,
            };
            if fits {
                tags.remove(key);
            }
        }
        Ok(())
    })
}

fn describe_tags(
    cloud: &Cloud,
    call: &Call,
    request: DescribeTagsRequest,
) -> Result<DescribeTagsResult, ApiError> {
    let filters = Filters::new(&request.filters)?;
    let values = |tag: &TagDescription, name: &str| match name {
        "key" => one(&tag.key),
        "value" => one(&tag.value),
        "resource-id" => one(&tag.resource_id),
        "resource-type" => one(&tag.resource_type),
        _ => None,
    };
    filters.check(|name| values(&TagDescription::default(), name))?;
    let images = live_images(cloud, call, true)?;
    let mut found = cloud.read(&call.region, |region| {
        let mut found = Vec::new();
        for (kind, id, tags) in region.tagged() {
            if kind == images::ImageState::KIND && !images.contains(id) {
                continue;
            }
            for (key, value) in tags {
                let tag = TagDescription {
                    resource_id: id.to_owned(),
                    resource_type: kind.to_owned(),
                    key: key.clone(),
                    value: value.clone(),
                };
                let alone = Tags::from([(key.clone(), value.clone())]);
                if filters.pass(&alone, |name| values(&tag, name))? {
                    found.push(tag);
                }
            }
        }
        Ok::<_, ApiError>(found)
    })??;
    let key = |tag: &TagDescription| format!("{} {}", tag.resource_id, tag.key);
    found.sort_by_key(key);
    let paging = (request.max_results, request.next_token.as_deref());
    let page = page(found, key, paging, 5..=1000)?;
    Ok(DescribeTagsResult {
        tags: page.items,
        next_token: page.next,
    })
}
