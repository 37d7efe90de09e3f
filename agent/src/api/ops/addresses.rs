//! Elastic IP addresses.

use std::net::Ipv4Addr;

use super::network::{address, find, refuse};
use crate::api::actions::{Action, action, action_without};
use crate::api::filters::{Filters, Values, maybe, one};
use crate::api::shapes::addresses::*;
use crate::api::shapes::common::{Done, tag_set};
use crate::api::{ApiError, Call, tagging};
use crate::cloud::net::{self, Address, AddressAssociation, NetworkInterface};
use crate::cloud::{Cloud, Identity, Region};

/// EC2's default quota in a region (EC2 user guide, "Elastic IP address quota").
const MOST: usize = 5;

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action_without(
            "AllocateAddress",
            allocate,
            &["CustomerOwnedIpv4Pool", "IpamPoolId"],
        ),
        action("AssociateAddress", associate),
        action("DisassociateAddress", disassociate),
        action("ReleaseAddress", release),
        action("DescribeAddresses", describe),
    ]
}

fn allocate(
    cloud: &Cloud,
    call: &Call,
    request: AllocateAddressRequest,
) -> Result<AllocateAddressResult, ApiError> {
    refuse(&[("Address", request.address.is_some())])?;
    match request.domain.as_deref() {
        None | Some("vpc") => {}
        Some("standard") => {
            return Err(ApiError::unsupported(
                "The functionality you requested is not available in this region.",
            ));
        }
        Some(other) => return Err(ApiError::value("domain", other, "Use vpc.")),
    }
    if let Some(pool) = request.public_ipv4_pool.filter(|pool| pool != "amazon") {
        return Err(ApiError::new(
            "InvalidPublicIpv4PoolID.NotFound",
            format!("The pool ID '{pool}' does not exist"),
        ));
    }
    check_border(call, request.network_border_group.as_deref())?;
    let tags = tagging::from_specifications(&request.tag_specifications, "elastic-ip")?;
    cloud.change(&call.region, |region| {
        if region.addresses.len() >= MOST {
            return Err(ApiError::new(
                "AddressLimitExceeded",
                "The maximum number of addresses has been reached.",
            ));
        }
        let public_ip = net::free_public_address(region)?;
        call.go()?;
        let address = Address {
            allocation_id: crate::ids::new("eipalloc"),
            public_ip,
            association: None,
            tags,
        };
        let answer = AllocateAddressResult {
            allocation_id: Some(address.allocation_id.clone()),
            public_ipv4_pool: Some("amazon".to_owned()),
            network_border_group: Some(region.name.clone()),
            domain: Some("vpc".to_owned()),
            public_ip: Some(public_ip.to_string()),
        };
        region.addresses.insert(address);
        Ok(answer)
    })
}

/// The address that a request names by allocation or by itself.
fn named<'a>(
    region: &'a Region,
    allocation_id: Option<&str>,
    public_ip: Option<&str>,
) -> Result<&'a Address, ApiError> {
    match (allocation_id, public_ip) {
        (Some(id), _) => find(region, id),
        (None, Some(text)) => by_ip(region, text),
        (None, None) => Err(ApiError::new(
            "MissingParameter",
            "Either public IP or allocation id must be specified",
        )),
    }
}

fn by_ip<'a>(region: &'a Region, text: &str) -> Result<&'a Address, ApiError> {
    let wanted = address("publicIp", text)?;
    region
        .addresses
        .iter()
        .find(|one| one.public_ip == wanted)
        .ok_or_else(|| {
            ApiError::new(
                "InvalidAddress.NotFound",
                format!("Address '{text}' not found."),
            )
        })
}

fn associate(
    cloud: &Cloud,
    call: &Call,
    request: AssociateAddressRequest,
) -> Result<AssociateAddressResult, ApiError> {
    cloud.change(&call.region, |region| {
        let found = named(
            region,
            request.allocation_id.as_deref(),
            request.public_ip.as_deref(),
        )?;
        let allocation_id = found.allocation_id.clone();
        let interface = target(region, &request)?;
        let private_ip = match &request.private_ip_address {
            Some(text) => {
                let wanted = address("privateIpAddress", text)?;
                let mut own = interface.private_ips();
                own.find(|one| *one == wanted).ok_or_else(|| {
                    let id = &interface.network_interface_id;
                    ApiError::new(
                        "InvalidParameterValue",
                        format!("The private IP address {text} is not assigned to interface {id}"),
                    )
                })?
            }
            None => interface.private_ip,
        };
        let eni = interface.network_interface_id.clone();
        if !region
            .internet_gateways
            .iter()
            .any(|gateway| gateway.vpc_id.as_ref() == Some(&interface.vpc_id))
        {
            return Err(ApiError::new(
                "Gateway.NotAttached",
                format!(
                    "Network {} is not attached to any internet gateway",
                    interface.vpc_id
                ),
            ));
        }
        if let Some(association) = &found.association
            && association.network_interface_id == eni
            && association.private_ip == private_ip
        {
            return Ok(AssociateAddressResult {
                association_id: Some(association.association_id.clone()),
            });
        }
        // An address moves unless that was forbidden (EC2 API reference, `AssociateAddress`).
        let may_move = request.allow_reassociation != Some(false);
        if let Some(association) = found.association.as_ref().filter(|_| !may_move) {
            return Err(ApiError::new(
                "Resource.AlreadyAssociated",
                format!(
                    "resource {allocation_id} is already associated with associate-id {}",
                    association.association_id
                ),
            ));
        }
        let other = net::elastic_of(region, &eni, private_ip);
        if let Some(other) = other.filter(|_| !may_move) {
            let association = other.association.as_ref();
            return Err(ApiError::new(
                "Resource.AlreadyAssociated",
                format!(
                    "resource {eni} is already associated with associate-id {}",
                    association.map_or("", |one| &one.association_id)
                ),
            ));
        }
        call.go()?;
        Ok(AssociateAddressResult {
            association_id: Some(put(region, &allocation_id, &eni, private_ip)?),
        })
    })
}

/// The interface that an address shall go to.
fn target<'a>(
    region: &'a Region,
    request: &AssociateAddressRequest,
) -> Result<&'a NetworkInterface, ApiError> {
    match (&request.network_interface_id, &request.instance_id) {
        (Some(eni), None) => find(region, eni),
        (None, Some(instance)) => {
            let all = net::interfaces_of(region, instance);
            match all.as_slice() {
                [] => Err(ApiError::new(
                    "InvalidInstanceID.NotFound",
                    format!("The instance ID '{instance}' does not exist"),
                )),
                [only] => Ok(only),
                _ => Err(ApiError::new(
                    "InvalidInstanceID",
                    format!(
                        "There are multiple interfaces attached to instance '{instance}'. Please specify an interface ID for the operation instead."
                    ),
                )),
            }
        }
        (Some(_), Some(_)) => Err(ApiError::combination(
            "You may specify either instanceId or networkInterfaceId, but not both",
        )),
        (None, None) => Err(ApiError::new(
            "MissingParameter",
            "Either instance ID or network interface id must be specified",
        )),
    }
}

/// Moves an address to a private address, from which another Elastic IP and an auto-assigned one give way.
fn put(
    region: &mut Region,
    allocation_id: &str,
    eni: &str,
    private_ip: Ipv4Addr,
) -> Result<String, ApiError> {
    net::disassociate(region, allocation_id)?;
    net::leave_address(region, eni, private_ip);
    let primary = region
        .interfaces
        .get(eni)
        .is_some_and(|interface| interface.private_ip == private_ip);
    if primary {
        net::release_public(region, eni);
    }
    let association_id = crate::ids::new("eipassoc");
    if let Some(address) = region.addresses.edit(allocation_id) {
        address.association = Some(AddressAssociation {
            association_id: association_id.clone(),
            network_interface_id: eni.to_owned(),
            private_ip,
        });
    }
    Ok(association_id)
}

fn disassociate(
    cloud: &Cloud,
    call: &Call,
    request: DisassociateAddressRequest,
) -> Result<Done, ApiError> {
    cloud.change(&call.region, |region| {
        let found = match (&request.association_id, &request.public_ip) {
            (Some(id), _) => {
                let of = |one: &AddressAssociation| one.association_id == *id;
                region
                    .addresses
                    .iter()
                    .find(|address| address.association.as_ref().is_some_and(of))
                    .ok_or_else(|| {
                        ApiError::new(
                            "InvalidAssociationID.NotFound",
                            format!("The association ID '{id}' does not exist"),
                        )
                    })?
            }
            (None, Some(text)) => by_ip(region, text)?,
            (None, None) => {
                return Err(ApiError::new(
                    "MissingParameter",
                    "Either public IP or association id must be specified",
                ));
            }
        };
        let id = found.allocation_id.clone();
        call.go()?;
        net::disassociate(region, &id)?;
        Ok(Done::yes())
    })
}

/// A network border group, which is the region.
fn check_border(call: &Call, group: Option<&str>) -> Result<(), ApiError> {
    match group {
        Some(group) if group != call.region => Err(ApiError::value(
            "networkBorderGroup",
            group,
            "It is the region's name here.",
        )),
        _ => Ok(()),
    }
}

fn release(cloud: &Cloud, call: &Call, request: ReleaseAddressRequest) -> Result<Done, ApiError> {
    check_border(call, request.network_border_group.as_deref())?;
    cloud.change(&call.region, |region| {
        let found = named(
            region,
            request.allocation_id.as_deref(),
            request.public_ip.as_deref(),
        )?;
        if found.association.is_some() {
            return Err(ApiError::new(
                "InvalidIPAddress.InUse",
                format!("Address {} is in use.", found.public_ip),
            ));
        }
        let id = found.allocation_id.clone();
        call.go()?;
        region.addresses.remove(&id);
        Ok(Done::yes())
    })
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeAddressesRequest,
) -> Result<DescribeAddressesResult, ApiError> {
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let mut ids = Vec::new();
        for id in &request.allocation_ids {
            ids.push(find::<Address>(region, id)?.allocation_id.clone());
        }
        for text in &request.public_ips {
            ids.push(by_ip(region, text)?.allocation_id.clone());
        }
        let filters = Filters::new(&request.filters)?;
        filters.check(|name| filter(&AddressView::default(), name))?;
        let mut addresses = Vec::new();
        for address in region.addresses.iter() {
            let shown = view(region, address, identity);
            let passes = filters.pass(&address.tags, |name| filter(&shown, name))?;
            if passes && (ids.is_empty() || ids.contains(&address.allocation_id)) {
                addresses.push(shown);
            }
        }
        Ok(DescribeAddressesResult { addresses })
    })?
}

fn filter(shown: &AddressView, name: &str) -> Values {
    match name {
        "allocation-id" => maybe(shown.allocation_id.as_ref()),
        "association-id" => maybe(shown.association_id.as_ref()),
        "domain" => one("vpc"),
        "instance-id" => maybe(shown.instance_id.as_ref()),
        "network-border-group" => maybe(shown.network_border_group.as_ref()),
        "network-interface-id" => maybe(shown.network_interface_id.as_ref()),
        "network-interface-owner-id" => maybe(shown.network_interface_owner_id.as_ref()),
        "private-ip-address" => maybe(shown.private_ip_address.as_ref()),
        "public-ip" => maybe(shown.public_ip.as_ref()),
        _ => None,
    }
}

fn view(region: &Region, address: &Address, identity: &Identity) -> AddressView {
    let association = address.association.as_ref();
    let interface = association.and_then(|one| region.interfaces.get(&one.network_interface_id));
    let attachment = interface.and_then(|interface| interface.attachment.as_ref());
    AddressView {
        allocation_id: Some(address.allocation_id.clone()),
        association_id: association.map(|one| one.association_id.clone()),
        domain: Some("vpc".to_owned()),
        network_interface_id: interface.map(|one| one.network_interface_id.clone()),
        network_interface_owner_id: interface.map(|_| identity.account.clone()),
        private_ip_address: association.map(|one| one.private_ip.to_string()),
        tags: tag_set(&address.tags),
        public_ipv4_pool: Some("amazon".to_owned()),
        network_border_group: Some(region.name.clone()),
        subnet_id: interface.map(|one| one.subnet_id.clone()),
        instance_id: attachment.map(|one| one.instance_id.clone()),
        public_ip: Some(address.public_ip.to_string()),
    }
}
