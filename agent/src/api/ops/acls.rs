//! Network ACLs: every VPC's default one, which lets everything pass.

use super::network::{Wanted, list, truth};
use crate::api::actions::{Action, action};
use crate::api::filters::{Values, one};
use crate::api::shapes::acls::*;
use crate::api::shapes::common::tag_set;
use crate::api::{ApiError, Call};
use crate::cloud::net::{ANYWHERE, NetworkAcl, Subnet};
use crate::cloud::{Cloud, Identity, Region};

/// The rule that EC2 shows as `*`: what no rule is for is dropped.
const LAST_RULE: i32 = 32767;

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![action("DescribeNetworkAcls", describe)]
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeNetworkAclsRequest,
) -> Result<DescribeNetworkAclsResult, ApiError> {
    let wanted = Wanted {
        ids: &request.network_acl_ids,
        filters: &request.filters,
        max: request.max_results,
        token: request.next_token.as_deref(),
    };
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let values = |acl: &NetworkAcl, name: &str| filter(region, acl, identity, name);
        let page = list(region, wanted, values)?;
        Ok(DescribeNetworkAclsResult {
            network_acls: page
                .items
                .into_iter()
                .map(|acl| view(region, acl, identity))
                .collect(),
            next_token: page.next,
        })
    })?
}

fn subnets<'a>(region: &'a Region, acl: &'a NetworkAcl) -> impl Iterator<Item = &'a Subnet> {
    let subnets = region.subnets.iter();
    subnets.filter(|subnet| subnet.vpc_id == acl.vpc_id)
}

fn filter(region: &Region, acl: &NetworkAcl, identity: &Identity, name: &str) -> Values {
    let all = |value: fn(&Subnet) -> &String| {
        Some(
            subnets(region, acl)
                .map(|subnet| value(subnet).clone())
                .collect(),
        )
    };
    match name {
        "association.association-id" => all(|subnet| &subnet.acl_association_id),
        "association.subnet-id" => all(|subnet| &subnet.subnet_id),
        "association.network-acl-id" | "network-acl-id" => one(&acl.network_acl_id),
        "default" => truth(true),
        "entry.cidr" => one(ANYWHERE.to_string()),
        "entry.egress" => Some(vec!["true".to_owned(), "false".to_owned()]),
        "entry.protocol" => one("-1"),
        "entry.rule-action" => Some(vec!["allow".to_owned(), "deny".to_owned()]),
        "entry.rule-number" => Some(vec!["100".to_owned(), LAST_RULE.to_string()]),
        "owner-id" => one(&identity.account),
        "vpc-id" => one(&acl.vpc_id),
        name if name.starts_with("entry.") => Some(Vec::new()),
        _ => None,
    }
}

fn view(region: &Region, acl: &NetworkAcl, identity: &Identity) -> NetworkAclView {
    let entry = |egress, number, action: &str| NetworkAclEntryView {
        cidr_block: Some(ANYWHERE.to_string()),
        egress: Some(egress),
        ipv6_cidr_block: None,
        port_range: None,
        protocol: Some("-1".to_owned()),
        rule_action: Some(action.to_owned()),
        rule_number: Some(number),
    };
    NetworkAclView {
        associations: subnets(region, acl)
            .map(|subnet| NetworkAclAssociationView {
                network_acl_association_id: Some(subnet.acl_association_id.clone()),
                network_acl_id: Some(acl.network_acl_id.clone()),
                subnet_id: Some(subnet.subnet_id.clone()),
            })
            .collect(),
        entries: vec![
            entry(true, 100, "allow"),
            entry(true, LAST_RULE, "deny"),
            entry(false, 100, "allow"),
            entry(false, LAST_RULE, "deny"),
        ],
        is_default: Some(true),
        network_acl_id: Some(acl.network_acl_id.clone()),
        tags: tag_set(&acl.tags),
        vpc_id: Some(acl.vpc_id.clone()),
        owner_id: Some(identity.account.clone()),
    }
}
