//! Records in the shape of EC2's own answers, so that `--output json` reads as
//! `aws ec2 describe-instances --output json` does.

use std::net::Ipv4Addr;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::state::record::{DiskKind, Record, State};
use crate::supervise::protocol::{CONSOLE_LOG, SUPERVISOR_LOG};

/// A time as EC2 writes it.
pub(super) fn timestamp(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_default()
}

fn state_value(state: State) -> Value {
    json!({ "Code": state.code(), "Name": state.name() })
}

/// `Instance` of EC2's DescribeInstances, and under `Cumulet` what only a local host has.
pub(super) fn instance(record: &Record, folder: &Path) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("InstanceId", json!(record.instance_id));
    put("ReservationId", json!(record.reservation_id));
    if let Some(image) = &record.image {
        put("ImageId", json!(image.id));
        put("Architecture", json!(image.architecture));
    }
    put("InstanceType", json!(record.hardware.instance_type));
    put("State", state_value(record.state));
    if let Some(reason) = &record.state_reason {
        put(
            "StateReason",
            json!({ "Code": reason.code, "Message": reason.message }),
        );
    }
    put("LaunchTime", json!(timestamp(record.launch_time)));
    put("PrivateIpAddress", json!(record.network.private_ip));
    put("PrivateDnsName", json!(record.private_dns_name()));
    if let Some(key) = &record.key {
        put("KeyName", json!(key.name));
    }
    put(
        "CpuOptions",
        json!({ "CoreCount": record.hardware.vcpus, "ThreadsPerCore": 1 }),
    );
    put(
        "MetadataOptions",
        json!({
            "State": "applied",
            "HttpEndpoint": enabled(record.metadata.enabled),
            "HttpTokens": if record.metadata.tokens_required { "required" } else { "optional" },
            "HttpPutResponseHopLimit": record.metadata.hop_limit,
            "InstanceMetadataTags": enabled(record.metadata.instance_tags),
        }),
    );
    if let Some(public) = public_address(record) {
        put("PublicIpAddress", json!(public));
    }
    let mut interfaces = vec![json!({
        "NetworkInterfaceId": record.network.interface_id,
        "MacAddress": record.network.mac,
        "PrivateIpAddress": record.network.private_ip,
        "PrivateDnsName": record.private_dns_name(),
    })];
    if let Some(place) = &record.place {
        let primary = &mut interfaces[0];
        primary["SubnetId"] = json!(place.subnet_id);
        primary["VpcId"] = json!(place.vpc_id);
        primary["Groups"] = groups(&place.groups);
        interfaces.extend(place.interfaces.iter().map(|one| {
            json!({
                "NetworkInterfaceId": one.interface_id,
                "MacAddress": one.mac,
                "PrivateIpAddress": one.private_ips.first(),
                "SubnetId": one.subnet_id,
                "VpcId": place.vpc_id,
                "Groups": groups(&one.groups),
                "Attachment": { "DeviceIndex": one.device_index },
            })
        }));
        put("SubnetId", json!(place.subnet_id));
        put("VpcId", json!(place.vpc_id));
        put("SecurityGroups", groups(&place.groups));
        put("Placement", json!({ "AvailabilityZone": place.zone }));
        put("AmiLaunchIndex", json!(place.launch_index));
    }
    put("NetworkInterfaces", json!(interfaces));
    let volumes = || {
        record
            .disks
            .iter()
            .filter(|disk| disk.kind != DiskKind::Scratch)
    };
    if let Some(root) = volumes().find(|disk| disk.kind == DiskKind::Root) {
        put("RootDeviceName", json!(root.device));
        put("RootDeviceType", json!("ebs"));
    }
    put(
        "BlockDeviceMappings",
        volumes()
            .map(|disk| {
                let mut places = record.place.iter();
                let kept = places.any(|place| place.kept_volumes.contains(&disk.id));
                json!({
                    "DeviceName": disk.device,
                    "Ebs": { "VolumeId": disk.id, "Status": "attached", "DeleteOnTermination": !kept },
                })
            })
            .collect(),
    );
    put(
        "Tags",
        record
            .tags
            .iter()
            .map(|(key, value)| json!({ "Key": key, "Value": value }))
            .collect(),
    );
    put("Cumulet", local(record, folder));
    Value::Object(out)
}

fn groups(groups: &[(String, String)]) -> Value {
    groups
        .iter()
        .map(|(id, name)| json!({ "GroupId": id, "GroupName": name }))
        .collect()
}

/// The public address, which an instance has as long as it is not stopped.
pub(super) fn public_address(record: &Record) -> Option<Ipv4Addr> {
    let place = record.place.as_ref();
    place
        .filter(|_| record.state != State::Stopped)
        .and_then(|place| place.public_ip)
}

fn enabled(yes: bool) -> &'static str {
    if yes { "enabled" } else { "disabled" }
}

fn local(record: &Record, folder: &Path) -> Value {
    let disks: Vec<Value> = record
        .disks
        .iter()
        .map(|disk| {
            json!({
                "Kind": disk.kind,
                "Device": disk.device,
                "Serial": disk.serial(),
                "SizeBytes": disk.size,
            })
        })
        .collect();
    json!({
        "Keep": record.keep,
        "Owner": if record.place.is_some() { "api" } else { "command-line" },
        "VCpus": record.hardware.vcpus,
        "MemoryMiB": record.hardware.memory_mib,
        "Disks": disks,
        "Publish": record.network.publish,
        "Uplink": record.network.uplink,
        "Folder": folder,
        "ConsoleLog": folder.join(CONSOLE_LOG),
        "SupervisorLog": folder.join(SUPERVISOR_LOG),
    })
}

/// `InstanceStateChange` of EC2's StopInstances and its kin.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StateChange {
    instance_id: String,
    previous_state: Value,
    current_state: Value,
}

impl StateChange {
    pub(super) fn new(id: &str, previous: State, current: State) -> Self {
        Self {
            instance_id: id.to_owned(),
            previous_state: state_value(previous),
            current_state: state_value(current),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let name = |state: &Value| state["Name"].as_str().unwrap_or_default().to_owned();
        format!(
            "{}: {} -> {}",
            self.instance_id,
            name(&self.previous_state),
            name(&self.current_state)
        )
    }
}

/// A type in EC2's DescribeInstanceTypes shape.
pub(super) fn instance_type(known: &crate::types::InstanceType) -> Value {
    json!({
        "InstanceType": known.name,
        "VCpuInfo": { "DefaultVCpus": known.vcpus },
        "MemoryInfo": { "SizeInMiB": known.memory_mib },
        "ProcessorInfo": { "SupportedArchitectures": [known.architecture.name()] },
    })
}
