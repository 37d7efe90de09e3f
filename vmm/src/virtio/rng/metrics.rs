//! What an entropy device counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::virtio::Metrics;

/// Counters of an entropy device.
#[derive(Debug, Default)]
pub struct RngMetrics {
    /// Requests answered.
    pub requests: AtomicU64,
    /// Bytes given to the guest.
    pub bytes: AtomicU64,
    /// Requests the host had no entropy for, or whose buffer was not in RAM.
    pub errors: AtomicU64,
}

#[derive(Serialize)]
struct Snapshot {
    requests: u64,
    bytes: u64,
    errors: u64,
}

impl Metrics for RngMetrics {
    fn snapshot(&self) -> serde_json::Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        serde_json::json!(Snapshot {
            requests: get(&self.requests),
            bytes: get(&self.bytes),
            errors: get(&self.errors),
        })
    }
}
