//! Security groups. Their rules: [`super::security_group_rules`].

use super::network::{Wanted, find, given, list};
use super::security_group_rules::{permission_values, permissions};
use crate::api::actions::{Action, action};
use crate::api::filters::{Values, one};
use crate::api::shapes::common::tag_set;
use crate::api::shapes::security_groups::*;
use crate::api::{ApiError, Call, tagging};
use crate::cloud::net::{self, Peer, SecurityGroup, SecurityGroupRule, Vpc};
use crate::cloud::{Cloud, Identity, Region};

/// Longest name and description.
const MAX_TEXT: usize = 255;

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action("CreateSecurityGroup", create),
        action("DeleteSecurityGroup", delete),
        action("DescribeSecurityGroups", describe),
    ]
}

fn check_text(parameter: &str, text: &str) -> Result<(), ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    if text.is_empty() {
        return Err(ApiError::missing(parameter));
    }
    if text.chars().count() > MAX_TEXT || !text.chars().all(fits) {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!(
                "Value ({text}) for parameter {parameter} is invalid. Character sets beyond ASCII are not supported."
            ),
        ));
    }
    Ok(())
}

fn create(
    cloud: &Cloud,
    call: &Call,
    request: CreateSecurityGroupRequest,
) -> Result<CreateSecurityGroupResult, ApiError> {
    let name = &request.group_name.clone();
    check_text("GroupName", name)?;
    check_text("GroupDescription", &request.description)?;
    if name.starts_with("sg-") {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("Value ({name}) for parameter GroupName is invalid. It may not begin with sg-"),
        ));
    }
    let tags = tagging::from_specifications(&request.tag_specifications, "security-group")?;
    cloud.change(&call.region, |region| {
        let vpc_id = match given(request.vpc_id.as_ref()) {
            Some(id) => find::<Vpc>(region, id)?.vpc_id.clone(),
            None => net::default_vpc(region)?.vpc_id.clone(),
        };
        if name.eq_ignore_ascii_case("default") {
            return Err(ApiError::new(
                "InvalidGroup.Reserved",
                format!("Cannot use reserved security group name: {name}"),
            ));
        }
        if region
            .security_groups
            .iter()
            .any(|group| group.vpc_id == vpc_id && group.group_name.eq_ignore_ascii_case(name))
        {
            return Err(ApiError::new(
                "InvalidGroup.Duplicate",
                format!("The security group '{name}' already exists for VPC '{vpc_id}'"),
            ));
        }
        call.go()?;
        let group = SecurityGroup {
            group_id: crate::ids::new("sg"),
            group_name: request.group_name,
            description: request.description,
            vpc_id,
            tags,
        };
        let answer = CreateSecurityGroupResult {
            group_id: Some(group.group_id.clone()),
            tags: tag_set(&group.tags),
            security_group_arn: Some(arn(region, &group, cloud.identity())),
        };
        region
            .security_group_rules
            .insert(net::all_out(&group.group_id));
        region.security_groups.insert(group);
        Ok(answer)
    })
}

/// The group that a request names by id, or by name in the default VPC.
pub(super) fn named<'a>(
    region: &'a Region,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<&'a SecurityGroup, ApiError> {
    match (id, name) {
        (Some(id), _) => find(region, id),
        (None, Some(name)) => {
            let vpc = net::default_vpc(region)?;
            region
                .security_groups
                .iter()
                .find(|group| group.vpc_id == vpc.vpc_id && group.group_name == name)
                .ok_or_else(|| {
                    ApiError::new(
                        "InvalidGroup.NotFound",
                        format!(
                            "The security group '{name}' does not exist in default VPC '{}'",
                            vpc.vpc_id
                        ),
                    )
                })
        }
        (None, None) => Err(ApiError::new(
            "MissingParameter",
            "The request must contain the parameter groupName or groupId",
        )),
    }
}

fn delete(
    cloud: &Cloud,
    call: &Call,
    request: DeleteSecurityGroupRequest,
) -> Result<DeleteSecurityGroupResult, ApiError> {
    cloud.change(&call.region, |region| {
        let group = named(
            region,
            request.group_id.as_deref(),
            request.group_name.as_deref(),
        )?;
        let id = group.group_id.clone();
        if group.group_name == "default" {
            return Err(ApiError::new(
                "CannotDelete",
                format!(
                    "the specified group: \"{id}\" name: \"default\" cannot be deleted by a user"
                ),
            ));
        }
        let peer = Peer::Group(id.clone());
        let used = region
            .interfaces
            .iter()
            .any(|interface| interface.groups.contains(&id))
            || region
                .security_group_rules
                .iter()
                .any(|rule| rule.group_id != id && rule.peer == peer);
        if used {
            return Err(ApiError::new(
                "DependencyViolation",
                format!("resource {id} has a dependent object"),
            ));
        }
        call.go()?;
        net::remove_group(region, &id);
        Ok(DeleteSecurityGroupResult {
            done: Some(true),
            group_id: Some(id),
        })
    })
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeSecurityGroupsRequest,
) -> Result<DescribeSecurityGroupsResult, ApiError> {
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let mut ids = request.group_ids.clone();
        for name in &request.group_names {
            ids.push(named(region, None, Some(name))?.group_id.clone());
        }
        let wanted = Wanted {
            ids: &ids,
            filters: &request.filters,
            max: request.max_results,
            token: request.next_token.as_deref(),
        };
        let values = |group: &SecurityGroup, name: &str| filter(region, group, identity, name);
        let page = list(region, wanted, values)?;
        Ok(DescribeSecurityGroupsResult {
            security_groups: page
                .items
                .into_iter()
                .map(|group| view(region, group, identity))
                .collect(),
            next_token: page.next,
        })
    })?
}

/// The rules of a group in one direction.
pub(super) fn rules<'a>(
    region: &'a Region,
    group_id: &'a str,
    egress: bool,
) -> impl Iterator<Item = &'a SecurityGroupRule> {
    region
        .security_group_rules
        .iter()
        .filter(move |rule| rule.group_id == group_id && rule.egress == egress)
}

fn filter(region: &Region, group: &SecurityGroup, identity: &Identity, name: &str) -> Values {
    match name {
        "description" => one(&group.description),
        "group-id" => one(&group.group_id),
        "group-name" => one(&group.group_name),
        "owner-id" => one(&identity.account),
        "vpc-id" => one(&group.vpc_id),
        _ => {
            let (attribute, egress) = match name.strip_prefix("egress.ip-permission.") {
                Some(attribute) => (attribute, true),
                None => (name.strip_prefix("ip-permission.")?, false),
            };
            let mut all = permission_values(region, identity, attribute, None)?;
            for rule in rules(region, &group.group_id, egress) {
                all.extend(permission_values(region, identity, attribute, Some(rule))?);
            }
            Some(all)
        }
    }
}

fn arn(region: &Region, group: &SecurityGroup, identity: &Identity) -> String {
    format!(
        "arn:aws:ec2:{}:{}:security-group/{}",
        region.name, identity.account, group.group_id
    )
}

fn view(region: &Region, group: &SecurityGroup, identity: &Identity) -> SecurityGroupView {
    SecurityGroupView {
        group_id: Some(group.group_id.clone()),
        ip_permissions_egress: permissions(rules(region, &group.group_id, true), identity),
        tags: tag_set(&group.tags),
        vpc_id: Some(group.vpc_id.clone()),
        security_group_arn: Some(arn(region, group, identity)),
        owner_id: Some(identity.account.clone()),
        group_name: Some(group.group_name.clone()),
        description: Some(group.description.clone()),
        ip_permissions: permissions(rules(region, &group.group_id, false), identity),
    }
}
