//! RunInstances.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::{options, view};
use crate::api::ops::images;
use crate::api::shapes::instances::{
    BlockDeviceInput, InterfaceInput, Reservation, RunInstancesRequest,
};
use crate::api::wire::Timestamp;
use crate::api::{ApiError, Call, tagging};
use crate::cloud::instance::{Device, Instance, ShutdownBehavior, Volume};
use crate::cloud::table::Tags;
use crate::cloud::{Cloud, Identity, Region, net};
use crate::engine::{Image, records};
use crate::ids;
use crate::state::record::{MetadataOptions, State};
use crate::types::{self, InstanceType};

/// EC2's limit on user data, before base64.
const USER_DATA_LIMIT: usize = 16_384;
/// EC2's limit on the size of most volumes, GiB.
const VOLUME_LIMIT: i32 = 65_536;
/// What a launch makes that can be tagged by it.
const MADE: [&str; 3] = ["instance", "volume", "network-interface"];
/// More than one call may launch.
const COUNT_LIMIT: i32 = 1000;

/// Everything that was checked and is the same for all instances of a call.
struct Plan {
    image: Image,
    kind: InstanceType,
    key: Option<(String, String)>,
    devices: Vec<Wanted>,
    interfaces: Vec<WantedInterface>,
    tags: BTreeMap<String, Tags>,
    metadata: MetadataOptions,
    behavior: ShutdownBehavior,
    credits: Option<String>,
    profile: Option<String>,
    tenancy: String,
    digest: String,
}

impl Plan {
    fn tags_of(&self, kind: &str) -> Tags {
        self.tags.get(kind).cloned().unwrap_or_default()
    }
}

/// A volume to be made.
struct Wanted {
    device: String,
    size: i32,
    volume_type: String,
    iops: Option<i32>,
    throughput: Option<i32>,
    delete: bool,
}

/// An interface to be made, or one that is there.
#[derive(Default)]
struct WantedInterface {
    existing: Option<String>,
    index: i32,
    subnet: String,
    groups: Vec<String>,
    address: Option<Ipv4Addr>,
    public: Option<bool>,
    delete: bool,
    description: String,
}

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
    let digest = digest(&request)?;
    let image_id = request
        .image_id
        .as_deref()
        .ok_or_else(|| ApiError::missing("ImageId"))?;
    // Whether it is there for this caller; what it takes to boot it is asked for below.
    images::usable(cloud, call, image_id)?;
    cloud.change(&call.region, |region| {
        if let Some(found) = repeated(cloud, region, &request, &digest)? {
            return Ok(found);
        }
        let plan = plan(cloud, region, &request, digest)?;
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
    })
}

/// Digest of the parameters, to tell a repeated request from another one with the same token.
fn digest(request: &RunInstancesRequest) -> Result<String, ApiError> {
    let bytes = serde_json::to_vec(request)
        .map_err(|error| ApiError::internal(format!("cannot digest the request: {error}")))?;
    Ok(STANDARD.encode(Sha256::digest(bytes)))
}

/// The reservation of an earlier request with this token.
fn repeated(
    cloud: &Cloud,
    region: &Region,
    request: &RunInstancesRequest,
    digest: &str,
) -> Result<Option<Reservation>, ApiError> {
    let Some(token) = &request.client_token else {
        return Ok(None);
    };
    if token.len() > 64 || !token.is_ascii() {
        return Err(ApiError::value(
            "ClientToken",
            token,
            "use at most 64 ASCII characters",
        ));
    }
    let same = |instance: &&Instance| instance.client_token.as_ref() == Some(token);
    match region.instances.iter().find(same) {
        None => Ok(None),
        Some(found) if found.token_digest == digest => {
            Ok(Some(show(cloud, region, &found.reservation_id)))
        }
        Some(_) => Err(ApiError::new(
            "IdempotentParameterMismatch",
            format!(
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s) with the ClientToken '{token}'."
            ),
        )),
    }
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
            .map(|instance| view::instance(region, cloud.identity(), instance))
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

fn plan(
    cloud: &Cloud,
    region: &Region,
    request: &RunInstancesRequest,
    digest: String,
) -> Result<Plan, ApiError> {
    let image = cloud.image(request.image_id.as_deref().unwrap_or_default())?;
    // EC2's own default, m1.small, has no hardware left there either.
    let kind = instance_type(request.instance_type.as_deref().unwrap_or(types::DEFAULT))?;
    if kind.architecture.name() != image.architecture {
        return Err(architecture_differs(&kind, &image.architecture));
    }
    cloud.check_type(&kind)?;
    if let Some(text) = &request.user_data {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| {
            ApiError::new(
                "InvalidParameterValue",
                "Invalid BASE64 encoding of user data.",
            )
        })?;
        check_user_data(&bytes)?;
    }
    let mut metadata = MetadataOptions::default();
    if let Some(wanted) = &request.metadata_options {
        options::apply_metadata(&mut metadata, wanted, "MetadataOptions.")?;
    }
    let tags = tagging::from_specifications_for(&request.tag_specifications, &MADE)?;
    let credits = match request
        .credit_specification
        .as_ref()
        .and_then(|c| c.cpu_credits.clone())
    {
        Some(wanted) => {
            options::credits(&wanted)?;
            if options::default_credits(&kind).is_none() {
                return Err(ApiError::combination(
                    "The CreditSpecification parameter goes with burstable performance instance types only",
                ));
            }
            Some(wanted)
        }
        None => options::default_credits(&kind),
    };
    Ok(Plan {
        key: key(region, request.key_name.as_deref())?,
        devices: devices(&image, &request.block_device_mappings)?,
        interfaces: interfaces(cloud, region, request)?,
        tags,
        metadata,
        behavior: request
            .instance_initiated_shutdown_behavior
            .as_deref()
            .map(shutdown_behavior)
            .transpose()?
            .unwrap_or_default(),
        credits,
        profile: profile(cloud.identity(), request)?,
        tenancy: tenancy(request)?,
        image,
        kind,
        digest,
    })
}

fn key(region: &Region, name: Option<&str>) -> Result<Option<(String, String)>, ApiError> {
    let Some(name) = name else {
        return Ok(None);
    };
    match region.key_pairs.get(name) {
        Some(key) => Ok(Some((key.key_name.clone(), key.public_key.clone()))),
        None => Err(ApiError::new(
            "InvalidKeyPair.NotFound",
            format!("The key pair '{name}' does not exist"),
        )),
    }
}

fn profile(identity: &Identity, request: &RunInstancesRequest) -> Result<Option<String>, ApiError> {
    let Some(profile) = &request.iam_instance_profile else {
        return Ok(None);
    };
    match (&profile.arn, &profile.name) {
        (Some(_), Some(_)) => Err(ApiError::combination(
            "The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'",
        )),
        (Some(arn), None) => Ok(Some(arn.clone())),
        (None, Some(name)) => Ok(Some(format!(
            "arn:aws:iam::{}:instance-profile/{name}",
            identity.account
        ))),
        (None, None) => Ok(None),
    }
}

fn tenancy(request: &RunInstancesRequest) -> Result<String, ApiError> {
    let placement = request.placement.as_ref();
    if let Some(group) = placement
        .and_then(|p| p.group_name.as_deref())
        .filter(|g| !g.is_empty())
    {
        return Err(ApiError::new(
            "InvalidPlacementGroup.Unknown",
            format!("The Placement Group '{group}' is unknown."),
        ));
    }
    match placement.and_then(|placement| placement.tenancy.as_deref()) {
        None | Some("default") => Ok("default".to_owned()),
        Some("dedicated") => Ok("dedicated".to_owned()),
        Some("host") => Err(ApiError::unsupported("cumulet has no dedicated hosts")),
        Some(other) => Err(ApiError::value(
            "Placement.Tenancy",
            other,
            "use default or dedicated",
        )),
    }
}

fn devices(image: &Image, wanted: &[BlockDeviceInput]) -> Result<Vec<Wanted>, ApiError> {
    let bad = |message: String| ApiError::new("InvalidBlockDeviceMapping", message);
    let mut devices = vec![Wanted {
        device: image.root_device.clone(),
        size: image.size_gib,
        volume_type: "gp3".to_owned(),
        iops: None,
        throughput: None,
        delete: true,
    }];
    for (number, mapping) in wanted.iter().enumerate() {
        let name = mapping.device_name.clone().ok_or_else(|| {
            ApiError::missing(&format!("BlockDeviceMapping.{}.DeviceName", number + 1))
        })?;
        if mapping.no_device.is_some() {
            if name == image.root_device {
                return Err(bad("the root device cannot be left out".to_owned()));
            }
            continue;
        }
        // Instance store comes with the type; naming it changes nothing, as on Nitro types.
        if mapping.virtual_name.is_some() {
            continue;
        }
        let Some(ebs) = &mapping.ebs else {
            return Err(bad(format!("the mapping of {name} names no volume")));
        };
        if let Some(snapshot) = &ebs.snapshot_id {
            return Err(ApiError::new(
                "InvalidSnapshot.NotFound",
                format!("The snapshot '{snapshot}' does not exist."),
            ));
        }
        if ebs.encrypted == Some(true) || ebs.kms_key_id.is_some() {
            return Err(ApiError::unsupported("cumulet cannot encrypt volumes yet"));
        }
        let root = name == image.root_device;
        let size = match ebs.volume_size {
            None if root => image.size_gib,
            None => {
                return Err(ApiError::missing(&format!(
                    "BlockDeviceMapping.{}.Ebs.VolumeSize",
                    number + 1
                )));
            }
            Some(size) if root && size < image.size_gib => {
                return Err(bad(format!(
                    "Volume of size {size}GB is smaller than snapshot '{}', expect size >= {}GB",
                    image.id, image.size_gib
                )));
            }
            Some(size) if (1..=VOLUME_LIMIT).contains(&size) => size,
            Some(size) => {
                return Err(ApiError::value(
                    "VolumeSize",
                    &size.to_string(),
                    &format!("use 1 to {VOLUME_LIMIT}"),
                ));
            }
        };
        let volume_type = volume_type(ebs.volume_type.as_deref())?;
        let made = Wanted {
            device: name.clone(),
            size,
            iops: ebs.iops,
            throughput: ebs.throughput,
            volume_type,
            // As EC2 does unless told.
            delete: ebs.delete_on_termination.unwrap_or(root),
        };
        match devices.iter_mut().find(|have| have.device == name) {
            Some(place) if root => *place = made,
            Some(_) => return Err(bad(format!("the device {name} is mapped twice"))),
            None => devices.push(made),
        }
    }
    Ok(devices)
}

fn volume_type(wanted: Option<&str>) -> Result<String, ApiError> {
    match wanted {
        None => Ok("gp3".to_owned()),
        Some(known @ ("gp2" | "gp3" | "io1" | "io2" | "st1" | "sc1" | "standard")) => {
            Ok(known.to_owned())
        }
        Some(other) => Err(ApiError::value(
            "VolumeType",
            other,
            "use gp2, gp3, io1, io2, st1, sc1 or standard",
        )),
    }
}

fn address(text: Option<&str>, parameter: &str) -> Result<Option<Ipv4Addr>, ApiError> {
    text.map(|text| {
        text.parse()
            .map_err(|_| ApiError::value(parameter, text, "It is no IPv4 address"))
    })
    .transpose()
}

fn interfaces(
    cloud: &Cloud,
    region: &Region,
    request: &RunInstancesRequest,
) -> Result<Vec<WantedInterface>, ApiError> {
    let zone = zone(cloud, region, request)?;
    let subnet = |wanted: Option<&String>| -> Result<String, ApiError> {
        match wanted {
            Some(id) => match region.subnets.get(id) {
                Some(subnet)
                    if zone
                        .as_ref()
                        .is_none_or(|zone| *zone == subnet.availability_zone) =>
                {
                    Ok(id.clone())
                }
                Some(_) => Err(ApiError::new(
                    "InvalidParameterValue",
                    format!("The subnet '{id}' is not in the availability zone asked for"),
                )),
                None => Err(ApiError::new(
                    "InvalidSubnetID.NotFound",
                    format!("The subnet ID '{id}' does not exist"),
                )),
            },
            None => {
                net::default_subnet(region, zone.as_deref()).map(|subnet| subnet.subnet_id.clone())
            }
        }
    };
    let vpc_of = |subnet: &str| {
        region
            .subnets
            .get(subnet)
            .map(|subnet| subnet.vpc_id.clone())
            .unwrap_or_default()
    };
    if request.network_interfaces.is_empty() {
        let subnet = subnet(request.subnet_id.as_ref())?;
        let groups = net::resolve_groups(
            region,
            &vpc_of(&subnet),
            &request.security_group_ids,
            &request.security_groups,
        )?;
        return Ok(vec![WantedInterface {
            subnet,
            groups,
            address: address(request.private_ip_address.as_deref(), "PrivateIpAddress")?,
            delete: true,
            ..WantedInterface::default()
        }]);
    }
    if request.subnet_id.is_some() || request.private_ip_address.is_some() {
        return Err(ApiError::combination(
            "Network interfaces and an instance-level subnet ID may not be specified on the same request",
        ));
    }
    if !request.security_group_ids.is_empty() || !request.security_groups.is_empty() {
        return Err(ApiError::combination(
            "Network interfaces and an instance-level security groups may not be specified on the same request",
        ));
    }
    let mut wanted = Vec::new();
    for (number, input) in request.network_interfaces.iter().enumerate() {
        wanted.push(interface(region, number, input, &subnet, &vpc_of)?);
    }
    wanted.sort_by_key(|eni| eni.index);
    if wanted.first().is_none_or(|eni| eni.index != 0) {
        return Err(ApiError::missing("NetworkInterface.DeviceIndex 0"));
    }
    if wanted.len() > 1 {
        return Err(ApiError::unsupported(
            "cumulet gives an instance one network interface for now",
        ));
    }
    Ok(wanted)
}

fn interface(
    region: &Region,
    number: usize,
    input: &InterfaceInput,
    subnet: &dyn Fn(Option<&String>) -> Result<String, ApiError>,
    vpc_of: &dyn Fn(&str) -> String,
) -> Result<WantedInterface, ApiError> {
    let index = input.device_index.ok_or_else(|| {
        ApiError::missing(&format!("NetworkInterface.{}.DeviceIndex", number + 1))
    })?;
    if let Some(id) = &input.network_interface_id {
        let Some(eni) = region.interfaces.get(id) else {
            return Err(ApiError::new(
                "InvalidNetworkInterfaceID.NotFound",
                format!("The networkInterface ID '{id}' does not exist"),
            ));
        };
        if eni.attachment.is_some() {
            return Err(ApiError::new(
                "InvalidNetworkInterface.InUse",
                format!("The interface '{id}' is currently in use."),
            ));
        }
        return Ok(WantedInterface {
            existing: Some(id.clone()),
            index,
            subnet: eni.subnet_id.clone(),
            delete: input.delete_on_termination.unwrap_or(false),
            ..WantedInterface::default()
        });
    }
    let subnet = subnet(input.subnet_id.as_ref())?;
    Ok(WantedInterface {
        existing: None,
        index,
        groups: net::resolve_groups(region, &vpc_of(&subnet), &input.groups, &[])?,
        address: address(
            input.private_ip_address.as_deref(),
            "NetworkInterface.PrivateIpAddress",
        )?,
        public: input.associate_public_ip_address,
        delete: input.delete_on_termination.unwrap_or(true),
        description: input.description.clone().unwrap_or_default(),
        subnet,
    })
}

fn zone(
    cloud: &Cloud,
    region: &Region,
    request: &RunInstancesRequest,
) -> Result<Option<String>, ApiError> {
    let Some(placement) = &request.placement else {
        return Ok(None);
    };
    let zones = || {
        cloud
            .identity()
            .zones
            .iter()
            .map(|letter| format!("{}{letter}", region.name))
    };
    if let Some(id) = &placement.availability_zone_id {
        let found = zones().find(|zone| net::zone_id(&region.name, zone) == *id);
        return found.map(Some).ok_or_else(|| {
            ApiError::new(
                "InvalidParameterValue",
                format!("Invalid availability zone-id: '{id}'"),
            )
        });
    }
    let Some(zone) = &placement.availability_zone else {
        return Ok(None);
    };
    if zones().any(|known| known == *zone) {
        return Ok(Some(zone.clone()));
    }
    Err(ApiError::new(
        "InvalidParameterValue",
        format!("Invalid availability zone: [{zone}]"),
    ))
}

fn launch(
    identity: &Identity,
    region: &mut Region,
    plan: &Plan,
    request: &RunInstancesRequest,
    reservation_id: &str,
    launch_index: i32,
) -> Result<String, ApiError> {
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
        if wanted.index == 0 {
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
        instance_id: id.clone(),
        reservation_id: reservation_id.to_owned(),
        launch_index,
        state: State::Pending,
        state_reason: None,
        transition_reason: String::new(),
        forced: false,
        reboots: 0,
        reboots_done: 0,
        launched: false,
        image_id: plan.image.id.clone(),
        architecture: plan.image.architecture.clone(),
        root_device: plan.image.root_device.clone(),
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
        client_token: request.client_token.clone(),
        token_digest: plan.digest.clone(),
        devices,
        terminated: None,
        tags: plan.tags_of("instance"),
    });
    Ok(id)
}
