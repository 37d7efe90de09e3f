//! End-to-end tests of cumulet through its public faces: the binaries, the control socket, the
//! guest. This library is the harness they share; the tests are in `tests/`.
//!
//! Tests run on a KVM host that can boot kernels: `cargo xtask test` brings its own (docs/testing.md).
//! Waits are hang guards of minutes, because such a host may be an emulated one on a busy machine;
//! when one fires, it says what the console showed.

pub mod api;
pub mod control;
pub mod cumulet;
pub mod elf;
pub mod machine;
pub mod net;
pub mod paths;
pub mod pattern;
pub mod process;
pub mod vm;

pub use machine::Machine;
pub use vm::Vm;

/// How long anything may take before a test gives up. Not a measure of speed.
pub const HANG_GUARD: std::time::Duration = std::time::Duration::from_secs(300);

/// How many rounds a test runs: `long` under `cargo xtask soak`, else `short`.
#[must_use]
pub fn rounds(short: u64, long: u64) -> u64 {
    if std::env::var_os("CUMULET_SOAK").is_some() {
        long
    } else {
        short
    }
}
