//! EC2 on this host: instance life cycle, fabric and command line.
//!
//! * [`api`]: EC2's own API: wire rules, signatures, actions.
//! * [`cloud`]: every resource that the API knows, in SQLite.
//! * [`engine`]: brings machines to where their records say they are to be.
//! * [`cli`]: what the user types, and what is printed.
//! * `amis`, `launch`: from an AMI and a checked record to an instance on disk.
//! * [`state`]: records on disk, locks, identity: the truth about every instance.
//! * [`supervise`]: the process that owns one running instance.
//! * [`fabric`]: the network around it.
//! * [`fault`]: where tests end this process; nothing in what users run.
//! * [`panics`]: what a panic costs.
//! * [`doctor`]: whether this host can run guests, and how to mend it.

mod amis;
pub mod api;
pub mod cli;
pub mod cloud;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod fabric;
pub mod fault;
pub mod ids;
mod launch;
pub mod panics;
pub mod router;
pub mod size;
pub mod state;
pub mod supervise;
pub mod types;
