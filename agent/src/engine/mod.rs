//! Brings machines to where their records say they are to be.
//!
//! A handler commits `pending`, `stopping` or `shutting-down` and wakes the engine. Each instance has a task of its own that
//! looks at the record, does what is missing, and commits what has become of it. It looks at the record only, never at what
//! a handler said, so that a restart after `kill -9` is nothing special: every instance is woken, and goes on from there.

mod backend;
pub mod kvm;
pub(crate) mod machine_record;
mod networks;
pub mod records;
mod simulated;
mod worker;

pub use backend::{Backend, End, Failure, Machine};
pub use kvm::Kvm;
pub use networks::Networks;
pub use simulated::{BUILTIN, Simulated};

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::ApiError;
use crate::api::wire::Timestamp;
use crate::cloud::instance::Instance;
use crate::cloud::{Cloud, Region};
use crate::fault;
use crate::panics::Indispensable;
use crate::state::record::State;

/// How long EC2 shows a terminated instance.
const SHOWN: Duration = Duration::from_secs(3600);
/// How many terminated instances a region shows at most, so that what launches and terminates all day long does not fill
/// memory within that hour; the oldest go first.
const MOST_SHOWN: usize = 4000;
/// How often the engine looks for those that were shown long enough.
const SWEEP: Duration = Duration::from_secs(60);
/// Before an instance whose task broke is taken in hand again.
const PAUSE: Duration = Duration::from_secs(2);

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
    shown: Duration,
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
            shown: fault::shown(SHOWN),
        })
    }

    /// Works until it is dropped.
    pub async fn run(mut self) {
        let _needed = Indispensable;
        self.wake_all();
        fault::point("engine.woken");
        let mut sweep = interval(SWEEP.min(self.shown));
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
        let life = worker::live(
            Arc::clone(&self.cloud),
            Arc::clone(&self.backend),
            wake.clone(),
            notify,
        );
        self.tasks.spawn(async move {
            // What broke it may break it again, but costs this instance alone.
            if AssertUnwindSafe(life).catch_unwind().await.is_err() {
                tracing::error!(instance = wake.instance, "the task of an instance panicked");
                tokio::time::sleep(PAUSE).await;
            }
            wake
        });
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
            Err(error) => tracing::error!(%error, "the task of an instance was cancelled"),
        }
    }

    /// Every instance that is not over.
    fn wake_all(&mut self) {
        for region in self.cloud.regions() {
            let ids = self.cloud.read(&region, |region| {
                let alive = |i: &&Instance| i.state != State::Terminated;
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

    /// Takes those that were shown long enough, and the oldest of too many, out of the records.
    fn forget_old(&self) {
        let before = Timestamp(Timestamp::now().0 - self.shown);
        for name in self.cloud.regions() {
            let old = self.cloud.read(&name, |region| old(region, before));
            let Some(old) = old.ok().filter(|old| !old.is_empty()) else {
                continue;
            };
            let forgotten = self.cloud.change(&name, |region| {
                for id in old {
                    region.instances.remove(&id);
                }
                Ok(())
            });
            fault::point("engine.forgotten");
            if let Err(error) = forgotten {
                tracing::warn!(%error, region = name, "terminated instances stay in the records");
            }
        }
    }
}

/// The instances that were terminated before that, and the oldest beyond [`MOST_SHOWN`].
fn old(region: &Region, before: Timestamp) -> Vec<String> {
    let over = |instance: &Instance| Some((instance.terminated?, instance.instance_id.clone()));
    let mut all: Vec<_> = region.instances.iter().filter_map(over).collect();
    all.sort();
    let surplus = all.len().saturating_sub(MOST_SHOWN);
    let late = all.partition_point(|(when, _)| *when < before);
    all.truncate(late.max(surplus));
    all.into_iter().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests;
