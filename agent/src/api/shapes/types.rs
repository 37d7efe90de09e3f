//! Structures of instance types.

use super::common::Filter;
use crate::api::wire::shapes;

shapes! {
    /// Request of DescribeInstanceTypes.
    input DescribeInstanceTypesRequest {
        /// Names.
        instance_types: Vec<String> = "InstanceType",
        /// Whether to tell types of other regions too; every region here has all of them.
        include_unsupported_in_region: Option<bool> = "IncludeUnsupportedInRegion",
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Size of a page.
        max_results: Option<i32> = "MaxResults",
        /// Which page.
        next_token: Option<String> = "NextToken",
    }
    /// Answer of DescribeInstanceTypes.
    output DescribeInstanceTypesResult {
        /// The types.
        instance_types: Vec<InstanceTypeInfo> = "instanceTypeSet",
        /// Names the next page.
        next_token: Option<String> = "nextToken",
    }
    /// `InstanceTypeInfo`.
    output InstanceTypeInfo {
        /// `t3.micro`.
        instance_type: String = "instanceType",
        /// Whether EC2 counts it among its current ones.
        current_generation: bool = "currentGeneration",
        /// Whether EC2's free tier has it.
        free_tier_eligible: bool = "freeTierEligible",
        /// How it can be bought: `on-demand`.
        supported_usage_classes: Vec<String> = "supportedUsageClasses",
        /// `ebs`.
        supported_root_device_types: Vec<String> = "supportedRootDeviceTypes",
        /// `hvm`.
        supported_virtualization_types: Vec<String> = "supportedVirtualizationTypes",
        /// Never.
        bare_metal: bool = "bareMetal",
        /// `nitro` or `xen`.
        hypervisor: String = "hypervisor",
        /// Processor.
        processor_info: ProcessorInfo = "processorInfo",
        /// vCPUs.
        v_cpu_info: VCpuInfo = "vCpuInfo",
        /// Memory.
        memory_info: MemoryInfo = "memoryInfo",
        /// Whether it has disks of its own.
        instance_storage_supported: bool = "instanceStorageSupported",
        /// Which.
        instance_storage_info: Option<InstanceStorageInfo> = "instanceStorageInfo",
        /// Volumes.
        ebs_info: EbsInfo = "ebsInfo",
        /// Network.
        network_info: NetworkInfo = "networkInfo",
        /// Whether EC2 can hibernate it.
        hibernation_supported: bool = "hibernationSupported",
        /// Whether it lives on CPU credits.
        burstable_performance_supported: bool = "burstablePerformanceSupported",
        /// There are no dedicated hosts here.
        dedicated_hosts_supported: bool = "dedicatedHostsSupported",
        /// Nothing is moved to another host here.
        auto_recovery_supported: bool = "autoRecoverySupported",
        /// Whether this region has it, when types of other regions are asked for.
        supported_in_region: Option<bool> = "supportedInRegion",
        /// `legacy-bios`, `uefi`.
        supported_boot_modes: Vec<String> = "supportedBootModes",
    }
    /// `ProcessorInfo`.
    output ProcessorInfo {
        /// `x86_64` or `arm64`.
        supported_architectures: Vec<String> = "supportedArchitectures",
        /// GHz.
        sustained_clock_speed_in_ghz: Option<f64> = "sustainedClockSpeedInGhz",
        /// `Intel`, `AMD`, `AWS`.
        manufacturer: String = "manufacturer",
    }
    /// `VCpuInfo`.
    output VCpuInfo {
        /// vCPUs.
        default_v_cpus: i32 = "defaultVCpus",
        /// Cores.
        default_cores: i32 = "defaultCores",
        /// Threads of each.
        default_threads_per_core: i32 = "defaultThreadsPerCore",
        /// What CpuOptions may say here.
        valid_cores: Vec<i32> = "validCores",
        /// What CpuOptions may say here.
        valid_threads_per_core: Vec<i32> = "validThreadsPerCore",
    }
    /// `MemoryInfo`.
    output MemoryInfo {
        /// MiB.
        size_in_mib: i64 = "sizeInMiB",
    }
    /// `InstanceStorageInfo`.
    output InstanceStorageInfo {
        /// GB of all disks.
        total_size_in_gb: i64 = "totalSizeInGB",
        /// The disks.
        disks: Vec<DiskInfo> = "disks",
        /// `required` or `unsupported`.
        nvme_support: String = "nvmeSupport",
        /// `unsupported`: scratch disks are plain files.
        encryption_support: String = "encryptionSupport",
    }
    /// `DiskInfo`.
    output DiskInfo {
        /// GB of each.
        size_in_gb: i64 = "sizeInGB",
        /// How many.
        count: i32 = "count",
        /// `ssd` or `hdd`.
        disk_type: String = "type",
    }
    /// `EbsInfo`.
    output EbsInfo {
        /// `unsupported`, `supported` or `default`.
        ebs_optimized_support: String = "ebsOptimizedSupport",
        /// `unsupported`: volumes are plain files.
        encryption_support: String = "encryptionSupport",
        /// What all volumes can do together.
        ebs_optimized_info: Option<EbsOptimizedInfo> = "ebsOptimizedInfo",
        /// `required` or `unsupported`.
        nvme_support: String = "nvmeSupport",
    }
    /// `EbsOptimizedInfo`.
    output EbsOptimizedInfo {
        /// Mbit/s.
        baseline_bandwidth_in_mbps: i32 = "baselineBandwidthInMbps",
        /// MB/s.
        baseline_throughput_in_mbps: f64 = "baselineThroughputInMBps",
        /// Operations a second.
        baseline_iops: i32 = "baselineIops",
        /// Mbit/s.
        maximum_bandwidth_in_mbps: i32 = "maximumBandwidthInMbps",
        /// MB/s.
        maximum_throughput_in_mbps: f64 = "maximumThroughputInMBps",
        /// Operations a second.
        maximum_iops: i32 = "maximumIops",
    }
    /// `NetworkInfo`.
    output NetworkInfo {
        /// In words.
        network_performance: String = "networkPerformance",
        /// Most interfaces.
        maximum_network_interfaces: i32 = "maximumNetworkInterfaces",
        /// One.
        maximum_network_cards: i32 = "maximumNetworkCards",
        /// The first.
        default_network_card_index: i32 = "defaultNetworkCardIndex",
        /// The cards.
        network_cards: Vec<NetworkCardInfo> = "networkCards",
        /// Addresses of an interface.
        ipv4_addresses_per_interface: i32 = "ipv4AddressesPerInterface",
        /// Addresses of an interface.
        ipv6_addresses_per_interface: i32 = "ipv6AddressesPerInterface",
        /// There is no IPv6 here.
        ipv6_supported: bool = "ipv6Supported",
        /// `unsupported`, `supported` or `required`.
        ena_support: String = "enaSupport",
        /// Never.
        efa_supported: bool = "efaSupported",
    }
    /// `NetworkCardInfo`.
    output NetworkCardInfo {
        /// Which.
        network_card_index: i32 = "networkCardIndex",
        /// In words.
        network_performance: String = "networkPerformance",
        /// Most interfaces.
        maximum_network_interfaces: i32 = "maximumNetworkInterfaces",
        /// Gbit/s.
        baseline_bandwidth_in_gbps: Option<f64> = "baselineBandwidthInGbps",
        /// Gbit/s.
        peak_bandwidth_in_gbps: Option<f64> = "peakBandwidthInGbps",
    }
    /// Request of DescribeInstanceTypeOfferings.
    input DescribeInstanceTypeOfferingsRequest {
        /// `region` when absent.
        location_type: Option<String> = "LocationType",
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Size of a page.
        max_results: Option<i32> = "MaxResults",
        /// Which page.
        next_token: Option<String> = "NextToken",
    }
    /// Answer of DescribeInstanceTypeOfferings.
    output DescribeInstanceTypeOfferingsResult {
        /// Which types there are, and where.
        offerings: Vec<InstanceTypeOffering> = "instanceTypeOfferingSet",
        /// Names the next page.
        next_token: Option<String> = "nextToken",
    }
    /// `InstanceTypeOffering`.
    output InstanceTypeOffering {
        /// `t3.micro`.
        instance_type: String = "instanceType",
        /// `region`, `availability-zone`, `availability-zone-id`.
        location_type: String = "locationType",
        /// Where.
        location: String = "location",
    }
}
