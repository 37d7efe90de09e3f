//! virtio-net (virtio 1.2 §5.1): a network interface on a tap.
//!
//! ```text
//!   transmit: chain ──► writev(tap)            one system call a frame, no copy of ours
//!   receive:  readv(tap) ──► posted buffers    frames go straight into guest memory
//! ```
//! Every frame has the 12-byte virtio header before it on the tap too (`IFF_VNET_HDR`), so that
//! checksums and segmentation stay undone between guests and host where both sides can.
//!
//! With vhost-net the host's kernel does the same without this process, when it is asked for ([`VhostNet`]).

mod device;
mod handler;
mod kernel;
mod mac;
mod metrics;
mod receive;
mod tap;
mod vhost;

pub use device::{Net, NetOptions};
pub use mac::{Mac, MacError};
pub use metrics::NetMetrics;
pub use tap::{NetBackend, Offloads, Tap, TapError};
pub use vhost::{RingEvents, Vhost, VhostDevice, VhostNet};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vhost_tests;

/// Bytes of `struct virtio_net_hdr_v1` (virtio 1.2 §5.1.6).
pub(crate) const HEADER: usize = 12;
