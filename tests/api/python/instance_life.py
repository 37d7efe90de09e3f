"""Instances: run, describe, stop, start, reboot, terminate, and what is told on the way."""

import base64

from harness import (
    ACCOUNT,
    REGION,
    case,
    client,
    dry,
    equal,
    filters,
    image,
    instance,
    instances,
    main,
    name,
    paged,
    refused,
    specification,
    tags,
    wait,
)

ec2 = client()


def run(**arguments):
    """Runs one, without waiting."""
    arguments = {"ImageId": image(), "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **arguments}
    return ec2.run_instances(**arguments)


def end(*ids):
    ec2.terminate_instances(InstanceIds=list(ids))
    wait("instance_terminated", InstanceIds=list(ids))


@case
def what_is_sent_empty_is_not_given():
    group = ec2.create_security_group(GroupName=name(), Description="of a test", VpcId="")["GroupId"]
    card = {"DeviceIndex": 0, "SubnetId": "", "Groups": [group], "AssociatePublicIpAddress": True}
    made = run(NetworkInterfaces=[card], Placement={"AvailabilityZone": ""}, IamInstanceProfile={"Name": ""})
    (one,) = made["Instances"]
    assert one["SubnetId"].startswith("subnet-") and "IamInstanceProfile" not in one, one
    end(one["InstanceId"])
    ec2.delete_security_group(GroupId=group)


@case
def run_and_describe():
    made = run()
    equal(made["OwnerId"], ACCOUNT)
    assert made["ReservationId"].startswith("r-"), made["ReservationId"]
    (one,) = made["Instances"]
    equal(one["State"], {"Code": 0, "Name": "pending"})
    equal(one["AmiLaunchIndex"], 0)
    wait("instance_exists", InstanceIds=[one["InstanceId"]])
    wait("instance_running", InstanceIds=[one["InstanceId"]])
    now = instance(one["InstanceId"])
    equal(now["State"], {"Code": 16, "Name": "running"})
    equal(now["InstanceType"], "t3.micro")
    equal(now["Placement"]["Tenancy"], "default")
    assert now["Placement"]["AvailabilityZone"].startswith(REGION)
    equal(now["Monitoring"], {"State": "disabled"})
    equal(now["VirtualizationType"], "hvm")
    equal(now["Architecture"], "x86_64")
    equal(now["SourceDestCheck"], True)
    dashes = now["PrivateIpAddress"].replace(".", "-")
    assert now["PrivateDnsName"].startswith(f"ip-{dashes}."), now["PrivateDnsName"]
    (card,) = now["NetworkInterfaces"]
    equal(card["PrivateIpAddress"], now["PrivateIpAddress"])
    equal(card["Attachment"]["DeviceIndex"], 0)
    equal(card["Association"]["PublicIp"], now["PublicIpAddress"])
    equal(card["VpcId"], now["VpcId"])
    equal([group["GroupName"] for group in now["SecurityGroups"]], ["default"])
    root = [disk for disk in now["BlockDeviceMappings"] if disk["DeviceName"] == now["RootDeviceName"]]
    equal(len(root), 1, "the number of root disks")
    equal(root[0]["Ebs"]["DeleteOnTermination"], True)
    equal(root[0]["Ebs"]["Status"], "attached")
    end(one["InstanceId"])


@case
def several_in_one_reservation():
    with instances(3) as ids:
        (reservation,) = ec2.describe_instances(InstanceIds=ids)["Reservations"]
        found = reservation["Instances"]
        equal(sorted(one["AmiLaunchIndex"] for one in found), [0, 1, 2])
        equal(len({one["PrivateIpAddress"] for one in found}), 3)


@case
def the_life():
    with instances(TagSpecifications=specification("instance", Name="life")) as (one,):
        first = instance(one)
        stopped = ec2.stop_instances(InstanceIds=[one])["StoppingInstances"][0]
        equal(stopped["PreviousState"], {"Code": 16, "Name": "running"})
        equal(stopped["CurrentState"]["Name"], "stopping")
        wait("instance_stopped", InstanceIds=[one])
        rest = instance(one)
        equal(rest["State"], {"Code": 80, "Name": "stopped"})
        equal(rest["StateReason"]["Code"], "Client.UserInitiatedShutdown")
        assert rest["StateTransitionReason"].startswith("User initiated"), rest["StateTransitionReason"]
        assert not rest.get("PublicIpAddress"), "a stopped instance has a public address"
        equal(rest["PrivateIpAddress"], first["PrivateIpAddress"])
        # Stopping what is stopped is no error, rebooting it is one.
        equal(ec2.stop_instances(InstanceIds=[one])["StoppingInstances"][0]["CurrentState"]["Name"], "stopped")
        with refused("IncorrectInstanceState"):
            ec2.reboot_instances(InstanceIds=[one])
        started = ec2.start_instances(InstanceIds=[one])["StartingInstances"][0]
        equal(started["PreviousState"], {"Code": 80, "Name": "stopped"})
        equal(started["CurrentState"], {"Code": 0, "Name": "pending"})
        wait("instance_running", InstanceIds=[one])
        again = instance(one)
        equal(again["PrivateIpAddress"], first["PrivateIpAddress"])
        assert again["PublicIpAddress"] != first["PublicIpAddress"], "the public address is the old one"
        assert again["LaunchTime"] >= first["LaunchTime"]
        # On EC2 a running one has no reason; a simulated one says what it is.
        equal(again["StateReason"]["Code"], "Cumulet.Simulated")
        equal(tags(again), {"Name": "life"})
        equal(ec2.start_instances(InstanceIds=[one])["StartingInstances"][0]["CurrentState"]["Name"], "running")
        ec2.reboot_instances(InstanceIds=[one])
        wait("instance_running", InstanceIds=[one])
        equal(instance(one)["PublicIpAddress"], again["PublicIpAddress"])
    gone = instance(one)
    equal(gone["State"], {"Code": 48, "Name": "terminated"})
    # Once more is no error; starting it is one.
    ec2.terminate_instances(InstanceIds=[one])
    with refused("IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[one])


@case
def status_checks():
    with instances() as (one,):
        wait("instance_status_ok", InstanceIds=[one])
        wait("system_status_ok", InstanceIds=[one])
        (status,) = ec2.describe_instance_status(InstanceIds=[one])["InstanceStatuses"]
        equal(status["InstanceState"], {"Code": 16, "Name": "running"})
        equal(status["SystemStatus"]["Status"], "ok")
        equal(status["InstanceStatus"]["Details"][0]["Name"], "reachability")
        equal(status["InstanceStatus"]["Details"][0]["Status"], "passed")
        ec2.stop_instances(InstanceIds=[one])
        wait("instance_stopped", InstanceIds=[one])
        equal(ec2.describe_instance_status(InstanceIds=[one])["InstanceStatuses"], [])
        (status,) = ec2.describe_instance_status(InstanceIds=[one], IncludeAllInstances=True)["InstanceStatuses"]
        equal(status["SystemStatus"]["Status"], "not-applicable")


@case
def console_output():
    with instances() as (one,):
        wait("instance_status_ok", InstanceIds=[one])
        said = ec2.get_console_output(InstanceId=one, Latest=True)
        equal(said["InstanceId"], one)
        assert said["Timestamp"], "no time"
        assert base64_or_text(said["Output"]), "the console is empty"
        with refused("UnsupportedOperation"):
            ec2.get_console_screenshot(InstanceId=one)
    with refused("InvalidInstanceID.NotFound"):
        ec2.get_console_output(InstanceId="i-0123456789abcdef0")


def base64_or_text(text):
    """boto3 decodes the output itself."""
    return text.strip()


@case
def client_tokens():
    token = name("token")
    first = run(ClientToken=token)["Instances"][0]["InstanceId"]
    equal(run(ClientToken=token)["Instances"][0]["InstanceId"], first, "the same request's instance")
    with refused("IdempotentParameterMismatch"):
        run(ClientToken=token, InstanceType="t3.small")
    (found,) = ec2.describe_instances(Filters=filters(client_token=token))["Reservations"]
    equal(len(found["Instances"]), 1)
    end(first)


@case
def filters_find():
    mark = name("mark")
    with instances(2, TagSpecifications=specification("instance", mark=mark)) as ids:
        first = instance(ids[0])

        def found(**values):
            answer = ec2.describe_instances(Filters=filters(tag_mark=mark, **values))
            return {one["InstanceId"] for r in answer["Reservations"] for one in r["Instances"]}

        equal(found(), set(ids))
        equal(found(instance_state_name=["running", "stopped"]), set(ids))
        equal(found(instance_state_name="stopped"), set())
        equal(found(instance_state_code="16"), set(ids))
        equal(found(instance_type="t3.*"), set(ids))
        equal(found(instance_type="t3.micr?"), set(ids))
        equal(found(instance_type="t3"), set())
        equal(found(instance_id=ids[0]), {ids[0]})
        equal(found(private_ip_address=first["PrivateIpAddress"]), {ids[0]})
        equal(found(vpc_id=first["VpcId"]), set(ids))
        equal(found(subnet_id=first["SubnetId"]), set(ids))
        equal(found(availability_zone=first["Placement"]["AvailabilityZone"]), set(ids))
        equal(found(image_id=first["ImageId"]), set(ids))
        equal(found(tag_key="mark"), set(ids))
        with refused("InvalidParameterValue", "colour"):
            found(colour="red")


@case
def pages():
    mark = name("mark")
    with instances(7, TagSpecifications=specification("instance", mark=mark)) as ids:
        found = []
        for page in ec2.get_paginator("describe_instances").paginate(
            Filters=filters(tag_mark=mark), PaginationConfig={"PageSize": 5}
        ):
            found += [one["InstanceId"] for r in page["Reservations"] for one in r["Instances"]]
        equal(sorted(found), sorted(ids))
        statuses = paged("describe_instance_status", "InstanceStatuses", 5)
        assert set(ids) <= {status["InstanceId"] for status in statuses}
        with refused("InvalidParameterCombination"):
            ec2.describe_instances(InstanceIds=ids, MaxResults=5)
        with refused("InvalidParameterValue"):
            ec2.describe_instances(MaxResults=4)


@case
def protection():
    with instances(DisableApiTermination=True, DisableApiStop=True) as (one,):
        try:
            with refused("OperationNotPermitted"):
                ec2.terminate_instances(InstanceIds=[one])
            with refused("OperationNotPermitted"):
                ec2.stop_instances(InstanceIds=[one])
            equal(attribute(one, "disableApiTermination", "DisableApiTermination"), True)
            equal(instance(one)["State"]["Name"], "running")
        finally:
            ec2.modify_instance_attribute(InstanceId=one, DisableApiTermination={"Value": False})
            # The other spelling.
            ec2.modify_instance_attribute(InstanceId=one, Attribute="disableApiStop", Value="false")
        equal(attribute(one, "disableApiStop", "DisableApiStop"), False)


def attribute(one, which, key):
    answer = ec2.describe_instance_attribute(InstanceId=one, Attribute=which)
    equal(answer["InstanceId"], one)
    return answer[key].get("Value")


@case
def attributes():
    text = "#!/bin/sh\necho 1\n"
    with instances(UserData=text) as (one,):
        equal(base64.b64decode(attribute(one, "userData", "UserData")).decode(), text)
        equal(attribute(one, "instanceType", "InstanceType"), "t3.micro")
        equal(attribute(one, "instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior"), "stop")
        equal(attribute(one, "sourceDestCheck", "SourceDestCheck"), True)
        with refused("IncorrectInstanceState"):
            ec2.modify_instance_attribute(InstanceId=one, InstanceType={"Value": "t3.small"})
        ec2.modify_instance_attribute(InstanceId=one, SourceDestCheck={"Value": False})
        equal(instance(one)["SourceDestCheck"], False)
        ec2.reset_instance_attribute(InstanceId=one, Attribute="sourceDestCheck")
        equal(instance(one)["SourceDestCheck"], True)
        ec2.modify_instance_attribute(
            InstanceId=one, InstanceInitiatedShutdownBehavior={"Value": "terminate"}
        )
        ec2.stop_instances(InstanceIds=[one])
        wait("instance_stopped", InstanceIds=[one])
        ec2.modify_instance_attribute(InstanceId=one, InstanceType={"Value": "t3.small"})
        ec2.modify_instance_attribute(InstanceId=one, UserData={"Value": b"new"})
        equal(instance(one)["InstanceType"], "t3.small")
        equal(base64.b64decode(attribute(one, "userData", "UserData")), b"new")


@case
def metadata_options():
    with instances(MetadataOptions={"HttpTokens": "required"}) as (one,):
        equal(instance(one)["MetadataOptions"]["HttpTokens"], "required")
        changed = ec2.modify_instance_metadata_options(
            InstanceId=one, HttpTokens="optional", HttpPutResponseHopLimit=3, InstanceMetadataTags="enabled"
        )["InstanceMetadataOptions"]
        equal(changed["HttpPutResponseHopLimit"], 3)
        options = instance(one)["MetadataOptions"]
        equal(options["HttpTokens"], "optional")
        equal(options["InstanceMetadataTags"], "enabled")
        equal(options["HttpEndpoint"], "enabled")
        with refused("InvalidParameterValue"):
            ec2.modify_instance_metadata_options(InstanceId=one, HttpPutResponseHopLimit=65)


@case
def monitoring_and_credits():
    with instances() as (one,):
        (on,) = ec2.monitor_instances(InstanceIds=[one])["InstanceMonitorings"]
        assert on["Monitoring"]["State"] in ("pending", "enabled"), on
        (off,) = ec2.unmonitor_instances(InstanceIds=[one])["InstanceMonitorings"]
        assert off["Monitoring"]["State"] in ("disabling", "disabled"), off
        (credit,) = ec2.describe_instance_credit_specifications(InstanceIds=[one])["InstanceCreditSpecifications"]
        equal(credit["CpuCredits"], "unlimited", "t3's")
        done = ec2.modify_instance_credit_specification(
            InstanceCreditSpecifications=[{"InstanceId": one, "CpuCredits": "standard"}]
        )
        equal(len(done["SuccessfulInstanceCreditSpecifications"]), 1)
        equal(done["UnsuccessfulInstanceCreditSpecifications"], [])
        (credit,) = ec2.describe_instance_credit_specifications(InstanceIds=[one])["InstanceCreditSpecifications"]
        equal(credit["CpuCredits"], "standard")


@case
def launch_time_volumes():
    with instances(
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2, "VolumeType": "gp3", "DeleteOnTermination": False}}
        ],
        TagSpecifications=specification("volume", of="this"),
    ) as (one,):
        by = filters(attachment__instance_id=one)
        found = ec2.describe_volumes(Filters=by)["Volumes"]
        equal(len(found), 2)
        assert all(volume["State"] == "in-use" for volume in found)
        assert all(tags(volume) == {"of": "this"} for volume in found)
        kept = {volume["Attachments"][0]["Device"]: volume["VolumeId"] for volume in found}["/dev/sdf"]
        lost = [volume["VolumeId"] for volume in found if volume["VolumeId"] != kept]
    (left,) = ec2.describe_volumes(VolumeIds=[kept])["Volumes"]
    equal(left["State"], "available")
    equal(left["Attachments"], [])
    with refused("InvalidVolume.NotFound"):
        ec2.describe_volumes(VolumeIds=lost)


@case
def dry_runs_change_nothing():
    dry(ec2.run_instances, ImageId=image(), InstanceType="t3.micro", MinCount=1, MaxCount=1)
    dry(ec2.describe_instances)
    with instances() as (one,):
        for call in [ec2.stop_instances, ec2.reboot_instances, ec2.terminate_instances, ec2.start_instances]:
            dry(call, InstanceIds=[one])
        equal(instance(one)["State"]["Name"], "running")


@case
def wrong_requests():
    for code, arguments in [
        ("InvalidAMIID.NotFound", {"ImageId": "ami-0123456789abcdef0"}),
        ("InvalidAMIID.Malformed", {"ImageId": "rubbish"}),
        ("InvalidKeyPair.NotFound", {"KeyName": "none"}),
        ("InvalidGroup.NotFound", {"SecurityGroupIds": ["sg-0123456789abcdef0"]}),
        ("InvalidSubnetID.NotFound", {"SubnetId": "subnet-0123456789abcdef0"}),
        ("InvalidParameterValue", {"InstanceType": "t3.enormous"}),
        ("InvalidParameterValue", {"MinCount": 2, "MaxCount": 1}),
    ]:
        with refused(code):
            run(**arguments)
    with refused("MissingParameter"):
        ec2.run_instances(ImageId=image(), MaxCount=1)
    for call in [ec2.describe_instances, ec2.start_instances, ec2.stop_instances, ec2.terminate_instances]:
        with refused("InvalidInstanceID.NotFound", "i-0123456789abcdef0"):
            call(InstanceIds=["i-0123456789abcdef0"])
        with refused("InvalidInstanceID.Malformed"):
            call(InstanceIds=["rubbish"])


main()
