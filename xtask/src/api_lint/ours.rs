//! What `cumulet __api-schema` says that we read and write.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Actions by name.
pub(super) type Schema = BTreeMap<String, Action>;

#[derive(Debug, Deserialize)]
pub(super) struct Action {
    pub(super) input: Kind,
    pub(super) output: Kind,
}

/// `"string"`, `{"list": kind}` or `{"structure": {name: kind}, "type": name}`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Kind {
    Scalar(Scalar),
    List { list: Box<Kind> },
    Structure { structure: BTreeMap<String, Kind> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scalar {
    String,
    Integer,
    Double,
    Boolean,
    Timestamp,
    Blob,
}

impl Kind {
    /// In a word, for messages.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Scalar(scalar) => scalar.word(),
            Self::List { .. } => "list",
            Self::Structure { .. } => "structure",
        }
    }
}

impl Scalar {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::Blob => "blob",
        }
    }
}
