//! Subnets.

use super::network::{Wanted, cidr, dependencies, find, list, refuse, truth};
use crate::api::actions::{Action, action, action_without};
use crate::api::filters::{Values, one};
use crate::api::shapes::common::{BooleanValue, Done, tag_set};
use crate::api::shapes::subnets::*;
use crate::api::{ApiError, Call, tagging};
use crate::cloud::net::{self, Subnet, Vpc, zone_id};
use crate::cloud::{Cloud, Identity, Region};

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action_without(
            "CreateSubnet",
            create,
            &[
                "Ipv4IpamPoolId",
                "Ipv4NetmaskLength",
                "Ipv6IpamPoolId",
                "Ipv6NetmaskLength",
                "OutpostArn",
            ],
        ),
        action("DeleteSubnet", delete),
        action("DescribeSubnets", describe),
        action_without(
            "ModifySubnetAttribute",
            modify,
            &[
                "CustomerOwnedIpv4Pool",
                "DisableLniAtDeviceIndex",
                "EnableLniAtDeviceIndex",
                "MapCustomerOwnedIpOnLaunch",
            ],
        ),
    ]
}

/// The zone that a request names by name or id, or the first one.
fn zone(cloud: &Cloud, call: &Call, request: &CreateSubnetRequest) -> Result<String, ApiError> {
    let zones = cloud.identity().zones_of(&call.region);
    let found = match (&request.availability_zone, &request.availability_zone_id) {
        (Some(_), Some(_)) => {
            return Err(ApiError::combination(
                "The parameters AvailabilityZone and AvailabilityZoneId cannot be used together",
            ));
        }
        (Some(name), None) => (
            "availabilityZone",
            name,
            zones.iter().find(|zone| *zone == name),
        ),
        (None, Some(id)) => {
            let mut all = zones.iter();
            let found = all.find(|zone| zone_id(&call.region, zone) == *id);
            ("availabilityZoneId", id, found)
        }
        (None, None) => {
            let first = zones.into_iter().next();
            return first.ok_or_else(|| ApiError::internal("this region has no zones"));
        }
    };
    let (parameter, text, zone) = found;
    zone.cloned().ok_or_else(|| {
        let all = zones.join(", ");
        let why = format!(
            "Subnets can currently only be created in the following availability zones: {all}."
        );
        ApiError::value(parameter, text, &why)
    })
}

fn create(
    cloud: &Cloud,
    call: &Call,
    request: CreateSubnetRequest,
) -> Result<CreateSubnetResult, ApiError> {
    refuse(&[
        ("Ipv6CidrBlock", request.ipv6_cidr_block.is_some()),
        ("Ipv6Native", request.ipv6_native == Some(true)),
    ])?;
    let Some(text) = &request.cidr_block else {
        return Err(ApiError::missing("CidrBlock"));
    };
    let block = cidr("cidrBlock", text)?;
    let zone = zone(cloud, call, &request)?;
    let tags = tagging::from_specifications(&request.tag_specifications, "subnet")?;
    cloud.change(&call.region, |region| {
        let vpc: &Vpc = find(region, &request.vpc_id)?;
        if !(16..=28).contains(&block.prefix_len()) || !vpc.cidr_block.contains(&block) {
            return Err(ApiError::new(
                "InvalidSubnet.Range",
                format!("The CIDR '{text}' is invalid."),
            ));
        }
        let overlaps = |one: &Subnet| {
            one.vpc_id == vpc.vpc_id
                && (one.cidr_block.contains(&block) || block.contains(&one.cidr_block))
        };
        if region.subnets.iter().any(overlaps) {
            return Err(ApiError::new(
                "InvalidSubnet.Conflict",
                format!("The CIDR '{text}' conflicts with another subnet"),
            ));
        }
        call.go()?;
        let subnet = Subnet {
            tags,
            ..net::new_subnet(&vpc.vpc_id, block, zone)
        };
        let answer = view(region, &subnet, cloud.identity());
        region.subnets.insert(subnet);
        Ok(CreateSubnetResult {
            subnet: Some(answer),
        })
    })
}

fn delete(cloud: &Cloud, call: &Call, request: DeleteSubnetRequest) -> Result<Done, ApiError> {
    cloud.change(&call.region, |region| {
        let id = &request.subnet_id;
        find::<Subnet>(region, id)?;
        if region.interfaces.iter().any(|one| one.subnet_id == *id) {
            return Err(dependencies("subnet", id));
        }
        call.go()?;
        // Its association goes with it.
        let of = |one: &net::RouteAssociation| one.subnet_id.as_ref() == Some(id);
        let table = region
            .route_tables
            .iter()
            .find(|table| table.associations.iter().any(of));
        let table = table.map(|table| table.route_table_id.clone());
        if let Some(table) = table.and_then(|id| region.route_tables.edit(&id)) {
            table.associations.retain(|one| !of(one));
        }
        region.subnets.remove(id);
        Ok(Done::yes())
    })
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeSubnetsRequest,
) -> Result<DescribeSubnetsResult, ApiError> {
    let wanted = Wanted {
        ids: &request.subnet_ids,
        filters: &request.filters,
        max: request.max_results,
        token: request.next_token.as_deref(),
    };
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let values = |subnet: &Subnet, name: &str| filter(region, subnet, identity, name);
        let page = list(region, wanted, values)?;
        Ok(DescribeSubnetsResult {
            subnets: page
                .items
                .into_iter()
                .map(|subnet| view(region, subnet, identity))
                .collect(),
            next_token: page.next,
        })
    })?
}

fn arn(region: &Region, subnet: &Subnet, identity: &Identity) -> String {
    format!(
        "arn:aws:ec2:{}:{}:subnet/{}",
        region.name, identity.account, subnet.subnet_id
    )
}

fn filter(region: &Region, subnet: &Subnet, identity: &Identity, name: &str) -> Values {
    match name {
        "availability-zone" | "availabilityZone" => one(&subnet.availability_zone),
        "availability-zone-id" | "availabilityZoneId" => {
            one(zone_id(&region.name, &subnet.availability_zone))
        }
        "available-ip-address-count" => one(net::free_addresses(region, subnet).to_string()),
        "cidr" | "cidrBlock" | "cidr-block" => one(subnet.cidr_block.to_string()),
        "default-for-az" | "defaultForAz" => truth(subnet.default_for_az),
        "enable-dns64" | "ipv6-native" | "map-customer-owned-ip-on-launch" => truth(false),
        "map-public-ip-on-launch" => truth(subnet.map_public_ip_on_launch),
        "owner-id" => one(&identity.account),
        "private-dns-name-options-on-launch.hostname-type" => one(&subnet.hostname_type),
        "private-dns-name-options-on-launch.enable-resource-name-dns-a-record" => {
            truth(subnet.resource_name_dns_a_record)
        }
        "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record" => truth(false),
        "state" => one("available"),
        "subnet-arn" => one(arn(region, subnet, identity)),
        "subnet-id" => one(&subnet.subnet_id),
        "vpc-id" => one(&subnet.vpc_id),
        "outpost-arn" | "customer-owned-ipv4-pool" | "enable-lni-at-device-index" => {
            Some(Vec::new())
        }
        name if name.starts_with("ipv6-cidr-block-association.") => Some(Vec::new()),
        _ => None,
    }
}

fn view(region: &Region, subnet: &Subnet, identity: &Identity) -> SubnetView {
    SubnetView {
        availability_zone_id: Some(zone_id(&region.name, &subnet.availability_zone)),
        owner_id: Some(identity.account.clone()),
        assign_ipv6_address_on_creation: Some(false),
        ipv6_cidr_block_association_set: Vec::new(),
        tags: tag_set(&subnet.tags),
        subnet_arn: Some(arn(region, subnet, identity)),
        enable_dns64: Some(false),
        ipv6_native: Some(false),
        private_dns_name_options_on_launch: Some(PrivateDnsNameOptionsOnLaunchView {
            hostname_type: Some(subnet.hostname_type.clone()),
            enable_resource_name_dns_a_record: Some(subnet.resource_name_dns_a_record),
            enable_resource_name_dns_aaaa_record: Some(false),
        }),
        subnet_id: Some(subnet.subnet_id.clone()),
        state: Some("available".to_owned()),
        vpc_id: Some(subnet.vpc_id.clone()),
        cidr_block: Some(subnet.cidr_block.to_string()),
        available_ip_address_count: Some(net::free_addresses(region, subnet)),
        availability_zone: Some(subnet.availability_zone.clone()),
        default_for_az: Some(subnet.default_for_az),
        map_public_ip_on_launch: Some(subnet.map_public_ip_on_launch),
    }
}

fn modify(
    cloud: &Cloud,
    call: &Call,
    request: ModifySubnetAttributeRequest,
) -> Result<Done, ApiError> {
    let said = |value: &Option<BooleanValue>| value.as_ref().and_then(|one| one.value);
    let on = |value: &Option<BooleanValue>| said(value) == Some(true);
    refuse(&[
        (
            "AssignIpv6AddressOnCreation",
            on(&request.assign_ipv6_address_on_creation),
        ),
        ("EnableDns64", on(&request.enable_dns64)),
        (
            "EnableResourceNameDnsAAAARecordOnLaunch",
            on(&request.enable_resource_name_dns_aaaa_record_on_launch),
        ),
    ])?;
    let hostname = request.private_dns_hostname_type_on_launch;
    if let Some(hostname) = &hostname
        && !matches!(hostname.as_str(), "ip-name" | "resource-name")
    {
        return Err(ApiError::value(
            "privateDnsHostnameTypeOnLaunch",
            hostname,
            "Use ip-name or resource-name.",
        ));
    }
    cloud.change(&call.region, |region| {
        find::<Subnet>(region, &request.subnet_id)?;
        call.go()?;
        if let Some(subnet) = region.subnets.edit(&request.subnet_id) {
            if let Some(map) = said(&request.map_public_ip_on_launch) {
                subnet.map_public_ip_on_launch = map;
            }
            if let Some(record) = said(&request.enable_resource_name_dns_a_record_on_launch) {
                subnet.resource_name_dns_a_record = record;
            }
            if let Some(hostname) = hostname {
                subnet.hostname_type = hostname;
            }
        }
        Ok(Done::yes())
    })
}
