//! Network interfaces: their addresses and their places at instances.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rand::Rng;

use super::{Attachment, NetworkInterface, Subnet, release_public, resolve_groups};
use crate::api::ApiError;
use crate::api::wire::Timestamp;
use crate::cloud::table::Tags;
use crate::cloud::{Identity, Region};
use crate::ids;

/// What a new interface shall be.
#[derive(Debug, Clone)]
pub struct InterfaceSpec<'a> {
    /// Its subnet.
    pub subnet_id: &'a str,
    /// Ids of its groups; none: the VPC's default group.
    pub groups: Vec<String>,
    /// Its address; `None`: any that is free.
    pub private_ip: Option<Ipv4Addr>,
    /// What it is for.
    pub description: String,
    /// Tags.
    pub tags: Tags,
}

/// Makes an interface; its id.
///
/// # Errors
/// `InvalidSubnetID.NotFound`; the groups' errors ([`resolve_groups`]) and the address's ([`choose_address`]).
pub fn create_interface(
    region: &mut Region,
    identity: &Identity,
    spec: InterfaceSpec<'_>,
) -> Result<String, ApiError> {
    let subnet = region.subnets.get(spec.subnet_id).ok_or_else(|| {
        ApiError::new(
            "InvalidSubnetID.NotFound",
            format!("The subnet ID '{}' does not exist", spec.subnet_id),
        )
    })?;
    let groups = resolve_groups(region, &subnet.vpc_id, &spec.groups, &[])?;
    let private_ip = choose_address(region, subnet, spec.private_ip)?;
    let interface = NetworkInterface {
        network_interface_id: ids::new("eni"),
        owner_id: identity.account.clone(),
        vpc_id: subnet.vpc_id.clone(),
        subnet_id: subnet.subnet_id.clone(),
        availability_zone: subnet.availability_zone.clone(),
        mac: free_mac(region),
        private_ip,
        groups,
        description: spec.description,
        create_time: Timestamp::now(),
        tags: spec.tags,
        ..NetworkInterface::default()
    };
    let id = interface.network_interface_id.clone();
    region.interfaces.insert(interface);
    Ok(id)
}

/// The wanted address of a subnet, or a free one at random, so that an address given back is not used again at once.
/// EC2 keeps the first four and the last address of every subnet (VPC user guide, "Subnet sizing").
///
/// # Errors
/// `InvalidParameterValue` for an address outside the subnet or one that EC2 keeps, `InvalidIPAddress.InUse`,
/// `InsufficientFreeAddressesInSubnet`.
pub fn choose_address(
    region: &Region,
    subnet: &Subnet,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, ApiError> {
    let used: HashSet<Ipv4Addr> = used(region, &subnet.subnet_id).collect();
    let (first, last) = usable(subnet.cidr_block);
    if let Some(wanted) = wanted {
        if !subnet.cidr_block.contains(&wanted) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("Address {wanted} does not fall within the subnet's address range"),
            ));
        }
        if !(first..=last).contains(&u32::from(wanted)) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("Address {wanted} is in subnet's reserved address range"),
            ));
        }
        if used.contains(&wanted) {
            return Err(ApiError::new(
                "InvalidIPAddress.InUse",
                format!("Address {wanted} is in use."),
            ));
        }
        return Ok(wanted);
    }
    let start = rand::rng().random_range(first..=last);
    (start..=last)
        .chain(first..start)
        .map(Ipv4Addr::from)
        .find(|address| !used.contains(address))
        .ok_or_else(|| {
            ApiError::new(
                "InsufficientFreeAddressesInSubnet",
                format!(
                    "The specified subnet does not have enough free addresses to satisfy the request: {}",
                    subnet.subnet_id
                ),
            )
        })
}

/// First and last address that interfaces may have.
fn usable(block: Ipv4Net) -> (u32, u32) {
    (
        u32::from(block.network()) + 4,
        u32::from(block.broadcast()) - 1,
    )
}

/// How many addresses of a subnet are free.
#[must_use]
pub fn free_addresses(region: &Region, subnet: &Subnet) -> i32 {
    let (first, last) = usable(subnet.cidr_block);
    let used = i32::try_from(used(region, &subnet.subnet_id).count()).unwrap_or(i32::MAX);
    i32::try_from(last - first + 1)
        .unwrap_or(i32::MAX)
        .saturating_sub(used)
}

fn used<'a>(region: &'a Region, subnet_id: &'a str) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let interfaces = region.interfaces.iter();
    interfaces
        .filter(move |interface| interface.subnet_id == subnet_id)
        .flat_map(NetworkInterface::private_ips)
}

fn free_mac(region: &Region) -> String {
    loop {
        let mac = ids::mac();
        if region.interfaces.iter().all(|one| one.mac != mac) {
            return mac;
        }
    }
}

/// Gives an interface a place at an instance. Whether the instance is there, and in a state for it, is the caller's to see.
///
/// # Errors
/// `InvalidNetworkInterfaceID.NotFound`, `InvalidNetworkInterface.InUse`, `InvalidParameterValue` when the place is taken,
/// `InvalidParameterCombination` when the instance is in another zone.
pub fn attach_interface(
    region: &mut Region,
    eni_id: &str,
    instance_id: &str,
    device_index: i32,
    delete_on_termination: bool,
) -> Result<(), ApiError> {
    let interface = region
        .interfaces
        .get(eni_id)
        .ok_or_else(|| no_interface(eni_id))?;
    if interface.attachment.is_some() {
        return Err(ApiError::new(
            "InvalidNetworkInterface.InUse",
            format!("Interface: [{eni_id}] in use."),
        ));
    }
    for other in interfaces_of(region, instance_id) {
        let index = other.attachment.as_ref().map(|at| at.device_index);
        if index == Some(device_index) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!(
                    "Instance '{instance_id}' already has an interface attached at device index '{device_index}'."
                ),
            ));
        }
        if other.availability_zone != interface.availability_zone {
            return Err(ApiError::combination(
                "You may not attach a network interface to an instance if they are not in the same availability zone",
            ));
        }
    }
    if let Some(interface) = region.interfaces.edit(eni_id) {
        // It is for each launch to decide.
        interface.auto_public = None;
        interface.attachment = Some(Attachment {
            attachment_id: ids::new("eni-attach"),
            instance_id: instance_id.to_owned(),
            device_index,
            attach_time: Timestamp::now(),
            delete_on_termination,
            status: "attached".to_owned(),
        });
    }
    Ok(())
}

/// An interface that is not there.
#[must_use]
pub fn no_interface(eni_id: &str) -> ApiError {
    ApiError::new(
        "InvalidNetworkInterfaceID.NotFound",
        format!("The networkInterface ID '{eni_id}' does not exist"),
    )
}

/// The instance's interfaces, by device index.
#[must_use]
pub fn interfaces_of<'a>(region: &'a Region, instance_id: &str) -> Vec<&'a NetworkInterface> {
    let index = |interface: &NetworkInterface| {
        let attachment = interface.attachment.as_ref()?;
        (attachment.instance_id == instance_id).then_some(attachment.device_index)
    };
    let mut all: Vec<_> = region
        .interfaces
        .iter()
        .filter_map(|interface| Some((index(interface)?, interface)))
        .collect();
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, interface)| interface).collect()
}

/// Every instance's interfaces, each by device index: for who shows many instances.
#[must_use]
pub fn interfaces_by_instance(region: &Region) -> HashMap<&str, Vec<&NetworkInterface>> {
    let mut all: HashMap<&str, Vec<&NetworkInterface>> = HashMap::new();
    for interface in region.interfaces.iter() {
        if let Some(attachment) = &interface.attachment {
            all.entry(&attachment.instance_id)
                .or_default()
                .push(interface);
        }
    }
    for interfaces in all.values_mut() {
        interfaces.sort_by_key(|one| one.attachment.as_ref().map(|at| at.device_index));
    }
    all
}

/// Takes a terminated instance's interfaces from it: those that go with it are deleted, the others are free again.
pub fn release_interfaces(region: &mut Region, instance_id: &str) {
    let all: Vec<(String, bool)> = interfaces_of(region, instance_id)
        .into_iter()
        .map(|interface| {
            let attachment = interface.attachment.as_ref();
            let delete = attachment.is_some_and(|at| at.delete_on_termination);
            (interface.network_interface_id.clone(), delete)
        })
        .collect();
    for (id, delete) in all {
        // An auto-assigned address never outlives the attachment.
        release_public(region, &id);
        if delete {
            delete_interface(region, &id);
        } else if let Some(interface) = region.interfaces.edit(&id) {
            interface.attachment = None;
        }
    }
}

/// Deletes an interface and takes Elastic IPs from it, which stay allocated.
pub fn delete_interface(region: &mut Region, eni_id: &str) {
    super::public::leave(region, eni_id, None);
    region.interfaces.remove(eni_id);
}
