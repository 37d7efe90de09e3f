"""A newcomer's first hour with the `aws` command line."""

import base64
import json
import os
import re

from harness import case, equal, main, name, run

PYTHON = os.environ["CUMULET_PYTHON"]


def aws(*words, status=0):
    """The aws CLI; its answer, from JSON when it is."""
    text = run(PYTHON, "-m", "awscli", *words, status=status)
    if status != 0:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def ec2(*words, **options):
    return aws("ec2", *words, **options)


def wait(waiter, instance):
    ec2("wait", waiter, "--instance-ids", instance)


def look(instance, query):
    return ec2(
        "describe-instances", "--instance-ids", instance, "--query", f"Reservations[0].Instances[0].{query}"
    )


@case
def the_first_hour():
    key = name("key")
    pem = ec2("create-key-pair", "--key-name", key, "--query", "KeyMaterial", "--output", "text")
    assert "PRIVATE KEY-----" in pem, "no private key"

    group = ec2(
        "create-security-group", "--group-name", key, "--description", "ssh and web", "--query", "GroupId"
    )
    assert re.fullmatch(r"sg-[0-9a-f]{17}", group), group
    for port in ["22", "80"]:
        ec2(
            "authorize-security-group-ingress",
            *("--group-id", group, "--protocol", "tcp", "--port", port, "--cidr", "0.0.0.0/0"),
        )
    rules = ec2("describe-security-groups", "--group-ids", group, "--query", "SecurityGroups[0].IpPermissions")
    equal(sorted(rule["FromPort"] for rule in rules), [22, 80])

    image = ec2("describe-images", "--owners", "amazon", "--query", "Images[0].ImageId")
    assert image, "DescribeImages lists no image of amazon"
    with open("user-data.sh", "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\necho hello\n")
    started = ec2(
        "run-instances",
        *("--image-id", image, "--instance-type", "t3.micro", "--key-name", key),
        *("--security-group-ids", group, "--user-data", "file://user-data.sh"),
        *("--tag-specifications", "ResourceType=instance,Tags=[{Key=Name,Value=web}]"),
    )
    (one,) = started["Instances"]
    instance = one["InstanceId"]
    assert re.fullmatch(r"i-[0-9a-f]{17}", instance), instance
    equal(one["State"]["Name"], "pending")
    wait("instance-running", instance)

    found = ec2(
        "describe-instances",
        *("--filters", "Name=tag:Name,Values=web", "Name=instance-state-name,Values=running"),
        *("--query", "Reservations[].Instances[].InstanceId"),
    )
    assert instance in found, found
    equal(look(instance, "KeyName"), key)
    equal(look(instance, "SecurityGroups[0].GroupId"), group)
    equal(look(instance, "Tags[?Key=='Name'].Value | [0]"), "web")
    private, public = look(instance, "PrivateIpAddress"), look(instance, "PublicIpAddress")
    assert re.fullmatch(r"172\.31\.\d+\.\d+", private), private
    assert public, "no public address in the default VPC"
    data = ec2(
        "describe-instance-attribute",
        *("--instance-id", instance, "--attribute", "userData", "--query", "UserData.Value"),
    )
    equal(base64.b64decode(data).decode(), "#!/bin/sh\necho hello\n")

    # The CLI decodes it.
    console = ec2("get-console-output", "--instance-id", instance, "--latest")
    equal(console["InstanceId"], instance)
    assert console.get("Output", "").strip(), "the console is empty"

    ec2("wait", "instance-status-ok", "--instance-ids", instance)

    ec2("stop-instances", "--instance-ids", instance)
    wait("instance-stopped", instance)
    equal(look(instance, "State.Name"), "stopped")
    equal(look(instance, "PrivateIpAddress"), private)
    assert look(instance, "PublicIpAddress") in (None, ""), "the public address was not released"

    ec2("start-instances", "--instance-ids", instance)
    wait("instance-running", instance)
    equal(look(instance, "PrivateIpAddress"), private)
    assert look(instance, "PublicIpAddress") != public, "the public address is the old one"

    again = look(instance, "PublicIpAddress")
    ec2("reboot-instances", "--instance-ids", instance)
    wait("instance-running", instance)
    equal(look(instance, "PublicIpAddress"), again)

    ec2("create-tags", "--resources", instance, "--tags", "Key=Stage,Value=test")
    equal(look(instance, "Tags[?Key=='Stage'].Value | [0]"), "test")

    error = ec2("delete-security-group", "--group-id", group, status=255)
    assert "DependencyViolation" in error, error

    ended = ec2("terminate-instances", "--instance-ids", instance)
    equal(ended["TerminatingInstances"][0]["PreviousState"]["Name"], "running")
    wait("instance-terminated", instance)
    ec2("delete-security-group", "--group-id", group)
    ec2("delete-key-pair", "--key-name", key)


@case
def mistakes_are_told_as_ec2_does():
    for words, wanted in [
        (["describe-instances", "--instance-ids", "i-0123456789abcdef0"], "InvalidInstanceID.NotFound"),
        (["describe-instances", "--instance-ids", "rubbish"], "InvalidInstanceID.Malformed"),
        (["describe-key-pairs", "--key-names", "none"], "InvalidKeyPair.NotFound"),
        (["run-instances", "--image-id", "ami-0123456789abcdef0"], "InvalidAMIID.NotFound"),
        (["describe-key-pairs", "--dry-run"], "DryRunOperation"),
    ]:
        error = ec2(*words, status=255)
        assert f"({wanted})" in error, f"{words}: {error}"


main()
