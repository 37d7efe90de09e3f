//! Secondary private addresses.

use std::net::Ipv4Addr;

use super::super::network::{address, find};
use crate::api::shapes::common::Done;
use crate::api::shapes::interfaces::*;
use crate::api::{ApiError, Call};
use crate::cloud::net::{NetworkInterface, Subnet, choose_address, leave_address};
use crate::cloud::{Cloud, Region};

/// Most private addresses of an interface. EC2's limit goes with the instance type; this is that of the largest.
const MOST: usize = 50;

/// Gives an interface the addresses that are named, or this many free ones.
pub(super) fn add(
    region: &mut Region,
    id: &str,
    named: &[String],
    count: i32,
    may_move: bool,
) -> Result<Vec<Ipv4Addr>, ApiError> {
    let Ok(count) = usize::try_from(count) else {
        return Err(ApiError::value(
            "secondaryPrivateIpAddressCount",
            &count.to_string(),
            "A number from 1 is expected.",
        ));
    };
    let interface: &NetworkInterface = find(region, id)?;
    if interface.private_ips().count() + named.len() + count > MOST {
        return Err(ApiError::new(
            "PrivateIpAddressLimitExceeded",
            format!("Number of private addresses will exceed limit of {MOST}."),
        ));
    }
    let subnet: Subnet = find::<Subnet>(region, &interface.subnet_id)?.clone();
    let mut wanted = Vec::new();
    for text in named {
        wanted.push(Some(address("privateIpAddress", text)?));
    }
    wanted.extend(std::iter::repeat_n(None, count));
    let mut added = Vec::new();
    for one in wanted {
        if let Some(address) = one.filter(|_| may_move) {
            take(region, &subnet.subnet_id, id, address);
        }
        let address = choose_address(region, &subnet, one)?;
        if let Some(interface) = region.interfaces.edit(id) {
            interface.secondary_ips.push(address);
        }
        added.push(address);
    }
    Ok(added)
}

/// Takes a secondary address from the interface that has it; a primary one stays.
fn take(region: &mut Region, subnet_id: &str, except: &str, address: Ipv4Addr) {
    let owner = region.interfaces.iter().find(|one| {
        one.subnet_id == subnet_id
            && one.network_interface_id != except
            && one.secondary_ips.contains(&address)
    });
    if let Some(owner) = owner.map(|one| one.network_interface_id.clone()) {
        drop_address(region, &owner, address);
    }
}

fn drop_address(region: &mut Region, id: &str, address: Ipv4Addr) {
    leave_address(region, id, address);
    if let Some(interface) = region.interfaces.edit(id) {
        interface.secondary_ips.retain(|one| *one != address);
    }
}

pub(super) fn assign(
    cloud: &Cloud,
    call: &Call,
    request: AssignPrivateIpAddressesRequest,
) -> Result<AssignPrivateIpAddressesResult, ApiError> {
    let id = &request.network_interface_id;
    let named = &request.private_ip_addresses;
    match (named.is_empty(), request.secondary_private_ip_address_count) {
        (true, None) => return Err(ApiError::missing("PrivateIpAddress")),
        (true, Some(count)) if count < 1 => {
            return Err(ApiError::value(
                "secondaryPrivateIpAddressCount",
                &count.to_string(),
                "A number from 1 is expected.",
            ));
        }
        (false, Some(_)) => {
            return Err(ApiError::combination(
                "PrivateIpAddress and SecondaryPrivateIpAddressCount may not be used together",
            ));
        }
        _ => {}
    }
    cloud.change(&call.region, |region| {
        let count = request.secondary_private_ip_address_count.unwrap_or(0);
        let may_move = request.allow_reassignment == Some(true);
        let added = add(region, id, named, count, may_move)?;
        call.go()?;
        Ok(AssignPrivateIpAddressesResult {
            network_interface_id: Some(id.clone()),
            assigned_private_ip_addresses: added
                .into_iter()
                .map(|address| AssignedPrivateIpAddressView {
                    private_ip_address: Some(address.to_string()),
                })
                .collect(),
        })
    })
}

pub(super) fn unassign(
    cloud: &Cloud,
    call: &Call,
    request: UnassignPrivateIpAddressesRequest,
) -> Result<Done, ApiError> {
    let id = &request.network_interface_id;
    if request.private_ip_addresses.is_empty() {
        return Err(ApiError::missing("PrivateIpAddress"));
    }
    cloud.change(&call.region, |region| {
        find::<NetworkInterface>(region, id)?;
        for text in &request.private_ip_addresses {
            let gone = address("privateIpAddress", text)?;
            let interface: &NetworkInterface = find(region, id)?;
            if !interface.secondary_ips.contains(&gone) {
                return Err(ApiError::new(
                    "InvalidParameterValue",
                    format!("Some of [{text}] are not assigned to interface {id}"),
                ));
            }
            drop_address(region, id, gone);
        }
        call.go()?;
        Ok(Done::yes())
    })
}
