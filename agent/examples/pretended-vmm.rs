//! A `cumulet-vmm` that runs no guest, for `cargo xtask bench run --here`: it is what tests of the life cycle have.

#[path = "../tests/command_line/pretend.rs"]
mod pretend;

fn main() {
    pretend::run();
}
