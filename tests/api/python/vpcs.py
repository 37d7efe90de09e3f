"""VPCs, subnets, gateways, route tables, DHCP options, network ACLs; the default VPC."""

import re

from harness import (
    ACCOUNT,
    REGION,
    case,
    client,
    dry,
    equal,
    filters,
    main,
    name,
    paged,
    refused,
    specification,
    subnet,
    tags,
    vpc,
    wait,
)

ec2 = client()


@case
def the_default_vpc():
    (default,) = ec2.describe_vpcs(Filters=filters(is_default="true"))["Vpcs"]
    equal(default["CidrBlock"], "172.31.0.0/16")
    equal(default["IsDefault"], True)
    equal(default["State"], "available")
    equal(default["OwnerId"], ACCOUNT)
    here = filters(vpc_id=default["VpcId"])
    subnets = ec2.describe_subnets(Filters=here)["Subnets"]
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    equal(
        sorted(one["AvailabilityZone"] for one in subnets),
        sorted(zone["ZoneName"] for zone in zones),
        "a subnet per zone",
    )
    for one in subnets:
        assert one["CidrBlock"].endswith("/20"), one["CidrBlock"]
        equal(one["DefaultForAz"], True)
        equal(one["MapPublicIpOnLaunch"], True)
    (gateway,) = ec2.describe_internet_gateways(Filters=filters(attachment__vpc_id=default["VpcId"]))[
        "InternetGateways"
    ]
    (table,) = ec2.describe_route_tables(Filters=here)["RouteTables"]
    equal(table["Associations"][0]["Main"], True)
    routes = {route["DestinationCidrBlock"]: route for route in table["Routes"]}
    equal(routes["172.31.0.0/16"]["GatewayId"], "local")
    equal(routes["0.0.0.0/0"]["GatewayId"], gateway["InternetGatewayId"])
    (acl,) = ec2.describe_network_acls(Filters=here)["NetworkAcls"]
    equal(acl["IsDefault"], True)
    last = [entry for entry in acl["Entries"] if entry["RuleNumber"] == 32767]
    equal([entry["RuleAction"] for entry in last], ["deny", "deny"])
    (group,) = ec2.describe_security_groups(Filters=here + filters(group_name="default"))["SecurityGroups"]
    equal(group["Description"], "default VPC security group")


@case
def the_default_vpc_can_be_made_again():
    with refused("DefaultVpcAlreadyExists"):
        ec2.create_default_vpc()
    # Where nobody else is.
    there = client(region="ap-south-1")
    (default,) = there.describe_vpcs()["Vpcs"]
    one = default["VpcId"]
    for each in there.describe_subnets()["Subnets"]:
        there.delete_subnet(SubnetId=each["SubnetId"])
    for each in there.describe_internet_gateways()["InternetGateways"]:
        there.detach_internet_gateway(InternetGatewayId=each["InternetGatewayId"], VpcId=one)
        there.delete_internet_gateway(InternetGatewayId=each["InternetGatewayId"])
    there.delete_vpc(VpcId=one)
    equal(there.describe_vpcs()["Vpcs"], [], "a deleted default VPC comes not back by itself")
    dry(there.create_default_vpc)
    made = there.create_default_vpc()["Vpc"]
    equal(made["CidrBlock"], "172.31.0.0/16")
    equal(made["IsDefault"], True)
    equal(
        len(there.describe_subnets()["Subnets"]),
        len(there.describe_availability_zones()["AvailabilityZones"]),
    )


@case
def a_vpc_of_ones_own():
    made = ec2.create_vpc(
        CidrBlock="10.9.0.0/16", TagSpecifications=specification("vpc", Name="mine")
    )["Vpc"]
    one = made["VpcId"]
    assert re.fullmatch(r"vpc-[0-9a-f]{17}", one), one
    equal(made["State"], "pending")
    equal(tags(made), {"Name": "mine"})
    wait("vpc_exists", VpcIds=[one])
    wait("vpc_available", VpcIds=[one])
    here = filters(vpc_id=one)
    # What every VPC is born with.
    equal(len(ec2.describe_route_tables(Filters=here)["RouteTables"]), 1)
    equal(len(ec2.describe_network_acls(Filters=here)["NetworkAcls"]), 1)
    (group,) = ec2.describe_security_groups(Filters=here)["SecurityGroups"]
    equal(group["GroupName"], "default")
    equal([r["IpProtocol"] for r in group["IpPermissionsEgress"]], ["-1"])
    equal(group["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"], group["GroupId"])
    with refused("CannotDelete"):
        ec2.delete_security_group(GroupId=group["GroupId"])
    for which, key, value in [
        ("enableDnsSupport", "EnableDnsSupport", True),
        ("enableDnsHostnames", "EnableDnsHostnames", False),
        ("enableNetworkAddressUsageMetrics", "EnableNetworkAddressUsageMetrics", False),
    ]:
        answer = ec2.describe_vpc_attribute(VpcId=one, Attribute=which)
        equal(answer[key]["Value"], value, which)
    ec2.modify_vpc_attribute(VpcId=one, EnableDnsHostnames={"Value": True})
    answer = ec2.describe_vpc_attribute(VpcId=one, Attribute="enableDnsHostnames")
    equal(answer["EnableDnsHostnames"]["Value"], True)
    ec2.delete_vpc(VpcId=one)
    with refused("InvalidVpcID.NotFound", one):
        ec2.describe_vpcs(VpcIds=[one])
    with refused("InvalidVpcID.NotFound"):
        ec2.delete_vpc(VpcId=one)


@case
def wrong_vpcs():
    for cidr in ["10.0.0.0/15", "10.0.0.0/29"]:
        with refused("InvalidVpc.Range"):
            ec2.create_vpc(CidrBlock=cidr)
    with refused("InvalidParameterValue"):
        ec2.create_vpc(CidrBlock="rubbish")
    with refused("MissingParameter"):
        ec2.create_vpc()
    with refused("InvalidVpcID.NotFound"):
        ec2.describe_vpcs(VpcIds=["vpc-0123456789abcdef0"])


@case
def subnets():
    with vpc() as parent:
        made = ec2.create_subnet(
            VpcId=parent,
            CidrBlock="10.7.1.0/24",
            AvailabilityZone=REGION + "b",
            TagSpecifications=specification("subnet", Name="b"),
        )["Subnet"]
        one = made["SubnetId"]
        wait("subnet_available", SubnetIds=[one])
        # EC2 keeps five addresses of each subnet.
        equal(made["AvailableIpAddressCount"], 251)
        equal(made["AvailabilityZone"], REGION + "b")
        equal(made["MapPublicIpOnLaunch"], False)
        equal(made["DefaultForAz"], False)
        assert made["SubnetArn"].endswith(f":{ACCOUNT}:subnet/{one}"), made["SubnetArn"]
        for cidr in ["10.7.1.128/25", "10.7.0.0/20"]:
            with refused("InvalidSubnet.Conflict"):
                ec2.create_subnet(VpcId=parent, CidrBlock=cidr)
        for cidr in ["10.8.1.0/24", "10.7.2.0/29"]:
            with refused("InvalidSubnet.Range"):
                ec2.create_subnet(VpcId=parent, CidrBlock=cidr)
        ec2.modify_subnet_attribute(SubnetId=one, MapPublicIpOnLaunch={"Value": True})
        (found,) = ec2.describe_subnets(Filters=filters(vpc_id=parent, tag_Name="b"))["Subnets"]
        equal(found["MapPublicIpOnLaunch"], True)
        with refused("DependencyViolation"):
            ec2.delete_vpc(VpcId=parent)
        ec2.delete_subnet(SubnetId=one)
        with refused("InvalidSubnetID.NotFound", one):
            ec2.delete_subnet(SubnetId=one)


@case
def internet_gateways():
    with vpc() as parent:
        one = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        wait("internet_gateway_exists", InternetGatewayIds=[one])
        ec2.attach_internet_gateway(InternetGatewayId=one, VpcId=parent)
        with refused("Resource.AlreadyAssociated"):
            ec2.attach_internet_gateway(InternetGatewayId=one, VpcId=parent)
        (found,) = ec2.describe_internet_gateways(InternetGatewayIds=[one])["InternetGateways"]
        equal(found["Attachments"], [{"State": "available", "VpcId": parent}])
        with refused("DependencyViolation"):
            ec2.delete_internet_gateway(InternetGatewayId=one)
        with refused("DependencyViolation"):
            ec2.delete_vpc(VpcId=parent)
        ec2.detach_internet_gateway(InternetGatewayId=one, VpcId=parent)
        with refused("Gateway.NotAttached"):
            ec2.detach_internet_gateway(InternetGatewayId=one, VpcId=parent)
        ec2.delete_internet_gateway(InternetGatewayId=one)
        with refused("InvalidInternetGatewayID.NotFound"):
            ec2.describe_internet_gateways(InternetGatewayIds=[one])


@case
def route_tables():
    with subnet() as (parent, below):
        table = ec2.create_route_table(VpcId=parent)["RouteTable"]
        one = table["RouteTableId"]
        equal([route["GatewayId"] for route in table["Routes"]], ["local"])
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=parent)

        def routes():
            (found,) = ec2.describe_route_tables(RouteTableIds=[one])["RouteTables"]
            return {r["DestinationCidrBlock"]: (r["GatewayId"], r["State"], r["Origin"]) for r in found["Routes"]}

        out = {"RouteTableId": one, "DestinationCidrBlock": "0.0.0.0/0"}
        equal(ec2.create_route(GatewayId=gateway, **out)["Return"], True)
        equal(routes()["0.0.0.0/0"], (gateway, "active", "CreateRoute"))
        equal(routes()["10.7.0.0/16"], ("local", "active", "CreateRouteTable"))
        with refused("RouteAlreadyExists"):
            ec2.create_route(GatewayId="igw-0123456789abcdef0", **out)
        ec2.replace_route(GatewayId=gateway, **out)
        bound = ec2.associate_route_table(RouteTableId=one, SubnetId=below)["AssociationId"]
        assert bound.startswith("rtbassoc-"), bound
        with refused("DependencyViolation"):
            ec2.delete_route_table(RouteTableId=one)
        (found,) = ec2.describe_route_tables(Filters=filters(association__subnet_id=below))["RouteTables"]
        equal(found["RouteTableId"], one)
        (main_table,) = ec2.describe_route_tables(Filters=filters(vpc_id=parent, association__main="true"))[
            "RouteTables"
        ]
        moved = ec2.replace_route_table_association(
            AssociationId=bound, RouteTableId=main_table["RouteTableId"]
        )["NewAssociationId"]
        ec2.disassociate_route_table(AssociationId=moved)
        with refused("InvalidAssociationID.NotFound"):
            ec2.disassociate_route_table(AssociationId=moved)
        ec2.delete_route(**out)
        with refused("InvalidRoute.NotFound"):
            ec2.delete_route(**out)
        with refused("DependencyViolation"):
            ec2.delete_route_table(RouteTableId=main_table["RouteTableId"])
        ec2.delete_route_table(RouteTableId=one)
        with refused("InvalidRouteTableID.NotFound"):
            ec2.describe_route_tables(RouteTableIds=[one])
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=parent)
        ec2.delete_internet_gateway(InternetGatewayId=gateway)


@case
def dhcp_options():
    made = ec2.create_dhcp_options(
        DhcpConfigurations=[
            {"Key": "domain-name", "Values": ["example.com"]},
            {"Key": "domain-name-servers", "Values": ["10.2.5.1", "10.2.5.2"]},
        ]
    )["DhcpOptions"]
    one = made["DhcpOptionsId"]
    assert one.startswith("dopt-"), one
    with vpc() as parent:
        ec2.associate_dhcp_options(DhcpOptionsId=one, VpcId=parent)
        equal(ec2.describe_vpcs(VpcIds=[parent])["Vpcs"][0]["DhcpOptionsId"], one)
        with refused("DependencyViolation"):
            ec2.delete_dhcp_options(DhcpOptionsId=one)
        ec2.associate_dhcp_options(DhcpOptionsId="default", VpcId=parent)
    (found,) = ec2.describe_dhcp_options(DhcpOptionsIds=[one])["DhcpOptions"]
    values = {c["Key"]: [v["Value"] for v in c["Values"]] for c in found["DhcpConfigurations"]}
    equal(values, {"domain-name": ["example.com"], "domain-name-servers": ["10.2.5.1", "10.2.5.2"]})
    ec2.delete_dhcp_options(DhcpOptionsId=one)
    with refused("InvalidDhcpOptionID.NotFound"):
        ec2.delete_dhcp_options(DhcpOptionsId=one)


@case
def pages():
    mark = name("mark")
    with vpc() as parent:
        made = []
        for number in range(6):
            answer = ec2.create_subnet(
                VpcId=parent,
                CidrBlock=f"10.7.{number}.0/24",
                TagSpecifications=specification("subnet", mark=mark),
            )
            made.append(answer["Subnet"]["SubnetId"])
        found = paged("describe_subnets", "Subnets", 5, Filters=filters(tag_mark=mark))
        equal(sorted(one["SubnetId"] for one in found), sorted(made))
        for one in made:
            ec2.delete_subnet(SubnetId=one)


@case
def dry_runs_change_nothing():
    before = len(ec2.describe_vpcs()["Vpcs"])
    dry(ec2.create_vpc, CidrBlock="10.9.0.0/16")
    equal(len(ec2.describe_vpcs()["Vpcs"]), before)
    with vpc() as parent:
        dry(ec2.create_subnet, VpcId=parent, CidrBlock="10.7.1.0/24")
        dry(ec2.create_route_table, VpcId=parent)
        dry(ec2.delete_vpc, VpcId=parent)
        equal(len(ec2.describe_vpcs(VpcIds=[parent])["Vpcs"]), 1)
    dry(ec2.create_internet_gateway)
    dry(ec2.describe_subnets)


main()
