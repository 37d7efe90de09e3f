//! virtio devices (virtio 1.2) on a modern PCI transport.
//!
//! ```text
//!  vCPU threads                                 event loop thread
//!  ────────────                                 ─────────────────
//!  config space, BAR ──► transport::VirtioPci   kick eventfd ──► queue handler ──► VirtQueue
//!       status = DRIVER_OK │ activate()              (blk, net, rng)                  │
//!                          ▼                                                          ▼
//!                    VirtioDevice ── Activation{queues, Link} ──────────────►  Link: interrupts,
//!                                                                              DEVICE_NEEDS_RESET
//! ```
//!
//! A device is built once and activated anew after every reset. What runs on the event loop is the
//! handler that [`VirtioDevice::activate`] registers; [`VirtioDevice::stop`] takes it away again and
//! returns when nothing of the device touches guest memory any more.
//!
//! Lock order: PCI root, then a device's handler, then its [`Link`]. Handlers never call the root.

pub mod blk;
pub mod chain;
pub mod link;
pub mod net;
pub mod queue;
pub mod rng;
pub mod transport;

#[cfg(test)]
mod hostile;
#[cfg(test)]
pub(crate) mod testing;

use std::io;
use std::sync::Arc;

pub use link::{FailureSink, Link};
pub use queue::VirtQueue;

use crate::event_loop::EventLoopHandle;

/// Guest RAM.
pub type Ram = vm_memory::GuestMemoryMmap<()>;

/// The driver's feature bits include this one.
#[must_use]
pub const fn has_feature(features: u64, bit: u32) -> bool {
    features & (1 << bit) != 0
}

/// The set of feature bits given by number.
#[must_use]
pub const fn feature_set(bits: &[u32]) -> u64 {
    let mut set = 0;
    let mut at = 0;
    while at < bits.len() {
        set |= 1 << bits[at];
        at += 1;
    }
    set
}

/// A device ID of `virtio_bindings` as the 16 bits it has (virtio 1.2 §5).
pub(crate) const fn device_id(id: u32) -> u16 {
    assert!(id < 0x1000, "modern device IDs only");
    let bytes = id.to_le_bytes();
    u16::from_le_bytes([bytes[0], bytes[1]])
}

/// What kind of device it is, as PCI shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceKind {
    /// virtio device ID (virtio 1.2 §5).
    pub id: u16,
    /// PCI class, subclass and programming interface.
    pub class: u32,
}

/// What an activated device gets.
pub struct Activation {
    /// Guest RAM.
    pub memory: Ram,
    /// Features the driver accepted, a subset of those offered.
    pub features: u64,
    /// Queues by number; `None` for one the driver left disabled.
    pub queues: Vec<Option<VirtQueue>>,
    /// Interrupts and failure.
    pub link: Arc<Link>,
    /// Where the queue handler is registered.
    pub events: EventLoopHandle,
}

/// A virtio device without its transport.
pub trait VirtioDevice: Send {
    /// What it is.
    fn kind(&self) -> DeviceKind;

    /// Feature bits of this device type (0 to 23 and 50 up) that it offers.
    fn features(&self) -> u64;

    /// Whether the driver's choice is consistent (virtio 1.2 §3.1.1 step 5). The transport has
    /// checked that it is a subset of what was offered.
    fn accepts(&self, features: u64) -> bool {
        let _ = features;
        true
    }

    /// Largest size of each queue, a power of two.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Reads device configuration; bytes beyond its end are zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes device configuration; most of it is read-only.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The driver is ready: starts to serve the queues.
    ///
    /// # Errors
    /// When the host refuses what the device needs, or the driver left out a queue it must have.
    /// The driver then sees DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;

    /// The driver changed bus mastering, interrupt vectors or MSI-X of the running device. Of
    /// interest to a device that does not go through [`Link`] for each of them.
    fn function_changed(&mut self) {}

    /// The machine is paused, or goes on. A device that is told so touches no guest memory while it
    /// is paused; others only do what the guest asked for before.
    fn set_paused(&mut self, paused: bool) {
        let _ = paused;
    }

    /// Stops serving. Returns when no request is in flight and nothing touches guest memory any
    /// more. Does nothing for a device that is not active.
    fn stop(&mut self);
}

/// Counters of a device, for the control socket's `stats`.
pub trait Metrics: Send + Sync {
    /// The counters now, as a JSON object.
    fn snapshot(&self) -> serde_json::Value;
}

/// Copies from a configuration structure; bytes beyond its end are zero.
pub(crate) fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let Some(rest) = usize::try_from(offset).ok().and_then(|at| config.get(at..)) else {
        return;
    };
    let len = rest.len().min(data.len());
    data[..len].copy_from_slice(&rest[..len]);
}
