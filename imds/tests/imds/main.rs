//! The acceptance list of the metadata service: one test a case, named after it (`t1_…`, `g1_…`).

mod client;
mod format;
mod identity;
mod reads;
mod tokens;
