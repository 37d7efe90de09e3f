//! `cumulet serve` over real machines.

mod common;
mod host;
mod life;
mod vpc;
