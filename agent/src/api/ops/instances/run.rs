//! RunInstances.

use super::plan::{Plan, plan};
use super::view;
use crate::api::ops::images;
use crate::api::shapes::instances::{Reservation, RunInstancesRequest};
use crate::api::tokens::{Stamp, repeated};
use crate::api::wire::Timestamp;
use crate::api::{ApiError, Call};
use crate::cloud::instance::{Device, Instance, ShutdownBehavior, Volume};
use crate::cloud::{Cloud, Identity, Region, net};
use crate::engine::records;
use crate::fault;
use crate::ids;
use crate::state::record::State;
use crate::types::{self, InstanceType};

/// EC2's limit on user data, before base64.
const USER_DATA_LIMIT: usize = 16_384;
/// More than one call may launch.
const COUNT_LIMIT: i32 = 1000;

pub(super) fn run_instances(
    cloud: &Cloud,
    call: &Call,
    request: RunInstancesRequest,
) -> Result<Reservation, ApiError> {
    let (min, max) = (request.min_count, request.max_count);
    if min < 1 || max < min {
        return Err(ApiError::value(
            "MinCount",
            &min.to_string(),
            "MinCount is 1 or more and at most MaxCount",
        ));
    }
    if max > COUNT_LIMIT {
        return Err(ApiError::new(
            "InstanceLimitExceeded",
            format!(
                "You have requested more instances ({max}) than one call may launch ({COUNT_LIMIT})"
            ),
        ));
    }
    let stamp = Stamp::of(&request, request.client_token.as_ref())?;
    let image_id = request
        .image_id
        .as_deref()
        .ok_or_else(|| ApiError::missing("ImageId"))?;
    let image = images::usable(cloud, call, image_id)?;
    let launched = cloud.change(&call.region, |region| {
        if let Some(made) = repeated(&region.instances, stamp.as_ref())? {
            return Ok(show(cloud, region, &made.reservation_id));
        }
        let plan = plan(cloud, region, &request, image, stamp)?;
        let count = cloud.room_for(region, &plan.kind, min, max)?;
        if count > 1
            && plan
                .interfaces
                .iter()
                .any(|eni| eni.address.is_some() || eni.existing.is_some())
        {
            return Err(ApiError::combination(
                "An address or a network interface of your choice goes with one instance only",
            ));
        }
        let reservation_id = ids::new("r");
        for index in 0..count {
            launch(
                cloud.identity(),
                region,
                &plan,
                &request,
                &reservation_id,
                index,
            )?;
        }
        call.go()?;
        Ok(show(cloud, region, &reservation_id))
    })?;
    fault::entered(State::Pending);
    Ok(launched)
}

fn show(cloud: &Cloud, region: &Region, reservation_id: &str) -> Reservation {
    let mut instances: Vec<&Instance> = region
        .instances
        .iter()
        .filter(|instance| instance.reservation_id == reservation_id)
        .collect();
    instances.sort_by_key(|instance| instance.launch_index);
    Reservation {
        reservation_id: reservation_id.to_owned(),
        owner_id: cloud.identity().account.clone(),
        groups: Vec::new(),
        instances: instances
            .into_iter()
            .map(|instance| {
                let interfaces = net::interfaces_of(region, &instance.instance_id);
                view::instance(region, cloud.identity(), instance, &interfaces)
            })
            .collect(),
    }
}

/// The type with this name.
pub(super) fn instance_type(name: &str) -> Result<InstanceType, ApiError> {
    types::find(name).map_err(|error| {
        let mend = error
            .mend
            .map(|mend| format!("; {mend}"))
            .unwrap_or_default();
        ApiError::new(
            "InvalidParameterValue",
            format!("Invalid value '{name}' for InstanceType{mend}."),
        )
    })
}

/// EC2's words for a type and an image that do not fit.
pub(super) fn architecture_differs(kind: &InstanceType, image: &str) -> ApiError {
    ApiError::new(
        "InvalidParameterValue",
        format!(
            "The architecture '{}' of the specified instance type does not match the architecture '{image}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.",
            kind.architecture.name()
        ),
    )
}

/// Reads `stop` or `terminate`.
pub(super) fn shutdown_behavior(value: &str) -> Result<ShutdownBehavior, ApiError> {
    match value {
        "stop" => Ok(ShutdownBehavior::Stop),
        "terminate" => Ok(ShutdownBehavior::Terminate),
        _ => Err(ApiError::value(
            "InstanceInitiatedShutdownBehavior",
            value,
            "use stop or terminate",
        )),
    }
}

/// EC2's limit on user data.
pub(super) fn check_user_data(bytes: &[u8]) -> Result<(), ApiError> {
    if bytes.len() > USER_DATA_LIMIT {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("User data is limited to {USER_DATA_LIMIT} bytes"),
        ));
    }
    Ok(())
}

fn launch(
    identity: &Identity,
    region: &mut Region,
    plan: &Plan,
    request: &RunInstancesRequest,
    reservation_id: &str,
    launch_index: i32,
) -> Result<(), ApiError> {
    let id = ids::new("i");
    let now = Timestamp::now();
    let mut zone = String::new();
    for wanted in &plan.interfaces {
        if let Some(subnet) = region.subnets.get(&wanted.subnet) {
            zone.clone_from(&subnet.availability_zone);
        }
        let eni = match &wanted.existing {
            Some(eni) => eni.clone(),
            None => {
                let spec = net::InterfaceSpec {
                    subnet_id: &wanted.subnet,
                    groups: wanted.groups.clone(),
                    private_ip: wanted.address,
                    description: wanted.description.clone(),
                    tags: plan.tags_of("network-interface"),
                };
                net::create_interface(region, identity, spec)?
            }
        };
        net::attach_interface(region, &eni, &id, wanted.index, wanted.delete)?;
        // An instance with several interfaces gets no public address of its own accord (EC2 user guide, "Amazon EC2
        // instance IP addressing").
        if plan.interfaces.len() == 1 {
            net::assign_public(region, &eni, wanted.public)?;
        }
    }
    let mut devices = Vec::new();
    for wanted in &plan.devices {
        let volume_id = ids::new("vol");
        region.volumes.insert(Volume {
            volume_id: volume_id.clone(),
            size: wanted.size,
            zone: zone.clone(),
            volume_type: wanted.volume_type.clone(),
            iops: records::iops(&wanted.volume_type, wanted.iops, wanted.size),
            throughput: records::throughput(&wanted.volume_type, wanted.throughput),
            create_time: now,
            instance_id: Some(id.clone()),
            tags: plan.tags_of("volume"),
        });
        devices.push(Device {
            name: wanted.device.clone(),
            volume_id,
            delete_on_termination: wanted.delete,
            attach_time: now,
        });
    }
    region.instances.insert(Instance {
        instance_id: id,
        reservation_id: reservation_id.to_owned(),
        launch_index,
        state: State::Pending,
        state_reason: None,
        transition_reason: String::new(),
        forced: false,
        reboots: 0,
        reboots_done: 0,
        launched: false,
        image_id: plan.image.ami.id.clone(),
        architecture: plan.image.architecture(),
        root_device: plan.image.ami.root_device_name.clone(),
        instance_type: plan.kind.name.clone(),
        key_name: plan.key.as_ref().map(|(name, _)| name.clone()),
        public_key: plan.key.as_ref().map(|(_, key)| key.clone()),
        launch_time: now,
        zone,
        tenancy: plan.tenancy.clone(),
        user_data: request.user_data.clone().filter(|text| !text.is_empty()),
        shutdown_behavior: plan.behavior,
        disable_api_termination: request.disable_api_termination == Some(true),
        disable_api_stop: request.disable_api_stop == Some(true),
        monitoring: request
            .monitoring
            .as_ref()
            .is_some_and(|m| m.enabled == Some(true)),
        ebs_optimized: request.ebs_optimized == Some(true),
        metadata: plan.metadata,
        hibernation: request
            .hibernation_options
            .as_ref()
            .is_some_and(|options| options.configured == Some(true)),
        profile_arn: plan.profile.clone(),
        cpu_credits: plan.credits.clone(),
        stamp: plan.stamp.clone(),
        devices,
        terminated: None,
        tags: plan.tags_of("instance"),
    });
    Ok(())
}
