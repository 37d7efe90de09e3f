use super::*;
use crate::api::ops::testing::{Bench, fields};

fn names(answer: &str) -> Vec<String> {
    fields(answer, "instanceType")
}

#[test]
fn a_type_is_told_whole() {
    let bench = Bench::new();
    let answer = bench.ok("DescribeInstanceTypes", &[("InstanceType.1", "t3.micro")]);
    for part in [
        "<instanceType>t3.micro</instanceType>",
        "<defaultVCpus>2</defaultVCpus>",
        "<sizeInMiB>1024</sizeInMiB>",
        "<hypervisor>nitro</hypervisor>",
        "<burstablePerformanceSupported>true</burstablePerformanceSupported>",
        "<supportedArchitectures><item>x86_64</item></supportedArchitectures>",
        "<networkPerformance>Up to 5 Gigabit</networkPerformance>",
        "<baselineBandwidthInGbps>0.064</baselineBandwidthInGbps>",
        "<sustainedClockSpeedInGhz>2.5</sustainedClockSpeedInGhz>",
        "<maximumThroughputInMBps>260.625</maximumThroughputInMBps>",
        "<maximumNetworkInterfaces>2</maximumNetworkInterfaces>",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    assert!(!answer.contains("supportedInRegion"));
    let everywhere = [
        ("InstanceType.1", "t3.micro"),
        ("IncludeUnsupportedInRegion", "true"),
    ];
    let answer = bench.ok("DescribeInstanceTypes", &everywhere);
    assert!(answer.contains("<supportedInRegion>true</supportedInRegion>"));
    assert!(!answer.contains("instanceStorageInfo") && !answer.contains("nextToken"));
    let disks = bench.ok("DescribeInstanceTypes", &[("InstanceType.1", "i3.4xlarge")]);
    assert!(
        disks.contains("<totalSizeInGB>3800</totalSizeInGB>"),
        "{disks}"
    );
}

#[test]
fn unknown_types_are_all_named() {
    let error = Bench::new().error(
        "DescribeInstanceTypes",
        &[
            ("InstanceType.1", "t3.huge"),
            ("InstanceType.2", "t3.micro"),
            ("InstanceType.3", "x.y"),
        ],
    );
    assert_eq!(error.code, "InvalidInstanceType");
    assert_eq!(
        error.message,
        "The following supplied instance types do not exist: [t3.huge, x.y]"
    );
}

#[test]
fn filters() {
    let bench = Bench::new();
    let with = |filters: &[(&str, &str)]| {
        let mut parameters = Vec::new();
        for (at, (name, value)) in filters.iter().enumerate() {
            parameters.push((format!("Filter.{}.Name", at + 1), (*name).to_owned()));
            parameters.push((format!("Filter.{}.Value.1", at + 1), (*value).to_owned()));
        }
        let parameters: Vec<(&str, &str)> = parameters
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        names(&bench.ok("DescribeInstanceTypes", &parameters))
    };
    assert_eq!(
        with(&[
            ("instance-type", "t4g.*"),
            ("memory-info.size-in-mib", "1024")
        ]),
        ["t4g.micro"]
    );
    assert_eq!(
        with(&[
            ("vcpu-info.default-vcpus", "1"),
            ("burstable-performance-supported", "true")
        ]),
        ["t2.micro", "t2.nano", "t2.small"]
    );
    assert_eq!(
        with(&[("free-tier-eligible", "true")]),
        ["t2.micro", "t3.micro"]
    );
    assert_eq!(with(&[("bare-metal", "true")]), [] as [&str; 0]);
    assert_eq!(with(&[("instance-storage-info.disk.type", "hdd")]).len(), 4);
    let arm = with(&[("processor-info.supported-architecture", "arm64")]);
    assert!(arm.contains(&"m7g.large".to_owned()) && !arm.contains(&"m5.large".to_owned()));
    let error = bench.error(
        "DescribeInstanceTypes",
        &[("Filter.1.Name", "colour"), ("Filter.1.Value.1", "red")],
    );
    assert_eq!(error.code, "InvalidParameterValue");
}

/// The filters of the API reference are all known.
#[test]
fn every_filter_of_the_reference_is_known() {
    let known = types::get("i3.large").unwrap();
    let info = info(&known, &types::details("i3.large").unwrap());
    for filter in [
        "auto-recovery-supported",
        "bare-metal",
        "burstable-performance-supported",
        "current-generation",
        "ebs-info.ebs-optimized-info.baseline-iops",
        "ebs-info.ebs-optimized-support",
        "ebs-info.nvme-support",
        "hibernation-supported",
        "hypervisor",
        "instance-storage-info.disk.count",
        "instance-storage-info.total-size-in-gb",
        "instance-storage-supported",
        "instance-type",
        "network-info.ena-support",
        "processor-info.sustained-clock-speed-in-ghz",
        "supported-boot-mode",
        "supported-root-device-type",
        "supported-usage-class",
        "supported-virtualization-type",
        "vcpu-info.valid-cores",
    ] {
        assert!(
            values(&info, filter).is_some_and(|values| !values.is_empty()),
            "{filter}"
        );
    }
}

#[test]
fn pages() {
    let bench = Bench::new();
    let first = bench.ok("DescribeInstanceTypes", &[("MaxResults", "100")]);
    let mut all = names(&first);
    let mut token = fields(&first, "nextToken").pop();
    while let Some(next) = token {
        let more = bench.ok(
            "DescribeInstanceTypes",
            &[("MaxResults", "100"), ("NextToken", &next)],
        );
        all.extend(names(&more));
        token = fields(&more, "nextToken").pop();
    }
    assert_eq!(all.len(), types::all().count());
    for parameters in [
        &[("MaxResults", "4")][..],
        &[("MaxResults", "101")],
        &[("MaxResults", "5"), ("InstanceType.1", "t3.micro")],
        &[("NextToken", "x")],
    ] {
        bench.error("DescribeInstanceTypes", parameters);
    }
}

#[test]
fn offerings() {
    let bench = Bench::new();
    let micro = |kind: &str| {
        let answer = bench.ok(
            "DescribeInstanceTypeOfferings",
            &[
                ("LocationType", kind),
                ("Filter.1.Name", "instance-type"),
                ("Filter.1.Value.1", "t3.micro"),
            ],
        );
        fields(&answer, "location")
    };
    assert_eq!(micro("region"), ["us-east-1"]);
    assert_eq!(
        micro("availability-zone"),
        ["us-east-1a", "us-east-1b", "us-east-1c"]
    );
    assert_eq!(
        micro("availability-zone-id"),
        ["use1-az1", "use1-az2", "use1-az3"]
    );
    assert!(micro("outpost").is_empty());
    let error = bench.error("DescribeInstanceTypeOfferings", &[("LocationType", "moon")]);
    assert_eq!(error.code, "InvalidParameterValue");
    bench.error(
        "DescribeInstanceTypeOfferings",
        &[
            ("LocationType", "outpost"),
            ("Filter.1.Name", "colour"),
            ("Filter.1.Value.1", "red"),
        ],
    );
    let all = bench.ok("DescribeInstanceTypeOfferings", &[]);
    assert_eq!(names(&all).len(), types::all().count());
    assert_eq!(zone_id("ap-southeast-2", "ap-southeast-2c"), "apse2-az3");
}
