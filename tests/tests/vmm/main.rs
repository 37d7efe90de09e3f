//! End-to-end tests of `cumulet-vmm` with small guests (docs/guest-payload.md).

mod bad_input;
mod boot;
mod control;
mod disks;
mod durability;
mod hostile;
mod life;
mod net;
