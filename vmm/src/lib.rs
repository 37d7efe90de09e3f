//! cumulet's virtual machine monitor.
//!
//! It boots one guest on KVM from a [`config::VmConfig`] and is steered through a
//! [`control`] socket. It knows machines, not EC2.

pub mod arch;
pub mod boot;
pub mod bus;
pub mod config;
pub mod console;
pub mod control;
pub mod device;
pub mod devices;
pub mod event_loop;
pub mod legacy;
pub mod machine;
pub mod memory;
pub mod pci;
pub mod probe;
pub mod requests;
pub mod resources;
pub mod run;
pub mod sandbox;
pub mod trace;
pub mod vcpu;
pub mod virtio;
