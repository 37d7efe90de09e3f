//! The API as a client meets it: a real server on a port of its own, signed requests over TCP.

mod client;
mod faults;
mod key_pairs;
mod protocol;
mod serve;
mod signer;
