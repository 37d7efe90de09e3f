//! What makes machines of records.

use std::net::Ipv4Addr;
use std::sync::Arc;

use cumulet_images::store::Ami;
use futures::future::BoxFuture;

use crate::api::ApiError;
use crate::cloud::instance::Instance;
use crate::fabric::Reachability;
use crate::types::InstanceType;

/// Everything a backend has to know of an instance to run it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its record.
    pub instance: Instance,
    /// Region.
    pub region: String,
    /// Account.
    pub account: String,
    /// Zone id, `use1-az1`.
    pub zone_id: String,
    /// vCPUs and memory.
    pub kind: InstanceType,
    /// Size of each device, GiB, in the order of the devices.
    pub sizes: Vec<i32>,
    /// The primary interface.
    pub network: Network,
    /// The interfaces beside it, by device index.
    pub more: Vec<Network>,
}

/// An interface of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// `eni-…`.
    pub interface_id: String,
    /// `02:…`.
    pub mac: String,
    /// Its place at the instance; 0: the primary one.
    pub device_index: i32,
    /// Its primary private address.
    pub private_ip: Option<Ipv4Addr>,
    /// Its other private addresses.
    pub secondary_ips: Vec<Ipv4Addr>,
    /// Its public address.
    pub public_ip: Option<Ipv4Addr>,
    /// VPC.
    pub vpc_id: String,
    /// Its range.
    pub vpc_cidr: String,
    /// Subnet.
    pub subnet_id: String,
    /// Its range.
    pub subnet_cidr: String,
    /// Security groups: id, name.
    pub groups: Vec<(String, String)>,
}

/// A machine could not be brought where it was to be.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// EC2's code for the state reason, `Server.InternalError` and the like.
    pub code: String,
    /// In words.
    pub message: String,
}

/// How a machine ended that nobody told to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest powered itself off.
    Guest,
    /// It was stopped by the command line.
    User,
    /// It was terminated by the command line.
    Gone,
    /// It was killed or broke.
    Failed(String),
}

/// Runs machines: by KVM, or only in name.
///
/// Every method may be called again for a machine that is there already where it is to be; it then has nothing to do. So a
/// restarted agent need not know how far the last one got.
pub trait Backend: std::fmt::Debug + Send + Sync + 'static {
    /// Why a running instance is not what it seems, if so.
    fn notice(&self) -> Option<&'static str>;

    /// AMIs that are there without a store.
    fn builtin(&self) -> Vec<Ami> {
        Vec::new()
    }

    /// Whether this host can be such a machine at all.
    ///
    /// # Errors
    /// EC2's error with the reason.
    fn check_type(&self, kind: &InstanceType) -> Result<(), ApiError>;

    /// Memory that guests of this host may have together, MiB.
    fn memory_mib(&self) -> Option<u64>;

    /// The last `limit` bytes that the guest has said.
    ///
    /// # Errors
    /// When they are there and cannot be read.
    fn console(&self, id: &str, limit: usize) -> Result<Vec<u8>, ApiError>;

    /// Whether the guest answers on its network. `None`: unknown.
    fn reachability(&self, id: &str) -> Option<Reachability>;

    /// Makes the machine if need be, and runs it. Done when the guest's vCPUs run.
    fn start(self: Arc<Self>, machine: Machine) -> BoxFuture<'static, Result<(), Failure>>;

    /// Presses the power button, or cuts the power. Done when it is off.
    fn stop(self: Arc<Self>, id: String, force: bool) -> BoxFuture<'static, Result<(), Failure>>;

    /// Reboots it. Done when the guest's vCPUs run again.
    fn reboot(self: Arc<Self>, id: String) -> BoxFuture<'static, Result<(), Failure>>;

    /// Ends it and deletes everything of it but these volumes. Done when it is gone.
    fn terminate(
        self: Arc<Self>,
        id: String,
        keep: Vec<String>,
    ) -> BoxFuture<'static, Result<(), Failure>>;

    /// Tells a running machine what has changed in its record: tags, metadata options, groups, addresses.
    fn update(self: Arc<Self>, machine: Machine) -> BoxFuture<'static, Result<(), Failure>>;

    /// Done when a running machine has ended by itself.
    fn ended(self: Arc<Self>, id: String) -> BoxFuture<'static, End>;
}
