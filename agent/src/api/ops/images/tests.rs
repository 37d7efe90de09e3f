use cumulet_images::store::{Ami, AmiStore, ImportOptions};

use super::*;
use crate::api::ops::testing::{Bench, fields};

mod availability;
mod deregister;

const FRIEND: &str = "111122223333";
const STRANGER: &str = "444455556666";

fn store(bench: &Bench) -> AmiStore {
    AmiStore::open(&bench.cloud.home().unwrap().amis()).unwrap()
}

/// Imports an empty disk, as the command line would.
fn import(bench: &Bench, name: &str, mib: u64) -> Ami {
    let file = bench.folder.path().join("disk.raw");
    std::fs::File::create(&file)
        .unwrap()
        .set_len(mib << 20)
        .unwrap();
    let options = ImportOptions {
        name: Some(name.into()),
        description: format!("the {name} image"),
        root_device_name: Some("/dev/xvda".into()),
        force: true,
        ..ImportOptions::default()
    };
    store(bench).import(&file, &options, &mut |_| {}).unwrap()
}

fn bench() -> (Bench, String) {
    let bench = Bench::with_home();
    let ami = import(&bench, "web", 1025);
    (bench, ami.id)
}

fn as_account(bench: &Bench, account: &str) -> Call {
    Call {
        account: account.into(),
        ..bench.call.clone()
    }
}

fn ids_of(bench: &Bench, call: &Call, parameters: &[(&str, &str)]) -> Vec<String> {
    let answer = bench.send(call, "DescribeImages", parameters).unwrap();
    fields(&answer, "imageId")
}

fn permissions(bench: &Bench, id: &str) -> Vec<String> {
    let parameters = [("ImageId", id), ("Attribute", "launchPermission")];
    let answer = bench.ok("DescribeImageAttribute", &parameters);
    [fields(&answer, "group"), fields(&answer, "userId")].concat()
}

#[test]
fn what_the_command_line_imports_is_told_at_once() {
    let (bench, id) = bench();
    let answer = bench.ok("DescribeImages", &[("ImageId.1", &id), ("Owner.1", "self")]);
    for part in [
        "<imageLocation>123456789012/web</imageLocation>",
        "<imageState>available</imageState>",
        "<imageOwnerId>123456789012</imageOwnerId>",
        "<isPublic>false</isPublic>",
        "<platformDetails>Linux/UNIX</platformDetails>",
        "<blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs>",
        "<volumeSize>2</volumeSize>",
        "<description>the web image</description>",
        "<rootDeviceName>/dev/xvda</rootDeviceName>",
        "<rootDeviceType>ebs</rootDeviceType>",
        "<virtualizationType>hvm</virtualizationType>",
        "<tagSet/>",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    let second = import(&bench, "db", 1);
    assert_eq!(ids_of(&bench, &bench.call, &[]).len(), 2);
    store(&bench).delete(&second.id).unwrap();
    assert_eq!(ids_of(&bench, &bench.call, &[]), [id]);
    assert!(
        Bench::new()
            .ok("DescribeImages", &[])
            .contains("<imagesSet/>")
    );
}

#[test]
fn wrong_ids() {
    let (bench, id) = bench();
    for (wrong, code, message) in [
        (
            "web",
            "InvalidAMIID.Malformed",
            "Invalid id: \"web\" (expecting \"ami-...\")",
        ),
        ("ami-12", "InvalidAMIID.Malformed", "Invalid id: \"ami-12\""),
        (
            "ami-12345678",
            "InvalidAMIID.NotFound",
            "The image id '[ami-12345678]' does not exist",
        ),
    ] {
        let one = [("ImageId", wrong)];
        let attribute = [("ImageId", wrong), ("Attribute", "description")];
        let change = [("ImageId", wrong), ("Description.Value", "x")];
        let reset = [("ImageId", wrong), ("Attribute", "launchPermission")];
        for error in [
            bench.error(
                "DescribeImages",
                &[("ImageId.1", &id), ("ImageId.2", wrong)],
            ),
            bench.error("DeregisterImage", &one),
            bench.error("DescribeImageAttribute", &attribute),
            bench.error("ModifyImageAttribute", &change),
            bench.error("ResetImageAttribute", &reset),
            usable(&bench.cloud, &bench.call, wrong).unwrap_err(),
        ] {
            assert_eq!(
                (error.code.as_str(), error.message.as_str()),
                (code, message)
            );
        }
    }
    let two = [("ImageId.1", "ami-12345678"), ("ImageId.2", "ami-12345679")];
    assert_eq!(
        bench.error("DescribeImages", &two).message,
        "The image ids '[ami-12345678, ami-12345679]' do not exist"
    );
    for action in [
        "DeregisterImage",
        "DescribeImageAttribute",
        "ModifyImageAttribute",
        "ResetImageAttribute",
    ] {
        assert_eq!(
            bench.error(action, &[]).code,
            "MissingParameter",
            "{action}"
        );
    }
}

#[test]
fn filters_and_owners() {
    let (bench, web) = bench();
    let db = import(&bench, "db", 1).id;
    let tag = [
        ("ResourceId.1", db.as_str()),
        ("Tag.1.Key", "Role"),
        ("Tag.1.Value", "data"),
    ];
    bench.ok("CreateTags", &tag);
    for (name, value, expected) in [
        ("name", "w*", vec![&web]),
        ("image-id", &db, vec![&db]),
        ("description", "*db*", vec![&db]),
        ("tag:Role", "data", vec![&db]),
        ("tag-key", "Role", vec![&db]),
        ("block-device-mapping.volume-size", "2", vec![&web]),
        ("state", "pending", vec![]),
        ("owner-alias", "amazon", vec![]),
        ("is-public", "true", vec![]),
        ("owner-id", FRIEND, vec![]),
    ] {
        let parameters = [("Filter.1.Name", name), ("Filter.1.Value.1", value)];
        let got = ids_of(&bench, &bench.call, &parameters);
        assert_eq!(got.iter().collect::<Vec<_>>(), expected, "{name}");
    }
    for name in [
        "architecture",
        "root-device-type",
        "virtualization-type",
        "hypervisor",
        "platform-details",
        "creation-date",
        "image-type",
        "root-device-name",
        "block-device-mapping.device-name",
        "usage-operation",
    ] {
        let parameters = [("Filter.1.Name", name), ("Filter.1.Value.1", "*")];
        assert_eq!(ids_of(&bench, &bench.call, &parameters).len(), 2, "{name}");
    }
    for (owner, count) in [
        ("self", 2),
        ("123456789012", 2),
        ("amazon", 0),
        ("aws-marketplace", 0),
        (FRIEND, 0),
    ] {
        let got = ids_of(&bench, &bench.call, &[("Owner.1", owner)]);
        assert_eq!(got.len(), count, "{owner}");
    }
    let malformed = bench.error("DescribeImages", &[("Owner.1", "me")]);
    assert_eq!(malformed.code, "InvalidUserID.Malformed");
    let colour = [("Filter.1.Name", "colour"), ("Filter.1.Value.1", "red")];
    let error = Bench::new().error("DescribeImages", &colour);
    assert_eq!(error.code, "InvalidParameterValue");
}

#[test]
fn pages() {
    let bench = Bench::with_home();
    let mut all: Vec<String> = (0..3)
        .map(|n| import(&bench, &format!("i{n}"), 1).id)
        .collect();
    all.sort();
    let first = bench.ok("DescribeImages", &[("MaxResults", "2")]);
    let token = fields(&first, "nextToken").pop().unwrap();
    let more = [("MaxResults", "2"), ("NextToken", token.as_str())];
    let second = bench.ok("DescribeImages", &more);
    assert!(!second.contains("nextToken"));
    let both = [fields(&first, "imageId"), fields(&second, "imageId")].concat();
    assert_eq!(both, all);
    bench.error("DescribeImages", &[("MaxResults", "0")]);
}

#[test]
fn launch_permissions_in_both_spellings() {
    let (bench, id) = bench();
    let modify = |parameters: &[(&str, &str)]| {
        let mut all = vec![("ImageId", id.as_str())];
        all.extend_from_slice(parameters);
        bench.ok("ModifyImageAttribute", &all);
        permissions(&bench, &id)
    };
    assert_eq!(permissions(&bench, &id), [] as [&str; 0]);
    assert_eq!(
        modify(&[
            ("LaunchPermission.Add.1.UserId", FRIEND),
            ("LaunchPermission.Add.2.Group", "all"),
        ]),
        ["all", FRIEND]
    );
    assert_eq!(
        modify(&[("LaunchPermission.Remove.1.Group", "all")]),
        [FRIEND]
    );
    let old = |operation, name, value| {
        modify(&[
            ("Attribute", "launchPermission"),
            ("OperationType", operation),
            (name, value),
        ])
    };
    assert_eq!(old("add", "UserId.1", STRANGER), [FRIEND, STRANGER]);
    assert_eq!(old("remove", "UserId.1", FRIEND), [STRANGER]);
    assert_eq!(old("add", "UserGroup.1", "all"), ["all", STRANGER]);
    bench.ok(
        "ResetImageAttribute",
        &[("ImageId", &id), ("Attribute", "launchPermission")],
    );
    assert_eq!(permissions(&bench, &id), [] as [&str; 0]);
}

#[test]
fn who_may_see_and_launch() {
    let (bench, id) = bench();
    let (friend, stranger) = (as_account(&bench, FRIEND), as_account(&bench, STRANGER));
    let seen = |call: &Call| ids_of(&bench, call, &[]).len();
    let launch = |call: &Call| usable(&bench.cloud, call, &id).is_ok();
    assert_eq!((seen(&friend), launch(&friend)), (0, false));
    let share = [
        ("ImageId", id.as_str()),
        ("LaunchPermission.Add.1.UserId", FRIEND),
    ];
    bench.ok("ModifyImageAttribute", &share);
    assert_eq!((seen(&friend), launch(&friend)), (1, true));
    assert_eq!((seen(&stranger), launch(&stranger)), (0, false));
    for (call, user, count) in [
        (&bench.call, FRIEND, 1),
        (&bench.call, "self", 0),
        (&bench.call, "all", 0),
        (&friend, "self", 1),
    ] {
        assert_eq!(
            ids_of(&bench, call, &[("ExecutableBy.1", user)]).len(),
            count
        );
    }
    let other = [("ImageId.1", id.as_str())];
    let hidden = bench.send(&stranger, "DescribeImages", &other).unwrap_err();
    assert_eq!(hidden.code, "InvalidAMIID.NotFound");
    assert!(ids_of(&bench, &friend, &[("Owner.1", "self")]).is_empty());
    let publish = [
        ("ImageId", id.as_str()),
        ("LaunchPermission.Add.1.Group", "all"),
    ];
    bench.ok("ModifyImageAttribute", &publish);
    assert_eq!((seen(&stranger), launch(&stranger)), (1, true));
    // Seeing is not owning.
    for (action, more) in [
        ("DeregisterImage", None),
        ("ModifyImageAttribute", Some(("Description.Value", "x"))),
        ("DescribeImageAttribute", Some(("Attribute", "description"))),
    ] {
        let parameters: Vec<_> = [("ImageId", id.as_str())].into_iter().chain(more).collect();
        let error = bench.send(&stranger, action, &parameters).unwrap_err();
        assert_eq!(error.code, "AuthFailure", "{action}");
    }
    // Launch permissions are a region's.
    let elsewhere = Call {
        region: "eu-west-1".into(),
        ..friend
    };
    assert_eq!((seen(&elsewhere), launch(&elsewhere)), (0, false));
}

#[test]
fn descriptions_and_other_attributes() {
    let (bench, id) = bench();
    let told = |attribute: &str| {
        bench.ok(
            "DescribeImageAttribute",
            &[("ImageId", &id), ("Attribute", attribute)],
        )
    };
    assert!(told("description").contains("<value>the web image</value>"));
    bench.ok(
        "ModifyImageAttribute",
        &[("ImageId", &id), ("Description.Value", "new")],
    );
    assert!(told("description").contains("<value>new</value>"));
    let old = [
        ("ImageId", id.as_str()),
        ("Attribute", "description"),
        ("Value", "newer"),
    ];
    bench.ok("ModifyImageAttribute", &old);
    let answer = told("description");
    assert!(answer.contains("<value>newer</value>"));
    // Nothing but what was asked for.
    assert!(!answer.contains("launchPermission") && !answer.contains("productCodes"));
    assert!(
        bench
            .ok("DescribeImages", &[])
            .contains("<description>newer</description>")
    );
    for (attribute, part) in [
        ("blockDeviceMapping", "<deviceName>/dev/xvda</deviceName>"),
        ("productCodes", "<productCodes/>"),
        ("kernel", "<kernel></kernel>"),
        ("deregistrationProtection", "<value>disabled</value>"),
        ("imdsSupport", "<imdsSupport></imdsSupport>"),
        ("launchPermission", "<launchPermission/>"),
    ] {
        assert!(told(attribute).contains(part), "{attribute}");
    }
    // Once said, it stays.
    let by_filter = [
        ("Filter.1.Name", "imds-support"),
        ("Filter.1.Value.1", "v2.0"),
    ];
    assert!(ids_of(&bench, &bench.call, &by_filter).is_empty());
    for spelling in [
        vec![("ImdsSupport.Value", "v2.0")],
        vec![("Attribute", "imdsSupport"), ("Value", "v2.0")],
    ] {
        let mut change = vec![("ImageId", id.as_str())];
        change.extend(spelling);
        bench.ok("ModifyImageAttribute", &change);
        assert!(told("imdsSupport").contains("<value>v2.0</value>"));
    }
    assert_eq!(ids_of(&bench, &bench.call, &by_filter).len(), 1);
    let wrong = [("ImageId", id.as_str()), ("Attribute", "colour")];
    let error = bench.error("DescribeImageAttribute", &wrong);
    assert_eq!(error.code, "InvalidParameterValue");
}

#[test]
fn changes_that_are_refused() {
    let (bench, id) = bench();
    let long = "x".repeat(256);
    let launch = ("Attribute", "launchPermission");
    for (parameters, code) in [
        (vec![], "InvalidParameterCombination"),
        (vec![("Attribute", "colour")], "InvalidParameterValue"),
        (
            vec![("Attribute", "kernel"), ("Value", "x")],
            "InvalidParameterValue",
        ),
        (vec![("Attribute", "description")], "MissingParameter"),
        (
            vec![("Description.Value", long.as_str())],
            "InvalidParameterValue",
        ),
        (
            vec![
                ("Description.Value", "x"),
                ("LaunchPermission.Add.1.Group", "all"),
            ],
            "InvalidParameterCombination",
        ),
        (vec![launch, ("UserId.1", FRIEND)], "MissingParameter"),
        (
            vec![launch, ("OperationType", "add")],
            "InvalidParameterCombination",
        ),
        (
            vec![launch, ("OperationType", "set"), ("UserId.1", FRIEND)],
            "InvalidParameterValue",
        ),
        (
            vec![launch, ("OperationType", "add"), ("UserId.1", "bob")],
            "InvalidAMIAttributeItemValue",
        ),
        (
            vec![("LaunchPermission.Add.1.Group", "some")],
            "InvalidAMIAttributeItemValue",
        ),
        (vec![("OrganizationArn.1", "arn:x")], "UnsupportedOperation"),
        (
            vec![("LaunchPermission.Add.1.OrganizationArn", "arn:x")],
            "UnsupportedOperation",
        ),
        (vec![("ProductCode.1", "x")], "UnsupportedOperation"),
        (vec![("ImdsSupport.Value", "v1.0")], "InvalidParameterValue"),
        (
            vec![("ImdsSupport.Value", "v2.0"), ("Description.Value", "x")],
            "InvalidParameterCombination",
        ),
    ] {
        let mut all = vec![("ImageId", id.as_str())];
        all.extend_from_slice(&parameters);
        assert_eq!(
            bench.error("ModifyImageAttribute", &all).code,
            code,
            "{parameters:?}"
        );
    }
    let reset = [("ImageId", id.as_str()), ("Attribute", "description")];
    let error = bench.error("ResetImageAttribute", &reset);
    assert_eq!(error.code, "InvalidParameterValue");
    let dry = Call {
        dry_run: true,
        ..bench.call.clone()
    };
    let change = [
        ("ImageId", id.as_str()),
        ("LaunchPermission.Add.1.Group", "all"),
    ];
    let error = bench
        .send(&dry, "ModifyImageAttribute", &change)
        .unwrap_err();
    assert_eq!(error.code, "DryRunOperation");
    assert!(permissions(&bench, &id).is_empty());
    let register = [
        ("Name", "x"),
        ("BlockDeviceMapping.1.Ebs.SnapshotId", "snap-12345678"),
    ];
    let error = bench.error("RegisterImage", &register);
    assert_eq!(error.code, "UnsupportedOperation");
    assert!(error.message.contains("snapshots"));
}

#[test]
fn tags_of_an_image() {
    let (bench, id) = bench();
    bench.ok(
        "CreateTags",
        &[
            ("ResourceId.1", &id),
            ("Tag.1.Key", "Name"),
            ("Tag.1.Value", "x"),
        ],
    );
    let answer = bench.ok("DescribeImages", &[]);
    assert!(answer.contains("<tagSet><item><key>Name</key><value>x</value></item></tagSet>"));
    let tags = bench.ok("DescribeTags", &[]);
    assert!(tags.contains("<resourceType>image</resourceType>"));
    store(&bench).delete(&id).unwrap();
    assert!(bench.ok("DescribeTags", &[]).contains("<tagSet/>"));
    reap(&bench.cloud).unwrap();
    let states = bench.cloud.read("us-east-1", |region| region.images.len());
    assert_eq!(states.unwrap(), 0);
}
