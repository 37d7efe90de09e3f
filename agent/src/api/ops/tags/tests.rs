use super::*;
use crate::api::ops::key_pairs::KeyPair;
use crate::api::ops::testing::{Bench, fields};

const A: &str = "key-0123456789abcdef0";
const B: &str = "key-0123456789abcdef1";

fn bench() -> Bench {
    let bench = Bench::new();
    for (id, name) in [(A, "a"), (B, "b")] {
        let key = KeyPair {
            key_pair_id: id.into(),
            key_name: name.into(),
            ..KeyPair::default()
        };
        let add = |region: &mut Region| {
            region.key_pairs.insert(key);
            Ok(())
        };
        bench.cloud.change("us-east-1", add).unwrap();
    }
    bench
}

/// `id key=value` of every tag.
fn tags(bench: &Bench, parameters: &[(&str, &str)]) -> Vec<String> {
    let answer = bench.ok("DescribeTags", parameters);
    let (ids, keys) = (fields(&answer, "resourceId"), fields(&answer, "key"));
    let values = fields(&answer, "value");
    let rows = ids.iter().zip(keys).zip(values);
    rows.map(|((id, key), value)| format!("{} {key}={value}", &id[id.len() - 1..]))
        .collect()
}

fn tag_both(bench: &Bench) {
    let answer = bench.ok(
        "CreateTags",
        &[
            ("ResourceId.1", A),
            ("ResourceId.2", B),
            ("Tag.1.Key", "Name"),
            ("Tag.1.Value", "web"),
            ("Tag.2.Key", "empty"),
            ("Tag.2.Value", ""),
        ],
    );
    assert!(answer.contains("<return>true</return>"));
}

#[test]
fn tags_are_made_replaced_and_told() {
    let bench = bench();
    tag_both(&bench);
    bench.ok(
        "CreateTags",
        &[
            ("ResourceId.1", B),
            ("Tag.1.Key", "Name"),
            ("Tag.1.Value", "db"),
        ],
    );
    assert_eq!(
        tags(&bench, &[]),
        ["0 Name=web", "0 empty=", "1 Name=db", "1 empty="]
    );
    for (name, value, expected) in [
        ("key", "Na*", &["0 Name=web", "1 Name=db"][..]),
        ("value", "db", &["1 Name=db"]),
        ("resource-id", A, &["0 Name=web", "0 empty="]),
        ("resource-type", "instance", &[]),
        ("tag:Name", "web", &["0 Name=web"]),
    ] {
        let got = tags(
            &bench,
            &[("Filter.1.Name", name), ("Filter.1.Value.1", value)],
        );
        assert_eq!(got, expected, "{name}");
    }
    assert!(
        bench
            .ok("DescribeTags", &[])
            .contains("<resourceType>key-pair</resourceType>")
    );
    assert!(Bench::new().ok("DescribeTags", &[]).contains("<tagSet/>"));
}

#[test]
fn tags_are_deleted_by_key_by_value_or_all() {
    let bench = bench();
    tag_both(&bench);
    let delete = |id: &str, more: &[(&str, &str)]| {
        let mut all = vec![("ResourceId.1", id)];
        all.extend_from_slice(more);
        bench.ok("DeleteTags", &all);
        tags(
            &bench,
            &[("Filter.1.Name", "resource-id"), ("Filter.1.Value.1", id)],
        )
    };
    let name = ("Tag.1.Key", "Name");
    assert_eq!(delete(A, &[name, ("Tag.1.Value", "db")]).len(), 2);
    assert_eq!(delete(A, &[name, ("Tag.1.Value", "")]).len(), 2);
    assert_eq!(delete(A, &[name, ("Tag.1.Value", "web")]), ["0 empty="]);
    assert_eq!(delete(A, &[("Tag.1.Key", "not-there")]), ["0 empty="]);
    assert_eq!(delete(A, &[("Tag.1.Key", "empty")]), [] as [&str; 0]);
    assert_eq!(delete(B, &[]), [] as [&str; 0]);
}

#[test]
fn one_wrong_resource_and_nothing_is_tagged() {
    let bench = bench();
    for (id, code) in [
        ("key-0123456789abcdeff", "InvalidKeyPair.NotFound"),
        ("i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("vol-0123456789abcdef0", "InvalidVolume.NotFound"),
        ("ami-0123456789abcdef0", "InvalidAMIID.NotFound"),
        ("sg-0123456789abcdef0", "InvalidGroup.NotFound"),
        (
            "sgr-0123456789abcdef0",
            "InvalidSecurityGroupRuleId.NotFound",
        ),
        ("subnet-12345678", "InvalidSubnetID.NotFound"),
        ("i-xyz", "InvalidID"),
        ("web", "InvalidID"),
        ("", "InvalidID"),
    ] {
        let parameters = [
            ("ResourceId.1", A),
            ("ResourceId.2", id),
            ("Tag.1.Key", "k"),
            ("Tag.1.Value", "v"),
        ];
        assert_eq!(bench.error("CreateTags", &parameters).code, code, "{id}");
        assert_eq!(bench.error("DeleteTags", &parameters).code, code, "{id}");
    }
    assert!(tags(&bench, &[]).is_empty());
}

#[test]
fn what_is_refused() {
    let bench = bench();
    let refused = |action: &str, parameters: &[(&str, &str)], code: &str| {
        assert_eq!(bench.error(action, parameters).code, code, "{parameters:?}");
    };
    refused("CreateTags", &[("ResourceId.1", A)], "MissingParameter");
    refused("CreateTags", &[("Tag.1.Key", "k")], "MissingParameter");
    refused(
        "CreateTags",
        &[("ResourceId.1", A), ("Tag.1.Value", "v")],
        "MissingParameter",
    );
    let reserved = [("ResourceId.1", A), ("Tag.1.Key", "AWS:x")];
    refused("CreateTags", &reserved, "InvalidParameterValue");
    refused("DeleteTags", &reserved, "InvalidParameterValue");
    refused("DeleteTags", &[("Tag.1.Key", "k")], "MissingParameter");
    let colour = [("Filter.1.Name", "colour"), ("Filter.1.Value.1", "red")];
    refused("DescribeTags", &colour, "InvalidParameterValue");
    refused(
        "DescribeTags",
        &[("MaxResults", "4")],
        "InvalidParameterValue",
    );
    refused("DescribeTags", &[("Resource", "x")], "UnknownParameter");
    let many: Vec<(String, String)> = (1..=51)
        .map(|n| (format!("Tag.{n}.Key"), format!("k{n}")))
        .collect();
    let mut many: Vec<(&str, &str)> = many.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    many.push(("ResourceId.1", A));
    refused("CreateTags", &many, "TagLimitExceeded");
    assert!(tags(&bench, &[]).is_empty());
}

#[test]
fn a_dry_run_tags_nothing() {
    let bench = bench();
    let call = Call {
        dry_run: true,
        ..bench.call.clone()
    };
    let parameters = [("ResourceId.1", A), ("Tag.1.Key", "k")];
    let error = bench.send(&call, "CreateTags", &parameters).unwrap_err();
    assert_eq!(error.code, "DryRunOperation");
    let wrong = [("ResourceId.1", "i-0123456789abcdef0"), ("Tag.1.Key", "k")];
    let error = bench.send(&call, "CreateTags", &wrong).unwrap_err();
    assert_eq!(error.code, "InvalidInstanceID.NotFound");
    assert!(tags(&bench, &[]).is_empty());
}

#[test]
fn pages() {
    let bench = bench();
    for n in 0..8 {
        let key = format!("k{n}");
        bench.ok("CreateTags", &[("ResourceId.1", A), ("Tag.1.Key", &key)]);
    }
    let first = bench.ok("DescribeTags", &[("MaxResults", "5")]);
    assert_eq!(fields(&first, "key").len(), 5);
    let token = fields(&first, "nextToken").pop().unwrap();
    let second = bench.ok(
        "DescribeTags",
        &[("MaxResults", "5"), ("NextToken", &token)],
    );
    assert_eq!(fields(&second, "key"), ["k5", "k6", "k7"]);
    assert!(fields(&second, "nextToken").is_empty());
}
