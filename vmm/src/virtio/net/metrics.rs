//! What an interface counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::virtio::Metrics;

/// Counters of an interface. "Received" is what the guest receives.
#[derive(Debug, Default)]
pub struct NetMetrics {
    /// 1 while vhost-net in the host's kernel moves the frames: then none of them is counted here.
    pub vhost: AtomicU64,
    /// Frames given to the guest.
    pub rx_frames: AtomicU64,
    /// Their bytes, virtio header included.
    pub rx_bytes: AtomicU64,
    /// Frames that fitted no buffer of the guest.
    pub rx_dropped: AtomicU64,
    /// How often receiving stopped because the guest had posted too few buffers.
    pub rx_starved: AtomicU64,
    /// Frames taken from the guest.
    pub tx_frames: AtomicU64,
    /// Their bytes, virtio header included.
    pub tx_bytes: AtomicU64,
    /// Frames the tap refused or that were none.
    pub tx_dropped: AtomicU64,
    /// How often sending stopped because the tap was full.
    pub tx_blocked: AtomicU64,
}

#[derive(Serialize)]
struct Snapshot {
    vhost: u64,
    rx_frames: u64,
    rx_bytes: u64,
    rx_dropped: u64,
    rx_starved: u64,
    tx_frames: u64,
    tx_bytes: u64,
    tx_dropped: u64,
    tx_blocked: u64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Metrics for NetMetrics {
    fn snapshot(&self) -> serde_json::Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        serde_json::json!(Snapshot {
            vhost: get(&self.vhost),
            rx_frames: get(&self.rx_frames),
            rx_bytes: get(&self.rx_bytes),
            rx_dropped: get(&self.rx_dropped),
            rx_starved: get(&self.rx_starved),
            tx_frames: get(&self.tx_frames),
            tx_bytes: get(&self.tx_bytes),
            tx_dropped: get(&self.tx_dropped),
            tx_blocked: get(&self.tx_blocked),
        })
    }
}
