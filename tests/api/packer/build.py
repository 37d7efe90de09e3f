"""Builds build.json with Packer: one case a step. It comes as far as CreateImage, which is refused, and must leave nothing."""

import json
import os
import subprocess
import sys

import boto3

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "build.json")
# What Packer says, in this order, when EC2 does as it should.
STEPS = [
    "Prevalidating any provided VPC information",
    "Prevalidating AMI Name",
    "Found Image ID",
    "Creating temporary keypair",
    "Creating temporary security group",
    "Authorizing access to port",
    "Launching a source AWS instance",
    'Adding tag: "built-by": "packer"',
    "Waiting for instance",
    "Stopping the source instance",
    "Waiting for the instance to stop",
    "Creating AMI",
    "Error creating AMI: UnsupportedOperation",
    "Terminating the source AWS instance",
    "Deleting temporary security group",
    "Deleting temporary keypair",
]

with open(TEMPLATE, encoding="utf-8") as file:
    template = json.load(file)
template["builders"][0]["custom_endpoint_ec2"] = os.environ["AWS_ENDPOINT_URL"]
environment = dict(
    os.environ,
    CHECKPOINT_DISABLE="1",
    # To Packer these are how often and how fast it looks whether something has happened.
    AWS_MAX_ATTEMPTS="120",
    AWS_POLL_DELAY_SECONDS="1",
)
build = subprocess.run(
    ["packer", "build", "-color=false", "-"],
    input=json.dumps(template),
    env=environment,
    capture_output=True,
    text=True,
    check=False,
)
lines = build.stdout.splitlines()
failed = False


def tell(name, well):
    global failed
    failed = failed or not well
    print(f"ok   packer.{name}" if well else f"FAIL packer.{name}: it is missing")


at = 0
for number, step in enumerate(STEPS, 1):
    found = next((n for n, line in enumerate(lines[at:], at) if step in line), None)
    tell(f"{number}.{step}", found is not None)
    at = found + 1 if found is not None else at

ec2 = boto3.client("ec2")
built = [{"Name": "tag:built-by", "Values": ["packer"]}]
instances = [one for r in ec2.describe_instances(Filters=built)["Reservations"] for one in r["Instances"]]
tell("instance was made and is terminated", [one["State"]["Name"] for one in instances] == ["terminated"])
tell("no volume is left", not ec2.describe_volumes(Filters=built)["Volumes"])
keys = ec2.describe_key_pairs()["KeyPairs"]
tell("no key pair is left", not any(key["KeyName"].startswith("packer") for key in keys))
groups = ec2.describe_security_groups()["SecurityGroups"]
tell("no group is left", not any(group["GroupName"].startswith("packer") for group in groups))
if failed:
    for line in lines + build.stderr.splitlines():
        print(f"     {line}")
sys.exit(failed)
