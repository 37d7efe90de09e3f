//! The whole API and life cycle without a machine: for learning the API and for API tests.

use std::sync::Arc;
use std::time::Duration;

use cumulet_images::store::Ami;
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};

use super::{Backend, End, Failure, Machine};
use crate::api::ApiError;
use crate::fabric::Reachability;
use crate::types::InstanceType;

/// How long each transition takes.
const STEP: Duration = Duration::from_millis(5);

/// The AMIs that are there without an AMI store: id, name, architecture.
pub const BUILTIN: &[(&str, &str, &str)] = &[
    (
        "ami-0cb00000000000001",
        "cumulet-simulated-x86_64",
        "x86_64",
    ),
    ("ami-0cb00000000000002", "cumulet-simulated-arm64", "arm64"),
];

/// Size of the disk that they are said to have.
const SIZE_GIB: u8 = 8;

/// What the guest's console says.
const CONSOLE: &str = "cumulet: this instance is simulated (`cumulet serve --backend simulated`).\r\n\
    cumulet: there is no virtual machine behind it; its API, its metadata and its life cycle are real.\r\n";

/// Machines in name only.
#[derive(Debug)]
pub struct Simulated;

async fn step() -> Result<(), Failure> {
    tokio::time::sleep(STEP).await;
    Ok(())
}

impl Backend for Simulated {
    fn notice(&self) -> Option<&'static str> {
        Some("This instance is simulated: there is no virtual machine behind it")
    }

    fn builtin(&self) -> Vec<Ami> {
        let amis = BUILTIN.iter();
        amis.map(|(id, name, architecture)| Ami {
            format: cumulet_images::store::MANIFEST_FORMAT,
            id: (*id).to_owned(),
            name: (*name).to_owned(),
            description: "There is no disk behind it: for simulated instances".to_owned(),
            architecture: serde_json::from_value((*architecture).into()).ok(),
            root_device_name: "/dev/xvda".to_owned(),
            size: u64::from(SIZE_GIB) << 30,
            used_bytes: 0,
            creation_date: "2026-11-21T00:00:00.000Z".to_owned(),
            os: None,
            boot: None,
            digest: String::new(),
            recipe: None,
        })
        .collect()
    }

    fn check_type(&self, _kind: &InstanceType) -> Result<(), ApiError> {
        Ok(())
    }

    fn memory_mib(&self) -> Option<u64> {
        None
    }

    fn console(&self, _id: &str, limit: usize) -> Result<Vec<u8>, ApiError> {
        Ok(CONSOLE.bytes().take(limit).collect())
    }

    fn reachability(&self, _id: &str) -> Option<Reachability> {
        Some(Reachability::Passed)
    }

    fn start(self: Arc<Self>, _machine: Machine) -> BoxFuture<'static, Result<(), Failure>> {
        step().boxed()
    }

    fn stop(self: Arc<Self>, _id: String, _force: bool) -> BoxFuture<'static, Result<(), Failure>> {
        step().boxed()
    }

    fn reboot(self: Arc<Self>, _id: String) -> BoxFuture<'static, Result<(), Failure>> {
        step().boxed()
    }

    fn terminate(
        self: Arc<Self>,
        _id: String,
        _keep: Vec<String>,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        step().boxed()
    }

    fn update(self: Arc<Self>, _machine: Machine) -> BoxFuture<'static, Result<(), Failure>> {
        future::ready(Ok(())).boxed()
    }

    fn ended(self: Arc<Self>, _id: String) -> BoxFuture<'static, End> {
        future::pending().boxed()
    }
}
