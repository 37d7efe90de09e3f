//! How many connections a guest gets, and how fast.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::server::Config;

/// Seconds' worth of connections that may come at once.
const BURST: u32 = 10;

/// Counts the open connections of every instance.
pub(crate) struct Limits {
    config: Config,
    clients: Arc<Mutex<HashMap<String, Client>>>,
}

#[derive(Default)]
struct Client {
    open: usize,
    /// When the next connection would be on time at the average rate; the burst is how far this
    /// may lie ahead (a "virtual scheduling" token bucket).
    due: Option<Instant>,
}

/// The right to one connection; given back when dropped.
pub(crate) struct Permit {
    instance: String,
    start: Instant,
    clients: Arc<Mutex<HashMap<String, Client>>>,
}

impl Limits {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            clients: Arc::default(),
        }
    }

    /// A permit for one more connection of `instance`, unless it or all together have too many.
    pub(crate) fn admit(&self, instance: &str) -> Option<Permit> {
        let now = Instant::now();
        let mut clients = lock(&self.clients);
        if clients.values().map(|client| client.open).sum::<usize>() >= self.config.connections {
            return None;
        }
        // Who has nothing open and owes no time is as good as unknown.
        clients.retain(|_, client| client.open > 0 || client.due.is_some_and(|due| due > now));
        let entry = clients.entry(instance.to_owned()).or_default();
        if entry.open >= self.config.connections_per_instance {
            return None;
        }
        entry.open += 1;
        let due = entry.due.unwrap_or(now).max(now);
        entry.due = Some(due + Duration::from_secs(1) / self.config.rate_per_instance.max(1));
        let start = due
            .checked_sub(Duration::from_secs(1) * BURST)
            .unwrap_or(now);
        Some(Permit {
            instance: instance.to_owned(),
            start,
            clients: Arc::clone(&self.clients),
        })
    }
}

impl Permit {
    /// Waits while the client is faster than its rate.
    pub(crate) async fn wait_for_turn(&self) {
        tokio::time::sleep_until(self.start).await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(client) = lock(&self.clients).get_mut(&self.instance) {
            client.open = client.open.saturating_sub(1);
        }
    }
}

fn lock(clients: &Mutex<HashMap<String, Client>>) -> MutexGuard<'_, HashMap<String, Client>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_instance: usize, all: usize, rate: u32) -> Limits {
        Limits::new(Config {
            connections_per_instance: per_instance,
            connections: all,
            rate_per_instance: rate,
            ..Config::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn n5_counts_open_connections_by_instance_and_in_all() {
        let limits = limits(2, 3, 1000);
        let first = limits.admit("i-1").unwrap();
        let _second = limits.admit("i-1").unwrap();
        assert!(limits.admit("i-1").is_none());
        let _other = limits.admit("i-2").unwrap();
        assert!(limits.admit("i-3").is_none(), "three in all");
        drop(first);
        assert!(limits.admit("i-1").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn n5_makes_a_fast_instance_wait_and_only_that() {
        let limits = limits(1000, 1000, 2);
        let start = Instant::now();
        for _ in 0..=2 * BURST {
            limits.admit("i-1").unwrap().wait_for_turn().await;
        }
        assert_eq!(
            start.elapsed(),
            Duration::ZERO,
            "a burst of ten seconds' worth"
        );
        for _ in 0..6 {
            limits.admit("i-1").unwrap().wait_for_turn().await;
        }
        // Tokio's paused clock counts in whole milliseconds.
        let waited = start.elapsed();
        assert_eq!(
            waited.as_secs(),
            3,
            "six more at two a second, but waited {waited:?}"
        );
        limits.admit("i-2").unwrap().wait_for_turn().await;
        assert_eq!(start.elapsed(), waited);
    }

    #[tokio::test(start_paused = true)]
    async fn forgets_who_is_gone() {
        let limits = limits(10, 10, 1);
        drop(limits.admit("i-1").unwrap());
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(limits.admit("i-2").unwrap());
        assert_eq!(lock(&limits.clients).len(), 1);
    }
}
