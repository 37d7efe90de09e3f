//! Rules of security groups: authorize, revoke, describe.

mod modify;
mod permissions;

#[cfg(test)]
mod tests;

use permissions::{Flat, Said, checked, either, expand};
pub(super) use permissions::{permission_values, permissions};

use super::network::{Wanted, find, list, truth};
use super::security_groups::{named, rules};
use crate::api::actions::{Action, action};
use crate::api::filters::{Values, maybe, one};
use crate::api::shapes::common::{TagSpecification, tag_set};
use crate::api::shapes::security_groups::*;
use crate::api::{ApiError, Call, tagging};
use crate::cloud::net::{Peer, SecurityGroupRule};
use crate::cloud::{Cloud, Identity, Region};

/// EC2's default quota of rules a direction (VPC user guide, "Amazon VPC quotas").
const MOST: usize = 60;

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action("AuthorizeSecurityGroupIngress", authorize_ingress),
        action("AuthorizeSecurityGroupEgress", authorize_egress),
        action("RevokeSecurityGroupIngress", revoke_ingress),
        action("RevokeSecurityGroupEgress", revoke_egress),
        action("DescribeSecurityGroupRules", describe),
        action("ModifySecurityGroupRules", modify::modify),
        action(
            "UpdateSecurityGroupRuleDescriptionsIngress",
            |cloud, call, request| describe_anew(cloud, call, request, false),
        ),
        action(
            "UpdateSecurityGroupRuleDescriptionsEgress",
            |cloud, call, request| describe_anew(cloud, call, request, true),
        ),
    ]
}

/// The flat form that authorizing and revoking requests, four types of them, have alike.
macro_rules! flat {
    ($request:ident) => {
        Flat {
            cidr_ip: $request.cidr_ip,
            protocol: $request.ip_protocol,
            from_port: $request.from_port,
            to_port: $request.to_port,
            source_name: $request.source_security_group_name,
            source_owner: $request.source_security_group_owner_id,
        }
    };
}

/// Which group and direction a request is for.
#[derive(Debug, Clone, Copy)]
struct Side<'a> {
    id: Option<&'a str>,
    name: Option<&'a str>,
    egress: bool,
}

fn authorize_ingress(
    cloud: &Cloud,
    call: &Call,
    request: AuthorizeSecurityGroupIngressRequest,
) -> Result<AuthorizeSecurityGroupIngressResult, ApiError> {
    let flat = flat!(request);
    let side = Side {
        id: request.group_id.as_deref(),
        name: request.group_name.as_deref(),
        egress: false,
    };
    let wanted = either(request.ip_permissions, flat)?;
    authorize(cloud, call, side, &wanted, &request.tag_specifications)
}

fn authorize_egress(
    cloud: &Cloud,
    call: &Call,
    request: AuthorizeSecurityGroupEgressRequest,
) -> Result<AuthorizeSecurityGroupIngressResult, ApiError> {
    let flat = flat!(request);
    let side = Side {
        id: Some(&request.group_id),
        name: None,
        egress: true,
    };
    let wanted = either(request.ip_permissions, flat)?;
    authorize(cloud, call, side, &wanted, &request.tag_specifications)
}

fn authorize(
    cloud: &Cloud,
    call: &Call,
    side: Side<'_>,
    permissions: &[IpPermissionInput],
    specifications: &[TagSpecification],
) -> Result<AuthorizeSecurityGroupIngressResult, ApiError> {
    let identity = cloud.identity();
    let tags = tagging::from_specifications(specifications, "security-group-rule")?;
    cloud.change(&call.region, |region| {
        let group = named(region, side.id, side.name)?;
        let said = expand(region, identity, group, permissions)?;
        let group_id = group.group_id.clone();
        let have: Vec<_> = rules(region, &group_id, side.egress).collect();
        for (at, one) in said.iter().enumerate() {
            if said[..at].iter().any(|other| same(other, one)) {
                return Err(ApiError::new(
                    "InvalidParameterValue",
                    "The same permission must not appear multiple times",
                ));
            }
            if have.iter().any(|rule| is(rule, one)) {
                return Err(duplicate(one));
            }
        }
        if have.len() + said.len() > MOST {
            return Err(ApiError::new(
                "RulesPerSecurityGroupLimitExceeded",
                "The maximum number of rules per security group has been reached.",
            ));
        }
        call.go()?;
        let mut answer = Vec::new();
        for one in said {
            let rule = SecurityGroupRule {
                rule_id: crate::ids::new("sgr"),
                group_id: group_id.clone(),
                egress: side.egress,
                traffic: one.traffic,
                peer: one.peer,
                description: one.description,
                tags: tags.clone(),
            };
            answer.push(view(region, &rule, identity));
            region.security_group_rules.insert(rule);
        }
        Ok(AuthorizeSecurityGroupIngressResult {
            done: Some(true),
            security_group_rules: answer,
        })
    })
}

/// The group has this rule.
fn duplicate(said: &Said) -> ApiError {
    ApiError::new(
        "InvalidPermission.Duplicate",
        format!("the specified rule \"{}\" already exists", words(said)),
    )
}

fn same(a: &Said, b: &Said) -> bool {
    a.traffic == b.traffic && a.peer == b.peer
}

fn is(rule: &SecurityGroupRule, said: &Said) -> bool {
    rule.traffic == said.traffic && rule.peer == said.peer
}

/// A rule as EC2's messages say it.
fn words(said: &Said) -> String {
    let peer = match &said.peer {
        Peer::Ipv4(block) => block.to_string(),
        Peer::Ipv6(block) => block.to_string(),
        Peer::Group(id) => id.clone(),
    };
    let traffic = &said.traffic;
    let what = match (
        traffic.protocol.as_str(),
        traffic.from_port,
        traffic.to_port,
    ) {
        ("-1", ..) => "ALL".to_owned(),
        (name @ ("icmp" | "icmpv6"), Some(kind), Some(code)) => {
            format!("{}, type: {kind}, code: {code}", name.to_uppercase())
        }
        (name, Some(from), Some(to)) => {
            format!("{}, from port: {from}, to port: {to}", name.to_uppercase())
        }
        (name, ..) => name.to_owned(),
    };
    format!("peer: {peer}, {what}, ALLOW")
}

fn revoke_ingress(
    cloud: &Cloud,
    call: &Call,
    request: RevokeSecurityGroupIngressRequest,
) -> Result<RevokeSecurityGroupIngressResult, ApiError> {
    let flat = flat!(request);
    let side = Side {
        id: request.group_id.as_deref(),
        name: request.group_name.as_deref(),
        egress: false,
    };
    let ids = &request.security_group_rule_ids;
    revoke(cloud, call, side, ids, (request.ip_permissions, flat))
}

fn revoke_egress(
    cloud: &Cloud,
    call: &Call,
    request: RevokeSecurityGroupEgressRequest,
) -> Result<RevokeSecurityGroupIngressResult, ApiError> {
    let flat = flat!(request);
    let side = Side {
        id: Some(&request.group_id),
        name: None,
        egress: true,
    };
    let ids = &request.security_group_rule_ids;
    revoke(cloud, call, side, ids, (request.ip_permissions, flat))
}

fn revoke(
    cloud: &Cloud,
    call: &Call,
    side: Side<'_>,
    ids: &[String],
    (permissions, flat): (Vec<IpPermissionInput>, Flat),
) -> Result<RevokeSecurityGroupIngressResult, ApiError> {
    let identity = cloud.identity();
    let permissions = match (ids.is_empty(), permissions.is_empty()) {
        (false, true) => Vec::new(),
        (false, false) => {
            return Err(ApiError::combination(
                "The parameters 'ipPermissions' and 'securityGroupRuleIds' may not be used together",
            ));
        }
        (true, _) => either(permissions, flat)?,
    };
    cloud.change(&call.region, |region| {
        let group = named(region, side.id, side.name)?;
        let mut gone: Vec<SecurityGroupRule> = Vec::new();
        for id in ids {
            gone.push(own_rule(region, &group.group_id, side.egress, id)?.clone());
        }
        for said in expand(region, identity, group, &permissions)? {
            gone.push(matching(region, &group.group_id, side.egress, &said)?.clone());
        }
        call.go()?;
        let mut revoked = Vec::new();
        for rule in gone {
            if region.security_group_rules.remove(&rule.rule_id).is_some() {
                revoked.push(revoked_view(rule));
            }
        }
        Ok(RevokeSecurityGroupIngressResult {
            done: Some(true),
            unknown_ip_permissions: Vec::new(),
            revoked_security_group_rules: revoked,
        })
    })
}

/// The rule of this group and direction that says the same.
fn matching<'a>(
    region: &'a Region,
    group_id: &'a str,
    egress: bool,
    said: &Said,
) -> Result<&'a SecurityGroupRule, ApiError> {
    let found = rules(region, group_id, egress).find(|rule| is(rule, said));
    found.ok_or_else(|| {
        ApiError::new(
            "InvalidPermission.NotFound",
            "The specified rule does not exist in this security group.",
        )
    })
}

/// A rule of this group and direction by its id.
fn own_rule<'a>(
    region: &'a Region,
    group_id: &str,
    egress: bool,
    id: &str,
) -> Result<&'a SecurityGroupRule, ApiError> {
    let rule: &SecurityGroupRule = find(region, id)?;
    if rule.group_id == group_id && rule.egress == egress {
        return Ok(rule);
    }
    Err(ApiError::new(
        "InvalidSecurityGroupRuleId.NotFound",
        format!(
            "The security group rule ID '{id}' does not exist in the security group '{group_id}'"
        ),
    ))
}

fn describe_anew(
    cloud: &Cloud,
    call: &Call,
    request: UpdateSecurityGroupRuleDescriptionsIngressRequest,
    egress: bool,
) -> Result<UpdateSecurityGroupRuleDescriptionsIngressResult, ApiError> {
    let by_id = !request.security_group_rule_descriptions.is_empty();
    if by_id != request.ip_permissions.is_empty() {
        return Err(ApiError::combination(
            "Either 'ipPermissions' or 'securityGroupRuleDescriptions' should be provided, and not both.",
        ));
    }
    cloud.change(&call.region, |region| {
        let group = named(
            region,
            request.group_id.as_deref(),
            request.group_name.as_deref(),
        )?;
        let mut changes = Vec::new();
        for one in request.security_group_rule_descriptions {
            let id = one.security_group_rule_id.unwrap_or_default();
            own_rule(region, &group.group_id, egress, &id)?;
            changes.push((id, checked(one.description)?));
        }
        for said in expand(region, cloud.identity(), group, &request.ip_permissions)? {
            let rule = matching(region, &group.group_id, egress, &said)?;
            changes.push((rule.rule_id.clone(), said.description));
        }
        call.go()?;
        for (id, description) in changes {
            if let Some(rule) = region.security_group_rules.edit(&id) {
                rule.description = description;
            }
        }
        Ok(UpdateSecurityGroupRuleDescriptionsIngressResult { done: Some(true) })
    })
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeSecurityGroupRulesRequest,
) -> Result<DescribeSecurityGroupRulesResult, ApiError> {
    let wanted = Wanted {
        ids: &request.security_group_rule_ids,
        filters: &request.filters,
        max: request.max_results,
        token: request.next_token.as_deref(),
    };
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let page = list(region, wanted, filter)?;
        Ok(DescribeSecurityGroupRulesResult {
            security_group_rules: page
                .items
                .into_iter()
                .map(|rule| view(region, rule, identity))
                .collect(),
            next_token: page.next,
        })
    })?
}

fn filter(rule: &SecurityGroupRule, name: &str) -> Values {
    match name {
        "group-id" => one(&rule.group_id),
        "security-group-rule-id" => one(&rule.rule_id),
        "is-egress" => truth(rule.egress),
        "description" => maybe(rule.description.as_ref()),
        _ => None,
    }
}

fn blocks(peer: &Peer) -> (Option<String>, Option<String>, Option<String>) {
    match peer {
        Peer::Ipv4(block) => (Some(block.to_string()), None, None),
        Peer::Ipv6(block) => (None, Some(block.to_string()), None),
        Peer::Group(id) => (None, None, Some(id.clone())),
    }
}

fn view(region: &Region, rule: &SecurityGroupRule, identity: &Identity) -> SecurityGroupRuleView {
    let (cidr_ipv4, cidr_ipv6, group) = blocks(&rule.peer);
    let account = || Some(identity.account.clone());
    SecurityGroupRuleView {
        security_group_rule_id: Some(rule.rule_id.clone()),
        group_id: Some(rule.group_id.clone()),
        group_owner_id: account(),
        is_egress: Some(rule.egress),
        ip_protocol: Some(rule.traffic.protocol.clone()),
        // -1 where the protocol has none.
        from_port: Some(rule.traffic.from_port.unwrap_or(-1)),
        to_port: Some(rule.traffic.to_port.unwrap_or(-1)),
        cidr_ipv4,
        cidr_ipv6,
        prefix_list_id: None,
        referenced_group_info: group.map(|id| ReferencedSecurityGroupView {
            vpc_id: region
                .security_groups
                .get(&id)
                .map(|one| one.vpc_id.clone()),
            group_id: Some(id),
            user_id: account(),
        }),
        description: rule.description.clone(),
        tags: tag_set(&rule.tags),
        security_group_rule_arn: Some(format!(
            "arn:aws:ec2:{}:{}:security-group-rule/{}",
            region.name, identity.account, rule.rule_id
        )),
    }
}

fn revoked_view(rule: SecurityGroupRule) -> RevokedSecurityGroupRuleView {
    let (cidr_ipv4, cidr_ipv6, referenced_group_id) = blocks(&rule.peer);
    RevokedSecurityGroupRuleView {
        security_group_rule_id: Some(rule.rule_id),
        group_id: Some(rule.group_id),
        is_egress: Some(rule.egress),
        ip_protocol: Some(rule.traffic.protocol),
        from_port: Some(rule.traffic.from_port.unwrap_or(-1)),
        to_port: Some(rule.traffic.to_port.unwrap_or(-1)),
        cidr_ipv4,
        cidr_ipv6,
        prefix_list_id: None,
        referenced_group_id,
        description: rule.description,
    }
}
