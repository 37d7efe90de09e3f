//! Disk images as cumulet sees them: block devices, volumes, snapshots, the AMI store and
//! what is found inside an image.
//!
//! This crate knows blocks, formats and digests; it knows nothing of KVM, of
//! virtio or of HTTP.

pub mod block;
pub mod boot;
pub mod build;
pub mod fs;
pub mod io;
pub mod layout;
mod lockfile;
pub mod partition;
pub mod raw;
pub mod slice;
pub mod snapshot;
pub mod store;
pub mod testing;
pub mod volume;
