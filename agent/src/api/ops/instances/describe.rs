//! DescribeInstances.

use std::collections::{BTreeMap, HashSet};

use super::{check_known, view};
use crate::api::filters::{Filters, Values, maybe, one};
use crate::api::paging::page;
use crate::api::shapes::instances::{
    DescribeInstancesRequest, DescribeInstancesResult, InstanceInterface, InstanceOutput,
    Reservation,
};
use crate::api::{ApiError, Call};
use crate::cloud::instance::Instance;
use crate::cloud::{Cloud, net};

pub(super) fn describe_instances(
    cloud: &Cloud,
    call: &Call,
    request: DescribeInstancesRequest,
) -> Result<DescribeInstancesResult, ApiError> {
    if !request.instance_ids.is_empty() && request.max_results.is_some() {
        return Err(ApiError::combination(
            "The parameter instancesSet cannot be used with the parameter maxResults",
        ));
    }
    let filters = Filters::new(&request.filters)?;
    let none = (Instance::default(), InstanceOutput::default());
    filters.check(|name| values(&none.0, &none.1, "", name))?;
    let wanted: HashSet<&String> = request.instance_ids.iter().collect();
    cloud.read(&call.region, |region| {
        check_known(region, &request.instance_ids)?;
        let interfaces = net::interfaces_by_instance(region);
        let mut found = Vec::new();
        for instance in region.instances.iter() {
            if !wanted.is_empty() && !wanted.contains(&instance.instance_id) {
                continue;
            }
            let own = interfaces.get(instance.instance_id.as_str());
            let own = own.map_or(&[][..], Vec::as_slice);
            let shown = view::instance(region, cloud.identity(), instance, own);
            let owner = &cloud.identity().account;
            if filters.pass(&instance.tags, |name| values(instance, &shown, owner, name))? {
                found.push((instance, shown));
            }
        }
        found.sort_by_cached_key(|(instance, _)| key(instance));
        let paging = (request.max_results, request.next_token.as_deref());
        let page = page(found, |(instance, _)| key(instance), paging, 5..=1000)?;
        let mut reservations: BTreeMap<String, Reservation> = BTreeMap::new();
        let mut order = Vec::new();
        for (instance, shown) in page.items {
            let id = &instance.reservation_id;
            if !reservations.contains_key(id) {
                order.push(id.clone());
            }
            reservations
                .entry(id.clone())
                .or_insert_with(|| Reservation {
                    reservation_id: id.clone(),
                    owner_id: cloud.identity().account.clone(),
                    groups: Vec::new(),
                    instances: Vec::new(),
                })
                .instances
                .push(shown);
        }
        Ok(DescribeInstancesResult {
            reservations: order
                .iter()
                .filter_map(|id| reservations.remove(id))
                .collect(),
            next_token: page.next,
        })
    })?
}

/// Instances of a reservation stand together, in the order of their launch.
fn key(instance: &Instance) -> String {
    format!(
        "{}/{:06}/{}",
        instance.reservation_id, instance.launch_index, instance.instance_id
    )
}

/// The values that the filter `name` looks at (EC2 API reference, DescribeInstances, "Filter").
fn values(instance: &Instance, shown: &InstanceOutput, owner: &str, name: &str) -> Values {
    let yes = |value: bool| one(value.to_string());
    let groups = |part: fn(&crate::api::shapes::instances::GroupIdentifier) -> &String| {
        Some(
            shown
                .security_groups
                .iter()
                .map(|g| part(g).clone())
                .collect(),
        )
    };
    match name {
        "affinity"
        | "kernel-id"
        | "ramdisk-id"
        | "platform"
        | "instance-lifecycle"
        | "spot-instance-request-id"
        | "outpost-arn"
        | "product-code"
        | "product-code.type"
        | "capacity-reservation-id"
        | "requester-id"
        | "placement-group-name" => Some(Vec::new()),
        "architecture" => one(&shown.architecture),
        "availability-zone" => one(&shown.placement.availability_zone),
        "block-device-mapping.attach-time" => Some(
            instance
                .devices
                .iter()
                .map(|device| device.attach_time.text())
                .collect(),
        ),
        "block-device-mapping.delete-on-termination" => Some(
            instance
                .devices
                .iter()
                .map(|device| device.delete_on_termination.to_string())
                .collect(),
        ),
        "block-device-mapping.device-name" => Some(
            instance
                .devices
                .iter()
                .map(|device| device.name.clone())
                .collect(),
        ),
        "block-device-mapping.status" => Some(
            instance
                .devices
                .iter()
                .map(|_| "attached".to_owned())
                .collect(),
        ),
        "block-device-mapping.volume-id" => Some(
            instance
                .devices
                .iter()
                .map(|device| device.volume_id.clone())
                .collect(),
        ),
        "client-token" => maybe(instance.stamp.as_ref().map(|stamp| stamp.token.clone())),
        "dns-name" => one(&shown.public_dns_name),
        "hibernation-options.configured" => yes(instance.hibernation),
        "hypervisor" => one(&shown.hypervisor),
        "iam-instance-profile.arn" => maybe(instance.profile_arn.clone()),
        "image-id" => one(&instance.image_id),
        "instance-id" => one(&instance.instance_id),
        "instance-state-code" => one(shown.state.code.to_string()),
        "instance-state-name" => one(&shown.state.name),
        "instance-type" => one(&instance.instance_type),
        "instance.group-id" => groups(|group| &group.group_id),
        "instance.group-name" => groups(|group| &group.group_name),
        "ip-address" => maybe(shown.public_ip_address.clone()),
        "key-name" => maybe(instance.key_name.clone()),
        "launch-index" => one(instance.launch_index.to_string()),
        "launch-time" => one(instance.launch_time.text()),
        "metadata-options.http-tokens" => one(&shown.metadata_options.http_tokens),
        "metadata-options.http-endpoint" => one(&shown.metadata_options.http_endpoint),
        "metadata-options.http-put-response-hop-limit" => one(shown
            .metadata_options
            .http_put_response_hop_limit
            .to_string()),
        "metadata-options.instance-metadata-tags" => {
            one(&shown.metadata_options.instance_metadata_tags)
        }
        "monitoring-state" => one(&shown.monitoring.state),
        "owner-id" => one(owner),
        "private-dns-name" => one(&shown.private_dns_name),
        "private-ip-address" => maybe(shown.private_ip_address.clone()),
        "reason" => one(&instance.transition_reason),
        "reservation-id" => one(&instance.reservation_id),
        "root-device-name" => one(&instance.root_device),
        "root-device-type" => one("ebs"),
        "source-dest-check" => maybe(shown.source_dest_check.map(|check| check.to_string())),
        "state-reason-code" => maybe(shown.state_reason.as_ref().map(|r| r.code.clone())),
        "state-reason-message" => maybe(shown.state_reason.as_ref().map(|r| r.message.clone())),
        "subnet-id" => maybe(shown.subnet_id.clone()),
        "tenancy" => one(&instance.tenancy),
        "virtualization-type" => one("hvm"),
        "vpc-id" => maybe(shown.vpc_id.clone()),
        other => other
            .strip_prefix("network-interface.")
            .and_then(|name| interface_values(shown, name)),
    }
}

fn interface_values(shown: &InstanceOutput, name: &str) -> Values {
    let all = |part: fn(&InstanceInterface) -> Vec<String>| {
        Some(shown.network_interfaces.iter().flat_map(part).collect())
    };
    match name {
        "network-interface-id" => all(|eni| vec![eni.network_interface_id.clone()]),
        "subnet-id" => all(|eni| vec![eni.subnet_id.clone()]),
        "vpc-id" => all(|eni| vec![eni.vpc_id.clone()]),
        "mac-address" => all(|eni| vec![eni.mac_address.clone()]),
        "description" => all(|eni| vec![eni.description.clone()]),
        "status" => all(|eni| vec![eni.status.clone()]),
        "private-dns-name" => all(|eni| vec![eni.private_dns_name.clone()]),
        "owner-id" => all(|eni| vec![eni.owner_id.clone()]),
        "source-dest-check" => all(|eni| vec![eni.source_dest_check.to_string()]),
        "group-id" => all(|eni| eni.groups.iter().map(|g| g.group_id.clone()).collect()),
        "group-name" => all(|eni| eni.groups.iter().map(|g| g.group_name.clone()).collect()),
        "association.public-ip" => all(|eni| {
            eni.association
                .iter()
                .map(|a| a.public_ip.clone())
                .collect()
        }),
        "addresses.private-ip-address" => all(|eni| {
            eni.private_ip_addresses
                .iter()
                .map(|address| address.private_ip_address.clone())
                .collect()
        }),
        _ => None,
    }
}
