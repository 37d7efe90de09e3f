"""CreateTags, DeleteTags, DescribeTags, on anything."""

from harness import case, client, dry, equal, filters, main, name, paged, refused, tags

ec2 = client()


def key_pair():
    """Something to tag: name, id."""
    made = ec2.create_key_pair(KeyName=name("tagged"), KeyType="ed25519")
    return made["KeyName"], made["KeyPairId"]


def tags_of(key):
    return tags(ec2.describe_key_pairs(KeyNames=[key])["KeyPairs"][0])


@case
def create_overwrite_delete():
    key, resource = key_pair()
    ec2.create_tags(
        Resources=[resource], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    )
    equal(tags_of(key), {"a": "1", "b": "2"})
    ec2.create_tags(Resources=[resource], Tags=[{"Key": "a", "Value": "3"}, {"Key": "e", "Value": ""}])
    equal(tags_of(key), {"a": "3", "b": "2", "e": ""})
    # With a value, only that value is deleted; an empty value is a value.
    ec2.delete_tags(Resources=[resource], Tags=[{"Key": "a", "Value": "other"}, {"Key": "b"}])
    equal(tags_of(key), {"a": "3", "e": ""})
    ec2.delete_tags(Resources=[resource], Tags=[{"Key": "e", "Value": ""}])
    equal(tags_of(key), {"a": "3"})
    # Without tags, all of the user's go.
    ec2.delete_tags(Resources=[resource])
    equal(tags_of(key), {})
    ec2.delete_key_pair(KeyName=key)


@case
def several_resources_at_once():
    made = [key_pair() for _ in range(3)]
    ec2.create_tags(Resources=[one for _, one in made], Tags=[{"Key": "k", "Value": "v"}])
    for key, _ in made:
        equal(tags_of(key), {"k": "v"})
        ec2.delete_key_pair(KeyName=key)


@case
def one_that_is_not_there_keeps_all_from_being_tagged():
    key, resource = key_pair()
    with refused("InvalidInstanceID.NotFound"):
        ec2.create_tags(
            Resources=[resource, "i-0123456789abcdef0"], Tags=[{"Key": "k", "Value": "v"}]
        )
    equal(tags_of(key), {})
    ec2.delete_key_pair(KeyName=key)


@case
def describe():
    key, resource = key_pair()
    mark = name("mark")
    ec2.create_tags(
        Resources=[resource], Tags=[{"Key": "mark", "Value": mark}, {"Key": "Name", "Value": "é <&>"}]
    )

    def found(**arguments):
        return [(tag["Key"], tag["Value"]) for tag in ec2.describe_tags(**arguments)["Tags"]]

    both = [("Name", "é <&>"), ("mark", mark)]
    equal(sorted(found(Filters=filters(resource_id=resource))), both)
    equal(found(Filters=filters(value=mark)), [("mark", mark)])
    equal(found(Filters=filters(resource_id=resource, key="N*")), both[:1])
    equal(found(Filters=filters(tag_mark=mark)), [("mark", mark)])
    (tag,) = ec2.describe_tags(Filters=filters(resource_type="key-pair", value=mark))["Tags"]
    equal(tag["ResourceType"], "key-pair")
    equal(tag["ResourceId"], resource)
    equal(found(Filters=filters(resource_type="vpc", value=mark)), [])
    with refused("InvalidParameterValue"):
        ec2.describe_tags(Filters=filters(colour="red"))
    ec2.delete_key_pair(KeyName=key)
    equal(found(Filters=filters(value=mark)), [])


@case
def pages():
    key, resource = key_pair()
    wanted = [{"Key": f"k{number:02}", "Value": "v"} for number in range(12)]
    ec2.create_tags(Resources=[resource], Tags=wanted)
    found = paged("describe_tags", "Tags", 5, Filters=filters(resource_id=resource))
    equal(sorted(tag["Key"] for tag in found), [tag["Key"] for tag in wanted])
    ec2.delete_key_pair(KeyName=key)


@case
def limits():
    key, resource = key_pair()

    def create(*pairs):
        ec2.create_tags(Resources=[resource], Tags=[{"Key": k, "Value": v} for k, v in pairs])

    with refused("TagLimitExceeded"):
        create(*[(f"k{number}", "") for number in range(51)])
    equal(tags_of(key), {})
    create(*[(f"k{number}", "") for number in range(50)])
    with refused("TagLimitExceeded"):
        create(("one-more", ""))
    with refused("InvalidParameterValue"):
        create(("aws:mine", ""))
    with refused("InvalidParameterValue"):
        create(("k" * 129, ""))
    with refused("InvalidParameterValue"):
        create(("k0", "v" * 257))
    create(("k0", "v" * 256))
    ec2.delete_key_pair(KeyName=key)


@case
def wrong_parameters():
    _, resource = key_pair()
    with refused("MissingParameter"):
        ec2.create_tags(Tags=[{"Key": "a", "Value": "b"}])
    with refused("MissingParameter"):
        ec2.create_tags(Resources=[resource])
    with refused("InvalidID"):
        ec2.create_tags(Resources=["rubbish"], Tags=[{"Key": "a", "Value": "b"}])


@case
def dry_runs_change_nothing():
    key, resource = key_pair()
    dry(ec2.create_tags, Resources=[resource], Tags=[{"Key": "a", "Value": "b"}])
    equal(tags_of(key), {})
    ec2.create_tags(Resources=[resource], Tags=[{"Key": "a", "Value": "b"}])
    dry(ec2.delete_tags, Resources=[resource])
    equal(tags_of(key), {"a": "b"})
    dry(ec2.describe_tags)
    ec2.delete_key_pair(KeyName=key)


main()
