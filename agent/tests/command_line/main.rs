//! `cumulet` as a user meets it, on any host: the VMM is a pretended one ([`pretend`]).

mod common;
mod completion;
mod forward;
mod images;
mod input;
mod lifecycle;
mod look;
mod pretend;
mod served;
#[path = "../api/signer.rs"]
#[allow(
    dead_code,
    reason = "what is signed in the query string is the API tests' business"
)]
mod signer;

#[test]
#[ignore = "not a test: this is what `cumulet-vmm` is here"]
fn pretended_vmm() {
    pretend::run();
}
