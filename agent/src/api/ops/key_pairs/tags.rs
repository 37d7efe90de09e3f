//! Tags given when something is made (EC2 user guide, "Tag restrictions").

use crate::api::ApiError;
use crate::api::shapes::common::TagSpecification;
use crate::cloud::table::Tags;

const MAX_TAGS: usize = 50;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 256;

/// The tags of `specifications`, all of which must be for resources of this kind.
pub(super) fn of(specifications: &[TagSpecification], kind: &str) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for specification in specifications {
        let named = specification.resource_type.as_deref();
        let named = named.ok_or_else(|| ApiError::missing("TagSpecification.ResourceType"))?;
        if named != kind {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("'{named}' is not a valid taggable resource type for this operation."),
            ));
        }
        for tag in &specification.tags {
            let value = tag.value.clone().unwrap_or_default();
            check(&tag.key, &value)?;
            if tags.insert(tag.key.clone(), value).is_some() {
                return Err(ApiError::new(
                    "InvalidParameterValue",
                    format!("Duplicate tag key '{}' specified.", tag.key),
                ));
            }
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(ApiError::new(
            "TagLimitExceeded",
            format!("The maximum number of Tags for a resource has been reached: {MAX_TAGS}"),
        ));
    }
    Ok(tags)
}

fn check(key: &str, value: &str) -> Result<(), ApiError> {
    if key.to_ascii_lowercase().starts_with("aws:") {
        return Err(ApiError::new(
            "InvalidParameterValue",
            "Tag keys starting with 'aws:' are reserved for internal use",
        ));
    }
    if key.is_empty() || key.chars().count() > MAX_KEY {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("Tag keys must have 1 to {MAX_KEY} characters"),
        ));
    }
    if value.chars().count() > MAX_VALUE {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("The value of tag '{key}' exceeds {MAX_VALUE} characters"),
        ));
    }
    Ok(())
}
