//! What a transition changes in the records beside the state.

use super::{Machine, backend::Network};
use crate::api::ApiError;
use crate::cloud::instance::Instance;
use crate::cloud::net::NetworkInterface;
use crate::cloud::{Cloud, Region, net};
use crate::state::record::{State, StateReason};
use crate::types;

/// Everything a backend has to know of the instance.
///
/// # Errors
/// When the records do not fit together.
pub fn machine(cloud: &Cloud, region: &Region, instance: &Instance) -> Result<Machine, ApiError> {
    let kind = types::find(&instance.instance_type)?;
    let sizes = instance.devices.iter().map(|device| {
        let volume = region.volumes.get(&device.volume_id);
        volume
            .map(|volume| volume.size)
            .ok_or_else(|| ApiError::internal(format!("{} has no record", device.volume_id)))
    });
    let mut networks = net::interfaces_of(region, &instance.instance_id)
        .into_iter()
        .map(|eni| network(region, eni));
    Ok(Machine {
        region: region.name.clone(),
        account: cloud.identity().account.clone(),
        zone_id: net::zone_id(&region.name, &instance.zone),
        kind,
        sizes: sizes.collect::<Result<_, _>>()?,
        network: networks.next().unwrap_or_default(),
        more: networks.collect(),
        instance: instance.clone(),
    })
}

fn network(region: &Region, eni: &NetworkInterface) -> Network {
    let name = |id: &String| {
        let group = region.security_groups.get(id);
        group.map_or_else(String::new, |group| group.group_name.clone())
    };
    let vpc = region.vpcs.get(&eni.vpc_id);
    let subnet = region.subnets.get(&eni.subnet_id);
    Network {
        interface_id: eni.network_interface_id.clone(),
        mac: eni.mac.clone(),
        device_index: eni
            .attachment
            .as_ref()
            .map_or(0, |place| place.device_index),
        private_ip: Some(eni.private_ip),
        secondary_ips: eni.secondary_ips.clone(),
        public_ip: net::public_address_of(region, &eni.network_interface_id),
        vpc_id: eni.vpc_id.clone(),
        vpc_cidr: vpc.map_or_else(String::new, |vpc| vpc.cidr_block.to_string()),
        subnet_id: eni.subnet_id.clone(),
        subnet_cidr: subnet.map_or_else(String::new, |subnet| subnet.cidr_block.to_string()),
        groups: eni.groups.iter().map(|id| (id.clone(), name(id))).collect(),
    }
}

fn interfaces(region: &Region, id: &str) -> Vec<String> {
    net::interfaces_of(region, id)
        .iter()
        .map(|eni| eni.network_interface_id.clone())
        .collect()
}

/// The instance has stopped: its public addresses go back.
pub fn stopped(region: &mut Region, id: &str, reason: Option<StateReason>, words: &str) {
    for eni in interfaces(region, id) {
        net::release_public(region, &eni);
    }
    if let Some(instance) = region.instances.edit(id) {
        instance.forced = false;
        instance.enter(State::Stopped, reason, words);
    }
}

/// The instance is over: what goes with it goes.
pub fn bury(region: &mut Region, id: &str) {
    for eni in interfaces(region, id) {
        net::release_public(region, &eni);
    }
    net::release_interfaces(region, id);
    let Some(instance) = region.instances.edit(id) else {
        return;
    };
    for device in std::mem::take(&mut instance.devices) {
        if device.delete_on_termination {
            region.volumes.remove(&device.volume_id);
        } else if let Some(volume) = region.volumes.edit(&device.volume_id) {
            volume.instance_id = None;
        }
    }
}

/// IOPS of a volume, by its type (EC2 user guide, "Amazon EBS volume types").
#[must_use]
pub fn iops(volume_type: &str, wanted: Option<i32>, size: i32) -> Option<i32> {
    match volume_type {
        "gp2" => Some(size.saturating_mul(3).clamp(100, 16_000)),
        "gp3" => Some(wanted.unwrap_or(3000)),
        "io1" | "io2" => Some(wanted.unwrap_or(100)),
        _ => None,
    }
}

/// MiB/s of a volume, by its type.
#[must_use]
pub fn throughput(volume_type: &str, wanted: Option<i32>) -> Option<i32> {
    (volume_type == "gp3").then(|| wanted.unwrap_or(125))
}
