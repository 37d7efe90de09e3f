//! Instances and the volumes they were launched with.

use serde::{Deserialize, Serialize};

use super::table::{Resource, Tags};
use crate::api::tokens::{Stamp, Stamped};
use crate::api::wire::Timestamp;
use crate::state::record::{MetadataOptions, State, StateReason};

/// What happens when the guest powers itself off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownBehavior {
    /// The instance stops.
    #[default]
    Stop,
    /// The instance is terminated.
    Terminate,
}

impl ShutdownBehavior {
    /// EC2's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Terminate => "terminate",
        }
    }
}

/// A volume's place in an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `/dev/sda1`.
    pub name: String,
    /// `vol-…`.
    pub volume_id: String,
    /// Whether the volume goes with the instance.
    pub delete_on_termination: bool,
    /// Since when.
    pub attach_time: Timestamp,
}

/// Everything about one instance that a user decides or sees, but its network, which is its interfaces'.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `i-…`.
    pub instance_id: String,
    /// `r-…`, shared by those of one RunInstances.
    pub reservation_id: String,
    /// Its number in the reservation, from 0.
    pub launch_index: i32,
    /// Where it is in its life. Committed before it is acted on: the engine brings the machine there.
    pub state: State,
    /// Why, as `StateReason`.
    pub state_reason: Option<StateReason>,
    /// Why, as `StateTransitionReason`: `User initiated (2026-01-31 12:00:00 GMT)`.
    pub transition_reason: String,
    /// A stop or termination that does not wait for the guest.
    #[serde(default)]
    pub forced: bool,
    /// Reboots asked for since launch. The engine has done `reboots_done` of them.
    #[serde(default)]
    pub reboots: u64,
    /// See `reboots`.
    #[serde(default)]
    pub reboots_done: u64,
    /// Whether a machine has ever been made for it.
    #[serde(default)]
    pub launched: bool,
    /// `ami-…`.
    pub image_id: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// `/dev/sda1`.
    pub root_device: String,
    /// `t3.micro`.
    pub instance_type: String,
    /// Key pair name.
    pub key_name: Option<String>,
    /// OpenSSH line of that key pair, as it was at launch.
    pub public_key: Option<String>,
    /// When it was last launched or started.
    pub launch_time: Timestamp,
    /// `us-east-1a`.
    pub zone: String,
    /// `default` or `dedicated`, as asked for.
    pub tenancy: String,
    /// Base64.
    pub user_data: Option<String>,
    /// What a shutdown from inside does.
    pub shutdown_behavior: ShutdownBehavior,
    /// Protected against TerminateInstances.
    pub disable_api_termination: bool,
    /// Protected against StopInstances.
    pub disable_api_stop: bool,
    /// Detailed monitoring, as asked for.
    pub monitoring: bool,
    /// EBS optimization, as asked for.
    pub ebs_optimized: bool,
    /// Metadata options.
    pub metadata: MetadataOptions,
    /// Hibernation, as asked for.
    pub hibernation: bool,
    /// ARN of the instance profile, as asked for.
    pub profile_arn: Option<String>,
    /// `standard` or `unlimited`, of burstable types.
    pub cpu_credits: Option<String>,
    /// Client token of its RunInstances.
    #[serde(default, alias = "client_token")]
    pub stamp: Option<Stamp>,
    /// Volumes, the root volume first.
    pub devices: Vec<Device>,
    /// Since when it is terminated.
    #[serde(default)]
    pub terminated: Option<Timestamp>,
    /// Tags.
    pub tags: Tags,
}

impl Resource for Instance {
    const KIND: &'static str = "instance";

    fn id(&self) -> &str {
        &self.instance_id
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }

    fn tags_mut(&mut self) -> &mut Tags {
        &mut self.tags
    }
}

impl Stamped for Instance {
    fn stamp(&self) -> Option<&Stamp> {
        self.stamp.as_ref()
    }
}

impl Instance {
    /// Takes a new state with its reasons.
    pub fn enter(&mut self, state: State, reason: Option<StateReason>, transition: &str) {
        self.state = state;
        self.state_reason = reason;
        self.transition_reason = transition.to_owned();
    }

    /// Whether it has a machine or is to get one.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, State::Terminated | State::ShuttingDown)
    }
}

/// A volume that was made at a launch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// `vol-…`.
    pub volume_id: String,
    /// GiB.
    pub size: i32,
    /// `us-east-1a`.
    pub zone: String,
    /// `gp3`, …
    pub volume_type: String,
    /// IOPS, of types that have them.
    pub iops: Option<i32>,
    /// MiB/s, of types that have it.
    pub throughput: Option<i32>,
    /// When it was made.
    pub create_time: Timestamp,
    /// The instance that has it.
    pub instance_id: Option<String>,
    /// Tags.
    pub tags: Tags,
}

impl Resource for Volume {
    const KIND: &'static str = "volume";

    fn id(&self) -> &str {
        &self.volume_id
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }

    fn tags_mut(&mut self) -> &mut Tags {
        &mut self.tags
    }
}
