//! RunInstances: everything that a launch says, checked before anything is made.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::options;
use super::run::{architecture_differs, check_user_data, instance_type, shutdown_behavior};
use crate::api::ops::images::Found;
use crate::api::ops::network::given;
use crate::api::shapes::instances::{BlockDeviceInput, InterfaceInput, RunInstancesRequest};
use crate::api::tokens::Stamp;
use crate::api::{ApiError, tagging};
use crate::cloud::instance::ShutdownBehavior;
use crate::cloud::table::Tags;
use crate::cloud::{Cloud, Identity, Region, net};
use crate::state::record::MetadataOptions;
use crate::types::{self, InstanceType};

/// EC2's limit on the size of most volumes, GiB.
const VOLUME_LIMIT: i32 = 65_536;
/// What a launch makes that can be tagged by it.
const MADE: [&str; 3] = ["instance", "volume", "network-interface"];
/// Everything that was checked and is the same for all instances of a call.
pub(super) struct Plan {
    pub(super) image: Found,
    pub(super) kind: InstanceType,
    pub(super) key: Option<(String, String)>,
    pub(super) devices: Vec<Wanted>,
    pub(super) interfaces: Vec<WantedInterface>,
    pub(super) tags: BTreeMap<String, Tags>,
    pub(super) metadata: MetadataOptions,
    pub(super) behavior: ShutdownBehavior,
    pub(super) credits: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) tenancy: String,
    pub(super) stamp: Option<Stamp>,
}

impl Plan {
    pub(super) fn tags_of(&self, kind: &str) -> Tags {
        self.tags.get(kind).cloned().unwrap_or_default()
    }
}

/// A volume to be made.
pub(super) struct Wanted {
    pub(super) device: String,
    pub(super) size: i32,
    pub(super) volume_type: String,
    pub(super) iops: Option<i32>,
    pub(super) throughput: Option<i32>,
    pub(super) delete: bool,
}

/// An interface to be made, or one that is there.
#[derive(Default)]
pub(super) struct WantedInterface {
    pub(super) existing: Option<String>,
    pub(super) index: i32,
    pub(super) subnet: String,
    pub(super) groups: Vec<String>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) public: Option<bool>,
    pub(super) delete: bool,
    pub(super) description: String,
}

pub(super) fn plan(
    cloud: &Cloud,
    region: &Region,
    request: &RunInstancesRequest,
    image: Found,
    stamp: Option<Stamp>,
) -> Result<Plan, ApiError> {
    image.check_bootable()?;
    // EC2's own default, m1.small, has no hardware left there either.
    let kind = instance_type(request.instance_type.as_deref().unwrap_or(types::DEFAULT))?;
    let architecture = image.architecture();
    if kind.architecture.name() != architecture {
        return Err(architecture_differs(&kind, &architecture));
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
        interfaces: {
            let interfaces = interfaces(cloud, region, request)?;
            types::check_interfaces(&kind.name, interfaces.len())?;
            interfaces
        },
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
        stamp,
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
    match (given(profile.arn.as_ref()), given(profile.name.as_ref())) {
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

fn devices(image: &Found, wanted: &[BlockDeviceInput]) -> Result<Vec<Wanted>, ApiError> {
    let (root_device, least) = (&image.ami.root_device_name, image.size_gib());
    let bad = |message: String| ApiError::new("InvalidBlockDeviceMapping", message);
    let mut devices = vec![Wanted {
        device: root_device.clone(),
        size: least,
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
            if name == *root_device {
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
        let root = name == *root_device;
        let size = match ebs.volume_size {
            None if root => least,
            None => {
                return Err(ApiError::missing(&format!(
                    "BlockDeviceMapping.{}.Ebs.VolumeSize",
                    number + 1
                )));
            }
            Some(size) if root && size < least => {
                return Err(bad(format!(
                    "Volume of size {size}GB is smaller than snapshot '{}', expect size >= {}GB",
                    image.ami.id, least
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
        match given(wanted) {
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
    if given(request.subnet_id.as_ref()).is_some() || request.private_ip_address.is_some() {
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
    if wanted.len() > 1 && wanted.iter().any(|eni| eni.public == Some(true)) {
        return Err(ApiError::combination(
            "The associatePublicIPAddress parameter cannot be specified when launching with multiple network interfaces.",
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
    let mut zones = cloud.identity().zones_of(&region.name).into_iter();
    if let Some(id) = given(placement.availability_zone_id.as_ref()) {
        let found = zones.find(|zone| net::zone_id(&region.name, zone) == *id);
        return found.map(Some).ok_or_else(|| {
            ApiError::new(
                "InvalidParameterValue",
                format!("Invalid availability zone-id: '{id}'"),
            )
        });
    }
    let Some(zone) = given(placement.availability_zone.as_ref()) else {
        return Ok(None);
    };
    if zones.any(|known| known == *zone) {
        return Ok(Some(zone.clone()));
    }
    Err(ApiError::new(
        "InvalidParameterValue",
        format!("Invalid availability zone: [{zone}]"),
    ))
}
