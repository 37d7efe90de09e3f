//! Verifying a store.

use std::collections::BTreeMap;

use super::block::Key;
use super::error::SnapshotError;
use super::gc::{CONDEMNED, list, list_blocks, read_list};
use super::reader::fetch;
use super::{Manifest, SnapshotStore};

/// How much a check reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Manifests, and whether their blocks are there.
    Names,
    /// Every byte of every block as well.
    Contents,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Snapshots that are whole.
    pub whole: Vec<String>,
    /// Snapshots that have a missing or damaged block, each with all its indexes.
    pub broken: BTreeMap<String, Vec<u64>>,
    /// What is missing or damaged, by name.
    pub faults: Vec<SnapshotError>,
    /// Blocks of snapshots.
    pub used_blocks: u64,
    /// Blocks of no snapshot: those of writers at work, and garbage.
    pub other_blocks: u64,
}

impl CheckReport {
    /// Whether nothing is missing or damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

impl SnapshotStore {
    /// Verifies all snapshots. Changes nothing, and may be called at any time.
    ///
    /// # Errors
    /// Only when the store itself cannot be listed; what is missing or damaged is in the report.
    pub fn check(&self, depth: Depth) -> Result<CheckReport, SnapshotError> {
        let mut report = CheckReport::default();
        let manifests = self.manifests(&mut report)?;
        // Listed after the manifests were read: every block of theirs must be there.
        let there = list_blocks(&*self.objects)?;
        let mut used: BTreeMap<Key, Vec<(&str, u64)>> = BTreeMap::new();
        for manifest in &manifests {
            for (number, key) in &manifest.blocks {
                let users = used.entry(*key).or_default();
                users.push((&manifest.info.id, *number));
            }
        }
        report.used_blocks = used.len().try_into().unwrap_or(u64::MAX);
        let others = there.keys().filter(|key| !used.contains_key(key));
        report.other_blocks = others.count().try_into().unwrap_or(u64::MAX);
        for (key, users) in &used {
            let fault = match depth {
                Depth::Contents => fetch(&*self.objects, key).err(),
                Depth::Names => {
                    (!there.contains_key(key)).then(|| SnapshotError::Missing { name: key.name() })
                }
            };
            let Some(fault) = fault else { continue };
            // A snapshot deleted meanwhile may lose its blocks.
            let mut concerns = false;
            for (id, number) in users {
                if self.read_manifest(id)?.is_some() {
                    concerns = true;
                    let broken = report.broken.entry((*id).to_owned()).or_default();
                    broken.push(*number);
                }
            }
            if concerns {
                report.faults.push(fault);
            }
        }
        for numbers in report.broken.values_mut() {
            numbers.sort_unstable();
        }
        let ids = manifests.iter().map(|manifest| &manifest.info.id);
        report.whole = ids
            .filter(|id| !report.broken.contains_key(*id))
            .cloned()
            .collect();
        for name in list(&*self.objects, CONDEMNED)? {
            if let Err(fault) = read_list(&*self.objects, &name) {
                report.faults.push(fault);
            }
        }
        Ok(report)
    }

    fn manifests(&self, report: &mut CheckReport) -> Result<Vec<Manifest>, SnapshotError> {
        let mut out = Vec::new();
        for id in self.list()? {
            match self.get(&id) {
                Ok(manifest) => out.push(manifest),
                // Deleted since the listing.
                Err(SnapshotError::Unknown(_)) => {}
                Err(fault) => {
                    report.broken.insert(id, Vec::new());
                    report.faults.push(fault);
                }
            }
        }
        Ok(out)
    }
}
