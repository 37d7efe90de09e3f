//! What a disk counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::virtio::Metrics;

/// Counters of a disk.
#[derive(Debug, Default)]
pub struct BlkMetrics {
    /// Read requests that succeeded.
    pub reads: AtomicU64,
    /// Bytes read.
    pub read_bytes: AtomicU64,
    /// Write requests that succeeded.
    pub writes: AtomicU64,
    /// Bytes written.
    pub write_bytes: AtomicU64,
    /// Flushes that succeeded.
    pub flushes: AtomicU64,
    /// Discard and write-zeroes requests that succeeded.
    pub discards: AtomicU64,
    /// Requests answered with an error or as unsupported.
    pub errors: AtomicU64,
    /// Reads and writes served at once, by a plain system call.
    pub direct: AtomicU64,
    /// Reads and writes served through `io_uring`.
    pub batched: AtomicU64,
    /// Calls that submitted a batch to `io_uring`.
    pub batches: AtomicU64,
    /// Notifications from the driver.
    pub kicks: AtomicU64,
}

#[derive(Serialize)]
struct Snapshot {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    write_bytes: u64,
    flushes: u64,
    discards: u64,
    errors: u64,
    direct: u64,
    batched: u64,
    batches: u64,
    kicks: u64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Metrics for BlkMetrics {
    fn snapshot(&self) -> serde_json::Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        serde_json::json!(Snapshot {
            reads: get(&self.reads),
            read_bytes: get(&self.read_bytes),
            writes: get(&self.writes),
            write_bytes: get(&self.write_bytes),
            flushes: get(&self.flushes),
            discards: get(&self.discards),
            errors: get(&self.errors),
            direct: get(&self.direct),
            batched: get(&self.batched),
            batches: get(&self.batches),
            kicks: get(&self.kicks),
        })
    }
}
