//! Records in the shape of EC2's own answers, so that `--output json` reads as
//! `aws ec2 describe-instances --output json` does.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::size::Size;
use crate::state::record::{DiskKind, Record, State};

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
    put(
        "NetworkInterfaces",
        json!([{
            "NetworkInterfaceId": record.network.interface_id,
            "MacAddress": record.network.mac,
            "PrivateIpAddress": record.network.private_ip,
            "PrivateDnsName": record.private_dns_name(),
        }]),
    );
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
                json!({
                    "DeviceName": disk.device,
                    "Ebs": { "VolumeId": disk.id, "Status": "attached", "DeleteOnTermination": true },
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
        "VCpus": record.hardware.vcpus,
        "MemoryMiB": record.hardware.memory_mib,
        "Disks": disks,
        "Publish": record.network.publish,
        "Uplink": record.network.uplink,
        "Folder": folder,
        "ConsoleLog": folder.join("console.log"),
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

/// One instance for people, in many lines.
pub(super) fn text(record: &Record, folder: &Path) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    lines.push(("instance", record.instance_id.clone()));
    if let Some(name) = record.name() {
        lines.push(("name", name.to_owned()));
    }
    lines.push(("state", record.state.to_string()));
    if let Some(reason) = &record.state_reason {
        lines.push(("reason", reason.message.clone()));
    }
    let memory = Size(record.hardware.memory_mib << 20);
    lines.push((
        "type",
        format!(
            "{} ({} vCPU{}, {memory})",
            record.hardware.instance_type,
            record.hardware.vcpus,
            if record.hardware.vcpus == 1 { "" } else { "s" }
        ),
    ));
    if let Some(image) = &record.image {
        lines.push(("image", format!("{} ({})", image.id, image.name)));
    }
    if let Some(direct) = &record.hardware.direct {
        lines.push(("kernel", direct.kernel.display().to_string()));
    }
    lines.push(("launched", timestamp(record.launch_time)));
    lines.push((
        "address",
        format!("{} ({})", record.network.private_ip, record.network.mac),
    ));
    for port in &record.network.publish {
        lines.push((
            "publish",
            format!("{}:{} -> {}", port.address, port.host, port.guest),
        ));
    }
    if let Some(key) = &record.key {
        lines.push(("key", key.name.clone()));
    }
    for disk in &record.disks {
        let kind = match disk.kind {
            DiskKind::Root => "root volume",
            DiskKind::Data => "volume",
            DiskKind::Scratch => "scratch disk",
        };
        lines.push((
            "disk",
            format!("{} {} ({kind} {})", disk.device, disk.size, disk.id),
        ));
    }
    for (key, value) in &record.tags {
        lines.push(("tag", format!("{key}={value}")));
    }
    lines.push((
        "kept",
        if record.keep {
            "yes"
        } else {
            "no: ends with its command"
        }
        .to_owned(),
    ));
    lines.push(("folder", folder.display().to_string()));
    lines
        .into_iter()
        .map(|(key, value)| format!("{key:<9} {value}\n"))
        .collect()
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
