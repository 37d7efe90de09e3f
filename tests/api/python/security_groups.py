"""Security groups and their rules."""

import re

from harness import (
    ACCOUNT,
    case,
    client,
    dry,
    equal,
    filters,
    main,
    name,
    refused,
    specification,
    vpc,
    wait,
)

ec2 = client()


def group(**arguments):
    arguments = {"GroupName": name("group"), "Description": "of a test", **arguments}
    return ec2.create_security_group(**arguments)["GroupId"]


def shown(one):
    return ec2.describe_security_groups(GroupIds=[one])["SecurityGroups"][0]


def tcp(port, cidr="10.0.0.0/8", **more):
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": cidr, **more}]}


@case
def create_and_describe():
    with vpc() as parent:
        named = name("group")
        made = ec2.create_security_group(
            GroupName=named,
            Description="of a test",
            VpcId=parent,
            TagSpecifications=specification("security-group", a="b"),
        )
        one = made["GroupId"]
        assert re.fullmatch(r"sg-[0-9a-f]{17}", one), one
        equal(made["Tags"], [{"Key": "a", "Value": "b"}])
        wait("security_group_exists", GroupIds=[one])
        found = shown(one)
        equal(found["VpcId"], parent)
        equal(found["OwnerId"], ACCOUNT)
        equal(found["IpPermissions"], [])
        (out,) = found["IpPermissionsEgress"]
        equal(out["IpProtocol"], "-1")
        equal(out["IpRanges"], [{"CidrIp": "0.0.0.0/0"}])
        assert "FromPort" not in out, "all protocols have no ports"
        with refused("InvalidGroup.Duplicate", named):
            ec2.create_security_group(GroupName=named, Description="d", VpcId=parent)
        # The same name elsewhere is another group.
        other = group(GroupName=named)
        by = filters(group_name=named)
        equal(len(ec2.describe_security_groups(Filters=by)["SecurityGroups"]), 2)
        by = filters(group_name=named, vpc_id=parent)
        equal(len(ec2.describe_security_groups(Filters=by)["SecurityGroups"]), 1)
        with refused("DependencyViolation"):
            ec2.delete_vpc(VpcId=parent)
        for each in [one, other]:
            ec2.delete_security_group(GroupId=each)
        with refused("InvalidGroup.NotFound", one):
            ec2.describe_security_groups(GroupIds=[one])
        with refused("InvalidGroup.NotFound"):
            ec2.delete_security_group(GroupId=one)


@case
def rules_come_and_go():
    one = group()
    answer = ec2.authorize_security_group_ingress(
        GroupId=one, IpPermissions=[tcp(22, Description="ssh"), tcp(80, "0.0.0.0/0")]
    )
    equal(answer["Return"], True)
    rules = answer["SecurityGroupRules"]
    equal(len(rules), 2)
    assert all(re.fullmatch(r"sgr-[0-9a-f]{17}", rule["SecurityGroupRuleId"]) for rule in rules)
    equal({rule["IsEgress"] for rule in rules}, {False})
    equal({rule["CidrIpv4"] for rule in rules}, {"10.0.0.0/8", "0.0.0.0/0"})
    with refused("InvalidPermission.Duplicate"):
        ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[tcp(22)])
    # The short form.
    ec2.authorize_security_group_ingress(
        GroupId=one, IpProtocol="udp", FromPort=53, ToPort=60, CidrIp="10.1.0.0/16"
    )
    have = {(p["IpProtocol"], p["FromPort"], p["ToPort"]) for p in shown(one)["IpPermissions"]}
    equal(have, {("tcp", 22, 22), ("tcp", 80, 80), ("udp", 53, 60)})
    by = filters(group_id=one)
    told = ec2.describe_security_group_rules(Filters=by)["SecurityGroupRules"]
    equal(sorted(rule["IsEgress"] for rule in told), [False, False, False, True])
    ec2.revoke_security_group_ingress(GroupId=one, IpPermissions=[tcp(22)])
    by_id = [rule["SecurityGroupRuleId"] for rule in rules if rule["CidrIpv4"] == "0.0.0.0/0"]
    ec2.revoke_security_group_ingress(GroupId=one, SecurityGroupRuleIds=by_id)
    equal([p["FromPort"] for p in shown(one)["IpPermissions"]], [53])
    with refused("InvalidPermission.NotFound"):
        ec2.revoke_security_group_ingress(GroupId=one, IpPermissions=[tcp(22)])
    with refused("InvalidSecurityGroupRuleId.NotFound"):
        ec2.describe_security_group_rules(SecurityGroupRuleIds=["sgr-0123456789abcdef0"])
    ec2.delete_security_group(GroupId=one)


@case
def ranges_of_one_port_are_told_together():
    one = group()
    for cidr in ["10.0.0.0/8", "192.168.0.0/16"]:
        ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[tcp(22, cidr)])
    (permission,) = shown(one)["IpPermissions"]
    equal({r["CidrIp"] for r in permission["IpRanges"]}, {"10.0.0.0/8", "192.168.0.0/16"})
    ec2.delete_security_group(GroupId=one)


@case
def groups_refer_to_groups():
    web, data = group(), group()
    ec2.authorize_security_group_ingress(
        GroupId=data,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432, "UserIdGroupPairs": [{"GroupId": web}]}
        ],
    )
    ec2.authorize_security_group_ingress(
        GroupId=data, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": data}]}]
    )
    pairs = {
        p["IpProtocol"]: p["UserIdGroupPairs"] for p in shown(data)["IpPermissions"]
    }
    equal(pairs["tcp"][0]["GroupId"], web)
    equal(pairs["tcp"][0]["UserId"], ACCOUNT)
    equal(pairs["-1"][0]["GroupId"], data)
    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=web)
    # A group that only refers to itself can go.
    ec2.delete_security_group(GroupId=data)
    ec2.delete_security_group(GroupId=web)


@case
def egress():
    one = group()
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.revoke_security_group_egress(GroupId=one, IpPermissions=everything)
    equal(shown(one)["IpPermissionsEgress"], [])
    answer = ec2.authorize_security_group_egress(GroupId=one, IpPermissions=[tcp(443, "0.0.0.0/0")])
    equal(answer["SecurityGroupRules"][0]["IsEgress"], True)
    (permission,) = shown(one)["IpPermissionsEgress"]
    equal((permission["FromPort"], permission["ToPort"]), (443, 443))
    ec2.delete_security_group(GroupId=one)


@case
def icmp():
    one = group()
    ping = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[ping])
    (permission,) = shown(one)["IpPermissions"]
    equal((permission["IpProtocol"], permission["FromPort"], permission["ToPort"]), ("icmp", 8, -1))
    ec2.delete_security_group(GroupId=one)


@case
def wrong_rules():
    one = group()
    for code, permission in [
        ("InvalidParameterValue", tcp(70000)),
        ("InvalidParameterValue", tcp(22, "rubbish")),
        ("InvalidParameterValue", {**tcp(22), "ToPort": 21}),
        ("InvalidParameterValue", {**tcp(22), "IpProtocol": "carrier-pigeon"}),
        (
            "InvalidGroup.NotFound",
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-0123456789abcdef0"}]},
        ),
    ]:
        with refused(code):
            ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[permission])
    # One wrong rule, and none is taken.
    with refused("InvalidParameterValue"):
        ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[tcp(22), tcp(70000)])
    equal(shown(one)["IpPermissions"], [])
    with refused("InvalidGroup.NotFound"):
        ec2.authorize_security_group_ingress(GroupId="sg-0123456789abcdef0", IpPermissions=[tcp(22)])
    with refused("InvalidParameterValue"):
        group(GroupName="sg-mine")
    with refused("InvalidParameterValue"):
        # Letters, digits, spaces and ._-:/()#,@[]+=&;{}!$* and no other.
        group(Description="a test's")
    with refused("MissingParameter"):
        ec2.create_security_group(GroupName=name("group"))
    ec2.delete_security_group(GroupId=one)


@case
def descriptions_change():
    one = group()
    old, new = tcp(22, Description="old"), tcp(22, Description="new")
    ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[old])
    ec2.authorize_security_group_egress(GroupId=one, IpPermissions=[old])
    ec2.update_security_group_rule_descriptions_ingress(GroupId=one, IpPermissions=[new])
    equal(shown(one)["IpPermissions"][0]["IpRanges"][0]["Description"], "new")
    ec2.update_security_group_rule_descriptions_egress(GroupId=one, IpPermissions=[new])
    told = [p for p in shown(one)["IpPermissionsEgress"] if p["IpProtocol"] == "tcp"]
    equal(told[0]["IpRanges"][0]["Description"], "new")
    with refused("InvalidPermission.NotFound"):
        ec2.update_security_group_rule_descriptions_ingress(GroupId=one, IpPermissions=[tcp(23)])
    ec2.delete_security_group(GroupId=one)


@case
def rules_change():
    one = group()
    (rule,) = ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[tcp(22)])["SecurityGroupRules"]
    ec2.modify_security_group_rules(
        GroupId=one,
        SecurityGroupRules=[
            {
                "SecurityGroupRuleId": rule["SecurityGroupRuleId"],
                "SecurityGroupRule": {
                    "IpProtocol": "tcp",
                    "FromPort": 2222,
                    "ToPort": 2222,
                    "CidrIpv4": "10.0.0.0/8",
                },
            }
        ],
    )
    equal(shown(one)["IpPermissions"][0]["FromPort"], 2222)
    ec2.delete_security_group(GroupId=one)


@case
def dry_runs_change_nothing():
    dry(ec2.create_security_group, GroupName=name("group"), Description="d")
    one = group()
    dry(ec2.authorize_security_group_ingress, GroupId=one, IpPermissions=[tcp(22)])
    dry(ec2.delete_security_group, GroupId=one)
    equal(shown(one)["IpPermissions"], [])
    ec2.delete_security_group(GroupId=one)


main()
