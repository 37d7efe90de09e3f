//! `cumulet serve` dies, panics and grows old: what it has promised holds (docs/agent.md, "Crash safety").
//!
//! Built with the feature `fault-injection` only: `cargo test -p cumulet-agent --features fault-injection --test crash`.

mod agent;
mod check;
mod growth;
mod life;
mod model;
mod panics;
mod rounds;
#[path = "../api/signer.rs"]
mod signer;
mod xml;
