//! One attribute at a time: DescribeInstanceAttribute, ModifyInstanceAttribute, ResetInstanceAttribute.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{edit, find, run, view};
use crate::api::shapes::common::{
    AttributeBooleanValue, AttributeValue, BooleanValue, Done, StringValue,
};
use crate::api::shapes::instances::{InstanceAttribute, InstanceAttributeRequest};
use crate::api::wire::{Blob, shapes};
use crate::api::{ApiError, Call};
use crate::cloud::instance::Instance;
use crate::cloud::{Cloud, Region, net};
use crate::state::record::State;

shapes! {
    /// `BlobAttributeValue`.
    input BlobValue {
        /// Bytes.
        value: Option<Blob> = "Value",
    }
    /// `EbsInstanceBlockDeviceSpecification`.
    input DeviceEbsInput {
        /// Whether the volume goes with the instance.
        delete_on_termination: Option<bool> = "DeleteOnTermination",
        /// Which volume; it must be the one that is there.
        volume_id: Option<String> = "VolumeId",
    }
    /// `InstanceBlockDeviceMappingSpecification`.
    input DeviceInput {
        /// `/dev/sda1`.
        device_name: Option<String> = "DeviceName",
        /// The volume.
        ebs: Option<DeviceEbsInput> = "Ebs",
    }
    /// Request of ModifyInstanceAttribute.
    input ModifyAttributeRequest {
        /// Id.
        instance_id: String = "InstanceId",
        /// Which, in the old spelling.
        attribute: Option<String> = "Attribute",
        /// Its value, in the old spelling.
        value: Option<String> = "Value",
        /// Volumes.
        block_device_mappings: Vec<DeviceInput> = "BlockDeviceMapping",
        /// Source/destination check.
        source_dest_check: Option<BooleanValue> = "SourceDestCheck",
        /// Stop protection.
        disable_api_stop: Option<BooleanValue> = "DisableApiStop",
        /// Termination protection.
        disable_api_termination: Option<BooleanValue> = "DisableApiTermination",
        /// Type.
        instance_type: Option<StringValue> = "InstanceType",
        /// User data.
        user_data: Option<BlobValue> = "UserData",
        /// Shutdown behaviour.
        shutdown_behavior: Option<StringValue> = "InstanceInitiatedShutdownBehavior",
        /// Security groups.
        groups: Vec<String> = "GroupId",
        /// EBS optimization.
        ebs_optimized: Option<BooleanValue> = "EbsOptimized",
        /// ENA.
        ena_support: Option<BooleanValue> = "EnaSupport",
    }
}

pub(super) fn describe_instance_attribute(
    cloud: &Cloud,
    call: &Call,
    request: InstanceAttributeRequest,
) -> Result<InstanceAttribute, ApiError> {
    cloud.read(&call.region, |region| {
        let instance = find(region, &request.instance_id)?;
        attribute(region, instance, &request.attribute)
    })?
}

fn attribute(
    region: &Region,
    instance: &Instance,
    name: &str,
) -> Result<InstanceAttribute, ApiError> {
    let text = |value: Option<String>| Some(AttributeValue { value });
    let flag = |value: bool| Some(AttributeBooleanValue { value: Some(value) });
    let interfaces = net::interfaces_of(region, &instance.instance_id);
    let primary = interfaces.first();
    let mut answer = InstanceAttribute {
        instance_id: instance.instance_id.clone(),
        ..InstanceAttribute::default()
    };
    match name {
        "blockDeviceMapping" => answer.block_device_mappings = Some(view::devices(instance)),
        "disableApiTermination" => {
            answer.disable_api_termination = flag(instance.disable_api_termination);
        }
        "disableApiStop" => answer.disable_api_stop = flag(instance.disable_api_stop),
        "enaSupport" => answer.ena_support = flag(true),
        "ebsOptimized" => answer.ebs_optimized = flag(instance.ebs_optimized),
        "instanceInitiatedShutdownBehavior" => {
            answer.shutdown_behavior = text(Some(instance.shutdown_behavior.name().to_owned()));
        }
        "instanceType" => answer.instance_type = text(Some(instance.instance_type.clone())),
        "kernel" => answer.kernel = text(None),
        "ramdisk" => answer.ramdisk = text(None),
        "productCodes" => answer.product_codes = Some(Vec::new()),
        "rootDeviceName" => answer.root_device_name = text(Some(instance.root_device.clone())),
        "sriovNetSupport" => answer.sriov_net_support = text(None),
        "sourceDestCheck" => {
            answer.source_dest_check = flag(primary.is_none_or(|eni| eni.source_dest_check));
        }
        "groupSet" => {
            let ids = primary.map_or_else(Vec::new, |eni| eni.groups.clone());
            answer.groups = Some(view::groups(region, &ids));
        }
        "userData" => answer.user_data = text(instance.user_data.clone()),
        other => {
            return Err(ApiError::value("attribute", other, "Unknown attribute"));
        }
    }
    Ok(answer)
}

pub(super) fn modify_instance_attribute(
    cloud: &Cloud,
    call: &Call,
    mut request: ModifyAttributeRequest,
) -> Result<Done, ApiError> {
    old_spelling(&mut request)?;
    let asked = [
        !request.block_device_mappings.is_empty(),
        request.source_dest_check.is_some(),
        request.disable_api_stop.is_some(),
        request.disable_api_termination.is_some(),
        request.instance_type.is_some(),
        request.user_data.is_some(),
        request.shutdown_behavior.is_some(),
        !request.groups.is_empty(),
        request.ebs_optimized.is_some(),
        request.ena_support.is_some(),
    ];
    match asked.iter().filter(|asked| **asked).count() {
        0 => return Err(ApiError::combination("No attributes specified.")),
        1 => {}
        _ => {
            return Err(ApiError::combination(
                "Fields for multiple attribute types specified: one attribute can be modified at a time",
            ));
        }
    }
    let id = request.instance_id.clone();
    cloud.change(&call.region, |region| {
        let alive = find(region, &id)?.is_alive();
        if !alive {
            return Err(super::wrong_state(&id, "modified"));
        }
        modify(cloud, region, &request)?;
        call.go()
    })?;
    Ok(Done::yes())
}

/// `Attribute=…&Value=…` means the same as the attribute's own parameter.
fn old_spelling(request: &mut ModifyAttributeRequest) -> Result<(), ApiError> {
    let Some(name) = request.attribute.take() else {
        return match request.value.take() {
            Some(_) => Err(ApiError::missing("Attribute")),
            None => Ok(()),
        };
    };
    // The block device mapping and the groups have parameters of their own beside the name.
    if name == "blockDeviceMapping" || name == "groupSet" {
        return Ok(());
    }
    let value = request
        .value
        .take()
        .ok_or_else(|| ApiError::missing("Value"))?;
    let text = || {
        Some(StringValue {
            value: Some(value.clone()),
        })
    };
    let flag = || match value.as_str() {
        "true" | "false" => Ok(Some(BooleanValue {
            value: Some(value == "true"),
        })),
        other => Err(ApiError::value("Value", other, "use true or false")),
    };
    match name.as_str() {
        "instanceType" => request.instance_type = text(),
        "instanceInitiatedShutdownBehavior" => request.shutdown_behavior = text(),
        "disableApiTermination" => request.disable_api_termination = flag()?,
        "disableApiStop" => request.disable_api_stop = flag()?,
        "sourceDestCheck" => request.source_dest_check = flag()?,
        "ebsOptimized" => request.ebs_optimized = flag()?,
        "enaSupport" => request.ena_support = flag()?,
        "userData" => {
            let bytes = STANDARD
                .decode(&value)
                .map_err(|_| ApiError::value("Value", &value, "base64 is expected"))?;
            request.user_data = Some(BlobValue {
                value: Some(Blob(bytes)),
            });
        }
        other => {
            return Err(ApiError::value("attribute", other, "It cannot be modified"));
        }
    }
    Ok(())
}

fn modify(
    cloud: &Cloud,
    region: &mut Region,
    request: &ModifyAttributeRequest,
) -> Result<(), ApiError> {
    let id = &request.instance_id;
    let flag = |value: &BooleanValue| value.value.ok_or_else(|| ApiError::missing("Value"));
    if let Some(value) = &request.disable_api_stop {
        edit(region, id)?.disable_api_stop = flag(value)?;
    }
    if let Some(value) = &request.disable_api_termination {
        edit(region, id)?.disable_api_termination = flag(value)?;
    }
    if let Some(value) = &request.ena_support
        && !flag(value)?
    {
        return Err(ApiError::unsupported(
            "instances here always have enhanced networking",
        ));
    }
    if let Some(value) = &request.shutdown_behavior {
        edit(region, id)?.shutdown_behavior =
            run::shutdown_behavior(value.value.as_deref().unwrap_or_default())?;
    }
    for device in &request.block_device_mappings {
        let name = device.device_name.as_deref().unwrap_or_default();
        let delete = device
            .ebs
            .as_ref()
            .and_then(|ebs| ebs.delete_on_termination);
        let instance = edit(region, id)?;
        let found = instance.devices.iter_mut().find(|have| have.name == name);
        let found = found.ok_or_else(|| {
            ApiError::new(
                "InvalidInstanceAttributeValue",
                format!("No device is currently mapped at {name}"),
            )
        })?;
        if let Some(volume) = device.ebs.as_ref().and_then(|ebs| ebs.volume_id.as_ref())
            && *volume != found.volume_id
        {
            return Err(ApiError::new(
                "InvalidInstanceAttributeValue",
                format!("{volume} is not the volume at {name}"),
            ));
        }
        found.delete_on_termination = delete
            .ok_or_else(|| ApiError::missing("BlockDeviceMapping.Ebs.DeleteOnTermination"))?;
    }
    let interface = net::interfaces_of(region, id)
        .first()
        .map(|eni| (eni.network_interface_id.clone(), eni.vpc_id.clone()));
    if let (Some(value), Some((eni, _))) = (&request.source_dest_check, &interface) {
        let check = flag(value)?;
        if let Some(eni) = region.interfaces.edit(eni) {
            eni.source_dest_check = check;
        }
    }
    if let (false, Some((eni, vpc))) = (request.groups.is_empty(), &interface) {
        let groups = net::resolve_groups(region, vpc, &request.groups, &[])?;
        if let Some(eni) = region.interfaces.edit(eni) {
            eni.groups = groups;
        }
    }
    modify_stopped(cloud, region, request)
}

/// What can be changed only while the instance is stopped.
fn modify_stopped(
    cloud: &Cloud,
    region: &mut Region,
    request: &ModifyAttributeRequest,
) -> Result<(), ApiError> {
    let id = &request.instance_id;
    let stopped = find(region, id)?.state == State::Stopped;
    let must_be_stopped = |what: &str| {
        if stopped {
            return Ok(());
        }
        Err(ApiError::new(
            "IncorrectInstanceState",
            format!(
                "The instance '{id}' is not in the 'stopped' state: its {what} can only be modified then."
            ),
        ))
    };
    if let Some(value) = &request.instance_type {
        must_be_stopped("type")?;
        let kind = run::instance_type(value.value.as_deref().unwrap_or_default())?;
        let instance = edit(region, id)?;
        if kind.architecture.name() != instance.architecture {
            return Err(run::architecture_differs(&kind, &instance.architecture));
        }
        instance.cpu_credits = super::options::default_credits(&kind);
        instance.instance_type.clone_from(&kind.name);
        cloud.check_type(&kind)?;
    }
    if let Some(value) = &request.user_data {
        must_be_stopped("user data")?;
        let bytes = value.value.clone().unwrap_or_default().0;
        run::check_user_data(&bytes)?;
        edit(region, id)?.user_data = (!bytes.is_empty()).then(|| STANDARD.encode(bytes));
    }
    if let Some(value) = &request.ebs_optimized {
        must_be_stopped("EBS optimization")?;
        edit(region, id)?.ebs_optimized = value.value.ok_or_else(|| ApiError::missing("Value"))?;
    }
    Ok(())
}

pub(super) fn reset_instance_attribute(
    cloud: &Cloud,
    call: &Call,
    request: InstanceAttributeRequest,
) -> Result<Done, ApiError> {
    let id = request.instance_id;
    cloud.change(&call.region, |region| {
        find(region, &id)?;
        match request.attribute.as_str() {
            "sourceDestCheck" => {
                let eni = net::interfaces_of(region, &id)
                    .first()
                    .map(|eni| eni.network_interface_id.clone());
                if let Some(eni) = eni.and_then(|eni| region.interfaces.edit(&eni)) {
                    eni.source_dest_check = true;
                }
            }
            // They come from the image, whatever was there before.
            "kernel" | "ramdisk" => {
                if find(region, &id)?.state != State::Stopped {
                    return Err(super::wrong_state(&id, "reset"));
                }
            }
            other => {
                return Err(ApiError::value(
                    "attribute",
                    other,
                    "use kernel, ramdisk or sourceDestCheck",
                ));
            }
        }
        call.go()
    })?;
    Ok(Done::yes())
}
