//! `cumulet-vmm`: one process, one virtual machine.

fn main() {}
