//! `cumulet serve` over real machines.

mod common;
mod life;
mod vpc;
