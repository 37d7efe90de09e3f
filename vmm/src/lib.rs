//! cumulet's virtual machine monitor.
//!
//! It boots one guest on KVM from a [`config::VmConfig`] and is steered through a
//! [`control`] socket. It knows machines, not EC2.

pub mod config;
pub mod control;
pub mod device;
pub mod event_loop;
pub mod pci;
pub mod probe;
pub mod virtio;
