//! virtio-rng (virtio 1.2 §5.4): the host's entropy for the guest.

mod device;
mod handler;
mod metrics;

pub use device::Rng;
pub use metrics::RngMetrics;

#[cfg(test)]
mod tests;
