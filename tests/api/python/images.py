"""Images: describe, attributes, launch permissions, deregister."""

import contextlib
import datetime
import os
import re

from harness import (
    ACCOUNT,
    case,
    client,
    dry,
    equal,
    filters,
    image,
    main,
    name,
    paged,
    refused,
    run,
    tags,
    wait,
)

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
        filters(owner_alias="amazon", image_id=one),
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


@contextlib.contextmanager
def imported():
    """An image of one's own: a blank disk, imported by the command line. Its id and name."""
    named = name("imported")
    file = f"{named}.raw"
    with open(file, "wb") as disk:
        disk.truncate(1 << 20)
    program = os.environ["CUMULET_PROGRAM"]
    run(program, "images", "import", file, "--name", named, "--description", "blank", "--force")
    (found,) = ec2.describe_images(Filters=filters(name=named))["Images"]
    yield found["ImageId"], named
    with contextlib.suppress(ec2.exceptions.ClientError):
        ec2.deregister_image(ImageId=found["ImageId"])


@case
def what_the_command_line_imports_is_there_at_once():
    with imported() as (one, named):
        (found,) = ec2.describe_images(Owners=["self"], ImageIds=[one])["Images"]
        equal(found["Name"], named)
        equal(found["Description"], "blank")
        equal(found["OwnerId"], ACCOUNT)
        equal(found["Public"], False)
        equal(found["Tags"], [])
        equal(ec2.describe_images(Owners=["amazon"], ImageIds=[one])["Images"], [])
        dry(ec2.deregister_image, ImageId=one)
        ec2.create_tags(Resources=[one], Tags=[{"Key": "a", "Value": "b"}])
        (found,) = ec2.describe_images(Filters=filters(tag_a="b", image_id=one))["Images"]
        equal(tags(found), {"a": "b"})
        ec2.deregister_image(ImageId=one)
        # EC2 says the first as long as it remembers the image, then the second.
        with refused(("InvalidAMIID.Unavailable", "InvalidAMIID.NotFound")):
            ec2.deregister_image(ImageId=one)
        equal(ec2.describe_images(Filters=filters(name=named))["Images"], [])


@case
def launch_permissions():
    with imported() as (one, _):

        def allowed():
            answer = ec2.describe_image_attribute(ImageId=one, Attribute="launchPermission")
            return answer["LaunchPermissions"]

        equal(allowed(), [])
        other = {"UserId": "210987654321"}
        ec2.modify_image_attribute(ImageId=one, LaunchPermission={"Add": [other]})
        equal(allowed(), [other])
        # The other spelling.
        ec2.modify_image_attribute(
            ImageId=one, Attribute="launchPermission", OperationType="add", UserGroups=["all"]
        )
        equal(sorted(map(str, allowed())), sorted(map(str, [{"Group": "all"}, other])))
        equal(ec2.describe_images(ImageIds=[one])["Images"][0]["Public"], True)
        equal(len(ec2.describe_images(ExecutableUsers=["all"], ImageIds=[one])["Images"]), 1)
        ec2.modify_image_attribute(ImageId=one, LaunchPermission={"Remove": [{"Group": "all"}]})
        equal(allowed(), [other])
        dry(ec2.reset_image_attribute, ImageId=one, Attribute="launchPermission")
        ec2.reset_image_attribute(ImageId=one, Attribute="launchPermission")
        equal(allowed(), [])
        with refused("InvalidAMIAttributeItemValue"):
            ec2.modify_image_attribute(ImageId=one, LaunchPermission={"Add": [{"UserId": "me"}]})


@case
def descriptions():
    with imported() as (one, _):
        ec2.modify_image_attribute(ImageId=one, Description={"Value": "new"})
        answer = ec2.describe_image_attribute(ImageId=one, Attribute="description")
        equal(answer["Description"]["Value"], "new")
        equal(ec2.describe_images(ImageIds=[one])["Images"][0]["Description"], "new")
        with refused("InvalidParameterValue"):
            ec2.describe_image_attribute(ImageId=one, Attribute="colour")


@case
def disabled_and_deprecated():
    with imported() as (one, _):
        ec2.disable_image(ImageId=one)
        equal(ec2.describe_images(ImageIds=[one], IncludeDisabled=True)["Images"][0]["State"], "disabled")
        ec2.enable_image(ImageId=one)
        equal(ec2.describe_images(ImageIds=[one])["Images"][0]["State"], "available")
        later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=30)
        ec2.enable_image_deprecation(ImageId=one, DeprecateAt=later)
        assert ec2.describe_images(ImageIds=[one])["Images"][0]["DeprecationTime"]
        ec2.disable_image_deprecation(ImageId=one)
        assert not ec2.describe_images(ImageIds=[one])["Images"][0].get("DeprecationTime")


@case
def pages():
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(imported())[0] for _ in range(3)]
        found = paged("describe_images", "Images", 2, Filters=filters(image_id=made))
        equal(sorted(each["ImageId"] for each in found), sorted(made))


@case
def dry_runs():
    dry(ec2.describe_images)


main()
