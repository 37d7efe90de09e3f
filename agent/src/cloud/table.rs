//! A kind of resource, in memory, with what has changed since the last commit.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::ApiError;

/// Something with an id that is kept in a [`Table`].
pub trait Resource: Clone + Serialize + DeserializeOwned {
    /// Name of its kind, in the database and as EC2's resource type (`instance`, `key-pair`, `security-group`, …).
    const KIND: &'static str;

    /// What it is kept under; unique among its kind.
    fn id(&self) -> &str;

    /// Its id for tags, `i-…`.
    fn resource_id(&self) -> &str {
        self.id()
    }

    /// Its tags.
    fn tags(&self) -> &Tags;

    /// Its tags, to be changed.
    fn tags_mut(&mut self) -> &mut Tags;
}

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// All resources of a kind in a region, by id.
#[derive(Debug)]
pub struct Table<T> {
    rows: BTreeMap<String, T>,
    /// As it was before the change under way; `None`: it was not there.
    before: HashMap<String, Option<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            before: HashMap::new(),
        }
    }
}

/// A change of one row: its id, and its document unless it is gone.
pub type Change = (String, Option<String>);

impl<T: Resource> Table<T> {
    /// The resource with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&T> {
        self.rows.get(id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.rows.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The resource with this id, to be changed.
    pub fn edit(&mut self, id: &str) -> Option<&mut T> {
        let row = self.rows.get_mut(id)?;
        if !self.before.contains_key(id) {
            self.before.insert(id.to_owned(), Some(row.clone()));
        }
        Some(row)
    }

    /// Adds a resource, or puts it in the place of the one with its id.
    pub fn insert(&mut self, row: T) {
        let id = row.id().to_owned();
        let before = self.rows.insert(id.clone(), row);
        self.before.entry(id).or_insert(before);
    }

    /// Takes a resource away.
    pub fn remove(&mut self, id: &str) -> Option<T> {
        let row = self.rows.remove(id)?;
        self.before
            .entry(id.to_owned())
            .or_insert_with(|| Some(row.clone()));
        Some(row)
    }
}

/// What a region does with all its tables alike.
pub(super) trait AnyTable {
    fn kind(&self) -> &'static str;
    fn load(&mut self, document: &str) -> Result<(), serde_json::Error>;
    fn changes(&self) -> Result<Vec<Change>, ApiError>;
    fn keep(&mut self);
    fn roll_back(&mut self);
    fn is_empty(&self) -> bool;
    fn tagged(&self) -> Vec<(&str, &Tags)>;
    fn edit_tags(&mut self, resource_id: &str) -> Option<&mut Tags>;
}

impl<T: Resource> AnyTable for Table<T> {
    fn kind(&self) -> &'static str {
        T::KIND
    }

    fn load(&mut self, document: &str) -> Result<(), serde_json::Error> {
        let row: T = serde_json::from_str(document)?;
        self.rows.insert(row.id().to_owned(), row);
        Ok(())
    }

    fn changes(&self) -> Result<Vec<Change>, ApiError> {
        self.before
            .keys()
            .map(|id| {
                let document = self.rows.get(id).map(serde_json::to_string).transpose();
                let document = document.map_err(|error| {
                    ApiError::internal(format!("cannot write {} {id}: {error}", T::KIND))
                })?;
                Ok((id.clone(), document))
            })
            .collect()
    }

    fn keep(&mut self) {
        self.before.clear();
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn tagged(&self) -> Vec<(&str, &Tags)> {
        let tagged = self.rows.values().filter(|row| !row.tags().is_empty());
        tagged.map(|row| (row.resource_id(), row.tags())).collect()
    }

    fn edit_tags(&mut self, resource_id: &str) -> Option<&mut Tags> {
        // Nearly always the row's own key.
        let direct = self
            .rows
            .get(resource_id)
            .filter(|row| row.resource_id() == resource_id);
        let id = match direct {
            Some(row) => row.id().to_owned(),
            None => {
                let mut rows = self.rows.values();
                rows.find(|row| row.resource_id() == resource_id)?
                    .id()
                    .to_owned()
            }
        };
        self.edit(&id).map(T::tags_mut)
    }

    fn roll_back(&mut self) {
        for (id, before) in self.before.drain() {
            match before {
                Some(row) => self.rows.insert(id, row),
                None => self.rows.remove(&id),
            };
        }
    }
}
