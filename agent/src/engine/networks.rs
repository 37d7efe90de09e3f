//! Keeps the networks of the VPCs what the records say, by telling the router.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::cloud::{Cloud, net};
use crate::error::{Error, Result};
use crate::fabric::network::Network;
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
            return Ok(());
        }
        match told.tell(&self.home, &networks, refresh) {
            // It was killed, or ended just now. The next takes over what it left.
            Err(error) if error.code == "RouterGone" => {
                tracing::warn!(%error, "starts another");
                told.router = None;
                told.tell(&self.home, &networks, refresh)
            }
            done => done,
        }
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

impl Told {
    fn tell(&mut self, home: &Home, networks: &[Network], refresh: bool) -> Result<()> {
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
            done
        } else {
            router.uplink().map(drop)
        }
    }
}
