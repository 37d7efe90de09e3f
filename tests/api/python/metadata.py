"""The metadata of simulated instances, by the SDK's own client and by hand."""

import os
import urllib.error
import urllib.request

import botocore.utils

from harness import case, client, equal, main

ec2 = client()
ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
IMAGE = "ami-0cb00000000000001"


def ask(instance, path, method="GET", **headers):
    request = urllib.request.Request(f"{ENDPOINT}/imds/{instance}{path}", method=method)
    for header, value in headers.items():
        request.add_header(header.replace("_", "-"), value)
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


def status(*args, **headers):
    try:
        ask(*args, **headers)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def token(instance):
    return ask(instance, "/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")


def metadata(instance, path):
    return ask(instance, f"/latest/{path}", X_aws_ec2_metadata_token=token(instance))


def launch(**more):
    made = ec2.run_instances(
        ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="t3.micro", **more
    )["Instances"][0]["InstanceId"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[made], WaiterConfig={"Delay": 1})
    return made


@case
def it_is_the_instances_own_and_live():
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "one"}]}]
    made = launch(
        UserData="#!/bin/sh\n",
        TagSpecifications=tags,
        MetadataOptions={"InstanceMetadataTags": "enabled"},
    )
    equal(metadata(made, "meta-data/instance-id"), made)
    equal(metadata(made, "user-data"), "#!/bin/sh\n")
    equal(metadata(made, "meta-data/tags/instance/Name"), "one")
    (shown,) = ec2.describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"]
    equal(metadata(made, "meta-data/local-ipv4"), shown["PrivateIpAddress"])
    equal(metadata(made, "meta-data/public-ipv4"), shown["PublicIpAddress"])
    ec2.create_tags(Resources=[made], Tags=[{"Key": "Name", "Value": "two"}])
    equal(metadata(made, "meta-data/tags/instance/Name"), "two")
    # IMDSv2 is required by default, and a token is its instance's own.
    equal(status(made, "/latest/meta-data/instance-id"), 401)
    other = launch()
    equal(
        status(other, "/latest/meta-data/instance-id", X_aws_ec2_metadata_token=token(made)), 401
    )
    # What does not run has none, nor has what is not there.
    ec2.stop_instances(InstanceIds=[made])
    ec2.get_waiter("instance_stopped").wait(InstanceIds=[made], WaiterConfig={"Delay": 1})
    equal(status(made, "/latest/meta-data/"), 404)
    equal(status("i-00000000000000000", "/latest/meta-data/"), 404)
    equal(status("nonsense", "/latest/meta-data/"), 404)
    ec2.terminate_instances(InstanceIds=[made, other])


@case
def the_sdk_finds_the_region_by_it():
    made = launch()
    # The environment of these scripts forbids metadata, so that no SDK finds another machine's.
    base = f"{ENDPOINT}/imds/{made}"
    fetcher = botocore.utils.InstanceMetadataRegionFetcher(base_url=base, env={})
    equal(fetcher.retrieve_region(), os.environ["AWS_REGION"])
    ec2.terminate_instances(InstanceIds=[made])


main()
