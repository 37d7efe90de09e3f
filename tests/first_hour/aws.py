"""A newcomer's first hour: the `aws` command line and one Debian, from its key pair to its end."""

import re
import shlex

from terminal import contains, equal, patiently, play, sh, until, wait

USER_DATA = """#!/bin/sh
echo "Hello from user data, I am $(id -un) on $(hostname)"
date >> /root/user-data-has-run
"""

# What every program in an instance may ask, with a token as IMDSv2 wants it.
IMDS = """imds=http://169.254.169.254/latest
token=$(curl -sS -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" $imds/api/token)
for path in instance-id hostname local-ipv4 public-ipv4 security-groups public-keys/; do
echo $path $(curl -sS -H "X-aws-ec2-metadata-token: $token" $imds/meta-data/$path); done
echo without-a-token $(curl -sS -o /dev/null -w "%{http_code}" $imds/meta-data/)"""


def describe(instance, *fields):
    """Fields of an instance as text, `None` where it has none."""
    query = f"Reservations[].Instances[].[{','.join(fields)}]"
    line = f"aws ec2 describe-instances --instance-ids {instance} --query '{query}' --output text"
    return sh(line).split("\t")


def ssh(instance, script):
    """A command in the instance, as the user that Debian's AMI has, with the new key."""
    return patiently(f"cumulet ssh -i me.pem {instance} -- {shlex.quote(script)}")


def metadata(instance):
    """What the instance is told of itself."""
    lines = ssh(instance, IMDS).splitlines()
    return dict(line.partition(" ")[::2] for line in lines)


def boot(instance):
    """Which boot the guest is in, when it answers."""
    return ssh(instance, "cat /proc/sys/kernel/random/boot_id")


def first_hour():
    # A key pair: its private half is told once and kept where ssh takes it.
    sh("umask 077; aws ec2 create-key-pair --key-name me --query KeyMaterial --output text > me.pem")
    sh("head -n 1 me.pem | grep 'BEGIN .*PRIVATE KEY'")

    group = sh(
        "aws ec2 create-security-group --group-name ssh --description 'ssh from anywhere' --query GroupId --output text"
    )
    sh(f"aws ec2 authorize-security-group-ingress --group-id {group} --protocol tcp --port 22 --cidr 0.0.0.0/0")

    image = sh(
        "aws ec2 describe-images --filters Name=name,Values=debian-12"
        " --query 'sort_by(Images, &CreationDate)[-1].ImageId' --output text"
    )
    assert re.fullmatch(r"ami-[0-9a-f]{17}", image), image
    with open("setup.sh", "w", encoding="utf-8") as file:
        file.write(USER_DATA)
    sh("cat setup.sh")
    instance = sh(
        f"aws ec2 run-instances --image-id {image} --instance-type t3.micro --key-name me"
        f" --security-group-ids {group} --user-data file://setup.sh --metadata-options HttpTokens=required"
        " --query 'Instances[].InstanceId' --output text"
    )
    assert re.fullmatch(r"i-[0-9a-f]{17}", instance), instance
    wait("instance-running", instance)
    state, private, public = describe(instance, "State.Name", "PrivateIpAddress", "PublicIpAddress")
    equal(state, "running", "state")
    assert re.fullmatch(r"172\.31\.\d+\.\d+", private), private
    assert public != "None", "it has no public address"

    # Booted: cloud-init has found EC2 and run the user data, once, as root.
    wait("instance-status-ok", instance)
    contains(ssh(instance, "cloud-init status --wait; cloud-id"), "status: done\naws")
    name = "ip-" + private.replace(".", "-")
    hello = f"Hello from user data, I am root on {name}"
    console = sh(f"aws ec2 get-console-output --instance-id {instance} --latest --query Output --output text")
    contains(console, "Cloud-init v.", "DataSourceEc2", hello, f"{name} login:")
    seen = ssh(instance, 'whoami; hostname; sudo grep -c . /root/user-data-has-run; cut -d " " -f 3 .ssh/authorized_keys')
    equal(seen.splitlines(), ["ec2-user", name, "1", "me"], "what the first login shows")
    expected = {
        "instance-id": instance,
        "hostname": f"{name}.ec2.internal",
        "local-ipv4": private,
        "public-ipv4": public,
        "security-groups": "ssh",
        "public-keys/": "0=me",
        "without-a-token": "401",
    }
    equal(metadata(instance), expected, "the instance metadata")
    # The key is what opens the door.
    contains(sh(f"cumulet ssh {instance} -- true", status=255), "Permission denied")

    # Stop and start: the disk and the private address stay, the public address does not, user data is not run again.
    ssh(instance, "echo precious > kept; sync")
    sh(f"aws ec2 stop-instances --instance-ids {instance}")
    wait("instance-stopped", instance)
    equal(
        describe(instance, "State.Name", "PrivateIpAddress", "PublicIpAddress"),
        ["stopped", private, "None"],
        "the stopped instance",
    )
    sh(f"aws ec2 start-instances --instance-ids {instance}")
    wait("instance-running", instance)
    private_again, public_again = describe(instance, "PrivateIpAddress", "PublicIpAddress")
    equal(private_again, private, "the private address after a start")
    assert public_again not in ("None", public), f"the public address is {public_again} as before"
    wait("instance-status-ok", instance)
    again = ssh(instance, "cloud-init status --wait; cat kept; sudo grep -c . /root/user-data-has-run")
    equal(again.splitlines()[-2:], ["precious", "1"], "what is there after a start")
    equal(metadata(instance)["public-ipv4"], public_again, "the new public address in the instance metadata")

    # Reboot: everything stays.
    before = boot(instance)
    sh(f"aws ec2 reboot-instances --instance-ids {instance}")
    until("another boot", lambda: booted_since(instance, before))
    again = ssh(instance, "cloud-init status --wait; cat kept; sudo grep -c . /root/user-data-has-run")
    equal(again.splitlines()[-2:], ["precious", "1"], "what is there after a reboot")
    equal(
        describe(instance, "State.Name", "PrivateIpAddress", "PublicIpAddress"),
        ["running", private, public_again],
        "the rebooted instance",
    )

    sh(f"aws ec2 create-tags --resources {instance} --tags Key=Name,Value=web")
    named = "aws ec2 describe-instances --filters Name=tag:Name,Values=web --query 'Reservations[].Instances[].InstanceId'"
    equal(sh(f"{named} --output text"), instance, "the instance with that name")
    contains(sh("cumulet list"), instance, "web")

    # The end: the volume goes with the instance, and then the group and the key may go.
    volumes = f"aws ec2 describe-volumes --filters Name=attachment.instance-id,Values={instance} --output text"
    volume = sh(f"{volumes} --query 'Volumes[].VolumeId'")
    assert re.fullmatch(r"vol-[0-9a-f]{17}", volume), volume
    sh(f"aws ec2 terminate-instances --instance-ids {instance}")
    wait("instance-terminated", instance)
    gone = sh(f"aws ec2 describe-volumes --volume-ids {volume}", status=255)
    contains(gone, "InvalidVolume.NotFound")
    sh(f"aws ec2 delete-security-group --group-id {group}")
    sh("aws ec2 delete-key-pair --key-name me")


def booted_since(instance, before):
    """Whether the guest answers from another boot than this one."""
    try:
        return boot(instance) != before
    except AssertionError:
        # The connection broke with the old boot.
        return False


play(first_hour)
