//! Structures that many actions share.

use std::collections::BTreeMap;

use crate::api::wire::shapes;

shapes! {
    /// `Filter`.
    input Filter {
        /// What to compare.
        name: Option<String> = "Name",
        /// Any of these fits.
        values: Vec<String> = "Value",
    }
    /// `Tag`, in requests.
    input TagInput {
        /// Up to 128 characters.
        key: String = "Key",
        /// Up to 256 characters.
        value: Option<String> = "Value",
    }
    /// `TagSpecification`.
    input TagSpecification {
        /// `instance`, `volume`, …
        resource_type: Option<String> = "ResourceType",
        /// The tags.
        tags: Vec<TagInput> = "Tag",
    }
    /// `Tag`, in answers.
    output Tag {
        /// Key.
        key: String = "key",
        /// Value.
        value: String = "value",
    }
    /// A request without parameters of its own.
    input Nothing {
    }
    /// The answer of an action that only says that it is done.
    output Done {
        /// Always true: what fails is answered with an error.
        done: bool = "return",
    }
    /// `AttributeValue`.
    output AttributeValue {
        /// Text.
        value: Option<String> = "value",
    }
    /// `AttributeBooleanValue`.
    output AttributeBooleanValue {
        /// Yes or no.
        value: Option<bool> = "value",
    }
    /// `AttributeBooleanValue` in requests.
    input BooleanValue {
        /// Yes or no.
        value: Option<bool> = "Value",
    }
    /// `AttributeValue` in requests.
    input StringValue {
        /// Text.
        value: Option<String> = "Value",
    }
}

impl Done {
    /// It is done.
    #[must_use]
    pub fn yes() -> Self {
        Self { done: true }
    }
}

/// Tags as answers show them.
#[must_use]
pub fn tag_set(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag {
            key: key.clone(),
            value: value.clone(),
        })
        .collect()
}
