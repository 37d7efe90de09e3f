"""Elastic IPs and network interfaces."""

from harness import (
    case,
    client,
    dry,
    equal,
    filters,
    instance,
    instances,
    main,
    refused,
    specification,
    subnet,
    tags,
    wait,
)

ec2 = client()


@case
def allocate_and_release():
    made = ec2.allocate_address(Domain="vpc", TagSpecifications=specification("elastic-ip", a="b"))
    equal(made["Domain"], "vpc")
    one = made["AllocationId"]
    assert one.startswith("eipalloc-"), one
    (found,) = ec2.describe_addresses(AllocationIds=[one])["Addresses"]
    equal(found["PublicIp"], made["PublicIp"])
    equal(tags(found), {"a": "b"})
    assert "AssociationId" not in found, "nothing has it yet"
    (found,) = ec2.describe_addresses(PublicIps=[made["PublicIp"]])["Addresses"]
    equal(found["AllocationId"], one)
    ec2.release_address(AllocationId=one)
    with refused("InvalidAllocationID.NotFound", one):
        ec2.describe_addresses(AllocationIds=[one])
    with refused("InvalidAllocationID.NotFound"):
        ec2.release_address(AllocationId=one)


@case
def five_a_region():
    made = []
    try:
        with refused("AddressLimitExceeded"):
            for _ in range(6):
                made.append(ec2.allocate_address(Domain="vpc")["AllocationId"])
        equal(len(made), 5)
    finally:
        for one in made:
            ec2.release_address(AllocationId=one)


@case
def an_address_moves_between_instances():
    made = ec2.allocate_address(Domain="vpc")
    one, public = made["AllocationId"], made["PublicIp"]
    with instances(2) as (first, second):
        bound = ec2.associate_address(AllocationId=one, InstanceId=first)["AssociationId"]
        equal(instance(first)["PublicIpAddress"], public)
        # The same again is no error; to another only when moving is allowed.
        ec2.associate_address(AllocationId=one, InstanceId=first)
        with refused("Resource.AlreadyAssociated"):
            ec2.associate_address(AllocationId=one, InstanceId=second, AllowReassociation=False)
        with refused("InvalidIPAddress.InUse"):
            ec2.release_address(AllocationId=one)
        bound = ec2.associate_address(AllocationId=one, InstanceId=second, AllowReassociation=True)[
            "AssociationId"
        ]
        equal(instance(second)["PublicIpAddress"], public)
        assert instance(first).get("PublicIpAddress") != public
        # It stays over a stop.
        ec2.stop_instances(InstanceIds=[second])
        wait("instance_stopped", InstanceIds=[second])
        equal(instance(second)["PublicIpAddress"], public)
        (found,) = ec2.describe_addresses(Filters=filters(instance_id=second))["Addresses"]
        equal(found["PrivateIpAddress"], instance(second)["PrivateIpAddress"])
        ec2.disassociate_address(AssociationId=bound)
        with refused("InvalidAssociationID.NotFound"):
            ec2.disassociate_address(AssociationId=bound)
    ec2.release_address(AllocationId=one)


@case
def interfaces():
    with subnet() as (parent, below):
        made = ec2.create_network_interface(
            SubnetId=below,
            PrivateIpAddress="10.7.1.20",
            Description="second",
            TagSpecifications=specification("network-interface", a="b"),
        )["NetworkInterface"]
        one = made["NetworkInterfaceId"]
        wait("network_interface_available", NetworkInterfaceIds=[one])
        equal(made["PrivateIpAddress"], "10.7.1.20")
        (found,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[one])["NetworkInterfaces"]
        equal(found["VpcId"], parent)
        equal(found["SourceDestCheck"], True)
        equal(found["InterfaceType"], "interface")
        equal([group["GroupName"] for group in found["Groups"]], ["default"])
        equal({tag["Key"]: tag["Value"] for tag in found["TagSet"]}, {"a": "b"})
        assert "Attachment" not in found, "nothing has it"
        with refused("InvalidIPAddress.InUse"):
            ec2.create_network_interface(SubnetId=below, PrivateIpAddress="10.7.1.20")
        with refused("InvalidParameterValue"):
            ec2.create_network_interface(SubnetId=below, PrivateIpAddress="10.7.2.20")
        with refused("DependencyViolation"):
            ec2.delete_subnet(SubnetId=below)
        ec2.assign_private_ip_addresses(NetworkInterfaceId=one, SecondaryPrivateIpAddressCount=2)
        (found,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[one])["NetworkInterfaces"]
        equal(sorted(a["Primary"] for a in found["PrivateIpAddresses"]), [False, False, True])
        more = [a["PrivateIpAddress"] for a in found["PrivateIpAddresses"] if not a["Primary"]]
        ec2.unassign_private_ip_addresses(NetworkInterfaceId=one, PrivateIpAddresses=more)
        ec2.modify_network_interface_attribute(NetworkInterfaceId=one, SourceDestCheck={"Value": False})
        ec2.modify_network_interface_attribute(NetworkInterfaceId=one, Description={"Value": "new"})
        answer = ec2.describe_network_interface_attribute(NetworkInterfaceId=one, Attribute="description")
        equal(answer["Description"]["Value"], "new")
        (found,) = ec2.describe_network_interfaces(Filters=filters(subnet_id=below))["NetworkInterfaces"]
        equal(found["SourceDestCheck"], False)
        equal(len(found["PrivateIpAddresses"]), 1)
        ec2.delete_network_interface(NetworkInterfaceId=one)
        with refused("InvalidNetworkInterfaceID.NotFound", one):
            ec2.describe_network_interfaces(NetworkInterfaceIds=[one])


@case
def attach_while_stopped():
    with instances() as (one,):
        ec2.stop_instances(InstanceIds=[one])
        wait("instance_stopped", InstanceIds=[one])
        card = ec2.create_network_interface(SubnetId=instance(one)["SubnetId"])["NetworkInterface"]
        card = card["NetworkInterfaceId"]
        bound = ec2.attach_network_interface(NetworkInterfaceId=card, InstanceId=one, DeviceIndex=1)
        bound = bound["AttachmentId"]
        assert bound.startswith("eni-attach-"), bound
        equal(len(instance(one)["NetworkInterfaces"]), 2)
        with refused("InvalidParameterValue"):
            ec2.delete_network_interface(NetworkInterfaceId=card)
        ec2.detach_network_interface(AttachmentId=bound)
        wait("network_interface_available", NetworkInterfaceIds=[card])
        ec2.delete_network_interface(NetworkInterfaceId=card)


@case
def an_instances_interface_goes_with_it():
    with instances() as (one,):
        card = instance(one)["NetworkInterfaces"][0]["NetworkInterfaceId"]
        by = [{"Name": "attachment.instance-id", "Values": [one]}]
        (found,) = ec2.describe_network_interfaces(Filters=by)["NetworkInterfaces"]
        equal(found["NetworkInterfaceId"], card)
        equal(found["Status"], "in-use")
        equal(found["Attachment"]["InstanceId"], one)
    with refused("InvalidNetworkInterfaceID.NotFound"):
        ec2.describe_network_interfaces(NetworkInterfaceIds=[card])


@case
def dry_runs_change_nothing():
    before = len(ec2.describe_addresses()["Addresses"])
    dry(ec2.allocate_address, Domain="vpc")
    equal(len(ec2.describe_addresses()["Addresses"]), before)
    with subnet() as (_, below):
        dry(ec2.create_network_interface, SubnetId=below)


main()
