//! From an instance's record to what its metadata service says.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cumulet_imds::view::{Extras, InstanceView, InterfaceView, MetadataOptions, PublicKey};

use crate::error::{Context, Result};
use crate::state::record::{Disk, DiskKind, Interface, Place, Record};
use crate::types::Architecture;

/// Where everything of this host is, in EC2's words.
const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";
const ZONE: &str = "us-east-1a";
const ZONE_ID: &str = "use1-az1";
/// The default VPC and subnet every instance of this issue is in.
const VPC: &str = "vpc-0c000000000000001";
const VPC_CIDR: &str = "172.31.0.0/16";
const SUBNET: &str = "subnet-0c000000000000001";
const SUBNET_CIDR: &str = "172.31.0.0/20";
const GROUP: (&str, &str) = ("sg-0c000000000000001", "default");
/// What the metadata service says of an instance that was not made from an AMI.
const NO_IMAGE: &str = "ami-00000000000000000";

/// The view of one instance.
///
/// # Errors
/// When the user data in the record is not base64.
pub(crate) fn of(record: &Record) -> Result<InstanceView> {
    let user_data = record
        .user_data
        .as_ref()
        .map(|text| STANDARD.decode(text))
        .transpose()
        .context(|| format!("the user data of {} is damaged", record.instance_id))?;
    let image = record.image.as_ref();
    let place = record.place.clone().unwrap_or_else(here);
    Ok(InstanceView {
        instance_id: record.instance_id.clone(),
        reservation_id: record.reservation_id.clone(),
        image_id: image.map_or_else(|| NO_IMAGE.to_owned(), |image| image.id.clone()),
        launch_index: place.launch_index,
        instance_type: record.hardware.instance_type.clone(),
        architecture: image.map_or_else(
            || Architecture::host().name().to_owned(),
            |image| image.architecture.clone(),
        ),
        account_id: place.account.clone(),
        region: place.region.clone(),
        availability_zone: place.zone.clone(),
        availability_zone_id: place.zone_id.clone(),
        pending_time: record.launch_time.into(),
        hibernation_configured: false,
        block_devices: block_devices(&record.disks),
        interfaces: std::iter::once(interface(record, &place))
            .chain(place.interfaces.iter().map(|one| secondary(one, &place)))
            .collect(),
        user_data,
        public_keys: record
            .key
            .iter()
            .map(|key| PublicKey {
                name: key.name.clone(),
                openssh: key.openssh.clone(),
            })
            .collect(),
        tags: record.tags.clone(),
        options: MetadataOptions {
            enabled: record.metadata.enabled,
            tokens_required: record.metadata.tokens_required,
            hop_limit: record.metadata.hop_limit,
            instance_tags: record.metadata.instance_tags,
            ipv6: false,
        },
        detailed_monitoring: place.monitoring,
        extras: Extras::default(),
    })
}

/// Where an instance is that was launched without the agent.
fn here() -> Place {
    Place {
        account: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        zone: ZONE.to_owned(),
        zone_id: ZONE_ID.to_owned(),
        vpc_id: VPC.to_owned(),
        vpc_cidr: VPC_CIDR.to_owned(),
        subnet_id: SUBNET.to_owned(),
        subnet_cidr: SUBNET_CIDR.to_owned(),
        groups: vec![(GROUP.0.to_owned(), GROUP.1.to_owned())],
        ..Place::default()
    }
}

fn interface(record: &Record, place: &Place) -> InterfaceView {
    let private: Ipv4Addr = record.network.private_ip;
    InterfaceView {
        interface_id: record.network.interface_id.clone(),
        mac: record.network.mac.clone(),
        device_number: 0,
        private_ipv4s: std::iter::once(private)
            .chain(place.secondary_ips.iter().copied())
            .collect(),
        public_ipv4: place.public_ip,
        ipv6s: Vec::new(),
        subnet_id: place.subnet_id.clone(),
        subnet_cidr: place.subnet_cidr.clone(),
        vpc_id: place.vpc_id.clone(),
        vpc_cidrs: vec![place.vpc_cidr.clone()],
        security_groups: place.groups.clone(),
        subnet_ipv6_cidrs: Vec::new(),
        vpc_ipv6_cidrs: Vec::new(),
    }
}

fn secondary(one: &Interface, place: &Place) -> InterfaceView {
    InterfaceView {
        interface_id: one.interface_id.clone(),
        mac: one.mac.clone(),
        device_number: one.device_index,
        private_ipv4s: one.private_ips.clone(),
        public_ipv4: one.public_ip,
        ipv6s: Vec::new(),
        subnet_id: one.subnet_id.clone(),
        subnet_cidr: one.subnet_cidr.clone(),
        vpc_id: place.vpc_id.clone(),
        vpc_cidrs: vec![place.vpc_cidr.clone()],
        security_groups: one.groups.clone(),
        subnet_ipv6_cidrs: Vec::new(),
        vpc_ipv6_cidrs: Vec::new(),
    }
}

/// EC2's block device mapping: `ami -> sda1`, `root -> /dev/sda1`, `ebs1 -> sdf`,
/// `ephemeral0 -> sdb`.
fn block_devices(disks: &[Disk]) -> BTreeMap<String, String> {
    let short = |device: &str| device.strip_prefix("/dev/").unwrap_or(device).to_owned();
    let mut mapping = BTreeMap::new();
    let mut volumes = 0;
    for disk in disks {
        match disk.kind {
            DiskKind::Root => {
                mapping.insert("ami".to_owned(), short(&disk.device));
                mapping.insert("root".to_owned(), disk.device.clone());
            }
            DiskKind::Data => {
                volumes += 1;
                mapping.insert(format!("ebs{volumes}"), short(&disk.device));
            }
            DiskKind::Scratch => {
                mapping.insert(disk.id.clone(), short(&disk.device));
            }
        }
    }
    mapping
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::sample;

    #[test]
    fn the_guests_mac_and_address_are_the_records() {
        let mut record = sample();
        record.user_data = Some(STANDARD.encode(b"\x1f\x8b\0raw"));
        let view = of(&record).unwrap();
        assert_eq!(view.interfaces[0].mac, record.network.mac);
        assert_eq!(view.user_data.as_deref(), Some(&b"\x1f\x8b\0raw"[..]));
        assert_eq!(view.block_devices["ebs1"], "sdf");
    }

    #[test]
    fn damaged_user_data_is_an_error_not_other_data() {
        let mut record = sample();
        record.user_data = Some("%".into());
        assert!(of(&record).is_err());
    }
}
