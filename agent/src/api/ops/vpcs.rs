//! VPCs.

use super::network::{Wanted, cidr, dependencies, find, list, refuse, truth};
use crate::api::actions::{Action, action, action_without};
use crate::api::filters::{Values, one};
use crate::api::shapes::common::{AttributeBooleanValue, Done, tag_set};
use crate::api::shapes::vpcs::*;
use crate::api::{ApiError, Call, tagging};
use crate::cloud::net::{self, Vpc};
use crate::cloud::{Cloud, Identity, Region};

/// EC2's default quota of VPCs in a region (VPC user guide, "Amazon VPC quotas").
const MOST: usize = 5;

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action_without(
            "CreateVpc",
            create,
            &[
                "Ipv4IpamPoolId",
                "Ipv4NetmaskLength",
                "Ipv6CidrBlockNetworkBorderGroup",
                "Ipv6IpamPoolId",
                "Ipv6NetmaskLength",
                "Ipv6Pool",
                "VpcEncryptionControl",
            ],
        ),
        action("CreateDefaultVpc", create_default),
        action("DeleteVpc", delete),
        action("DescribeVpcs", describe),
        action("DescribeVpcAttribute", describe_attribute),
        action("ModifyVpcAttribute", modify_attribute),
    ]
}

fn limit(region: &Region) -> Result<(), ApiError> {
    if region.vpcs.len() >= MOST {
        return Err(ApiError::new(
            "VpcLimitExceeded",
            "The maximum number of VPCs has been reached.",
        ));
    }
    Ok(())
}

fn create(
    cloud: &Cloud,
    call: &Call,
    request: CreateVpcRequest,
) -> Result<CreateVpcResult, ApiError> {
    refuse(&[
        ("Ipv6CidrBlock", request.ipv6_cidr_block.is_some()),
        (
            "AmazonProvidedIpv6CidrBlock",
            request.amazon_provided_ipv6_cidr_block == Some(true),
        ),
    ])?;
    let Some(text) = &request.cidr_block else {
        return Err(ApiError::missing("CidrBlock"));
    };
    let block = cidr("cidrBlock", text)?;
    if !(16..=28).contains(&block.prefix_len()) {
        return Err(ApiError::new(
            "InvalidVpc.Range",
            format!("The CIDR '{text}' is invalid."),
        ));
    }
    let tenancy = request.instance_tenancy.as_deref().unwrap_or("default");
    if !matches!(tenancy, "default" | "dedicated") {
        return Err(ApiError::value(
            "instanceTenancy",
            tenancy,
            "Use default or dedicated.",
        ));
    }
    let tags = tagging::from_specifications(&request.tag_specifications, "vpc")?;
    cloud.change(&call.region, |region| {
        limit(region)?;
        call.go()?;
        let vpc = Vpc {
            instance_tenancy: tenancy.to_owned(),
            tags,
            ..net::new_vpc(block, &net::default_options(region))
        };
        let id = net::add_vpc(region, vpc);
        // EC2 answers before its VPC is available; whoever looks, finds it so.
        let vpc = VpcView {
            state: Some("pending".to_owned()),
            ..view(find(region, &id)?, cloud.identity())
        };
        Ok(CreateVpcResult { vpc: Some(vpc) })
    })
}

fn create_default(
    cloud: &Cloud,
    call: &Call,
    _request: CreateDefaultVpcRequest,
) -> Result<CreateDefaultVpcResult, ApiError> {
    cloud.change(&call.region, |region| {
        if let Some(vpc) = region.vpcs.iter().find(|vpc| vpc.is_default) {
            return Err(ApiError::new(
                "DefaultVpcAlreadyExists",
                format!(
                    "A Default VPC already exists for this account in this region: {}",
                    vpc.vpc_id
                ),
            ));
        }
        limit(region)?;
        call.go()?;
        let options = net::default_options(region);
        let id = net::furnish_default_vpc(region, cloud.identity(), &options);
        Ok(CreateDefaultVpcResult {
            vpc: Some(view(find(region, &id)?, cloud.identity())),
        })
    })
}

fn delete(cloud: &Cloud, call: &Call, request: DeleteVpcRequest) -> Result<Done, ApiError> {
    cloud.change(&call.region, |region| {
        let id = &find::<Vpc>(region, &request.vpc_id)?.vpc_id.clone();
        let used = region.subnets.iter().any(|one| one.vpc_id == *id)
            || region.interfaces.iter().any(|one| one.vpc_id == *id)
            || region
                .internet_gateways
                .iter()
                .any(|one| one.vpc_id.as_deref() == Some(id))
            || region
                .route_tables
                .iter()
                .any(|one| one.vpc_id == *id && !one.is_main())
            || region
                .security_groups
                .iter()
                .any(|one| one.vpc_id == *id && one.group_name != "default");
        if used {
            return Err(dependencies("vpc", id));
        }
        call.go()?;
        if let Some(table) = net::main_table(region, id).map(|one| one.route_table_id.clone()) {
            region.route_tables.remove(&table);
        }
        if let Some(group) = net::default_group(region, id).map(|one| one.group_id.clone()) {
            net::remove_group(region, &group);
        }
        let acls = region.network_acls.iter();
        let acl = acls.into_iter().find(|acl| acl.vpc_id == *id);
        if let Some(acl) = acl.map(|acl| acl.network_acl_id.clone()) {
            region.network_acls.remove(&acl);
        }
        region.vpcs.remove(id);
        Ok(Done::yes())
    })
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeVpcsRequest,
) -> Result<DescribeVpcsResult, ApiError> {
    let wanted = Wanted {
        ids: &request.vpc_ids,
        filters: &request.filters,
        max: request.max_results,
        token: request.next_token.as_deref(),
    };
    let owner = &cloud.identity().account;
    cloud.read(&call.region, |region| {
        let page = list(region, wanted, |vpc: &Vpc, name| filter(vpc, owner, name))?;
        Ok(DescribeVpcsResult {
            vpcs: page
                .items
                .into_iter()
                .map(|vpc| view(vpc, cloud.identity()))
                .collect(),
            next_token: page.next,
        })
    })?
}

fn filter(vpc: &Vpc, owner: &str, name: &str) -> Values {
    match name {
        "cidr" | "cidrBlock" | "cidr-block" | "cidr-block-association.cidr-block" => {
            one(vpc.cidr_block.to_string())
        }
        "cidr-block-association.association-id" => one(&vpc.cidr_association_id),
        "cidr-block-association.state" => one("associated"),
        "dhcp-options-id" | "dhcpOptionsId" => one(&vpc.dhcp_options_id),
        "is-default" | "isDefault" => truth(vpc.is_default),
        "owner-id" => one(owner),
        "state" => one("available"),
        "vpc-id" => one(&vpc.vpc_id),
        name if name.starts_with("ipv6-cidr-block-association.") => Some(Vec::new()),
        _ => None,
    }
}

fn view(vpc: &Vpc, identity: &Identity) -> VpcView {
    VpcView {
        owner_id: Some(identity.account.clone()),
        instance_tenancy: Some(vpc.instance_tenancy.clone()),
        ipv6_cidr_block_association_set: Vec::new(),
        cidr_block_association_set: vec![VpcCidrBlockAssociationView {
            association_id: Some(vpc.cidr_association_id.clone()),
            cidr_block: Some(vpc.cidr_block.to_string()),
            cidr_block_state: Some(VpcCidrBlockStateView {
                state: Some("associated".to_owned()),
            }),
        }],
        is_default: Some(vpc.is_default),
        tags: tag_set(&vpc.tags),
        vpc_id: Some(vpc.vpc_id.clone()),
        state: Some("available".to_owned()),
        cidr_block: Some(vpc.cidr_block.to_string()),
        dhcp_options_id: Some(vpc.dhcp_options_id.clone()),
    }
}

fn describe_attribute(
    cloud: &Cloud,
    call: &Call,
    request: DescribeVpcAttributeRequest,
) -> Result<DescribeVpcAttributeResult, ApiError> {
    cloud.read(&call.region, |region| {
        let vpc: &Vpc = find(region, &request.vpc_id)?;
        let mut result = DescribeVpcAttributeResult {
            vpc_id: Some(vpc.vpc_id.clone()),
            ..DescribeVpcAttributeResult::default()
        };
        let say = |value| Some(AttributeBooleanValue { value: Some(value) });
        match request.attribute.as_str() {
            "enableDnsSupport" => result.enable_dns_support = say(vpc.enable_dns_support),
            "enableDnsHostnames" => result.enable_dns_hostnames = say(vpc.enable_dns_hostnames),
            "enableNetworkAddressUsageMetrics" => {
                result.enable_network_address_usage_metrics =
                    say(vpc.enable_network_address_usage_metrics);
            }
            other => {
                return Err(ApiError::value(
                    "attribute",
                    other,
                    "Unknown VPC attribute.",
                ));
            }
        }
        Ok(result)
    })?
}

fn modify_attribute(
    cloud: &Cloud,
    call: &Call,
    request: ModifyVpcAttributeRequest,
) -> Result<Done, ApiError> {
    let support = request.enable_dns_support.and_then(|one| one.value);
    let names = request.enable_dns_hostnames.and_then(|one| one.value);
    let metrics = request
        .enable_network_address_usage_metrics
        .and_then(|one| one.value);
    let given = [support, names, metrics];
    match given.iter().flatten().count() {
        1 => {}
        0 => return Err(ApiError::missing("EnableDnsSupport")),
        _ => {
            return Err(ApiError::combination(
                "Only one attribute can be modified at a time",
            ));
        }
    }
    cloud.change(&call.region, |region| {
        find::<Vpc>(region, &request.vpc_id)?;
        call.go()?;
        if let Some(vpc) = region.vpcs.edit(&request.vpc_id) {
            vpc.enable_dns_support = support.unwrap_or(vpc.enable_dns_support);
            vpc.enable_dns_hostnames = names.unwrap_or(vpc.enable_dns_hostnames);
            vpc.enable_network_address_usage_metrics =
                metrics.unwrap_or(vpc.enable_network_address_usage_metrics);
        }
        Ok(Done::yes())
    })
}
