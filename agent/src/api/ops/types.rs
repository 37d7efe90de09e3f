//! Instance types and where they are offered.

use crate::api::actions::{Action, action};
use crate::api::filters::{Filters, Values, maybe, one};
use crate::api::paging::page;
use crate::api::shapes::types::{
    DescribeInstanceTypeOfferingsRequest, DescribeInstanceTypeOfferingsResult,
    DescribeInstanceTypesRequest, DescribeInstanceTypesResult, DiskInfo, EbsInfo, EbsOptimizedInfo,
    InstanceStorageInfo, InstanceTypeInfo, InstanceTypeOffering, MemoryInfo, NetworkCardInfo,
    NetworkInfo, ProcessorInfo, VCpuInfo,
};
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;
use crate::cloud::net::zone_id;
use crate::cloud::table::Tags;
use crate::types::{self, Architecture, Details, Disk, EbsLimits, InstanceType, Link};

/// EC2's limit on the types that a request may name.
const MAX_NAMED: usize = 100;
/// Types that EC2's free tier has had.
const FREE_TIER: &[&str] = &["t2.micro", "t3.micro"];

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action("DescribeInstanceTypes", describe_instance_types),
        action(
            "DescribeInstanceTypeOfferings",
            describe_instance_type_offerings,
        ),
    ]
}

fn describe_instance_types(
    _cloud: &Cloud,
    _call: &Call,
    request: DescribeInstanceTypesRequest,
) -> Result<DescribeInstanceTypesResult, ApiError> {
    let filters = Filters::new(&request.filters)?;
    let named = &request.instance_types;
    if named.len() > MAX_NAMED {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("You can specify at most {MAX_NAMED} instance types"),
        ));
    }
    if !named.is_empty() && request.max_results.is_some() {
        return Err(ApiError::combination(
            "The parameter instanceTypes cannot be used with the parameter maxResults",
        ));
    }
    let unknown: Vec<&str> = named
        .iter()
        .map(String::as_str)
        .filter(|name| types::get(name).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(not_found(&unknown));
    }
    let mut infos: Vec<InstanceTypeInfo> = Vec::new();
    for known in types::all() {
        let asked = named.is_empty() || named.contains(&known.name);
        let Some(details) = types::details(&known.name) else {
            continue;
        };
        let mut info = info(&known, &details);
        // EC2 tells it only to who asks for types of other regions. Here every region has all.
        info.supported_in_region =
            (request.include_unsupported_in_region == Some(true)).then_some(true);
        if filters.pass(&Tags::new(), |name| values(&info, name))? && asked {
            infos.push(info);
        }
    }
    infos.sort_by(|a, b| a.instance_type.cmp(&b.instance_type));
    let paging = (request.max_results, request.next_token.as_deref());
    let page = page(infos, |info| info.instance_type.clone(), paging, 5..=100)?;
    Ok(DescribeInstanceTypesResult {
        instance_types: page.items,
        next_token: page.next,
    })
}

/// EC2's error for types that there are not.
#[must_use]
pub fn not_found(names: &[&str]) -> ApiError {
    ApiError::new(
        "InvalidInstanceType",
        format!(
            "The following supplied instance types do not exist: [{}]",
            names.join(", ")
        ),
    )
}

fn describe_instance_type_offerings(
    cloud: &Cloud,
    call: &Call,
    request: DescribeInstanceTypeOfferingsRequest,
) -> Result<DescribeInstanceTypeOfferingsResult, ApiError> {
    let filters = Filters::new(&request.filters)?;
    let location_type = request.location_type.as_deref().unwrap_or("region");
    let locations: Vec<String> = match location_type {
        "region" => vec![call.region.clone()],
        "availability-zone" => cloud.identity().zones_of(&call.region),
        "availability-zone-id" => zone_ids(cloud, &call.region),
        // There are no Outposts.
        "outpost" => Vec::new(),
        other => {
            return Err(ApiError::value(
                "locationType",
                other,
                "Use region, availability-zone, availability-zone-id or outpost",
            ));
        }
    };
    let values = |kind: &str, location: &str, name: &str| match name {
        "instance-type" => one(kind),
        "location" => one(location),
        _ => None,
    };
    filters.check(|name| values("", "", name))?;
    let mut offerings = Vec::new();
    for known in types::all() {
        for location in &locations {
            let passes = filters.pass(&Tags::new(), |name| values(&known.name, location, name))?;
            if passes {
                offerings.push(InstanceTypeOffering {
                    instance_type: known.name.clone(),
                    location_type: location_type.to_owned(),
                    location: location.clone(),
                });
            }
        }
    }
    let key = |one: &InstanceTypeOffering| format!("{} {}", one.instance_type, one.location);
    offerings.sort_by_key(key);
    let paging = (request.max_results, request.next_token.as_deref());
    let page = page(offerings, key, paging, 5..=1000)?;
    Ok(DescribeInstanceTypeOfferingsResult {
        offerings: page.items,
        next_token: page.next,
    })
}

fn zone_ids(cloud: &Cloud, region: &str) -> Vec<String> {
    let zones = cloud.identity().zones_of(region);
    zones.iter().map(|zone| zone_id(region, zone)).collect()
}

fn info(known: &InstanceType, details: &Details) -> InstanceTypeInfo {
    let nitro = details.hypervisor == "nitro";
    let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    InstanceTypeInfo {
        instance_type: known.name.clone(),
        current_generation: details.current_generation,
        free_tier_eligible: FREE_TIER.contains(&known.name.as_str()),
        supported_usage_classes: list(&["on-demand"]),
        supported_root_device_types: list(&["ebs"]),
        supported_virtualization_types: list(&["hvm"]),
        bare_metal: false,
        hypervisor: details.hypervisor.to_owned(),
        processor_info: ProcessorInfo {
            supported_architectures: list(&[known.architecture.name()]),
            sustained_clock_speed_in_ghz: details.clock_mhz.map(|mhz| f64::from(mhz) / 1000.0),
            manufacturer: details.manufacturer.to_owned(),
        },
        v_cpu_info: VCpuInfo {
            default_v_cpus: known.vcpus.into(),
            default_cores: details.cores.into(),
            default_threads_per_core: details.threads_per_core.into(),
            valid_cores: vec![details.cores.into()],
            valid_threads_per_core: vec![details.threads_per_core.into()],
        },
        memory_info: MemoryInfo {
            size_in_mib: i64::try_from(known.memory_mib).unwrap_or(i64::MAX),
        },
        instance_storage_supported: details.disks.is_some(),
        instance_storage_info: details.disks.map(storage),
        ebs_info: EbsInfo {
            ebs_optimized_support: details.ebs_optimized.to_owned(),
            // EC2 can encrypt the volumes of all types; here they are plain files.
            encryption_support: "unsupported".to_owned(),
            ebs_optimized_info: details.ebs.map(ebs),
            nvme_support: if nitro { "required" } else { "unsupported" }.to_owned(),
        },
        network_info: network(details, nitro),
        hibernation_supported: details.hibernation,
        burstable_performance_supported: details.burstable(),
        dedicated_hosts_supported: false,
        auto_recovery_supported: false,
        supported_in_region: None,
        supported_boot_modes: match (known.architecture, nitro) {
            (Architecture::Arm64, _) => list(&["uefi"]),
            (Architecture::X86_64, true) => list(&["legacy-bios", "uefi"]),
            (Architecture::X86_64, false) => list(&["legacy-bios"]),
        },
    }
}

fn storage(disk: Disk) -> InstanceStorageInfo {
    let support = if disk.nvme { "required" } else { "unsupported" };
    InstanceStorageInfo {
        total_size_in_gb: i64::from(disk.count) * i64::from(disk.size_gb),
        disks: vec![DiskInfo {
            size_in_gb: disk.size_gb.into(),
            count: disk.count.into(),
            disk_type: disk.medium.name().to_owned(),
        }],
        nvme_support: support.to_owned(),
        // EC2 encrypts NVMe instance store; scratch disks here are plain files.
        encryption_support: "unsupported".to_owned(),
    }
}

fn ebs(limits: EbsLimits) -> EbsOptimizedInfo {
    EbsOptimizedInfo {
        baseline_bandwidth_in_mbps: integer(limits.baseline_mbps),
        baseline_throughput_in_mbps: f64::from(limits.baseline_mbps) / 8.0,
        baseline_iops: integer(limits.baseline_iops),
        maximum_bandwidth_in_mbps: integer(limits.maximum_mbps),
        maximum_throughput_in_mbps: f64::from(limits.maximum_mbps) / 8.0,
        maximum_iops: integer(limits.maximum_iops),
    }
}

fn network(details: &Details, nitro: bool) -> NetworkInfo {
    let gbps = |pick: fn(Link) -> u32| details.link.map(|link| f64::from(pick(link)) / 1000.0);
    NetworkInfo {
        network_performance: details.network.clone(),
        maximum_network_interfaces: details.interfaces.most.into(),
        maximum_network_cards: 1,
        default_network_card_index: 0,
        network_cards: vec![NetworkCardInfo {
            network_card_index: 0,
            network_performance: details.network.clone(),
            maximum_network_interfaces: details.interfaces.most.into(),
            baseline_bandwidth_in_gbps: gbps(|link| link.baseline),
            peak_bandwidth_in_gbps: gbps(|link| link.peak),
        }],
        ipv4_addresses_per_interface: details.interfaces.addresses.into(),
        ipv6_addresses_per_interface: 0,
        ipv6_supported: false,
        ena_support: match (nitro, details.link) {
            (true, _) => "required",
            // Of the Xen families those whose bandwidth EC2 puts in numbers.
            (false, Some(_)) => "supported",
            (false, None) => "unsupported",
        }
        .to_owned(),
        efa_supported: false,
    }
}

fn integer(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A type's values of the filters of DescribeInstanceTypes (EC2 API reference).
fn values(info: &InstanceTypeInfo, filter: &str) -> Values {
    let (cpu, vcpu, ebs, net) = (
        &info.processor_info,
        &info.v_cpu_info,
        &info.ebs_info,
        &info.network_info,
    );
    let optimized = ebs.ebs_optimized_info.as_ref();
    let storage = info.instance_storage_info.as_ref();
    let disk = storage.and_then(|storage| storage.disks.first());
    let texts = |numbers: &[i32]| Some(numbers.iter().map(ToString::to_string).collect());
    match filter {
        "auto-recovery-supported" => one(info.auto_recovery_supported.to_string()),
        "bare-metal" => one(info.bare_metal.to_string()),
        "burstable-performance-supported" => one(info.burstable_performance_supported.to_string()),
        "current-generation" => one(info.current_generation.to_string()),
        "dedicated-hosts-supported" => one(info.dedicated_hosts_supported.to_string()),
        "ebs-info.ebs-optimized-info.baseline-bandwidth-in-mbps" => {
            maybe(optimized.map(|info| info.baseline_bandwidth_in_mbps.to_string()))
        }
        "ebs-info.ebs-optimized-info.baseline-iops" => {
            maybe(optimized.map(|info| info.baseline_iops.to_string()))
        }
        "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps" => {
            maybe(optimized.map(|info| info.baseline_throughput_in_mbps.to_string()))
        }
        "ebs-info.ebs-optimized-info.maximum-bandwidth-in-mbps" => {
            maybe(optimized.map(|info| info.maximum_bandwidth_in_mbps.to_string()))
        }
        "ebs-info.ebs-optimized-info.maximum-iops" => {
            maybe(optimized.map(|info| info.maximum_iops.to_string()))
        }
        "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps" => {
            maybe(optimized.map(|info| info.maximum_throughput_in_mbps.to_string()))
        }
        "ebs-info.ebs-optimized-support" => one(&ebs.ebs_optimized_support),
        "ebs-info.encryption-support" => one(&ebs.encryption_support),
        "ebs-info.nvme-support" => one(&ebs.nvme_support),
        "free-tier-eligible" => one(info.free_tier_eligible.to_string()),
        "hibernation-supported" => one(info.hibernation_supported.to_string()),
        "hypervisor" => one(&info.hypervisor),
        "instance-storage-info.disk.count" => maybe(disk.map(|disk| disk.count.to_string())),
        "instance-storage-info.disk.size-in-gb" => {
            maybe(disk.map(|disk| disk.size_in_gb.to_string()))
        }
        "instance-storage-info.disk.type" => maybe(disk.map(|disk| &disk.disk_type)),
        "instance-storage-info.encryption-support" => {
            maybe(storage.map(|storage| &storage.encryption_support))
        }
        "instance-storage-info.nvme-support" => maybe(storage.map(|storage| &storage.nvme_support)),
        "instance-storage-info.total-size-in-gb" => {
            maybe(storage.map(|storage| storage.total_size_in_gb.to_string()))
        }
        "instance-storage-supported" => one(info.instance_storage_supported.to_string()),
        "instance-type" => one(&info.instance_type),
        "memory-info.size-in-mib" => one(info.memory_info.size_in_mib.to_string()),
        "network-info.efa-supported" => one(net.efa_supported.to_string()),
        "network-info.ena-support" => one(&net.ena_support),
        "network-info.ipv4-addresses-per-interface" => {
            one(net.ipv4_addresses_per_interface.to_string())
        }
        "network-info.ipv6-addresses-per-interface" => {
            one(net.ipv6_addresses_per_interface.to_string())
        }
        "network-info.ipv6-supported" => one(net.ipv6_supported.to_string()),
        "network-info.maximum-network-cards" => one(net.maximum_network_cards.to_string()),
        "network-info.maximum-network-interfaces" => {
            one(net.maximum_network_interfaces.to_string())
        }
        "network-info.network-performance" => one(&net.network_performance),
        "processor-info.manufacturer" => one(&cpu.manufacturer),
        "processor-info.supported-architecture" => Some(cpu.supported_architectures.clone()),
        "processor-info.sustained-clock-speed-in-ghz" => {
            maybe(cpu.sustained_clock_speed_in_ghz.map(|ghz| ghz.to_string()))
        }
        "supported-boot-mode" => Some(info.supported_boot_modes.clone()),
        "supported-root-device-type" => Some(info.supported_root_device_types.clone()),
        "supported-usage-class" => Some(info.supported_usage_classes.clone()),
        "supported-virtualization-type" => Some(info.supported_virtualization_types.clone()),
        "vcpu-info.default-cores" => one(vcpu.default_cores.to_string()),
        "vcpu-info.default-threads-per-core" => one(vcpu.default_threads_per_core.to_string()),
        "vcpu-info.default-vcpus" => one(vcpu.default_v_cpus.to_string()),
        "vcpu-info.valid-cores" => texts(&vcpu.valid_cores),
        "vcpu-info.valid-threads-per-core" => texts(&vcpu.valid_threads_per_core),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
