//! The whole API of instances over the simulated backend, through the actions' own table.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use time::OffsetDateTime;

use super::{BUILTIN, Engine, MOST_SHOWN, Simulated, old};
use crate::api::actions::Actions;
use crate::api::wire::{Node, Timestamp};
use crate::api::{ApiError, Call};
use crate::cloud::instance::Instance;
use crate::cloud::{Cloud, Identity, Region};
use crate::state::Home;

const REGION: &str = "us-east-1";

struct World {
    cloud: Arc<Cloud>,
    actions: Actions,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: TempDir) -> Self {
        let home = Home::open(Some(folder.path())).unwrap();
        let cloud = Cloud::open(folder.path(), Identity::default()).unwrap();
        let cloud = Arc::new(cloud.with_home(home));
        let engine = Engine::new(Arc::clone(&cloud), Arc::new(Simulated)).unwrap();
        tokio::spawn(engine.run());
        Self {
            cloud,
            actions: Actions::all(),
            folder,
        }
    }

    fn call(&self, action: &str, fields: &[(&str, &str)]) -> Result<String, ApiError> {
        let dry_run = fields.contains(&("DryRun", "true"));
        let fields = fields.iter().filter(|(name, _)| *name != "DryRun");
        let node = Node::tree(fields.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).unwrap();
        let call = Call {
            region: REGION.to_owned(),
            account: "123456789012".to_owned(),
            access_key: "AKIA".to_owned(),
            request_id: "r".to_owned(),
            dry_run,
        };
        self.actions.serve(&self.cloud, &call, action, &node)
    }

    fn run(&self, more: &[(&str, &str)]) -> Result<String, ApiError> {
        let mut fields = vec![
            ("ImageId", BUILTIN[0].0),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("InstanceType", "t3.micro"),
        ];
        fields.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        fields.extend(more);
        self.call("RunInstances", &fields)
    }

    async fn until(&self, id: &str, state: &str) -> String {
        let mut last = String::new();
        for _ in 0..2000 {
            last = self
                .call("DescribeInstances", &[("InstanceId.1", id)])
                .unwrap();
            if last.contains(&format!("<name>{state}</name>")) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{id} never was {state}: {last}");
    }
}

/// The text of the first element with this name.
fn text(xml: &str, name: &str) -> String {
    let (_, rest) = xml
        .split_once(&format!("<{name}>"))
        .unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split_once('<').unwrap().0.to_owned()
}

fn code(result: Result<String, ApiError>) -> String {
    result.unwrap_err().code
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_lives_as_on_ec2() {
    let world = World::new();
    let launched = world.run(&[("UserData", "aGk=")]).unwrap();
    assert!(launched.contains("<name>pending</name>"), "{launched}");
    let id = text(&launched, "instanceId");
    let running = world.until(&id, "running").await;
    let (private, public) = (
        text(&running, "privateIpAddress"),
        text(&running, "ipAddress"),
    );
    assert!(running.contains("simulated"), "{running}");

    let stopping = world
        .call("StopInstances", &[("InstanceId.1", &id)])
        .unwrap();
    assert!(stopping.contains("<name>stopping</name>"), "{stopping}");
    let stopped = world.until(&id, "stopped").await;
    assert!(!stopped.contains("<ipAddress>"), "{stopped}");
    assert_eq!(text(&stopped, "privateIpAddress"), private);
    assert!(
        text(&stopped, "reason").starts_with("User initiated ("),
        "{stopped}"
    );

    world
        .call("StartInstances", &[("InstanceId.1", &id)])
        .unwrap();
    let again = world.until(&id, "running").await;
    assert_eq!(text(&again, "privateIpAddress"), private);
    assert!(!text(&again, "ipAddress").is_empty());
    drop(public);

    world
        .call("RebootInstances", &[("InstanceId.1", &id)])
        .unwrap();
    let data = world
        .call(
            "DescribeInstanceAttribute",
            &[("InstanceId", &id), ("Attribute", "userData")],
        )
        .unwrap();
    assert_eq!(text(&data, "value"), "aGk=");
    let volumes = world.call("DescribeVolumes", &[]).unwrap();
    assert_eq!(text(&volumes, "instanceId"), id);

    world
        .call("TerminateInstances", &[("InstanceId.1", &id)])
        .unwrap();
    let over = world.until(&id, "terminated").await;
    assert!(!over.contains("<privateIpAddress>"), "{over}");
    assert!(
        world
            .call("DescribeVolumes", &[])
            .unwrap()
            .contains("<volumeSet/>")
    );
    // As on EC2, terminating it again is no error, starting it is one.
    world
        .call("TerminateInstances", &[("InstanceId.1", &id)])
        .unwrap();
    assert_eq!(
        code(world.call("StartInstances", &[("InstanceId.1", &id)])),
        "IncorrectInstanceState"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_is_wrong_changes_nothing() {
    let world = World::new();
    let long = "x".repeat(30_000);
    for (expected, more) in [
        ("InvalidAMIID.Malformed", vec![("ImageId", "debian")]),
        (
            "InvalidAMIID.NotFound",
            vec![("ImageId", "ami-00000000000000009")],
        ),
        ("InvalidParameterValue", vec![("InstanceType", "t3.huge")]),
        ("InvalidParameterValue", vec![("InstanceType", "t4g.micro")]),
        ("InvalidKeyPair.NotFound", vec![("KeyName", "none")]),
        ("InvalidParameterValue", vec![("UserData", "%%%")]),
        ("InvalidParameterValue", vec![("MinCount", "0")]),
        ("InvalidParameterValue", vec![("MinCount", "2")]),
        (
            "InvalidParameterValue",
            vec![("MetadataOptions.HttpTokens", "maybe")],
        ),
        (
            "InvalidSubnetID.NotFound",
            vec![("SubnetId", "subnet-00000000000000009")],
        ),
        (
            "InvalidGroup.NotFound",
            vec![("SecurityGroupId.1", "sg-00000000000000009")],
        ),
        (
            "InvalidBlockDeviceMapping",
            vec![
                ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
                ("BlockDeviceMapping.1.Ebs.VolumeSize", "1"),
            ],
        ),
        (
            "UnsupportedOperation",
            vec![("LaunchTemplate.LaunchTemplateName", "x")],
        ),
        ("UnknownParameter", vec![("Colour", "red")]),
        ("DryRunOperation", vec![("DryRun", "true")]),
        (
            "InvalidParameterValue",
            vec![("Placement.AvailabilityZone", "us-east-1z")],
        ),
        ("InvalidParameterValue", vec![("UserData", long.as_str())]),
    ] {
        assert_eq!(code(world.run(&more)), expected, "{more:?}");
    }
    let none = world.call("DescribeInstances", &[]).unwrap();
    assert!(none.contains("<reservationSet/>"), "{none}");
    assert!(
        world
            .call("DescribeVolumes", &[])
            .unwrap()
            .contains("<volumeSet/>")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_launches_once() {
    let world = World::new();
    let first = world
        .run(&[("ClientToken", "t"), ("MaxCount", "3")])
        .unwrap();
    let second = world
        .run(&[("ClientToken", "t"), ("MaxCount", "3")])
        .unwrap();
    assert_eq!(
        text(&first, "reservationId"),
        text(&second, "reservationId")
    );
    assert_eq!(second.matches("<instanceId>").count(), 3);
    assert_eq!(
        code(world.run(&[("ClientToken", "t"), ("MaxCount", "2")])),
        "IdempotentParameterMismatch"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_any_other_parameter_is_another_request() {
    let world = World::new();
    let vpc = text(&world.call("DescribeVpcs", &[]).unwrap(), "vpcId");
    let subnet = text(&world.call("DescribeSubnets", &[]).unwrap(), "subnetId");
    let table = ("VpcId", vpc.as_str());
    let interface = ("SubnetId", subnet.as_str());
    let tag = [
        ("TagSpecification.1.ResourceType", "route-table"),
        ("TagSpecification.1.Tag.1.Key", "a"),
        ("TagSpecification.1.Tag.1.Value", "b"),
    ];
    let words = [("Description", "another")];
    for (action, id, what, other) in [
        ("CreateRouteTable", "routeTableId", table, &tag[..]),
        (
            "CreateNetworkInterface",
            "networkInterfaceId",
            interface,
            &words[..],
        ),
    ] {
        let make = |token: &str, more: &[(&str, &str)]| {
            let all = [&[what, ("ClientToken", token)], more].concat();
            world.call(action, &all)
        };
        let first = make("t", &[]).unwrap();
        let again = make("t", &[]).unwrap();
        assert_eq!(text(&first, id), text(&again, id), "{action}");
        assert_eq!(text(&again, "clientToken"), "t", "{action}");
        assert_eq!(
            code(make("t", other)),
            "IdempotentParameterMismatch",
            "{action}"
        );
        let second = make("u", other).unwrap();
        assert_ne!(text(&first, id), text(&second, id), "{action}");
        let long = "x".repeat(65);
        assert_eq!(code(make(&long, &[])), "InvalidParameterValue", "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interfaces_are_attached_to_what_runs_or_is_stopped() {
    let world = World::new();
    let subnet = text(&world.call("DescribeSubnets", &[]).unwrap(), "subnetId");
    let subnet = ("SubnetId", subnet.as_str());
    let eni = text(
        &world.call("CreateNetworkInterface", &[subnet]).unwrap(),
        "networkInterfaceId",
    );
    let id = text(&world.run(&[subnet]).unwrap(), "instanceId");
    let attach = || {
        let fields = [
            ("NetworkInterfaceId", eni.as_str()),
            ("InstanceId", &id),
            ("DeviceIndex", "1"),
        ];
        world.call("AttachNetworkInterface", &fields)
    };
    world.until(&id, "running").await;
    let attachment = text(&attach().unwrap(), "attachmentId");
    world
        .call("DetachNetworkInterface", &[("AttachmentId", &attachment)])
        .unwrap();
    // Whichever of the two states it is still in.
    world
        .call("TerminateInstances", &[("InstanceId.1", &id)])
        .unwrap();
    assert_eq!(code(attach()), "IncorrectState");
    world.until(&id, "terminated").await;
    assert_eq!(code(attach()), "IncorrectState");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_of_too_many_terminated_instances_are_forgotten() {
    let world = World::new();
    let id = text(&world.run(&[]).unwrap(), "instanceId");
    let over = world
        .cloud
        .read(REGION, |region| region.instances.get(&id).cloned());
    let over = over.unwrap().unwrap();
    let now = OffsetDateTime::now_utc();
    let at = |ago: usize| Timestamp(now - Duration::from_secs(ago.try_into().unwrap()));
    let name = |ago: usize| format!("i-{ago:017}");
    let mut region = Region::new(REGION);
    for ago in 0..MOST_SHOWN + 2 {
        region.instances.insert(Instance {
            instance_id: name(ago),
            terminated: Some(at(ago)),
            ..over.clone()
        });
    }
    // What lives is not counted.
    region.instances.insert(over);
    let last = |count: usize| (MOST_SHOWN + 2 - count..MOST_SHOWN + 2).rev().map(name);
    assert_eq!(old(&region, at(1_000_000)), last(2).collect::<Vec<_>>());
    let before = at(MOST_SHOWN - 8);
    assert_eq!(old(&region, before), last(9).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn protection_holds_until_it_is_taken_away() {
    let world = World::new();
    let protected = [
        ("DisableApiTermination", "true"),
        ("DisableApiStop", "true"),
    ];
    let id = text(&world.run(&protected).unwrap(), "instanceId");
    world.until(&id, "running").await;
    let one = [("InstanceId.1", id.as_str())];
    assert_eq!(
        code(world.call("TerminateInstances", &one)),
        "OperationNotPermitted"
    );
    assert_eq!(
        code(world.call("StopInstances", &one)),
        "OperationNotPermitted"
    );
    let modify = |fields: &[(&str, &str)]| {
        let mut all = vec![("InstanceId", id.as_str())];
        all.extend(fields);
        world.call("ModifyInstanceAttribute", &all)
    };
    // Both spellings.
    modify(&[("DisableApiTermination.Value", "false")]).unwrap();
    modify(&[("Attribute", "disableApiStop"), ("Value", "false")]).unwrap();
    let both = [
        ("DisableApiTermination.Value", "false"),
        ("DisableApiStop.Value", "false"),
    ];
    assert_eq!(code(modify(&both)), "InvalidParameterCombination");
    assert_eq!(
        code(modify(&[("InstanceType.Value", "t3.small")])),
        "IncorrectInstanceState"
    );
    world.call("StopInstances", &one).unwrap();
    world.until(&id, "stopped").await;
    modify(&[("InstanceType.Value", "t3.small")]).unwrap();
    assert_eq!(
        code(modify(&[("InstanceType.Value", "t4g.small")])),
        "InvalidParameterValue"
    );
    let shown = world.call("DescribeInstances", &one).unwrap();
    assert_eq!(text(&shown, "instanceType"), "t3.small");
    world.call("TerminateInstances", &one).unwrap();
    world.until(&id, "terminated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_malformed_ids_are_told_apart() {
    let world = World::new();
    for action in [
        "StopInstances",
        "StartInstances",
        "RebootInstances",
        "TerminateInstances",
        "DescribeInstances",
    ] {
        let ask = |id: &str| code(world.call(action, &[("InstanceId.1", id)]));
        assert_eq!(
            ask("i-00000000000000009"),
            "InvalidInstanceID.NotFound",
            "{action}"
        );
        assert_eq!(ask("web"), "InvalidInstanceID.Malformed", "{action}");
    }
    assert_eq!(code(world.call("StopInstances", &[])), "MissingParameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_goes_on_after_a_restart() {
    let world = World::new();
    let id = text(&world.run(&[]).unwrap(), "instanceId");
    world.until(&id, "running").await;
    // As if the agent had been killed between the commit and the act.
    let stopping = |region: &mut Region| {
        let instance = region.instances.edit(&id).unwrap();
        instance.state = crate::state::record::State::Stopping;
        Ok(())
    };
    world.cloud.change(REGION, stopping).unwrap();
    world.cloud.wake(REGION, &id);
    world.until(&id, "stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_launched_at_once_and_listed_page_by_page() {
    let world = World::new();
    let launched = world
        .run(&[("MinCount", "30"), ("MaxCount", "30")])
        .unwrap();
    assert_eq!(launched.matches("<instanceId>").count(), 30);
    let first = world
        .call("DescribeInstances", &[("MaxResults", "20")])
        .unwrap();
    let token = text(&first, "nextToken");
    let rest = world
        .call(
            "DescribeInstances",
            &[("MaxResults", "20"), ("NextToken", &token)],
        )
        .unwrap();
    assert_eq!(rest.matches("<imageId>").count(), 10);
    assert!(!rest.contains("nextToken"));
    let filtered = world
        .call(
            "DescribeInstances",
            &[
                ("Filter.1.Name", "launch-index"),
                ("Filter.1.Value.1", "7"),
                ("Filter.2.Name", "instance-type"),
                ("Filter.2.Value.1", "t3.*"),
            ],
        )
        .unwrap();
    assert_eq!(filtered.matches("<imageId>").count(), 1);
    let wrong = world.call(
        "DescribeInstances",
        &[("Filter.1.Name", "colour"), ("Filter.1.Value.1", "x")],
    );
    assert_eq!(code(wrong), "InvalidParameterValue");
    assert!(world.folder.path().join("cloud.sqlite").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elastic_ip_that_goes_leaves_a_new_public_address() {
    let world = World::new();
    let address = |id: &str| {
        let shown = world.call("DescribeInstances", &[("InstanceId.1", id)]);
        let shown = shown.unwrap();
        let has = shown.contains("<ipAddress>");
        has.then(|| text(&shown, "ipAddress"))
    };
    let launch = |public: &str| {
        let more = [
            ("NetworkInterface.1.DeviceIndex", "0"),
            ("NetworkInterface.1.AssociatePublicIpAddress", public),
        ];
        text(&world.run(&more).unwrap(), "instanceId")
    };
    let allocate = || text(&world.call("AllocateAddress", &[]).unwrap(), "allocationId");
    let associate = |elastic: &str, id: &str| {
        let fields = [("AllocationId", elastic), ("InstanceId", id)];
        text(
            &world.call("AssociateAddress", &fields).unwrap(),
            "associationId",
        )
    };
    let disassociate = |association: &str| {
        let fields = [("AssociationId", association)];
        world.call("DisassociateAddress", &fields).unwrap();
    };
    let (one, elastic) = (launch("true"), allocate());
    world.until(&one, "running").await;
    let first = address(&one).unwrap();
    let association = associate(&elastic, &one);
    let elastic_ip = address(&one).unwrap();
    assert_ne!(elastic_ip, first);
    disassociate(&association);
    assert!(address(&one).is_some_and(|new| new != elastic_ip));

    // When it moves, whom it leaves gets one, too.
    let two = launch("true");
    world.until(&two, "running").await;
    associate(&elastic, &one);
    let association = associate(&elastic, &two);
    assert_eq!(address(&two), Some(elastic_ip.clone()));
    assert!(address(&one).is_some_and(|new| new != elastic_ip));
    disassociate(&association);

    // Not one that was launched without, not one that is stopped.
    let without = launch("false");
    world.until(&without, "running").await;
    let association = associate(&elastic, &without);
    disassociate(&association);
    assert_eq!(address(&without), None);
    let association = associate(&elastic, &one);
    world
        .call("StopInstances", &[("InstanceId.1", &one)])
        .unwrap();
    world.until(&one, "stopped").await;
    disassociate(&association);
    assert_eq!(address(&one), None);
    // What was decided at launch counts at each start.
    for id in [&one, &without] {
        world
            .call("StopInstances", &[("InstanceId.1", id)])
            .unwrap();
        world.until(id, "stopped").await;
        world
            .call("StartInstances", &[("InstanceId.1", id)])
            .unwrap();
        world.until(id, "running").await;
    }
    assert!(address(&one).is_some());
    assert_eq!(address(&without), None);

    // Nor one with two interfaces.
    let shown = world
        .call("DescribeInstances", &[("InstanceId.1", &one)])
        .unwrap();
    let subnet = text(&shown, "subnetId");
    let made = world
        .call("CreateNetworkInterface", &[("SubnetId", &subnet)])
        .unwrap();
    let eni = text(&made, "networkInterfaceId");
    let primary = text(&shown, "networkInterfaceId");
    let attach = [
        ("NetworkInterfaceId", eni.as_str()),
        ("InstanceId", &one),
        ("DeviceIndex", "1"),
    ];
    world.call("AttachNetworkInterface", &attach).unwrap();
    let fields = [
        ("AllocationId", elastic.as_str()),
        ("NetworkInterfaceId", &primary),
    ];
    let association = text(
        &world.call("AssociateAddress", &fields).unwrap(),
        "associationId",
    );
    disassociate(&association);
    assert_eq!(address(&one), None);
}
