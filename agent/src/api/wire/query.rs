//! A request's form fields as a tree.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::super::error::ApiError;

/// Most fields that a request may have.
const MAX_FIELDS: usize = 20_000;
/// Deepest nesting of a parameter name.
const MAX_DEPTH: usize = 16;
/// EC2's limit on a list in a request is far below this one.
const MAX_ITEMS: usize = 10_000;

/// A parameter: its value, what is nested under its name, and whether anybody wanted it.
#[derive(Debug, Default)]
pub struct Node {
    value: Option<String>,
    children: BTreeMap<String, Node>,
    wanted: Cell<bool>,
}

/// Why form fields make no tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// A parameter came twice.
    #[error("the parameter '{0}' is given more than once")]
    Twice(String),
    /// Too many of them.
    #[error("the request has more than {MAX_FIELDS} parameters")]
    TooMany,
    /// A name with too many dots, or an empty part.
    #[error("'{0}' is no parameter name")]
    Name(String),
}

impl Node {
    /// Builds the tree of a decoded form.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn tree<I>(fields: I) -> Result<Self, ParseError>
    where
        I: IntoIterator<Item = (String, String)>,
    {
        let mut root = Self::default();
        for (count, (name, value)) in fields.into_iter().enumerate() {
            if count >= MAX_FIELDS {
                return Err(ParseError::TooMany);
            }
            let parts: Vec<&str> = name.split('.').collect();
            if parts.len() > MAX_DEPTH || parts.iter().any(|part| part.is_empty()) {
                return Err(ParseError::Name(name));
            }
            let mut node = &mut root;
            for part in parts {
                node = node.children.entry(part.to_owned()).or_default();
            }
            if node.value.replace(value).is_some() {
                return Err(ParseError::Twice(name));
            }
        }
        Ok(root)
    }

    /// The parameter of this name inside, and a note that it is known.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Self> {
        let child = self.children.get(name)?;
        child.wanted.set(true);
        Some(child)
    }

    /// The value of the parameter of this name inside.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.child(name)?.value.as_deref()
    }

    /// The node's own value, when it is a scalar.
    pub(super) fn scalar(&self, at: &str) -> Result<&str, ApiError> {
        match &self.value {
            Some(value) if self.children.is_empty() => Ok(value),
            _ => Err(ApiError::value(at, "", "a single value is expected")),
        }
    }

    /// Makes sure that this is a structure.
    ///
    /// # Errors
    /// `InvalidParameterValue` when it has a value of its own.
    pub fn structure(&self, at: &str) -> Result<(), ApiError> {
        match self.value.as_deref() {
            // SDKs write an empty structure as an empty value.
            None | Some("") => Ok(()),
            Some(value) => Err(ApiError::value(at, value, "a structure is expected")),
        }
    }

    /// The members of a list in the order of their numbers.
    pub(super) fn items(&self, at: &str) -> Result<Vec<(u32, &Self)>, ApiError> {
        if let Some(value) = self.value.as_deref().filter(|value| !value.is_empty()) {
            return Err(ApiError::value(at, value, "a list is expected"));
        }
        if self.children.len() > MAX_ITEMS {
            return Err(ApiError::value(at, "", "the list is too long"));
        }
        let mut items = Vec::with_capacity(self.children.len());
        for (name, item) in &self.children {
            item.wanted.set(true);
            match name.parse() {
                Ok(number) => items.push((number, item)),
                Err(_) => return Err(ApiError::unknown(&super::join(at, name))),
            }
        }
        items.sort_by_key(|(number, _)| *number);
        Ok(items)
    }

    /// The full name of a parameter that nobody wanted.
    #[must_use]
    pub fn unwanted(&self) -> Option<String> {
        self.first_unwanted("")
    }

    fn first_unwanted(&self, at: &str) -> Option<String> {
        for (name, child) in &self.children {
            let full = super::join(at, name);
            if !child.wanted.get() {
                return Some(full);
            }
            if let Some(found) = child.first_unwanted(&full) {
                return Some(found);
            }
        }
        None
    }
}
