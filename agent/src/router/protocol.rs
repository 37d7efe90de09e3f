//! What is said on the router's socket: JSON lines, one reply a request.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::fabric::network::Network;
use crate::fabric::{Answers, UplinkState};

/// Name of the router's socket in the state folder.
pub(super) const SOCKET: &str = "router.sock";

/// A request line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Request {
    /// Make the VPCs' networks these, and read again what the metadata service says of their instances.
    Apply {
        /// All of them.
        networks: Vec<Network>,
    },
    /// Where a VPC's network is.
    Find {
        /// `vpc-…`.
        network: String,
    },
    /// Whether guests reach the outside.
    Uplink,
    /// Which guests answer ARP.
    Answers,
}

/// A reply line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(super) enum Reply {
    /// Done.
    Done,
    /// The network is in this namespace.
    Found {
        /// The router's process.
        pid: u32,
        /// Its descriptor of the network namespace.
        net: RawFd,
    },
    /// How it stands with the way to the outside.
    Uplink {
        /// As the fabric tells it.
        state: UplinkState,
    },
    /// Which guests answer ARP.
    Answers {
        /// By instance; those that are plugged in.
        answers: BTreeMap<String, Answers>,
    },
    /// It cannot be done.
    Refused {
        /// Why.
        error: Error,
    },
}
