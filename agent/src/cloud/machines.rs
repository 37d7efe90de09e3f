//! The cloud's side of the engine: waking it, and asking what only a backend knows.

use std::sync::{Arc, OnceLock};

use cumulet_images::store::Ami;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::{Cloud, Region};
use crate::api::ApiError;
use crate::engine::{Backend, Wake};
use crate::fabric::Reachability;
use crate::state::record::State;
use crate::types::{self, InstanceType};

/// Set once, when the engine is made.
#[derive(Debug, Default)]
pub(super) struct Machines {
    backend: OnceLock<Arc<dyn Backend>>,
    wakes: OnceLock<UnboundedSender<Wake>>,
    changed: Notify,
}

impl Cloud {
    /// Gives the cloud its backend and the engine's ear.
    ///
    /// # Errors
    /// When it has them already.
    pub fn connect(
        &self,
        backend: Arc<dyn Backend>,
        wakes: UnboundedSender<Wake>,
    ) -> Result<(), ApiError> {
        let first = self.machines.backend.set(backend).is_ok();
        if first && self.machines.wakes.set(wakes).is_ok() {
            return Ok(());
        }
        Err(ApiError::internal("the engine was started twice"))
    }

    /// Tells the engine that the record of an instance has changed. [`Cloud::change`] does so.
    pub(crate) fn wake(&self, region: &str, instance: &str) {
        if let Some(wakes) = self.machines.wakes.get() {
            let wake = Wake {
                region: region.to_owned(),
                instance: instance.to_owned(),
            };
            // Nobody hears it any more when the agent is about to end; the next one looks at all records.
            let _ = wakes.send(wake);
        }
    }

    /// Done when anything has changed since the last time that this was waited for. One task may wait.
    pub async fn changed(&self) {
        self.machines.changed.notified().await;
    }

    /// Tells who waits for changes. [`Cloud::change`] does so.
    pub(super) fn tell_changed(&self) {
        self.machines.changed.notify_one();
    }

    fn backend(&self) -> Result<&Arc<dyn Backend>, ApiError> {
        self.machines.backend.get().ok_or_else(|| {
            ApiError::new(
                "Unavailable",
                "The service is starting. Please try again shortly.",
            )
        })
    }

    /// AMIs that are there without a store.
    #[must_use]
    pub fn builtin_images(&self) -> Vec<Ami> {
        let backend = self.machines.backend.get();
        backend.map_or_else(Vec::new, |backend| backend.builtin())
    }

    /// What the guest has said last.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn console(&self, id: &str, limit: usize) -> Result<Vec<u8>, ApiError> {
        self.backend()?.console(id, limit)
    }

    /// Whether the guest answers on its network, when that is known.
    #[must_use]
    pub fn reachability(&self, id: &str) -> Option<Reachability> {
        self.machines.backend.get()?.reachability(id)
    }

    /// Whether this host can be a machine of this type.
    ///
    /// # Errors
    /// `Unsupported`, `InsufficientInstanceCapacity`, with the reason.
    pub fn check_type(&self, kind: &InstanceType) -> Result<(), ApiError> {
        self.backend()?.check_type(kind)
    }

    /// Whether a network interface can be attached to or detached from an instance now: a real machine's are plugged in
    /// when it starts.
    ///
    /// # Errors
    /// `UnsupportedOperation`.
    pub fn check_plug(&self, region: &Region, instance: &str) -> Result<(), ApiError> {
        let real = self.machines.backend.get();
        let real = real.is_some_and(|backend| backend.notice().is_none());
        let state = region.instances.get(instance).map(|one| one.state);
        if real && state.is_some_and(|state| state != State::Stopped) {
            return Err(ApiError::unsupported(&format!(
                "cumulet attaches and detaches the network interfaces of stopped instances only; stop {instance} first"
            )));
        }
        Ok(())
    }

    /// How many of `min` to `max` instances of this type fit beside those that run.
    ///
    /// # Errors
    /// `InsufficientInstanceCapacity` when fewer than `min` do.
    pub fn room_for(
        &self,
        region: &Region,
        kind: &InstanceType,
        min: i32,
        max: i32,
    ) -> Result<i32, ApiError> {
        let Some(all) = self.backend()?.memory_mib() else {
            return Ok(max);
        };
        let free = all.saturating_sub(used_mib(region));
        let fit = i32::try_from(free / kind.memory_mib.max(1)).unwrap_or(i32::MAX);
        if fit >= min {
            return Ok(fit.min(max));
        }
        Err(ApiError::new(
            "InsufficientInstanceCapacity",
            format!(
                "We currently do not have sufficient {} capacity: this host has {free} MiB of memory left for guests and the request needs {} MiB. Stop or terminate instances, or use a smaller type.",
                kind.name,
                kind.memory_mib
                    .saturating_mul(u64::try_from(min).unwrap_or(1))
            ),
        ))
    }

    /// Whether this stopped instance fits beside those that run.
    ///
    /// # Errors
    /// As [`Cloud::room_for`].
    pub fn check_capacity(&self, region: &Region, id: &str) -> Result<(), ApiError> {
        let Some(instance) = region.instances.get(id) else {
            return Ok(());
        };
        let kind = types::find(&instance.instance_type)?;
        self.check_type(&kind)?;
        self.room_for(region, &kind, 1, 1).map(drop)
    }
}

/// Memory of the instances that have a machine or are to get one.
fn used_mib(region: &Region) -> u64 {
    let alive = |state| matches!(state, State::Pending | State::Running | State::Stopping);
    region
        .instances
        .iter()
        .filter(|instance| alive(instance.state))
        .filter_map(|instance| types::find(&instance.instance_type).ok())
        .map(|kind| kind.memory_mib)
        .sum()
}
