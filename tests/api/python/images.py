"""Images: describe, attributes, launch permissions, deregister."""

import re

from harness import case, client, dry, equal, filters, image, main, refused, wait

ec2 = client()


@case
def describe():
    one = image()
    assert re.fullmatch(r"ami-[0-9a-f]{8,17}", one), one
    wait("image_exists", ImageIds=[one])
    wait("image_available", ImageIds=[one])
    (found,) = ec2.describe_images(ImageIds=[one])["Images"]
    equal(found["State"], "available")
    equal(found["ImageType"], "machine")
    equal(found["VirtualizationType"], "hvm")
    equal(found["RootDeviceType"], "ebs")
    assert found["RootDeviceName"].startswith("/dev/"), found["RootDeviceName"]
    devices = [disk["DeviceName"] for disk in found["BlockDeviceMappings"]]
    assert found["RootDeviceName"] in devices, devices
    for by in [
        filters(image_id=one),
        filters(name=found["Name"]),
        filters(architecture=found["Architecture"], image_id=one),
        filters(state="available", image_id=one),
        filters(root_device_type="ebs", image_id=one),
    ]:
        equal([each["ImageId"] for each in ec2.describe_images(Filters=by)["Images"]], [one], by)
    assert ec2.describe_images(Owners=[found["OwnerId"]])["Images"], "not told by its owner's account"
    assert one not in [each["ImageId"] for each in ec2.describe_images(Owners=["self"])["Images"]]
    with refused("InvalidAMIID.NotFound", "ami-0123456789abcdef0"):
        ec2.describe_images(ImageIds=["ami-0123456789abcdef0"])
    with refused("InvalidAMIID.Malformed"):
        ec2.describe_images(ImageIds=["rubbish"])
    with refused("InvalidParameterValue"):
        ec2.describe_images(Filters=filters(colour="red"))


@case
def anothers_image_cannot_be_changed():
    one = image()
    with refused("AuthFailure"):
        ec2.modify_image_attribute(ImageId=one, Description={"Value": "mine"})
    with refused("AuthFailure"):
        ec2.deregister_image(ImageId=one)


@case
def dry_runs():
    dry(ec2.describe_images)


main()
