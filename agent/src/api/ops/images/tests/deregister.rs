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
