//! Everything that EC2 knows here: the resources of every region, kept in SQLite.
//!
//! Handlers look at a [`Region`] with [`Cloud::read`] and change it with [`Cloud::change`], which commits the change to disk
//! before anybody else sees it, or takes it back as a whole when the handler or the disk says no. So the database is
//! never behind what a caller was told, and a request that fails has changed nothing.

pub mod instance;
mod machines;
pub mod net;
mod region;
mod store;
pub mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use machines::Machines;
pub use region::Region;
use store::Store;
pub use store::StoreError;

use crate::api::ApiError;
use crate::state::Home;

/// What is the same for all regions.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The account that owns what the API makes, 12 digits.
    pub account: String,
    /// Letters of the zones of each region.
    pub zones: Vec<char>,
    /// Address and port of the API, as DescribeRegions tells it for every region.
    pub endpoint: String,
}

impl Identity {
    /// Names of the zones of a region: `us-east-1a`, …
    #[must_use]
    pub fn zones_of(&self, region: &str) -> Vec<String> {
        let letters = self.zones.iter();
        letters.map(|letter| format!("{region}{letter}")).collect()
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            account: "123456789012".to_owned(),
            zones: vec!['a', 'b', 'c'],
            endpoint: "127.0.0.1:8773".to_owned(),
        }
    }
}

/// All regions and their database.
#[derive(Debug)]
pub struct Cloud {
    identity: Identity,
    machines: Machines,
    home: Option<Home>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    regions: HashMap<String, Region>,
    store: Store,
}

impl Cloud {
    /// Opens the database in `folder`, making it when there is none.
    ///
    /// # Errors
    /// When the database cannot be opened or read.
    pub fn open(folder: &Path, identity: Identity) -> Result<Self, StoreError> {
        let store = Store::open(&folder.join("cloud.sqlite"))?;
        let regions = store.load()?;
        Ok(Self {
            identity,
            machines: Machines::default(),
            home: None,
            inner: Mutex::new(Inner { regions, store }),
        })
    }

    /// What is the same for all regions.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The same, over the images and instances of this state folder.
    #[must_use]
    pub fn with_home(self, home: Home) -> Self {
        Self {
            home: Some(home),
            ..self
        }
    }

    /// The state folder whose images and instances are shown; none in tests of the API alone.
    #[must_use]
    pub fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    /// Names of the regions that hold resources.
    #[must_use]
    pub fn regions(&self) -> Vec<String> {
        self.lock().regions.keys().cloned().collect()
    }

    /// Looks at a region. A region that nobody has used yet gets its default VPC first.
    ///
    /// # Errors
    /// When that cannot be committed.
    pub fn read<R>(&self, region: &str, look: impl FnOnce(&Region) -> R) -> Result<R, ApiError> {
        let mut inner = self.lock();
        self.prepare(&mut inner, region)?;
        Ok(look(&inner.regions[region]))
    }

    /// Changes a region: all of it and on disk, or nothing.
    ///
    /// # Errors
    /// The change's own; [`StoreError`] as `InternalError`, with the region as it was.
    pub fn change<R>(
        &self,
        region: &str,
        change: impl FnOnce(&mut Region) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        let mut inner = self.lock();
        self.prepare(&mut inner, region)?;
        let (result, touched) = inner.change(region, change)?;
        drop(inner);
        self.tell_changed();
        for instance in touched {
            self.wake(region, &instance);
        }
        Ok(result)
    }

    fn prepare(&self, inner: &mut Inner, name: &str) -> Result<(), ApiError> {
        if inner.regions.contains_key(name) {
            return Ok(());
        }
        inner.regions.insert(name.to_owned(), Region::new(name));
        let made = inner.change(name, |region| {
            region.furnish(&self.identity);
            Ok(())
        });
        if made.is_err() {
            inner.regions.remove(name);
        }
        made.map(|((), _)| ())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| {
            // A handler panicked. What it left is taken back before anybody sees it; a region that came into being with
            // it comes into being again.
            let mut inner = poisoned.into_inner();
            inner.regions.values_mut().for_each(Region::roll_back);
            inner.regions.retain(|_, region| !region.is_empty());
            self.inner.clear_poison();
            inner
        })
    }
}

impl Inner {
    /// The change's result, and the instances that it touched.
    fn change<R>(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Region) -> Result<R, ApiError>,
    ) -> Result<(R, Vec<String>), ApiError> {
        let region = self
            .regions
            .get_mut(name)
            .ok_or_else(|| ApiError::internal(format!("there is no region {name}")))?;
        let result = change(region).and_then(|result| {
            crate::fault::point("change.made");
            let changes = region.changes()?;
            let touched = region.touched(&changes);
            self.store.commit(name, changes).map_err(ApiError::from)?;
            Ok((result, touched))
        });
        match result {
            Ok(result) => {
                region.keep();
                Ok(result)
            }
            Err(error) => {
                region.roll_back();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
