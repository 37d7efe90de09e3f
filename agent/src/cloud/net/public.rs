//! Public addresses: auto-assigned ones and Elastic IPs.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use rand::Rng;

use super::NetworkInterface;
use crate::api::ApiError;
use crate::cloud::Region;
use crate::fabric::PUBLIC_POOL;
use crate::state::record::State;

/// How many /16s [`PUBLIC_POOL`] has. Each region has one of its own, as their addresses all end at this host.
const SLOTS: u32 = 64;

/// EC2's regions, by the place of their /16. New ones go to the end, so that the others keep theirs.
const REGIONS: [&str; 36] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
    "sa-east-1",
    "us-gov-east-1",
    "us-gov-west-1",
];

/// The region's part of the pool.
fn slot(region: &str) -> u32 {
    if let Some(at) = REGIONS.iter().position(|name| *name == region) {
        return u32::try_from(at).unwrap_or(0);
    }
    // A region that EC2 does not have: one of the places that are left.
    let known = u32::try_from(REGIONS.len()).unwrap_or(0);
    let sum = region.bytes().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    known + sum % (SLOTS - known)
}

/// A public address that nobody in the region has.
///
/// # Errors
/// `InsufficientAddressCapacity` when there is none left.
pub fn free_public_address(region: &Region) -> Result<Ipv4Addr, ApiError> {
    let used: HashSet<Ipv4Addr> = region
        .interfaces
        .iter()
        .filter_map(|interface| interface.public_ip)
        .chain(region.addresses.iter().map(|address| address.public_ip))
        .collect();
    let base = u32::from(PUBLIC_POOL.network()) + (slot(&region.name) << 16);
    // At random, so that an address given back is somebody else's only after a while; never .0 and .255.
    let start = rand::rng().random_range(0..=0xffff_u32);
    (start..=0xffff)
        .chain(0..start)
        .filter(|at| !matches!(at & 0xff, 0 | 0xff))
        .map(|at| Ipv4Addr::from(base + at))
        .find(|address| !used.contains(address))
        .ok_or_else(|| {
            ApiError::new(
                "InsufficientAddressCapacity",
                "Insufficient capacity to allocate the address.",
            )
        })
}

/// Auto-assigns a public address: when `wanted`, or as it was at launch, or when nothing is said and the subnet maps
/// public addresses, whether or not there is a route for them, as on EC2. An interface that has one, or an Elastic IP,
/// keeps it.
///
/// # Errors
/// `InvalidNetworkInterfaceID.NotFound`, `InsufficientAddressCapacity`.
pub fn assign_public(
    region: &mut Region,
    eni_id: &str,
    wanted: Option<bool>,
) -> Result<(), ApiError> {
    let interface = region
        .interfaces
        .get(eni_id)
        .ok_or_else(|| super::no_interface(eni_id))?;
    let wanted = wanted.or(interface.auto_public).unwrap_or_else(|| {
        let subnet = region.subnets.get(&interface.subnet_id);
        subnet.is_some_and(|subnet| subnet.map_public_ip_on_launch)
    });
    let address = match wanted && public_address_of(region, eni_id).is_none() {
        true => Some(free_public_address(region)?),
        false => None,
    };
    if let Some(interface) = region.interfaces.edit(eni_id) {
        interface.auto_public = Some(wanted);
        interface.public_ip = address.or(interface.public_ip);
    }
    Ok(())
}

/// Auto-assigns a public address anew: to an instance that starts, or has lost its Elastic IP while it runs. It gets none
/// if it was launched without one, has more than one interface, or has an Elastic IP at a secondary private address
/// (EC2 user guide, "Amazon EC2 instance IP addressing", "Public IPv4 addresses").
///
/// # Errors
/// `InsufficientAddressCapacity`.
pub fn assign_public_again(region: &mut Region, instance_id: &str) -> Result<(), ApiError> {
    let interfaces = super::interfaces_of(region, instance_id);
    let [interface] = interfaces.as_slice() else {
        return Ok(());
    };
    let eni = interface.network_interface_id.clone();
    let secondary = interface.secondary_ips.iter();
    if secondary
        .map(|ip| elastic_of(region, &eni, *ip))
        .any(|one| one.is_some())
    {
        return Ok(());
    }
    assign_public(region, &eni, None)
}

/// Takes an Elastic IP from where it is. A running instance gets an auto-assigned address in its place, if it may
/// ([`assign_public_again`]).
///
/// # Errors
/// `InsufficientAddressCapacity`.
pub fn disassociate(region: &mut Region, allocation_id: &str) -> Result<(), ApiError> {
    let address = region.addresses.edit(allocation_id);
    let Some(association) = address.and_then(|address| address.association.take()) else {
        return Ok(());
    };
    let interface = region.interfaces.get(&association.network_interface_id);
    let attachment = interface.and_then(|interface| interface.attachment.as_ref());
    let instance = attachment.map(|attachment| attachment.instance_id.clone());
    let state = |id: &String| region.instances.get(id).map(|instance| instance.state);
    match instance.filter(|id| matches!(state(id), Some(State::Pending | State::Running))) {
        Some(id) => assign_public_again(region, &id),
        None => Ok(()),
    }
}

/// Gives an auto-assigned public address back, at stop and at termination. An Elastic IP stays.
pub fn release_public(region: &mut Region, eni_id: &str) {
    let has = |region: &Region| region.interfaces.get(eni_id)?.public_ip;
    if has(region).is_none() {
        return;
    }
    if let Some(interface) = region.interfaces.edit(eni_id) {
        interface.public_ip = None;
    }
}

/// The public address of an interface's primary private address: the Elastic IP, or else the auto-assigned one.
#[must_use]
pub fn public_address_of(region: &Region, eni_id: &str) -> Option<Ipv4Addr> {
    let interface = region.interfaces.get(eni_id)?;
    public_address_at(region, interface, interface.private_ip)
}

/// The public address of one of an interface's private addresses; only the primary one has an auto-assigned one.
#[must_use]
pub fn public_address_at(
    region: &Region,
    interface: &NetworkInterface,
    private_ip: Ipv4Addr,
) -> Option<Ipv4Addr> {
    let own = interface
        .public_ip
        .filter(|_| private_ip == interface.private_ip);
    let elastic = elastic_of(region, &interface.network_interface_id, private_ip);
    elastic.map(|address| address.public_ip).or(own)
}

/// The Elastic IP of one of an interface's private addresses.
#[must_use]
pub fn elastic_of<'a>(
    region: &'a Region,
    eni_id: &str,
    private_ip: Ipv4Addr,
) -> Option<&'a super::Address> {
    region.addresses.iter().find(|address| {
        address.association.as_ref().is_some_and(|association| {
            association.network_interface_id == eni_id && association.private_ip == private_ip
        })
    })
}

/// Takes the Elastic IPs from an interface, or from one of its private addresses.
pub(super) fn leave(region: &mut Region, eni_id: &str, private_ip: Option<Ipv4Addr>) {
    let of = |association: &super::AddressAssociation| {
        association.network_interface_id == eni_id
            && private_ip.is_none_or(|address| association.private_ip == address)
    };
    let ids: Vec<String> = region
        .addresses
        .iter()
        .filter(|address| address.association.as_ref().is_some_and(of))
        .map(|address| address.allocation_id.clone())
        .collect();
    for id in ids {
        if let Some(address) = region.addresses.edit(&id) {
            address.association = None;
        }
    }
}

/// Takes the Elastic IP from one private address of an interface.
pub fn leave_address(region: &mut Region, eni_id: &str, private_ip: Ipv4Addr) {
    leave(region, eni_id, Some(private_ip));
}
