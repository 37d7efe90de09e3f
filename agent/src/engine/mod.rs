//! Brings machines to where their records say they are to be.
//!
//! A handler commits `pending`, `stopping` or `shutting-down` and wakes the engine. Each instance has a task of its own that
//! looks at the record, does what is missing, and commits what has become of it. It looks at the record only, never at what
//! a handler said, so that a restart after `kill -9` is nothing special: every instance is woken, and goes on from there.

mod backend;
pub mod kvm;
mod networks;
pub mod records;
mod simulated;
mod worker;

pub use backend::{Backend, End, Failure, Machine};
pub use kvm::Kvm;
pub use networks::Networks;
pub use simulated::{BUILTIN, Simulated};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::ApiError;
use crate::api::wire::Timestamp;
use crate::cloud::Cloud;
use crate::state::record::State;

/// How long EC2 shows a terminated instance.
const SHOWN: time::Duration = time::Duration::hours(1);
/// How often the engine looks for those that were shown long enough.
const SWEEP: Duration = Duration::from_secs(60);

/// An instance whose record has changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wake {
    /// Its region.
    pub region: String,
    /// Its id.
    pub instance: String,
}

/// Takes the cloud's instances in hand. Ends when it is dropped; machines outlive it.
#[derive(Debug)]
pub struct Engine {
    cloud: Arc<Cloud>,
    backend: Arc<dyn Backend>,
    wakes: mpsc::UnboundedReceiver<Wake>,
    workers: HashMap<Wake, Arc<Notify>>,
    tasks: JoinSet<Wake>,
}

impl Engine {
    /// Connects cloud and backend. From now on requests are served in earnest.
    ///
    /// # Errors
    /// When the cloud has an engine already.
    pub fn new(cloud: Arc<Cloud>, backend: Arc<dyn Backend>) -> Result<Self, ApiError> {
        let (sender, wakes) = mpsc::unbounded_channel();
        cloud.connect(Arc::clone(&backend), sender)?;
        Ok(Self {
            cloud,
            backend,
            wakes,
            workers: HashMap::new(),
            tasks: JoinSet::new(),
        })
    }

    /// Works until it is dropped.
    pub async fn run(mut self) {
        self.wake_all();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                wake = self.wakes.recv() => match wake {
                    Some(wake) => self.wake(wake),
                    None => return,
                },
                Some(done) = self.tasks.join_next() => self.done(done),
                _ = sweep.tick() => self.forget_old(),
            }
        }
    }

    fn wake(&mut self, wake: Wake) {
        if let Some(notify) = self.workers.get(&wake) {
            notify.notify_one();
            return;
        }
        let notify = Arc::new(Notify::new());
        self.workers.insert(wake.clone(), Arc::clone(&notify));
        self.tasks.spawn(worker::live(
            Arc::clone(&self.cloud),
            Arc::clone(&self.backend),
            wake,
            notify,
        ));
    }

    fn done(&mut self, done: Result<Wake, tokio::task::JoinError>) {
        match done {
            Ok(wake) => {
                self.workers.remove(&wake);
                // It may have been woken while it ended.
                let alive = self.cloud.read(&wake.region, |region| {
                    let instance = region.instances.get(&wake.instance);
                    instance.is_some_and(|instance| instance.state != State::Terminated)
                });
                if alive == Ok(true) {
                    self.wake(wake);
                }
            }
            Err(error) => tracing::error!(%error, "the task of an instance failed"),
        }
    }

    /// Every instance that is not over.
    fn wake_all(&mut self) {
        for region in self.cloud.regions() {
            let ids = self.cloud.read(&region, |region| {
                let alive = |i: &&crate::cloud::instance::Instance| i.state != State::Terminated;
                let instances = region.instances.iter().filter(alive);
                instances.map(|i| i.instance_id.clone()).collect::<Vec<_>>()
            });
            for instance in ids.unwrap_or_default() {
                self.wake(Wake {
                    region: region.clone(),
                    instance,
                });
            }
        }
    }

    /// Takes those that were shown long enough out of the records.
    fn forget_old(&self) {
        let before = Timestamp(Timestamp::now().0 - SHOWN);
        for name in self.cloud.regions() {
            let forgotten = self.cloud.change(&name, |region| {
                let old: Vec<String> = region
                    .instances
                    .iter()
                    .filter(|instance| instance.terminated.is_some_and(|when| when < before))
                    .map(|instance| instance.instance_id.clone())
                    .collect();
                for id in old {
                    region.instances.remove(&id);
                }
                Ok(())
            });
            if let Err(error) = forgotten {
                tracing::warn!(%error, region = name, "terminated instances stay in the records");
            }
        }
    }
}

#[cfg(test)]
mod tests;
