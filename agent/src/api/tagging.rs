//! What tags may be, and the tags that a request gives to what it makes.
//!
//! Limits: EC2 user guide, "Tag restrictions". Messages as EC2 words them.

use std::collections::BTreeMap;

use super::error::ApiError;
use super::shapes::common::{TagInput, TagSpecification};
use crate::cloud::table::Tags;

/// Most tags of a resource. Those of AWS itself do not count.
pub const MAX_TAGS: usize = 50;
/// Longest key, in characters.
const MAX_KEY: usize = 128;
/// Longest value, in characters.
const MAX_VALUE: usize = 256;

/// Whether a key is one of those that only AWS may write: `aws:`, in any case.
#[must_use]
pub fn is_reserved(key: &str) -> bool {
    key.get(..4)
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:"))
}

/// The tags of a resource that has `existing` ones when it gets `new` ones.
///
/// # Errors
/// `InvalidParameterValue` for a tag that may not be, `TagLimitExceeded`.
pub fn check(existing: &Tags, new: &[TagInput]) -> Result<Tags, ApiError> {
    let mut tags = existing.clone();
    for (key, value) in read(new)? {
        tags.insert(key, value);
    }
    if tags.keys().filter(|key| !is_reserved(key)).count() > MAX_TAGS {
        return Err(ApiError::new(
            "TagLimitExceeded",
            "The maximum number of Tags for a resource has been reached.",
        ));
    }
    Ok(tags)
}

/// The tags that a request gives to the resources of `resource_type`, the only kind that it makes.
///
/// # Errors
/// `InvalidParameterValue` for another or an unknown resource type, one that comes twice, or no tags; as [`check`].
pub fn from_specifications(
    specifications: &[TagSpecification],
    resource_type: &str,
) -> Result<Tags, ApiError> {
    let mut all = from_specifications_for(specifications, &[resource_type])?;
    Ok(all.remove(resource_type).unwrap_or_default())
}

/// The tags that a request gives to resources, by resource type, where it makes those of several types.
///
/// # Errors
/// As [`from_specifications`].
pub fn from_specifications_for(
    specifications: &[TagSpecification],
    resource_types: &[&str],
) -> Result<BTreeMap<String, Tags>, ApiError> {
    let mut all = BTreeMap::new();
    for specification in specifications {
        let kind = match specification.resource_type.as_deref() {
            None | Some("") => {
                return Err(invalid("Tag specification resource type must have a value"));
            }
            Some(kind) => kind,
        };
        if !resource_types.contains(&kind) {
            return Err(invalid(format!(
                "'{kind}' is not a valid taggable resource type for this operation."
            )));
        }
        if specification.tags.is_empty() {
            return Err(invalid("Tag specification must have at least one tag"));
        }
        let tags = check(&Tags::new(), &specification.tags)?;
        if all.insert(kind.to_owned(), tags).is_some() {
            return Err(invalid(
                "The same resource type may not be specified more than once in tag specifications",
            ));
        }
    }
    Ok(all)
}

/// Checks that a key may be written or removed by a user.
///
/// # Errors
/// `InvalidParameterValue`.
pub fn check_key(key: &str) -> Result<(), ApiError> {
    if key.is_empty() {
        return Err(invalid("Tag keys must not be empty"));
    }
    if key.chars().count() > MAX_KEY {
        return Err(invalid(format!(
            "Tag key exceeds the maximum length of {MAX_KEY} characters"
        )));
    }
    if key.chars().any(char::is_control) {
        return Err(invalid(format!(
            "Tag key {key:?} contains characters that are not allowed"
        )));
    }
    if is_reserved(key) {
        return Err(invalid(
            "Tag keys starting with 'aws:' are reserved for internal use",
        ));
    }
    Ok(())
}

fn read(new: &[TagInput]) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for TagInput { key, value } in new {
        check_key(key)?;
        let value = value.clone().unwrap_or_default();
        if value.chars().count() > MAX_VALUE {
            return Err(invalid(format!(
                "Tag value exceeds the maximum length of {MAX_VALUE} characters"
            )));
        }
        if value.chars().any(char::is_control) {
            return Err(invalid(format!(
                "Tag value {value:?} contains characters that are not allowed"
            )));
        }
        if tags.insert(key.clone(), value).is_some() {
            return Err(invalid(format!("Duplicate tag key '{key}' specified.")));
        }
    }
    Ok(tags)
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterValue", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> TagInput {
        TagInput {
            key: key.to_owned(),
            value: Some(value.to_owned()),
        }
    }

    fn specification(kind: &str, tags: Vec<TagInput>) -> TagSpecification {
        TagSpecification {
            resource_type: (!kind.is_empty()).then(|| kind.to_owned()),
            tags,
        }
    }

    #[test]
    fn new_tags_join_and_replace_old_ones() {
        let old = check(&Tags::new(), &[tag("a", "1"), tag("b", "2")]).unwrap();
        let new = [
            tag("b", "3"),
            TagInput {
                key: "c".into(),
                value: None,
            },
        ];
        let both = check(&old, &new).unwrap();
        let all: Vec<_> = both.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(all, [("a", "1"), ("b", "3"), ("c", "")]);
    }

    #[test]
    fn tags_that_may_not_be() {
        let long = |count: usize| "é".repeat(count);
        for (tags, ok) in [
            (vec![tag("", "x")], false),
            (vec![tag(&long(128), &long(256))], true),
            (vec![tag(&long(129), "")], false),
            (vec![tag("k", &long(257))], false),
            (vec![tag("AwS:x", "")], false),
            (vec![tag("aws", "")], true),
            (vec![tag("a\u{7}", "")], false),
            (vec![tag("a", "b\nc")], false),
            (vec![tag("a", "1"), tag("a", "2")], false),
            (vec![tag("a", "1"), tag("A", "2")], true),
        ] {
            let result = check(&Tags::new(), &tags);
            assert_eq!(result.is_ok(), ok, "{tags:?}");
            if let Err(error) = result {
                assert_eq!(error.code, "InvalidParameterValue");
            }
        }
    }

    #[test]
    fn fifty_tags_and_no_more() {
        let many: Vec<TagInput> = (0..50).map(|n| tag(&format!("k{n}"), "")).collect();
        let mut full = check(&Tags::new(), &many).unwrap();
        assert_eq!(
            check(&full, &[tag("one-more", "")]).unwrap_err().code,
            "TagLimitExceeded"
        );
        // A tag that is there already may get another value, and those of AWS do not count.
        check(&full, &[tag("k0", "new")]).unwrap();
        full.remove("k1");
        full.insert("aws:x".into(), String::new());
        check(&full, &[tag("k1", "")]).unwrap();
    }

    #[test]
    fn specifications() {
        let name = || vec![tag("Name", "a")];
        let got = from_specifications(&[specification("vpc", name())], "vpc").unwrap();
        assert_eq!(got["Name"], "a");
        assert!(from_specifications(&[], "vpc").unwrap().is_empty());
        for (given, message) in [
            (vec![specification("", name())], "must have a value"),
            (
                vec![specification("subnet", name())],
                "'subnet' is not a valid taggable resource type for this operation.",
            ),
            (
                vec![specification("spaceship", name())],
                "'spaceship' is not a valid taggable resource type for this operation.",
            ),
            (vec![specification("vpc", vec![])], "at least one tag"),
            (
                vec![specification("vpc", name()), specification("vpc", name())],
                "more than once",
            ),
        ] {
            let error = from_specifications(&given, "vpc").unwrap_err();
            assert_eq!(error.code, "InvalidParameterValue");
            assert!(error.message.contains(message), "{error}");
        }
        let two = [
            specification("instance", name()),
            specification("volume", name()),
        ];
        let both = from_specifications_for(&two, &["instance", "volume"]).unwrap();
        assert_eq!(both.len(), 2);
    }
}
