"""Cases against `cumulet serve`: registered by @case, run by main(), one line each.

The server, the keys and the region are in the variables that every SDK reads (AWS_ENDPOINT_URL and so on), so clients
are made as anybody makes them.
"""

import contextlib
import os
import subprocess
import sys
import traceback
import uuid

import boto3
import botocore.config
import botocore.exceptions

ACCOUNT = os.environ["CUMULET_ACCOUNT"]
REGION = os.environ["AWS_REGION"]

_cases = []


def case(function):
    """Registers a function as a case, in the order of the file."""
    _cases.append(function)
    return function


def main():
    """Runs every case of this script; a case that fails does not keep others from running."""
    script = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    only = sys.argv[1:]
    failed = 0
    for function in _cases:
        if only and function.__name__ not in only:
            continue
        name = f"{script}.{function.__name__}"
        try:
            function()
        except Exception as error:  # a case may fail in any way
            failed += 1
            first = str(error).splitlines()[0] if str(error) else "no message"
            print(f"FAIL {name}: {type(error).__name__}: {first}")
            for line in traceback.format_exc().splitlines():
                print(f"     {line}")
        else:
            print(f"ok   {name}")
        sys.stdout.flush()
    sys.exit(1 if failed else 0)


def client(service="ec2", region=REGION, **settings):
    """A client of its own. Parameters are not checked here: the server's own answer is what is looked at."""
    config = botocore.config.Config(
        parameter_validation=False, connect_timeout=10, read_timeout=60
    )
    return boto3.client(service, region_name=region, config=config, **settings)


def name(what="test"):
    """A name that nothing else has."""
    return f"{what}-{uuid.uuid4().hex[:10]}"


@contextlib.contextmanager
def refused(code, words=""):
    """What happens inside is refused by the server with this code, and these words in its message."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        said = error.response["Error"]
        if said["Code"] != code:
            raise AssertionError(
                f"expected {code}, got {said['Code']}: {said['Message']}"
            ) from error
        assert words in said["Message"], f"{words!r} is not in {said['Message']!r}"
        assert error.response["ResponseMetadata"].get("RequestId"), "no request id"
    else:
        raise AssertionError(f"it was not refused; expected {code}")


def dry(call, **arguments):
    """A dry run of something that would succeed."""
    with refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set."):
        call(DryRun=True, **arguments)


def equal(have, want, what=""):
    """An assertion that shows both."""
    assert have == want, f"{what} is {have!r}, expected {want!r}".strip()


def filters(**values):
    """Filters by keyword: `instance_state_name="running"`; a list is several values; `tag_` begins a tag's name."""
    made = []
    for key, value in values.items():
        key = "tag:" + key[4:] if key.startswith("tag_") and key != "tag_key" else key.replace("_", "-")
        made.append({"Name": key, "Values": value if isinstance(value, list) else [value]})
    return made


def tags(resource):
    """A described resource's tags as a dictionary."""
    return {tag["Key"]: tag["Value"] for tag in resource["Tags"]}


def specification(kind, **pairs):
    """One TagSpecifications argument."""
    return [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in pairs.items()]}]


def paged(method, key, size, **arguments):
    """Ids-in-order over all pages of a describe call, with at least two pages."""
    pages = list(
        client().get_paginator(method).paginate(PaginationConfig={"PageSize": size}, **arguments)
    )
    assert len(pages) > 1, f"{method} gave one page"
    assert all(len(page[key]) <= size for page in pages), "a page is too long"
    assert "NextToken" not in pages[-1], "the last page names another"
    return [item for page in pages for item in page[key]]


def run(*words, status=0):
    """Runs a program; its standard output. Another status than expected fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != status:
        raise AssertionError(
            f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}"
        )
    return done.stdout if status == 0 else done.stderr


def image():
    """The first image that the server offers."""
    images = client().describe_images(Owners=["amazon"])["Images"]
    assert images, "DescribeImages lists no image of amazon"
    return images[0]["ImageId"]


@contextlib.contextmanager
def vpc(cidr="10.7.0.0/16"):
    """A VPC of the case's own, which must be empty again at its end."""
    ec2 = client()
    made = ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
    yield made
    ec2.delete_vpc(VpcId=made)


@contextlib.contextmanager
def subnet(cidr="10.7.1.0/24"):
    """A subnet in a VPC of its own: the ids of both."""
    ec2 = client()
    with vpc() as parent:
        made = ec2.create_subnet(VpcId=parent, CidrBlock=cidr)["Subnet"]["SubnetId"]
        yield parent, made
        ec2.delete_subnet(SubnetId=made)


@contextlib.contextmanager
def instances(count=1, **arguments):
    """Running instances, terminated at the end: their ids."""
    ec2 = client()
    arguments = {"ImageId": image(), "InstanceType": "t3.micro", **arguments}
    made = ec2.run_instances(MinCount=count, MaxCount=count, **arguments)["Instances"]
    ids = [instance["InstanceId"] for instance in made]
    try:
        wait("instance_running", InstanceIds=ids)
        yield ids
    finally:
        ec2.terminate_instances(InstanceIds=ids)
        wait("instance_terminated", InstanceIds=ids)


def wait(waiter, **arguments):
    """Waits as boto3 does, asking more often: transitions take milliseconds here."""
    client().get_waiter(waiter).wait(WaiterConfig={"Delay": 1, "MaxAttempts": 120}, **arguments)


def instance(instance_id):
    """One described instance."""
    found = client().describe_instances(InstanceIds=[instance_id])["Reservations"]
    (reservation,) = found
    (only,) = reservation["Instances"]
    return only
