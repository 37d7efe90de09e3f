//! Network interfaces.

mod addresses;
mod view;

use super::network::{Wanted, address, find, list, refuse};
use crate::api::actions::{Action, action, action_without};
use crate::api::shapes::common::{AttributeBooleanValue, AttributeValue, Done};
use crate::api::shapes::interfaces::*;
use crate::api::tokens::{Stamp, repeated};
use crate::api::{ApiError, Call, tagging};
use crate::cloud::net::{
    InterfaceSpec, NetworkInterface, attach_interface, create_interface, delete_interface,
    interfaces_of, release_public, resolve_groups,
};
use crate::cloud::{Cloud, Region};
use crate::state::record::State;
use crate::types;

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action_without(
            "CreateNetworkInterface",
            create,
            &[
                "ConnectionTrackingSpecification",
                "EnablePrimaryIpv6",
                "Ipv4Prefix",
                "Ipv4PrefixCount",
                "Ipv6Prefix",
                "Ipv6PrefixCount",
                "Operator",
            ],
        ),
        action("DeleteNetworkInterface", delete),
        action_without(
            "DescribeNetworkInterfaces",
            describe,
            &["IncludeManagedResources"],
        ),
        action_without(
            "AttachNetworkInterface",
            attach,
            &["EnaQueueCount", "EnaSrdSpecification"],
        ),
        action("DetachNetworkInterface", detach),
        action("DescribeNetworkInterfaceAttribute", describe_attribute),
        action_without(
            "ModifyNetworkInterfaceAttribute",
            modify_attribute,
            &[
                "AssociatedSubnetId",
                "ConnectionTrackingSpecification",
                "EnaSrdSpecification",
                "EnablePrimaryIpv6",
            ],
        ),
        action_without(
            "AssignPrivateIpAddresses",
            addresses::assign,
            &["Ipv4Prefix", "Ipv4PrefixCount"],
        ),
        action_without(
            "UnassignPrivateIpAddresses",
            addresses::unassign,
            &["Ipv4Prefix"],
        ),
    ]
}

/// The primary address and the others that a request names.
fn split(
    request: &CreateNetworkInterfaceRequest,
) -> Result<(Option<String>, Vec<String>), ApiError> {
    let mut primary = request.private_ip_address.clone();
    let mut others = Vec::new();
    for one in &request.private_ip_addresses {
        let Some(text) = &one.private_ip_address else {
            return Err(ApiError::missing("PrivateIpAddresses.PrivateIpAddress"));
        };
        if one.primary != Some(true) {
            others.push(text.clone());
        } else if primary.replace(text.clone()).is_some() {
            return Err(ApiError::combination(
                "Only one primary private IP address can be specified",
            ));
        }
    }
    if !others.is_empty() && request.secondary_private_ip_address_count.is_some() {
        return Err(ApiError::combination(
            "SecondaryPrivateIpAddressCount and secondary PrivateIpAddresses may not be used together",
        ));
    }
    Ok((primary, others))
}

fn create(
    cloud: &Cloud,
    call: &Call,
    request: CreateNetworkInterfaceRequest,
) -> Result<CreateNetworkInterfaceResult, ApiError> {
    refuse(&[
        ("Ipv6Addresses", !request.ipv6_addresses.is_empty()),
        (
            "Ipv6AddressCount",
            request.ipv6_address_count.is_some_and(|count| count > 0),
        ),
        (
            "InterfaceType",
            request
                .interface_type
                .as_ref()
                .is_some_and(|kind| kind != "interface"),
        ),
    ])?;
    let stamp = Stamp::of(&request, request.client_token.as_ref())?;
    let (primary, others) = split(&request)?;
    let private_ip = primary
        .map(|text| address("privateIpAddress", &text))
        .transpose()?;
    let tags = tagging::from_specifications(&request.tag_specifications, "network-interface")?;
    let identity = cloud.identity();
    cloud.change(&call.region, |region| {
        let token = request.client_token.clone();
        if let Some(made) = repeated(&region.interfaces, stamp.as_ref())? {
            return Ok(CreateNetworkInterfaceResult {
                network_interface: Some(view::view(region, made, identity)),
                client_token: token,
            });
        }
        find::<crate::cloud::net::Subnet>(region, &request.subnet_id)?;
        let spec = InterfaceSpec {
            subnet_id: &request.subnet_id,
            groups: request.groups.clone(),
            private_ip,
            description: request.description.clone().unwrap_or_default(),
            tags,
        };
        let id = create_interface(region, identity, spec)?;
        let count = request.secondary_private_ip_address_count.unwrap_or(0);
        addresses::add(region, &id, &others, count, false)?;
        if let Some(interface) = region.interfaces.edit(&id) {
            interface.stamp = stamp;
        }
        call.go()?;
        Ok(CreateNetworkInterfaceResult {
            network_interface: Some(view::view(region, find(region, &id)?, identity)),
            client_token: token,
        })
    })
}

fn delete(
    cloud: &Cloud,
    call: &Call,
    request: DeleteNetworkInterfaceRequest,
) -> Result<Done, ApiError> {
    let id = &request.network_interface_id;
    cloud.change(&call.region, |region| {
        if find::<NetworkInterface>(region, id)?.attachment.is_some() {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("Network interface '{id}' is currently in use."),
            ));
        }
        call.go()?;
        delete_interface(region, id);
        Ok(Done::yes())
    })
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeNetworkInterfacesRequest,
) -> Result<DescribeNetworkInterfacesResult, ApiError> {
    let wanted = Wanted {
        ids: &request.network_interface_ids,
        filters: &request.filters,
        max: request.max_results,
        token: request.next_token.as_deref(),
    };
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let values = |one: &NetworkInterface, name: &str| view::filter(region, one, identity, name);
        let page = list(region, wanted, values)?;
        Ok(DescribeNetworkInterfacesResult {
            network_interfaces: page
                .items
                .into_iter()
                .map(|interface| view::view(region, interface, identity))
                .collect(),
            next_token: page.next,
        })
    })?
}

fn attach(
    cloud: &Cloud,
    call: &Call,
    request: AttachNetworkInterfaceRequest,
) -> Result<AttachNetworkInterfaceResult, ApiError> {
    if let Some(card) = request.network_card_index.filter(|card| *card != 0) {
        return Err(ApiError::value(
            "networkCardIndex",
            &card.to_string(),
            "The instance type has one network card.",
        ));
    }
    if request.device_index < 1 {
        return Err(ApiError::value(
            "deviceIndex",
            &request.device_index.to_string(),
            "Index 0 is the primary interface; a number from 1 is expected.",
        ));
    }
    let (id, instance) = (&request.network_interface_id, &request.instance_id);
    cloud.change(&call.region, |region| {
        let interface: &NetworkInterface = find(region, id)?;
        let state = region.instances.get(instance).map(|instance| instance.state);
        let state = state.filter(|state| !matches!(state, State::Running | State::Stopped));
        if let Some(state) = state {
            return Err(ApiError::new(
                "IncorrectState",
                format!(
                    "Instance '{instance}' is {state}: interfaces are attached to instances that are running or stopped."
                ),
            ));
        }
        // An instance that is there has its primary interface.
        let all = interfaces_of(region, instance);
        let Some(first) = all.first() else {
            return Err(ApiError::new(
                "InvalidInstanceID.NotFound",
                format!("The instance ID '{instance}' does not exist"),
            ));
        };
        if first.vpc_id != interface.vpc_id {
            return Err(ApiError::combination(
                "You may not attach a network interface to an instance in another VPC",
            ));
        }
        cloud.check_plug(region, instance)?;
        if let Some(instance) = region.instances.get(instance) {
            types::check_interfaces(&instance.instance_type, all.len() + 1)?;
        }
        attach_interface(region, id, instance, request.device_index, false)?;
        call.go()?;
        let attachment = find::<NetworkInterface>(region, id)?.attachment.as_ref();
        Ok(AttachNetworkInterfaceResult {
            attachment_id: attachment.map(|one| one.attachment_id.clone()),
            network_card_index: Some(0),
        })
    })
}

/// The interface that has this attachment.
fn attached<'a>(region: &'a Region, id: &str) -> Result<&'a NetworkInterface, ApiError> {
    region
        .interfaces
        .iter()
        .find(|one| {
            let attachment = one.attachment.as_ref();
            attachment.is_some_and(|attachment| attachment.attachment_id == id)
        })
        .ok_or_else(|| {
            ApiError::new(
                "InvalidAttachmentID.NotFound",
                format!("The attachment ID '{id}' does not exist"),
            )
        })
}

fn detach(
    cloud: &Cloud,
    call: &Call,
    request: DetachNetworkInterfaceRequest,
) -> Result<Done, ApiError> {
    cloud.change(&call.region, |region| {
        let interface = attached(region, &request.attachment_id)?;
        let id = interface.network_interface_id.clone();
        let index = interface.attachment.as_ref().map(|one| one.device_index);
        if index == Some(0) {
            return Err(ApiError::new(
                "OperationNotPermitted",
                "The network interface at device index 0 cannot be detached.",
            ));
        }
        if let Some(place) = &interface.attachment {
            cloud.check_plug(region, &place.instance_id)?;
        }
        call.go()?;
        release_public(region, &id);
        if let Some(interface) = region.interfaces.edit(&id) {
            interface.attachment = None;
        }
        Ok(Done::yes())
    })
}

fn describe_attribute(
    cloud: &Cloud,
    call: &Call,
    request: DescribeNetworkInterfaceAttributeRequest,
) -> Result<DescribeNetworkInterfaceAttributeResult, ApiError> {
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let interface: &NetworkInterface = find(region, &request.network_interface_id)?;
        let mut result = DescribeNetworkInterfaceAttributeResult {
            network_interface_id: Some(interface.network_interface_id.clone()),
            ..DescribeNetworkInterfaceAttributeResult::default()
        };
        let shown = view::view(region, interface, identity);
        match request.attribute.as_deref() {
            Some("description") => {
                result.description = Some(AttributeValue {
                    value: shown.description,
                });
            }
            Some("groupSet") => result.groups = shown.groups,
            Some("sourceDestCheck") => {
                result.source_dest_check = Some(AttributeBooleanValue {
                    value: shown.source_dest_check,
                });
            }
            Some("attachment") => result.attachment = shown.attachment,
            Some("associatePublicIpAddress") => {
                result.associate_public_ip_address = Some(interface.public_ip.is_some());
            }
            Some(other) => {
                return Err(ApiError::value("attribute", other, "Unknown attribute."));
            }
            None => return Err(ApiError::missing("Attribute")),
        }
        Ok(result)
    })?
}

fn modify_attribute(
    cloud: &Cloud,
    call: &Call,
    request: ModifyNetworkInterfaceAttributeRequest,
) -> Result<Done, ApiError> {
    refuse(&[(
        "AssociatePublicIpAddress",
        request.associate_public_ip_address.is_some(),
    )])?;
    let id = &request.network_interface_id;
    let check = request.source_dest_check.and_then(|one| one.value);
    let description = request.description.and_then(|one| one.value);
    let given = [
        check.is_some(),
        description.is_some(),
        !request.groups.is_empty(),
        request.attachment.is_some(),
    ];
    match given.iter().filter(|one| **one).count() {
        1 => {}
        0 => {
            return Err(ApiError::new(
                "MissingParameter",
                "No attributes specified.",
            ));
        }
        _ => {
            return Err(ApiError::combination(
                "Fields for multiple attribute types specified",
            ));
        }
    }
    cloud.change(&call.region, |region| {
        let interface: &NetworkInterface = find(region, id)?;
        let groups = match request.groups.is_empty() {
            true => interface.groups.clone(),
            false => resolve_groups(region, &interface.vpc_id, &request.groups, &[])?,
        };
        let goes = match &request.attachment {
            Some(change) => {
                let wanted = change.attachment_id.as_deref();
                let wanted = wanted.ok_or_else(|| ApiError::missing("Attachment.AttachmentId"))?;
                let owner = attached(region, wanted)?;
                if owner.network_interface_id != *id {
                    return Err(ApiError::new(
                        "InvalidAttachmentID.NotFound",
                        format!("The attachment '{wanted}' is not of interface '{id}'"),
                    ));
                }
                let missing = || ApiError::missing("Attachment.DeleteOnTermination");
                Some(change.delete_on_termination.ok_or_else(missing)?)
            }
            None => None,
        };
        call.go()?;
        if let Some(interface) = region.interfaces.edit(id) {
            interface.groups = groups;
            if let Some(check) = check {
                interface.source_dest_check = check;
            }
            if let Some(description) = description {
                interface.description = description;
            }
            if let (Some(goes), Some(attachment)) = (goes, interface.attachment.as_mut()) {
                attachment.delete_on_termination = goes;
            }
        }
        Ok(Done::yes())
    })
}
