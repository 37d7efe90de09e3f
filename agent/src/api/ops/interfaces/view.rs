//! How an interface is shown and filtered.

use std::net::Ipv4Addr;

use super::super::network::truth;
use crate::api::filters::{Values, maybe, one};
use crate::api::shapes::common::tag_set;
use crate::api::shapes::interfaces::*;
use crate::cloud::net::{
    Attachment, NetworkInterface, elastic_of, private_dns_name, public_dns_name, zone_id,
};
use crate::cloud::{Identity, Region};

/// The public address of one of an interface's private addresses, as EC2 shows it.
fn association(
    region: &Region,
    interface: &NetworkInterface,
    private_ip: Ipv4Addr,
    identity: &Identity,
) -> Option<NetworkInterfaceAssociationView> {
    let names = region.vpcs.get(&interface.vpc_id);
    let names = names.is_some_and(|vpc| vpc.enable_dns_hostnames);
    let name = |address| names.then(|| public_dns_name(&region.name, address));
    if let Some(elastic) = elastic_of(region, &interface.network_interface_id, private_ip) {
        let association = elastic.association.as_ref();
        return Some(NetworkInterfaceAssociationView {
            allocation_id: Some(elastic.allocation_id.clone()),
            association_id: association.map(|one| one.association_id.clone()),
            ip_owner_id: Some(identity.account.clone()),
            public_dns_name: name(elastic.public_ip),
            public_ip: Some(elastic.public_ip.to_string()),
        });
    }
    let automatic = interface
        .public_ip
        .filter(|_| private_ip == interface.private_ip)?;
    Some(NetworkInterfaceAssociationView {
        allocation_id: None,
        association_id: None,
        ip_owner_id: Some("amazon".to_owned()),
        public_dns_name: name(automatic),
        public_ip: Some(automatic.to_string()),
    })
}

fn attachment_view(attachment: &Attachment, identity: &Identity) -> NetworkInterfaceAttachmentView {
    NetworkInterfaceAttachmentView {
        attach_time: Some(attachment.attach_time),
        attachment_id: Some(attachment.attachment_id.clone()),
        delete_on_termination: Some(attachment.delete_on_termination),
        device_index: Some(attachment.device_index),
        network_card_index: Some(0),
        instance_id: Some(attachment.instance_id.clone()),
        instance_owner_id: Some(identity.account.clone()),
        status: Some(attachment.status.clone()),
    }
}

/// As DescribeNetworkInterfaces shows it.
pub(super) fn view(
    region: &Region,
    interface: &NetworkInterface,
    identity: &Identity,
) -> NetworkInterfaceView {
    let first = association(region, interface, interface.private_ip, identity);
    let attachment = interface.attachment.as_ref();
    let private_name = || Some(private_dns_name(&region.name, interface.private_ip));
    NetworkInterfaceView {
        public_dns_name: first.as_ref().and_then(|one| one.public_dns_name.clone()),
        association: first,
        attachment: attachment.map(|one| attachment_view(one, identity)),
        availability_zone: Some(interface.availability_zone.clone()),
        description: Some(interface.description.clone()),
        groups: interface
            .groups
            .iter()
            .map(|id| GroupIdentifierView {
                group_id: Some(id.clone()),
                group_name: region
                    .security_groups
                    .get(id)
                    .map(|group| group.group_name.clone()),
            })
            .collect(),
        interface_type: Some(interface.interface_type.clone()),
        mac_address: Some(interface.mac.clone()),
        network_interface_id: Some(interface.network_interface_id.clone()),
        owner_id: Some(interface.owner_id.clone()),
        private_dns_name: private_name(),
        private_ip_address: Some(interface.private_ip.to_string()),
        private_ip_addresses: interface
            .private_ips()
            .map(|address| NetworkInterfacePrivateIpAddressView {
                association: association(region, interface, address, identity),
                primary: Some(address == interface.private_ip),
                private_dns_name: Some(private_dns_name(&region.name, address)),
                private_ip_address: Some(address.to_string()),
            })
            .collect(),
        requester_managed: Some(false),
        source_dest_check: Some(interface.source_dest_check),
        status: Some(status(interface).to_owned()),
        subnet_id: Some(interface.subnet_id.clone()),
        tag_set: tag_set(&interface.tags),
        vpc_id: Some(interface.vpc_id.clone()),
        availability_zone_id: Some(zone_id(&region.name, &interface.availability_zone)),
        ..NetworkInterfaceView::default()
    }
}

fn status(interface: &NetworkInterface) -> &'static str {
    match interface.attachment {
        Some(_) => "in-use",
        None => "available",
    }
}

/// Values of its filters.
pub(super) fn filter(
    region: &Region,
    interface: &NetworkInterface,
    identity: &Identity,
    name: &str,
) -> Values {
    if let Some(name) = name.strip_prefix("attachment.") {
        return attachment_filter(interface.attachment.as_ref(), identity, name);
    }
    let public = |value: fn(NetworkInterfaceAssociationView) -> Option<String>| {
        let all = interface.private_ips();
        let all = all.filter_map(|address| association(region, interface, address, identity));
        Some(all.filter_map(value).collect())
    };
    match name {
        "addresses.association.public-ip" | "association.public-ip" => public(|one| one.public_ip),
        "addresses.association.owner-id" | "association.ip-owner-id" => {
            public(|one| one.ip_owner_id)
        }
        "association.allocation-id" => public(|one| one.allocation_id),
        "association.association-id" => public(|one| one.association_id),
        "association.public-dns-name" => public(|one| one.public_dns_name),
        "addresses.primary" => Some(
            interface
                .private_ips()
                .map(|address| (address == interface.private_ip).to_string())
                .collect(),
        ),
        "addresses.private-ip-address" => {
            Some(interface.private_ips().map(|one| one.to_string()).collect())
        }
        "availability-zone" => one(&interface.availability_zone),
        "availability-zone-id" => one(zone_id(&region.name, &interface.availability_zone)),
        "description" => one(&interface.description),
        "group-id" => Some(interface.groups.clone()),
        "group-name" => {
            let groups = interface.groups.iter();
            let groups = groups.filter_map(|id| region.security_groups.get(id));
            Some(groups.map(|group| group.group_name.clone()).collect())
        }
        "interface-type" => one(&interface.interface_type),
        "mac-address" => one(&interface.mac),
        "network-interface-id" => one(&interface.network_interface_id),
        "operator.managed" | "requester-managed" => truth(false),
        "owner-id" => one(&interface.owner_id),
        "private-dns-name" => one(private_dns_name(&region.name, interface.private_ip)),
        "private-ip-address" => one(interface.private_ip.to_string()),
        "source-dest-check" => truth(interface.source_dest_check),
        "status" => one(status(interface)),
        "subnet-id" => one(&interface.subnet_id),
        "vpc-id" => one(&interface.vpc_id),
        "ipv6-addresses.ipv6-address" | "operator.principal" | "requester-id" => Some(Vec::new()),
        _ => None,
    }
}

fn attachment_filter(attachment: Option<&Attachment>, identity: &Identity, name: &str) -> Values {
    let value = |value: &dyn Fn(&Attachment) -> String| maybe(attachment.map(value));
    match name {
        "attach-time" => value(&|one| one.attach_time.text()),
        "attachment-id" => value(&|one| one.attachment_id.clone()),
        "delete-on-termination" => value(&|one| one.delete_on_termination.to_string()),
        "device-index" => value(&|one| one.device_index.to_string()),
        "instance-id" => value(&|one| one.instance_id.clone()),
        "instance-owner-id" => value(&|_| identity.account.clone()),
        "status" => value(&|one| one.status.clone()),
        "nat-gateway-id" => Some(Vec::new()),
        _ => None,
    }
}
