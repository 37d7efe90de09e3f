//! Disk images as cumulet sees them: block devices, volumes, the AMI store and
//! what is found inside an image.
//!
//! This crate knows blocks, formats and digests; it knows nothing of KVM, of
//! virtio or of HTTP.

pub mod block;
pub mod io;
pub mod raw;
pub mod volume;
