//! Records in the form of answers.

use std::net::Ipv4Addr;

use crate::api::shapes::common::tag_set;
use crate::api::shapes::instances::{
    CpuOptions, EbsInstanceBlockDevice, GroupIdentifier, Hibernation, InstanceBlockDevice,
    InstanceInterface, InstanceOutput, InstancePrivateAddress, InstanceState, InterfaceAssociation,
    InterfaceAttachment, MetadataOptionsOutput, Monitoring, Placement, Profile, StateReasonOutput,
};
use crate::cloud::instance::Instance;
use crate::cloud::net::{self, NetworkInterface};
use crate::cloud::{Identity, Region};
use crate::state::record::{MetadataOptions, State};
use crate::types;

/// A state with EC2's number.
pub(super) fn state(state: State) -> InstanceState {
    InstanceState {
        code: i32::from(state.code()),
        name: state.name().to_owned(),
    }
}

fn enabled(yes: bool) -> String {
    if yes { "enabled" } else { "disabled" }.to_owned()
}

/// Detailed monitoring or not.
pub(super) fn monitoring(yes: bool) -> Monitoring {
    Monitoring {
        state: enabled(yes),
    }
}

/// Metadata options.
pub(super) fn metadata(options: &MetadataOptions) -> MetadataOptionsOutput {
    let tokens = if options.tokens_required {
        "required"
    } else {
        "optional"
    };
    MetadataOptionsOutput {
        state: "applied".to_owned(),
        http_tokens: tokens.to_owned(),
        http_put_response_hop_limit: i32::from(options.hop_limit),
        http_endpoint: enabled(options.enabled),
        http_protocol_ipv6: enabled(false),
        instance_metadata_tags: enabled(options.instance_tags),
    }
}

/// Volumes of an instance.
pub(super) fn devices(instance: &Instance) -> Vec<InstanceBlockDevice> {
    instance
        .devices
        .iter()
        .map(|device| InstanceBlockDevice {
            device_name: device.name.clone(),
            ebs: EbsInstanceBlockDevice {
                attach_time: device.attach_time,
                delete_on_termination: device.delete_on_termination,
                status: "attached".to_owned(),
                volume_id: device.volume_id.clone(),
            },
        })
        .collect()
}

/// Groups with their names.
pub(super) fn groups(region: &Region, ids: &[String]) -> Vec<GroupIdentifier> {
    ids.iter()
        .map(|id| GroupIdentifier {
            group_id: id.clone(),
            group_name: region
                .security_groups
                .get(id)
                .map_or_else(String::new, |group| group.group_name.clone()),
        })
        .collect()
}

fn private_name(region: &Region, address: Ipv4Addr) -> String {
    net::private_dns_name(&region.name, address)
}

fn public_name(region: &Region, address: Ipv4Addr) -> String {
    net::public_dns_name(&region.name, address)
}

fn association(
    region: &Region,
    identity: &Identity,
    interface: &NetworkInterface,
) -> Option<InterfaceAssociation> {
    let address = net::public_address_of(region, &interface.network_interface_id)?;
    let elastic = interface.public_ip != Some(address);
    let owner = if elastic { &identity.account } else { "amazon" };
    Some(InterfaceAssociation {
        ip_owner_id: owner.to_owned(),
        public_dns_name: public_name(region, address),
        public_ip: address.to_string(),
    })
}

fn interface(
    region: &Region,
    identity: &Identity,
    interface: &NetworkInterface,
) -> InstanceInterface {
    let association = association(region, identity, interface);
    let mut addresses = vec![InstancePrivateAddress {
        association: association.clone(),
        primary: true,
        private_dns_name: private_name(region, interface.private_ip),
        private_ip_address: interface.private_ip.to_string(),
    }];
    addresses.extend(
        interface
            .secondary_ips
            .iter()
            .map(|address| InstancePrivateAddress {
                association: None,
                primary: false,
                private_dns_name: private_name(region, *address),
                private_ip_address: address.to_string(),
            }),
    );
    InstanceInterface {
        association,
        attachment: interface
            .attachment
            .as_ref()
            .map(|attachment| InterfaceAttachment {
                attach_time: attachment.attach_time,
                attachment_id: attachment.attachment_id.clone(),
                delete_on_termination: attachment.delete_on_termination,
                device_index: attachment.device_index,
                status: attachment.status.clone(),
                network_card_index: 0,
            }),
        description: interface.description.clone(),
        groups: groups(region, &interface.groups),
        mac_address: interface.mac.clone(),
        network_interface_id: interface.network_interface_id.clone(),
        owner_id: identity.account.clone(),
        private_dns_name: private_name(region, interface.private_ip),
        private_ip_address: interface.private_ip.to_string(),
        private_ip_addresses: addresses,
        source_dest_check: interface.source_dest_check,
        status: "in-use".to_owned(),
        subnet_id: interface.subnet_id.clone(),
        vpc_id: interface.vpc_id.clone(),
        interface_type: interface.interface_type.clone(),
    }
}

/// One instance with its interfaces, as DescribeInstances shows it.
pub(super) fn instance(
    region: &Region,
    identity: &Identity,
    instance: &Instance,
    interfaces: &[&NetworkInterface],
) -> InstanceOutput {
    let primary = interfaces.first().copied();
    let public = primary.and_then(|eni| net::public_address_of(region, &eni.network_interface_id));
    let details = types::details(&instance.instance_type);
    let (cores, threads, hypervisor) = details.map_or((1, 1, "nitro"), |details| {
        (details.cores, details.threads_per_core, details.hypervisor)
    });
    InstanceOutput {
        architecture: instance.architecture.clone(),
        block_device_mappings: devices(instance),
        client_token: Some(
            instance
                .stamp
                .as_ref()
                .map_or_else(String::new, |stamp| stamp.token.clone()),
        ),
        ebs_optimized: instance.ebs_optimized,
        ena_support: true,
        hypervisor: hypervisor.to_owned(),
        iam_instance_profile: instance.profile_arn.clone().map(|arn| Profile { arn }),
        network_interfaces: interfaces
            .iter()
            .map(|eni| interface(region, identity, eni))
            .collect(),
        root_device_name: instance.root_device.clone(),
        root_device_type: "ebs".to_owned(),
        security_groups: primary.map_or_else(Vec::new, |eni| groups(region, &eni.groups)),
        source_dest_check: primary.map(|eni| eni.source_dest_check),
        state_reason: instance
            .state_reason
            .as_ref()
            .map(|reason| StateReasonOutput {
                code: reason.code.clone(),
                message: reason.message.clone(),
            }),
        tags: tag_set(&instance.tags),
        virtualization_type: "hvm".to_owned(),
        cpu_options: CpuOptions {
            core_count: i32::from(cores),
            threads_per_core: i32::from(threads),
        },
        hibernation_options: Hibernation {
            configured: instance.hibernation,
        },
        metadata_options: metadata(&instance.metadata),
        platform_details: "Linux/UNIX".to_owned(),
        usage_operation: "RunInstances".to_owned(),
        instance_id: instance.instance_id.clone(),
        image_id: instance.image_id.clone(),
        state: state(instance.state),
        private_dns_name: primary
            .map_or_else(String::new, |eni| private_name(region, eni.private_ip)),
        public_dns_name: public.map_or_else(String::new, |ip| public_name(region, ip)),
        state_transition_reason: instance.transition_reason.clone(),
        key_name: instance.key_name.clone(),
        ami_launch_index: instance.launch_index,
        product_codes: Vec::new(),
        instance_type: instance.instance_type.clone(),
        launch_time: instance.launch_time,
        placement: Placement {
            availability_zone: instance.zone.clone(),
            group_name: String::new(),
            tenancy: instance.tenancy.clone(),
        },
        monitoring: monitoring(instance.monitoring),
        subnet_id: primary.map(|eni| eni.subnet_id.clone()),
        vpc_id: primary.map(|eni| eni.vpc_id.clone()),
        private_ip_address: primary.map(|eni| eni.private_ip.to_string()),
        public_ip_address: public.map(|ip| ip.to_string()),
    }
}
