//! From `cumulet run`'s arguments to an instance on disk. Everything is checked before anything
//! is made.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cumulet_images::store::Ami;
use time::OffsetDateTime;

use super::args::RunArgs;
use super::images;
use super::keys;
use super::output::Output;
use super::parse::DiskArg;
use crate::amis;
use crate::doctor;
use crate::error::{Error, Kind, Result};
use crate::ids;
use crate::launch;
use crate::size::{MIB, Size};
use crate::state::record::{
    DirectKernel, Disk, DiskKind, Hardware, MetadataOptions, Network, Record, State, VERSION,
};
use crate::state::{Held, Home};
use crate::types::{self, InstanceType};

/// EC2's limit on user data, before base64.
const USER_DATA_LIMIT: u64 = 16_384;
/// EC2's limit on the size of a general purpose volume.
const VOLUME_LIMIT: u64 = 16 << 40;
/// Device names for volumes beside the root (EC2 user guide, "Device names").
const VOLUME_DEVICES: std::ops::RangeInclusive<char> = 'f'..='p';
/// Device names for scratch disks.
const SCRATCH_DEVICES: std::ops::RangeInclusive<char> = 'b'..='e';

/// A checked launch: what will be made.
#[derive(Debug)]
pub(super) struct Plan {
    record: Record,
    image: Option<Ami>,
}

/// Checks everything the user said.
pub(super) fn plan(home: &Home, output: Output, args: &RunArgs) -> Result<Plan> {
    let image = args
        .image
        .as_deref()
        .map(|wanted| amis::find(&amis::open(home)?, wanted))
        .transpose()?;
    let kind = machine(args)?;
    types::check(&kind)?;
    if let Some(image) = &image {
        images::check_architecture(image, &kind)?;
        if image.boot.is_none() && args.kernel.is_none() {
            return Err(Error::new(
                Kind::Usage,
                "InvalidImage",
                format!("no kernel was found in {} ({})", image.id, image.name),
            )
            .mend("it is a data disk; boot it with a kernel from the host (--kernel)"));
        }
    }
    let user_data = args.user_data.as_deref().map(user_data).transpose()?;
    let metadata = metadata(args);
    let tags = tags(args, &metadata)?;
    let disks = disks(args, image.as_ref())?;
    ports(args)?;
    let direct = direct_kernel(args)?;
    let key = keys::for_launch(home, output, args)?;
    warn_of_overcommit(output, &kind);
    let extra = if direct.is_none() {
        args.cmdline.clone().unwrap_or_default()
    } else {
        String::new()
    };
    let record = Record {
        version: VERSION,
        instance_id: ids::new("i"),
        reservation_id: ids::new("r"),
        state: State::Pending,
        state_reason: None,
        keep: args.keep,
        launch_time: OffsetDateTime::now_utc(),
        image: image.as_ref().map(launch::image),
        hardware: Hardware {
            nested: args.nested,
            direct,
            extra_cmdline: extra,
            trace: args.trace,
            ..launch::hardware(&kind)?
        },
        system_uuid: ids::system_uuid(),
        disks,
        network: Network {
            interface_id: ids::new("eni"),
            mac: ids::mac(),
            // One is given out when the instance is made.
            private_ip: std::net::Ipv4Addr::UNSPECIFIED,
            publish: args.publish.clone(),
            uplink: args.uplink,
        },
        key,
        user_data: user_data.map(|bytes| STANDARD.encode(bytes)),
        tags,
        metadata,
        place: None,
    };
    Ok(Plan { record, image })
}

/// Makes the instance.
pub(super) fn create(home: &Home, plan: Plan) -> Result<Held> {
    launch::create(home, plan.record, plan.image.as_ref(), "cumulet run")
}

fn machine(args: &RunArgs) -> Result<InstanceType> {
    if args.vcpus.is_none() && args.memory.is_none() {
        return types::find(args.instance_type.as_deref().unwrap_or(types::DEFAULT));
    }
    let usual = types::find(types::DEFAULT)?;
    let memory = args
        .memory
        .map_or(usual.memory_mib, |size| size.0.div_ceil(MIB));
    Ok(types::custom(args.vcpus.unwrap_or(usual.vcpus), memory))
}

fn user_data(path: &Path) -> Result<Vec<u8>> {
    let doing = || format!("cannot read the user data {}", path.display());
    let unreadable = |error: io::Error| Error::invalid(doing()).because(&error);
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(USER_DATA_LIMIT + 1)
            .read_to_end(&mut bytes)
    } else {
        fs::File::open(path)
            .map_err(unreadable)?
            .take(USER_DATA_LIMIT + 1)
            .read_to_end(&mut bytes)
    };
    if u64::try_from(read.map_err(unreadable)?).unwrap_or(u64::MAX) > USER_DATA_LIMIT {
        return Err(Error::invalid(format!(
            "User data is limited to {USER_DATA_LIMIT} bytes, and {} has more",
            path.display()
        ))
        .mend(
            "compress it with gzip (cloud-init unpacks it), or let a short script fetch the rest",
        ));
    }
    Ok(bytes)
}

fn metadata(args: &RunArgs) -> MetadataOptions {
    let mut options = MetadataOptions::default();
    for option in &args.metadata_options {
        option.apply(&mut options);
    }
    options
}

fn tags(args: &RunArgs, metadata: &MetadataOptions) -> Result<BTreeMap<String, String>> {
    let mut tags = BTreeMap::new();
    for tag in &args.tag {
        if tags.insert(tag.key.clone(), tag.value.clone()).is_some() {
            return Err(Error::invalid(format!(
                "Duplicate tag key '{}' specified",
                tag.key
            )));
        }
        if metadata.instance_tags && !cumulet_imds::is_tag_key_servable(&tag.key) {
            return Err(Error::invalid(format!(
                "'{}' is not a valid tag key for instance tags in metadata",
                tag.key
            ))
            .mend("use letters, digits and + - = . , _ : @, or leave instance-tags disabled"));
        }
    }
    if let Some(name) = &args.name {
        if ids::is("i", name) {
            return Err(Error::invalid(format!(
                "'{name}' looks like an instance id and cannot be a name"
            )));
        }
        if tags.insert("Name".to_owned(), name.clone()).is_some() {
            return Err(Error::combination("give --name or --tag Name=…, not both"));
        }
    }
    if tags.len() > 50 {
        return Err(Error::new(
            Kind::Usage,
            "TagLimitExceeded",
            "an instance can have 50 tags",
        ));
    }
    Ok(tags)
}

fn disks(args: &RunArgs, image: Option<&Ami>) -> Result<Vec<Disk>> {
    let bad = |message: String| Error::new(Kind::Usage, "InvalidBlockDeviceMapping", message);
    let mut disks = Vec::new();
    if let Some(image) = image {
        let size = root_size(args.root_size, image)?;
        disks.push(Disk {
            kind: DiskKind::Root,
            id: ids::new("vol"),
            device: image.root_device_name.clone(),
            size,
        });
    } else if args.root_size.is_some() {
        return Err(Error::combination("--root-size needs an image"));
    }
    let mut taken: HashSet<String> = HashSet::new();
    for DiskArg { device, .. } in &args.disk {
        if let Some(device) = device
            && !taken.insert(device.clone())
        {
            return Err(bad(format!("two disks are to be {device}")));
        }
    }
    let mut free = VOLUME_DEVICES
        .map(|letter| format!("/dev/sd{letter}"))
        .filter(|device| !taken.contains(device))
        .collect::<Vec<_>>()
        .into_iter();
    for disk in &args.disk {
        let next = || bad(format!("at most {} volumes fit", VOLUME_DEVICES.count()));
        let device = match &disk.device {
            Some(device) => device.clone(),
            None => free.next().ok_or_else(next)?,
        };
        disks.push(Disk {
            kind: DiskKind::Data,
            id: ids::new("vol"),
            size: whole(disk.size, &device)?,
            device,
        });
    }
    if args.scratch.len() > SCRATCH_DEVICES.count() {
        return Err(bad(format!(
            "at most {} scratch disks fit",
            SCRATCH_DEVICES.count()
        )));
    }
    for (index, (size, letter)) in args.scratch.iter().zip(SCRATCH_DEVICES).enumerate() {
        let device = format!("/dev/sd{letter}");
        disks.push(Disk {
            kind: DiskKind::Scratch,
            id: format!("ephemeral{index}"),
            size: whole(*size, &device)?,
            device,
        });
    }
    Ok(disks)
}

/// Sizes in whole MiB.
fn whole(size: Size, device: &str) -> Result<Size> {
    let rounded = size.0.checked_next_multiple_of(MIB);
    match rounded {
        Some(bytes) if bytes <= VOLUME_LIMIT => Ok(Size(bytes)),
        _ => Err(Error::invalid(format!(
            "{device}: {size} is above the limit of {}",
            Size(VOLUME_LIMIT)
        ))),
    }
}

fn root_size(wanted: Option<Size>, image: &Ami) -> Result<Size> {
    let least = Size(image.size);
    let Some(wanted) = wanted else {
        return Ok(least);
    };
    let size = whole(wanted, "the root disk")?;
    if size < least {
        return Err(Error::new(
            Kind::Usage,
            "InvalidBlockDeviceMapping",
            format!(
                "a root disk of {size} is smaller than the image {}, expect at least {least}",
                image.id
            ),
        ));
    }
    Ok(size)
}

fn ports(args: &RunArgs) -> Result<()> {
    let mut taken = HashSet::new();
    for port in &args.publish {
        if !taken.insert((port.address, port.host)) {
            return Err(Error::invalid(format!(
                "--publish names {}:{} twice",
                port.address, port.host
            )));
        }
    }
    Ok(())
}

fn direct_kernel(args: &RunArgs) -> Result<Option<DirectKernel>> {
    let Some(kernel) = &args.kernel else {
        return Ok(None);
    };
    let readable = |path: &Path| {
        fs::File::open(path)
            .and_then(|_| std::path::absolute(path))
            .map_err(|error| {
                Error::invalid(format!("cannot read {}", path.display())).because(&error)
            })
    };
    Ok(Some(DirectKernel {
        kernel: readable(kernel)?,
        initrd: args.initrd.as_deref().map(readable).transpose()?,
        cmdline: args.cmdline.clone().unwrap_or_default(),
    }))
}

fn warn_of_overcommit(output: Output, kind: &InstanceType) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if usize::from(kind.vcpus) > cpus {
        output.warn(&format!(
            "{} has {} vCPUs and this host {cpus}: they will take turns",
            kind.name, kind.vcpus
        ));
    }
    let wanted = Size(kind.memory_mib.saturating_mul(MIB));
    if let Some(free) = doctor::available_memory().filter(|free| *free < wanted) {
        output.warn(&format!(
            "{} has {wanted} of memory and this host {free} available: the host may swap, or end \
             the instance when it runs out",
            kind.name
        ));
    }
}
