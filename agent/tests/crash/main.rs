//! `cumulet serve` dies, panics and grows old: what it has promised holds (docs/agent.md, "Crash safety").
//!
//! Built with the feature `fault-injection` only: `cargo test -p cumulet-agent --features fault-injection --test crash`.

mod agent;
mod check;
mod growth;
mod life;
mod machines;
mod model;
mod panics;
#[path = "../command_line/pretend.rs"]
mod pretend;
mod rounds;
#[path = "../api/signer.rs"]
mod signer;
mod xml;

#[test]
#[ignore = "not a test: this is what `cumulet-vmm` is here"]
fn pretended_vmm() {
    pretend::run();
}
