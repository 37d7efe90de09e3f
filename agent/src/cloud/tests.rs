use super::*;
use crate::api::ops::key_pairs::KeyPair;

fn cloud(folder: &Path) -> Cloud {
    Cloud::open(folder, Identity::default()).unwrap()
}

fn key(name: &str) -> KeyPair {
    KeyPair {
        key_name: name.to_owned(),
        ..KeyPair::default()
    }
}

#[test]
fn changes_survive_and_regions_are_apart() {
    let folder = tempfile::tempdir().unwrap();
    let first = cloud(folder.path());
    let add = |region: &mut Region| {
        region.key_pairs.insert(key("a"));
        Ok(())
    };
    first.change("us-east-1", add).unwrap();
    drop(first);
    let second = cloud(folder.path());
    let has = |region: &Region| region.key_pairs.get("a").is_some();
    assert!(second.read("us-east-1", has).unwrap());
    assert!(!second.read("eu-west-1", has).unwrap());
}

#[test]
fn a_change_that_fails_has_changed_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = cloud(folder.path());
    cloud
        .change("r", |region| {
            region.key_pairs.insert(key("a"));
            region.key_pairs.insert(key("b"));
            Ok(())
        })
        .unwrap();
    let failed: Result<(), _> = cloud.change("r", |region| {
        region.key_pairs.remove("a");
        region.key_pairs.insert(key("c"));
        region.key_pairs.edit("b").unwrap().fingerprint = "x".into();
        region.key_pairs.remove("b");
        region.key_pairs.insert(key("b"));
        Err(ApiError::internal("no"))
    });
    failed.unwrap_err();
    let names = |region: &Region| -> Vec<String> {
        region
            .key_pairs
            .iter()
            .map(|key| format!("{}{}", key.key_name, key.fingerprint))
            .collect()
    };
    assert_eq!(cloud.read("r", names).unwrap(), ["a", "b"]);
}

#[test]
fn a_panic_in_a_handler_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = cloud(folder.path());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cloud.change::<()>("r", |region| {
            region.key_pairs.insert(key("a"));
            panic!("a bug");
        })
    }));
    assert!(panicked.is_err());
    cloud.change("r", |_| Ok(())).unwrap();
    assert!(
        cloud
            .read("r", |region| region.key_pairs.is_empty())
            .unwrap()
    );
}

#[test]
fn the_second_who_opens_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = cloud(folder.path());
    first.change("r", |_| Ok(())).unwrap();
    assert!(Cloud::open(folder.path(), Identity::default()).is_err());
}
