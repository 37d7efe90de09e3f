//! The acceptance list of the metadata service: one test a case, named after it (`t1_…`, `g1_…`).

mod client;
mod crawl;
mod dynamic;
mod format;
mod hop_limit;
mod hostile;
mod identity;
mod reads;
mod service;
mod tokens;
mod tree;
mod views;
