"""The same with boto3: two instances, one after another, as a program launches them."""

import boto3
from terminal import equal, play, until


def two_instances():
    ec2 = boto3.resource("ec2")
    images = sorted(ec2.images.filter(Filters=[{"Name": "name", "Values": ["debian-12"]}]), key=lambda image: image.creation_date)
    print("images:", *(image.id for image in images))
    launched = []
    for number in (1, 2):
        (instance,) = ec2.create_instances(
            ImageId=images[-1].id,
            InstanceType="t3.nano",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Number", "Value": str(number)}]}],
        )
        equal(instance.state["Name"], "pending", "the state of a new instance")
        instance.wait_until_running()
        instance.reload()
        print(number, instance.id, instance.state["Name"], instance.private_ip_address, instance.public_ip_address)
        launched.append(instance)
    ids = {instance.id for instance in launched}

    # Both run, and each is a machine of its own.
    running = list(ec2.instances.filter(Filters=[{"Name": "instance-state-name", "Values": ["running"]}]))
    equal({instance.id for instance in running}, ids, "what runs")
    for what in ("private_ip_address", "public_ip_address"):
        values = {getattr(instance, what) for instance in running}
        assert len(values) == 2 and None not in values, f"{what}: {values}"
    for instance in running:
        equal([volume.state for volume in instance.volumes.all()], ["in-use"], f"the volume of {instance.id}")
        until("cloud-init to begin", lambda: "Cloud-init v." in (console(instance) or ""))

    ec2.instances.filter(InstanceIds=sorted(ids)).terminate()
    for instance in launched:
        instance.wait_until_terminated()
        print(instance.id, "has ended")
    equal(list(ec2.volumes.all()), [], "what is left of the volumes")


def console(instance):
    """What the guest has said."""
    return instance.console_output(Latest=True).get("Output")


play(two_instances)
