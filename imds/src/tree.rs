//! The tree of names that an instance sees.
//!
//! It is built whole for every request, from the view alone, so that a directory can never list a
//! name that is not served: both come from the same map. A tree has about a hundred short texts;
//! what costs more (signatures) is named in it and made only when asked for.

mod iam;
mod metadata;
mod network;

use std::collections::BTreeMap;

use crate::view::InstanceView;

/// Versions, oldest first, as the directory `/` lists them (EC2 user guide, "Get the available
/// versions of the instance metadata"). All show the same tree.
pub(crate) const VERSIONS: [&str; 29] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    "latest",
];

/// What a path names.
pub(crate) enum Found {
    /// A directory: its listing.
    Listing(String),
    /// A value.
    Leaf(Leaf),
}

/// A value of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// A text.
    Text(String),
    /// The raw user data.
    UserData,
    /// The instance identity document.
    Document,
    /// The document's RSA-SHA256 signature, base64.
    Signature,
    /// The document inside a PKCS#7 signed message, base64.
    Pkcs7,
}

/// Finds what `names` (a decoded path) means to the instance.
pub(crate) fn find(view: &InstanceView, names: &[String]) -> Option<Found> {
    let Some((version, names)) = names.split_first() else {
        return Some(Found::Listing(VERSIONS.join("\n")));
    };
    if !VERSIONS.contains(&version.as_str()) {
        return None;
    }
    let mut node = Node::Directory(build(view));
    for name in names {
        node = match node {
            Node::Directory(mut directory) => directory.entries.remove(name)?.node,
            Node::Leaf(_) => return None,
        };
    }
    Some(match node {
        Node::Leaf(leaf) => Found::Leaf(leaf),
        // The level below a version is the only one that lists directories without a slash.
        Node::Directory(directory) => Found::Listing(directory.listing(!names.is_empty())),
    })
}

/// Whether `key` can be a name in the tree, and so the key of a tag while
/// `InstanceMetadataTags` is enabled (EC2 user guide, "View tags in instance metadata"): letters,
/// digits and `+ - = . , _ : @`, and not `.`, `..` or `_index`.
#[must_use]
pub fn is_tag_key_servable(key: &str) -> bool {
    !key.is_empty()
        && !matches!(key, "." | ".." | "_index")
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || "+-=.,_:@".contains(c))
}

fn build(view: &InstanceView) -> Directory {
    let mut root = Directory::default();
    metadata::fill(root.directory("meta-data"), view);
    let dynamic = root.directory("dynamic");
    let monitoring = if view.detailed_monitoring {
        "enabled"
    } else {
        "disabled"
    };
    dynamic
        .directory("fws")
        .text("instance-monitoring", monitoring);
    let identity = dynamic.directory("instance-identity");
    identity.put("document", Leaf::Document);
    identity.put("pkcs7", Leaf::Pkcs7);
    identity.put("rsa2048", Leaf::Pkcs7);
    identity.put("signature", Leaf::Signature);
    if view.user_data.is_some() {
        root.put("user-data", Leaf::UserData);
    }
    root
}

enum Node {
    Directory(Directory),
    Leaf(Leaf),
}

struct Entry {
    /// What the listing says instead of the name.
    label: Option<String>,
    node: Node,
}

/// A directory being built. Names that could not be asked for (empty, with a slash or control
/// characters) are left out.
#[derive(Default)]
struct Directory {
    entries: BTreeMap<String, Entry>,
}

impl Directory {
    fn put(&mut self, name: &str, leaf: Leaf) {
        if is_name(name) {
            self.entries.insert(
                name.to_owned(),
                Entry {
                    label: None,
                    node: Node::Leaf(leaf),
                },
            );
        }
    }

    fn text(&mut self, name: &str, value: impl Into<String>) {
        self.put(name, Leaf::Text(value.into()));
    }

    fn text_if(&mut self, name: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// One value a line; absent when there is none.
    fn lines<T: ToString>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        let lines: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
        if !lines.is_empty() {
            self.text(name, lines.join("\n"));
        }
    }

    /// The directory `name`, which must be one of the fixed names or checked by [`is_name`], made
    /// when missing. Callers put something into it.
    fn directory(&mut self, name: &str) -> &mut Self {
        self.labelled(name, None)
    }

    fn labelled(&mut self, name: &str, label: Option<String>) -> &mut Self {
        let fresh = || Entry {
            label,
            node: Node::Directory(Self::default()),
        };
        let entry = self.entries.entry(name.to_owned()).or_insert_with(fresh);
        if matches!(entry.node, Node::Leaf(_)) {
            entry.node = Node::Directory(Self::default());
        }
        match &mut entry.node {
            Node::Directory(directory) => directory,
            Node::Leaf(_) => unreachable!("replaced by a directory above"),
        }
    }

    fn listing(&self, slashes: bool) -> String {
        let line = |(name, entry): (&String, &Entry)| match (&entry.label, &entry.node) {
            (Some(label), _) => label.clone(),
            (None, Node::Directory(_)) if slashes => format!("{name}/"),
            (None, _) => name.clone(),
        };
        self.entries.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.chars().any(|c| c == '/' || c.is_control())
}
