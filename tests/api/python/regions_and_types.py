"""Regions, zones, account attributes, instance types and where they are offered."""

from harness import REGION, case, client, dry, equal, filters, main, paged, refused

ec2 = client()


@case
def regions():
    names = [region["RegionName"] for region in ec2.describe_regions()["Regions"]]
    assert REGION in names, names
    (here,) = ec2.describe_regions(RegionNames=[REGION])["Regions"]
    assert here["Endpoint"], "no endpoint"
    assert here["OptInStatus"] in ("opt-in-not-required", "opted-in"), here
    with refused("InvalidParameterValue"):
        ec2.describe_regions(RegionNames=["mars-north-1"])
    equal(
        [r["RegionName"] for r in ec2.describe_regions(Filters=filters(region_name=REGION))["Regions"]],
        [REGION],
    )


@case
def zones():
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert zones, "no zone"
    for zone in zones:
        equal(zone["State"], "available")
        equal(zone["RegionName"], REGION)
        equal(zone["ZoneType"], "availability-zone")
        assert zone["ZoneName"].startswith(REGION), zone["ZoneName"]
        assert zone["ZoneId"], "no id"
    first = zones[0]["ZoneName"]
    found = ec2.describe_availability_zones(ZoneNames=[first])["AvailabilityZones"]
    equal([zone["ZoneName"] for zone in found], [first])
    with refused("InvalidParameterValue"):
        ec2.describe_availability_zones(ZoneNames=["mars-north-1a"])


@case
def account_attributes():
    found = ec2.describe_account_attributes()["AccountAttributes"]
    values = {a["AttributeName"]: [v["AttributeValue"] for v in a["AttributeValues"]] for a in found}
    equal(values["supported-platforms"], ["VPC"])
    assert values["default-vpc"][0].startswith("vpc-"), values["default-vpc"]
    (only,) = ec2.describe_account_attributes(AttributeNames=["max-elastic-ips"])["AccountAttributes"]
    assert only["AttributeName"] in ("max-elastic-ips", "vpc-max-elastic-ips"), only


@case
def instance_types():
    (micro,) = ec2.describe_instance_types(InstanceTypes=["t3.micro"])["InstanceTypes"]
    equal(micro["VCpuInfo"]["DefaultVCpus"], 2)
    equal(micro["MemoryInfo"]["SizeInMiB"], 1024)
    equal(micro["ProcessorInfo"]["SupportedArchitectures"], ["x86_64"])
    equal(micro["BurstablePerformanceSupported"], True)
    equal(micro["InstanceStorageSupported"], False)
    equal(micro["CurrentGeneration"], True)
    equal(micro["NetworkInfo"]["MaximumNetworkInterfaces"], 2)
    (arm,) = ec2.describe_instance_types(InstanceTypes=["m7g.xlarge"])["InstanceTypes"]
    equal(arm["ProcessorInfo"]["SupportedArchitectures"], ["arm64"])
    equal(arm["VCpuInfo"]["DefaultVCpus"], 4)
    equal(arm["MemoryInfo"]["SizeInMiB"], 16384)
    (disks,) = ec2.describe_instance_types(InstanceTypes=["i3.large"])["InstanceTypes"]
    equal(disks["InstanceStorageInfo"]["TotalSizeInGB"], 475)
    with refused("InvalidInstanceType"):
        ec2.describe_instance_types(InstanceTypes=["t3.enormous"])


@case
def instance_types_by_filter_and_page():
    t3 = ec2.describe_instance_types(Filters=filters(instance_type="t3.*"))["InstanceTypes"]
    equal(
        {one["InstanceType"].removeprefix("t3.") for one in t3},
        {"nano", "micro", "small", "medium", "large", "xlarge", "2xlarge"},
    )
    found = paged("describe_instance_types", "InstanceTypes", 20)
    names = [one["InstanceType"] for one in found]
    equal(len(names), len(set(names)), "the number of types")
    for family in "t2 t3 t3a t4g m5 m6i m6g m7i m7g c5 c6i c6g c7g r5 r6i r6g i3 i4i d3".split():
        assert any(one.startswith(family + ".") for one in names), f"no type of {family}"
    burstable = ec2.describe_instance_types(
        Filters=[{"Name": "burstable-performance-supported", "Values": ["true"]}]
    )["InstanceTypes"]
    equal({one["InstanceType"].split(".")[0] for one in burstable}, {"t2", "t3", "t3a", "t4g"})


@case
def offerings():
    by = filters(instance_type="t3.micro")
    (here,) = ec2.describe_instance_type_offerings(Filters=by)["InstanceTypeOfferings"]
    equal((here["LocationType"], here["Location"]), ("region", REGION))
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    found = ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=by)
    equal(
        {one["Location"] for one in found["InstanceTypeOfferings"]},
        {zone["ZoneName"] for zone in zones},
    )


@case
def dry_runs():
    for call in [
        ec2.describe_regions,
        ec2.describe_availability_zones,
        ec2.describe_account_attributes,
        ec2.describe_instance_types,
        ec2.describe_instance_type_offerings,
    ]:
        dry(call)


main()
