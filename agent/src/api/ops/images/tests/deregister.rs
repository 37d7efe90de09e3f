//! Images that are deregistered, free and in use.

use super::*;
use crate::ids;

#[test]
fn an_image_that_nobody_uses_is_deregistered_and_removed() {
    let (bench, id) = bench();
    let tag = [("ResourceId.1", id.as_str()), ("Tag.1.Key", "k")];
    bench.ok("CreateTags", &tag);
    let dry = Call {
        dry_run: true,
        ..bench.call.clone()
    };
    let one = [("ImageId", id.as_str())];
    let error = bench.send(&dry, "DeregisterImage", &one).unwrap_err();
    assert_eq!(error.code, "DryRunOperation");
    assert_eq!(ids_of(&bench, &bench.call, &[]).len(), 1);
    let answer = bench.ok("DeregisterImage", &one);
    assert!(answer.contains("<return>true</return><deleteSnapshotResultSet/>"));
    assert!(store(&bench).list().unwrap().is_empty());
    let states = bench.cloud.read("us-east-1", |region| region.images.len());
    assert_eq!(states.unwrap(), 0);
    assert_eq!(
        bench.error("DeregisterImage", &one).code,
        "InvalidAMIID.NotFound"
    );
    assert_eq!(
        bench.error("CreateTags", &tag).code,
        "InvalidAMIID.NotFound"
    );
    assert!(bench.ok("DescribeTags", &[]).contains("<tagSet/>"));
}

/// As on EC2, where instances outlive the image they run from.
#[test]
fn an_image_in_use_is_gone_for_the_api_and_stays_on_disk_until_it_is_free() {
    let (bench, id) = bench();
    let store = store(&bench);
    let ami = store.find(&id).unwrap();
    let folder = bench.folder.path().join("volume");
    let volume = ids::new("vol");
    store.create_volume(&ami, &folder, &volume, None).unwrap();
    bench.ok("CreateTags", &[("ResourceId.1", &id), ("Tag.1.Key", "k")]);
    bench.ok("DeregisterImage", &[("ImageId", &id)]);
    assert_eq!(store.list().unwrap().len(), 1);
    let elsewhere = Call {
        region: "eu-west-1".into(),
        ..bench.call.clone()
    };
    for call in [&bench.call, &elsewhere] {
        assert!(ids_of(&bench, call, &[]).is_empty());
        let error = usable(&bench.cloud, call, &id).unwrap_err();
        assert_eq!(error.code, "InvalidAMIID.NotFound");
    }
    assert!(bench.ok("DescribeTags", &[]).contains("<tagSet/>"));
    reap(&bench.cloud).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
    reap(&bench.cloud).unwrap();
    assert!(store.list().unwrap().is_empty());
    reap(&bench.cloud).unwrap();
}

#[test]
fn a_protected_image_stays_and_a_cooldown_lasts_a_day() {
    let (bench, id) = bench();
    let one = [("ImageId", id.as_str())];
    let protect = |cooldown: &str| {
        let fields = [("ImageId", id.as_str()), ("WithCooldown", cooldown)];
        bench.ok("EnableImageDeregistrationProtection", &fields)
    };
    let told = || {
        let images = bench.ok("DescribeImages", &[]);
        let (_, rest) = images.split_once("<deregistrationProtection>").unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    assert!(protect("false").contains("<return>true</return>"));
    assert_eq!(told(), "enabled-without-cooldown");
    let error = bench.error("DeregisterImage", &one);
    assert_eq!(error.code, "OperationNotPermitted");
    bench.ok("DisableImageDeregistrationProtection", &one);
    assert_eq!(told(), "disabled");

    protect("true");
    assert_eq!(told(), "enabled-with-cooldown");
    for _ in 0..2 {
        bench.ok("DisableImageDeregistrationProtection", &one);
        assert!(told().starts_with("disabled after 20"), "{}", told());
        let error = bench.error("DeregisterImage", &one);
        assert_eq!(error.code, "OperationNotPermitted");
    }
    let until = |minutes: i64| {
        let at = Timestamp(Timestamp::now().0 + time::Duration::minutes(minutes));
        let change = |region: &mut Region| {
            edit(region, &id)?.protection = Protection::Until(at);
            Ok(())
        };
        bench.cloud.change("us-east-1", change).unwrap();
    };
    // A day later.
    until(1);
    bench.error("DeregisterImage", &one);
    until(-1);
    assert_eq!(told(), "disabled");
    let other = as_account(&bench, FRIEND);
    let error = bench.send(&other, "EnableImageDeregistrationProtection", &one);
    assert_ne!(error.unwrap_err().code, "InvalidAction");
    bench.ok("DeregisterImage", &one);
}
