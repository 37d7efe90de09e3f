//! Rules that become others and keep their ids.

use super::permissions::{Said, expand};
use super::{duplicate, is, own_rule, rules};
use crate::api::shapes::security_groups::*;
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;
use crate::cloud::net::SecurityGroup;

/// The rule as a permission with one peer.
fn permission(rule: SecurityGroupRuleRequestInput) -> Result<IpPermissionInput, ApiError> {
    let peers = [
        &rule.cidr_ipv4,
        &rule.cidr_ipv6,
        &rule.prefix_list_id,
        &rule.referenced_group_id,
    ];
    if peers.into_iter().flatten().count() != 1 {
        return Err(ApiError::combination(
            "Exactly one of CidrIpv4, CidrIpv6, PrefixListId and ReferencedGroupId must be given",
        ));
    }
    let description = rule.description;
    let range = |cidr_ip| IpRangeInput {
        description: description.clone(),
        cidr_ip: Some(cidr_ip),
    };
    let range6 = |cidr_ipv6| Ipv6RangeInput {
        description: description.clone(),
        cidr_ipv6: Some(cidr_ipv6),
    };
    let list = |id| PrefixListIdInput {
        description: description.clone(),
        prefix_list_id: Some(id),
    };
    let pair = |id| UserIdGroupPairInput {
        description: description.clone(),
        group_id: Some(id),
        ..UserIdGroupPairInput::default()
    };
    Ok(IpPermissionInput {
        ip_protocol: rule.ip_protocol,
        from_port: rule.from_port,
        to_port: rule.to_port,
        ip_ranges: rule.cidr_ipv4.into_iter().map(range).collect(),
        ipv6_ranges: rule.cidr_ipv6.into_iter().map(range6).collect(),
        prefix_list_ids: rule.prefix_list_id.into_iter().map(list).collect(),
        user_id_group_pairs: rule.referenced_group_id.into_iter().map(pair).collect(),
    })
}

pub(super) fn modify(
    cloud: &Cloud,
    call: &Call,
    request: ModifySecurityGroupRulesRequest,
) -> Result<ModifySecurityGroupRulesResult, ApiError> {
    if request.security_group_rules.is_empty() {
        return Err(ApiError::missing("SecurityGroupRule"));
    }
    let id = &request.group_id;
    cloud.change(&call.region, |region| {
        for update in request.security_group_rules {
            let rule_id = update.security_group_rule_id;
            let group = super::find::<SecurityGroup>(region, id)?;
            // It keeps its direction.
            let egress = super::find::<super::SecurityGroupRule>(region, &rule_id)?.egress;
            own_rule(region, id, egress, &rule_id)?;
            let wanted = update
                .security_group_rule
                .ok_or_else(|| ApiError::missing("SecurityGroupRule.SecurityGroupRule"))?;
            let wanted = permission(wanted)?;
            let said: Vec<Said> = expand(region, cloud.identity(), group, &[wanted])?;
            for one in said {
                let same =
                    rules(region, id, egress).any(|rule| rule.rule_id != rule_id && is(rule, &one));
                if same {
                    return Err(duplicate(&one));
                }
                if let Some(rule) = region.security_group_rules.edit(&rule_id) {
                    rule.traffic = one.traffic;
                    rule.peer = one.peer;
                    rule.description = one.description;
                }
            }
        }
        call.go()?;
        Ok(ModifySecurityGroupRulesResult { done: Some(true) })
    })
}
