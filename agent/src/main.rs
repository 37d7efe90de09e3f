//! `cumulet`: the command line.

fn main() {}
