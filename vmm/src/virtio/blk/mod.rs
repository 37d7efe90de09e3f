//! virtio-blk (virtio 1.2 §5.2): a disk for the guest.
//!
//! A request is parsed once ([`request`]), laid out over the backend's extents ([`transfer`]), and
//! moved straight between guest memory and files:
//!
//! * synchronously, when it is alone: at depth 1 a detour through `io_uring` only adds waiting;
//! * through `io_uring`, when several wait: one system call submits the batch ([`ring`]);
//! * plainly, where the host refuses `io_uring`.

mod config;
mod device;
mod handler;
mod metrics;
mod request;
mod ring;
mod transfer;

pub use device::{Blk, BlkError, BlkOptions};
pub use metrics::BlkMetrics;

#[cfg(test)]
mod tests;
