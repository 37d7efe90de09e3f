//! EC2's public model, as botocore carries it.

use crate::{python, sh};
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::Command;

/// Prints the model; its version in the path is the one in EC2's requests.
const EXPORT: &str = "\
import json, botocore.loaders
print(json.dumps(botocore.loaders.Loader().load_service_model('ec2', 'service-2', '2016-11-15')))
";

/// The parts of the model that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub(super) operations: BTreeMap<String, Operation>,
    pub(super) shapes: BTreeMap<String, Shape>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Operation {
    pub(super) input: Option<Reference>,
    pub(super) output: Option<Reference>,
}

/// A use of a shape.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reference {
    pub(super) shape: String,
    pub(super) location_name: Option<String>,
    pub(super) query_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Shape {
    Structure {
        #[serde(default)]
        members: BTreeMap<String, Reference>,
    },
    List {
        member: Reference,
    },
    String,
    Integer,
    Long,
    Float,
    Double,
    Boolean,
    Timestamp,
    Blob,
}

/// Which way a shape goes: names differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Input,
    Output,
}

impl Model {
    /// The model of the botocore in the tests' Python environment.
    pub(super) fn load() -> Result<Self> {
        let text = sh::output(Command::new(python::interpreter()?).args(["-I", "-c", EXPORT]))?;
        serde_json::from_str(&text).context("cannot read botocore's model of EC2")
    }

    pub(super) fn shape(&self, reference: &Reference) -> Result<&Shape> {
        self.shapes
            .get(&reference.shape)
            .with_context(|| format!("the model lacks its own shape {}", reference.shape))
    }
}

impl Reference {
    /// What a member is called on the wire: in requests `queryName`, else `locationName` with a capital, else its own
    /// name; in answers `locationName`, else its own name (botocore's `EC2Serializer` and `EC2QueryParser`).
    pub(super) fn wire_name(&self, member: &str, way: Way) -> String {
        match (way, &self.query_name, &self.location_name) {
            (Way::Input, Some(name), _) | (Way::Output, _, Some(name)) => name.clone(),
            (Way::Input, None, Some(name)) => capital(name),
            (_, _, None) => member.to_owned(),
        }
    }
}

fn capital(name: &str) -> String {
    let mut characters = name.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().chain(characters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_way() {
        let member = |location: Option<&str>, query: Option<&str>| Reference {
            shape: "S".into(),
            location_name: location.map(str::to_owned),
            query_name: query.map(str::to_owned),
        };
        for (location, query, input, output) in [
            (None, None, "Tags", "Tags"),
            (Some("tagSet"), None, "TagSet", "tagSet"),
            (Some("tagSet"), Some("Tag"), "Tag", "tagSet"),
        ] {
            let member = member(location, query);
            assert_eq!(member.wire_name("Tags", Way::Input), input);
            assert_eq!(member.wire_name("Tags", Way::Output), output);
        }
    }
}
