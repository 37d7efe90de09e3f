//! From what the engine knows of a machine to the record in its instance's folder.

use std::net::Ipv4Addr;

use super::{Machine, backend};
use crate::error::Result;
use crate::fabric::UplinkMode;
use crate::ids;
use crate::launch;
use crate::size::{GIB, MIB, Size};
use crate::state::record::{
    Disk, DiskKind, ImageRef, Interface, KeyPair, Network, Place, Record, State, VERSION,
};
use crate::types;

fn gib(size: i32) -> Size {
    Size(u64::try_from(size).unwrap_or(0).saturating_mul(GIB))
}

fn disks(machine: &Machine) -> Vec<Disk> {
    let instance = &machine.instance;
    let volumes = instance.devices.iter().zip(&machine.sizes);
    let mut disks: Vec<Disk> = volumes
        .map(|(device, size)| Disk {
            kind: if device.name == instance.root_device {
                DiskKind::Root
            } else {
                DiskKind::Data
            },
            id: device.volume_id.clone(),
            device: device.name.clone(),
            size: gib(*size),
        })
        .collect();
    disks.extend(scratch(&machine.kind.name, &disks));
    disks
}

/// The instance store that the type has: device names that no volume has, from /dev/sdb.
fn scratch(kind: &str, volumes: &[Disk]) -> Vec<Disk> {
    let Some(store) = types::details(kind).and_then(|details| details.disks) else {
        return Vec::new();
    };
    // EC2 counts instance store in units of 1000.
    let size = Size(u64::from(store.size_gb).saturating_mul(1_000_000_000) / MIB * MIB);
    ('b'..='z')
        .map(|letter| format!("/dev/sd{letter}"))
        .filter(|device| volumes.iter().all(|volume| volume.device != *device))
        .take(usize::from(store.count))
        .enumerate()
        .map(|(number, device)| Disk {
            kind: DiskKind::Scratch,
            id: format!("ephemeral{number}"),
            device,
            size,
        })
        .collect()
}

/// Where it is in EC2's world.
pub(super) fn place(machine: &Machine) -> Place {
    let network = &machine.network;
    Place {
        account: machine.account.clone(),
        region: machine.region.clone(),
        zone: machine.instance.zone.clone(),
        zone_id: machine.zone_id.clone(),
        vpc_id: network.vpc_id.clone(),
        vpc_cidr: network.vpc_cidr.clone(),
        subnet_id: network.subnet_id.clone(),
        subnet_cidr: network.subnet_cidr.clone(),
        groups: network.groups.clone(),
        public_ip: network.public_ip,
        launch_index: u32::try_from(machine.instance.launch_index).unwrap_or(0),
        monitoring: machine.instance.monitoring,
        secondary_ips: network.secondary_ips.clone(),
        interfaces: machine.more.iter().map(interface).collect(),
        kept_volumes: {
            let devices = machine.instance.devices.iter();
            let kept = devices.filter(|device| !device.delete_on_termination);
            kept.map(|device| device.volume_id.clone()).collect()
        },
    }
}

fn interface(network: &backend::Network) -> Interface {
    let primary = network.private_ip.into_iter();
    Interface {
        interface_id: network.interface_id.clone(),
        mac: network.mac.clone(),
        device_index: u32::try_from(network.device_index).unwrap_or(0),
        private_ips: primary
            .chain(network.secondary_ips.iter().copied())
            .collect(),
        public_ip: network.public_ip,
        subnet_id: network.subnet_id.clone(),
        subnet_cidr: network.subnet_cidr.clone(),
        groups: network.groups.clone(),
    }
}

/// A new record.
///
/// # Errors
/// When the type has more vCPUs than a machine can have.
pub(crate) fn new(machine: &Machine, image: ImageRef) -> Result<Record> {
    let instance = &machine.instance;
    Ok(Record {
        version: VERSION,
        instance_id: instance.instance_id.clone(),
        reservation_id: instance.reservation_id.clone(),
        state: State::Pending,
        state_reason: None,
        keep: true,
        launch_time: instance.launch_time.0,
        image: Some(image),
        hardware: launch::hardware(&machine.kind)?,
        system_uuid: ids::system_uuid(),
        disks: disks(machine),
        network: Network {
            interface_id: machine.network.interface_id.clone(),
            mac: machine.network.mac.clone(),
            private_ip: machine.network.private_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            publish: Vec::new(),
            uplink: UplinkMode::Auto,
        },
        key: key(machine),
        user_data: instance.user_data.clone(),
        tags: instance.tags.clone(),
        metadata: instance.metadata,
        place: Some(place(machine)),
    })
}

fn key(machine: &Machine) -> Option<KeyPair> {
    let instance = &machine.instance;
    Some(KeyPair {
        name: instance.key_name.clone()?,
        openssh: instance.public_key.clone()?,
        identity: None,
    })
}

/// Takes over what may have changed since the instance was last started.
///
/// # Errors
/// As [`new`].
pub(super) fn refresh(record: &mut Record, machine: &Machine) -> Result<()> {
    record.hardware = launch::hardware(&machine.kind)?;
    // A new type may have another instance store.
    record.disks = disks(machine);
    record.tags.clone_from(&machine.instance.tags);
    record.metadata = machine.instance.metadata;
    record.user_data.clone_from(&machine.instance.user_data);
    record.place = Some(place(machine));
    Ok(())
}
