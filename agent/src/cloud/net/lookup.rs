//! What is the default, and what belongs to what.

use super::{RouteTable, SecurityGroup, Subnet, Vpc};
use crate::api::ApiError;
use crate::cloud::Region;

/// EC2's limit on the groups of an interface (VPC user guide, "Amazon VPC quotas").
const GROUPS_PER_INTERFACE: usize = 5;

/// The region's default VPC.
///
/// # Errors
/// `VPCIdNotSpecified` when there is none.
pub fn default_vpc(region: &Region) -> Result<&Vpc, ApiError> {
    region.vpcs.iter().find(|vpc| vpc.is_default).ok_or_else(|| {
        ApiError::new(
            "VPCIdNotSpecified",
            "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.",
        )
    })
}

/// The default VPC's subnet in this zone, or in the first zone that has one.
///
/// # Errors
/// `VPCIdNotSpecified` without a default VPC, `MissingInput` when it has no default subnet there.
pub fn default_subnet<'a>(region: &'a Region, zone: Option<&str>) -> Result<&'a Subnet, ApiError> {
    if !region.vpcs.iter().any(|vpc| vpc.is_default) {
        return Err(ApiError::new(
            "VPCIdNotSpecified",
            "No default VPC for this user",
        ));
    }
    region
        .subnets
        .iter()
        .filter(|subnet| subnet.default_for_az)
        .filter(|subnet| zone.is_none_or(|zone| subnet.availability_zone == zone))
        .min_by(|a, b| a.availability_zone.cmp(&b.availability_zone))
        .ok_or_else(|| {
            let message = match zone {
                Some(zone) => format!("No default subnet for availability zone: '{zone}'."),
                None => "No subnets found for the default VPC. Please specify a subnet.".to_owned(),
            };
            ApiError::new("MissingInput", message)
        })
}

/// The VPC's group named `default`, which cannot be deleted.
#[must_use]
pub fn default_group<'a>(region: &'a Region, vpc_id: &str) -> Option<&'a SecurityGroup> {
    region
        .security_groups
        .iter()
        .find(|group| group.vpc_id == vpc_id && group.group_name == "default")
}

/// Ids of the groups for an interface in this VPC: those named by id or by name, without doubles; the VPC's default
/// group when none is named.
///
/// # Errors
/// `InvalidGroup.NotFound`; `InvalidParameter` for a group of another VPC; `SecurityGroupsPerInterfaceLimitExceeded`.
pub fn resolve_groups(
    region: &Region,
    vpc_id: &str,
    ids: &[String],
    names: &[String],
) -> Result<Vec<String>, ApiError> {
    let mut groups: Vec<String> = Vec::new();
    let mut add = |group: &SecurityGroup| {
        if !groups.contains(&group.group_id) {
            groups.push(group.group_id.clone());
        }
    };
    for id in ids {
        if !crate::ids::is("sg", id) {
            return Err(ApiError::new(
                "InvalidGroupId.Malformed",
                format!("Invalid id: \"{id}\" (expecting \"sg-...\")"),
            ));
        }
        let group = region.security_groups.get(id).ok_or_else(|| {
            ApiError::new(
                "InvalidGroup.NotFound",
                format!("The security group '{id}' does not exist"),
            )
        })?;
        if group.vpc_id != vpc_id {
            return Err(ApiError::new(
                "InvalidParameter",
                format!("Security group {id} and subnet belong to different networks."),
            ));
        }
        add(group);
    }
    for name in names {
        let mut all = region.security_groups.iter();
        let group = all.find(|group| group.vpc_id == vpc_id && group.group_name == *name);
        add(group.ok_or_else(|| {
            ApiError::new(
                "InvalidGroup.NotFound",
                format!("The security group '{name}' does not exist in VPC '{vpc_id}'"),
            )
        })?);
    }
    if groups.is_empty() {
        let group = default_group(region, vpc_id);
        groups.extend(group.map(|group| group.group_id.clone()));
    }
    if groups.len() > GROUPS_PER_INTERFACE {
        return Err(ApiError::new(
            "SecurityGroupsPerInterfaceLimitExceeded",
            "The maximum number of security groups per interface has been reached.",
        ));
    }
    Ok(groups)
}

/// The VPC's main route table.
#[must_use]
pub fn main_table<'a>(region: &'a Region, vpc_id: &str) -> Option<&'a RouteTable> {
    region
        .route_tables
        .iter()
        .find(|table| table.vpc_id == vpc_id && table.is_main())
}

/// The route table that a subnet uses: its own, or the VPC's main one.
#[must_use]
pub fn route_table_of<'a>(region: &'a Region, subnet: &Subnet) -> Option<&'a RouteTable> {
    let own = region.route_tables.iter().find(|table| {
        let mut associations = table.associations.iter();
        associations.any(|one| one.subnet_id.as_deref() == Some(&subnet.subnet_id))
    });
    own.or_else(|| main_table(region, &subnet.vpc_id))
}

/// Takes a security group away with its rules. Rules of other groups that name it are the caller's to see.
pub fn remove_group(region: &mut Region, group_id: &str) {
    let rules: Vec<String> = region
        .security_group_rules
        .iter()
        .filter(|rule| rule.group_id == group_id)
        .map(|rule| rule.rule_id.clone())
        .collect();
    for rule in rules {
        region.security_group_rules.remove(&rule);
    }
    region.security_groups.remove(group_id);
}
