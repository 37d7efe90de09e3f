//! Keeps the networks of the VPCs what the records say, by telling the router.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::cloud::{Cloud, net};
use crate::error::{Error, Result};
use crate::fabric::network::Network;
use crate::fabric::{Answers, Reachability};
use crate::panics::Indispensable;
use crate::router::Client;
use crate::state::Home;

/// How often it is looked whether the router is still there.
const LOOK: Duration = Duration::from_secs(1);

/// The agent's side of the router.
#[derive(Debug)]
pub struct Networks {
    home: Home,
    /// Weak: the cloud has the backend, which has this.
    cloud: Weak<Cloud>,
    told: Mutex<Told>,
    /// What the router has told of guests' answers to ARP, by instance.
    answers: Mutex<BTreeMap<String, Heard>>,
}

/// What the router has told of one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    answers: Answers,
    /// When it was told first that this guest answers.
    first: Option<Instant>,
}

/// The router, and what it has been told.
#[derive(Debug, Default)]
struct Told {
    router: Option<Client>,
    networks: Vec<Network>,
}

impl Networks {
    /// The networks of this cloud's instances.
    #[must_use]
    pub fn new(home: Home, cloud: Arc<Cloud>) -> Self {
        Self {
            home,
            cloud: Arc::downgrade(&cloud),
            told: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    /// Makes the networks what the records say now, and the metadata service read the instances' own records again.
    /// Done when it is so. Blocks.
    ///
    /// # Errors
    /// What kept the router from it.
    pub fn refresh(&self) -> Result<()> {
        self.bring_about(true)
    }

    /// Whether an instance's guest answers ARP, as it was known a second ago, and for how long this agent has known that it
    /// does since it was plugged in. `None`: it is not plugged in.
    #[must_use]
    pub fn reachability(&self, instance: &str) -> Option<(Reachability, Duration)> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = answers.get(instance)?;
        let since = heard.first.map(|first| first.elapsed());
        Some((heard.answers.state, since.unwrap_or_default()))
    }

    /// Follows the records until the task is dropped.
    pub async fn follow(self: Arc<Self>) {
        let _needed = Indispensable;
        let mut failed = false;
        loop {
            let this = Arc::clone(&self);
            let done = tokio::task::spawn_blocking(move || this.bring_about(false)).await;
            match done {
                Ok(Ok(())) => failed = false,
                // Told once: it is tried every second.
                Ok(Err(error)) if !failed => {
                    failed = true;
                    tracing::error!(%error, "the network is not what it is to be");
                }
                Ok(Err(_)) => {}
                Err(error) => tracing::error!(%error, "the network is not looked after"),
            }
            let Some(cloud) = self.cloud.upgrade() else {
                return;
            };
            tokio::select! {
                () = cloud.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn bring_about(&self, refresh: bool) -> Result<()> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Read when nobody else tells the router: what it is told last is what is newest.
        let networks = self.wanted()?;
        if networks.is_empty() {
            // Without a connection it ends by itself.
            *told = Told::default();
            self.learn(BTreeMap::new());
            return Ok(());
        }
        let answers = match told.tell(&self.home, &networks, refresh) {
            // It was killed, or ended just now. The next takes over what it left.
            Err(error) if error.code == "RouterGone" => {
                tracing::warn!(%error, "starts another");
                told.router = None;
                told.tell(&self.home, &networks, refresh)
            }
            done => done,
        };
        self.learn(answers?);
        Ok(())
    }

    fn learn(&self, now: BTreeMap<String, Answers>) {
        let mut known = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *known);
        *known = later(&before, now);
    }

    fn wanted(&self) -> Result<Vec<Network>> {
        let Some(cloud) = self.cloud.upgrade() else {
            return Ok(Vec::new());
        };
        let mut wanted = Vec::new();
        for region in cloud.regions() {
            let networks = cloud
                .read(&region, net::networks)
                .map_err(|error| Error::internal(error.to_string()))?;
            wanted.extend(networks);
        }
        Ok(wanted)
    }
}

/// What is known now. A router that has just taken over has not asked yet, and what was known of the same tap holds.
fn later(
    before: &BTreeMap<String, Heard>,
    now: BTreeMap<String, Answers>,
) -> BTreeMap<String, Heard> {
    let heard = |(id, mut answers): (String, Answers)| {
        let before = before
            .get(&id)
            .filter(|before| before.answers.tap == answers.tap);
        if let Some(before) = before
            && answers.state == Reachability::Initializing
        {
            answers.state = before.answers.state;
        }
        let first = before.and_then(|before| before.first);
        let passed = answers.state == Reachability::Passed;
        let first = first.or_else(|| passed.then(Instant::now));
        (id, Heard { answers, first })
    };
    now.into_iter().map(heard).collect()
}

impl Told {
    /// Tells the router what has changed, and asks it which guests answer.
    fn tell(
        &mut self,
        home: &Home,
        networks: &[Network],
        refresh: bool,
    ) -> Result<BTreeMap<String, Answers>> {
        let new = self.router.is_none();
        let router = match &mut self.router {
            Some(router) => router,
            none => none.insert(Client::start(home)?),
        };
        if new || refresh || self.networks != networks {
            let done = router.apply(networks.to_vec());
            match done {
                Ok(()) => self.networks = networks.to_vec(),
                // It is not known what it has done of it.
                Err(_) => self.networks.clear(),
            }
            done?;
        }
        router.answers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_router_is_no_reason_to_forget_an_answer_but_another_start_is() {
        let answers = |tap, state| BTreeMap::from([("i-1".to_owned(), Answers { tap, state })]);
        let passed = later(&BTreeMap::new(), answers(7, Reachability::Passed));
        assert!(passed["i-1"].first.is_some());
        let silent = |tap| answers(tap, Reachability::Initializing);
        assert_eq!(later(&passed, silent(7)), passed);
        let anew = later(&BTreeMap::new(), silent(8));
        assert_eq!(anew["i-1"].first, None);
        assert_eq!(later(&passed, silent(8)), anew);
        assert_eq!(later(&passed, answers(7, Reachability::Passed)), passed);
        assert_eq!(later(&passed, BTreeMap::new()), BTreeMap::new());
    }
}
