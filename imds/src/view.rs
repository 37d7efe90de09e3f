//! What the metadata service is told about an instance.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

/// Everything that one instance may read about itself.
///
/// The agent makes a new one from its records whenever something changes; a view never changes
/// in place.
#[derive(Debug, Clone)]
pub struct InstanceView {
    /// `i-0123456789abcdef0`.
    pub instance_id: String,
    /// `r-…`.
    pub reservation_id: String,
    /// `ami-…`.
    pub image_id: String,
    /// Index in the launch, from 0.
    pub launch_index: u32,
    /// `t3.micro`.
    pub instance_type: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// 12 digits.
    pub account_id: String,
    /// `us-east-1`.
    pub region: String,
    /// `us-east-1a`.
    pub availability_zone: String,
    /// `use1-az1`.
    pub availability_zone_id: String,
    /// When the launch was accepted (the identity document's `pendingTime`).
    pub pending_time: SystemTime,
    /// Whether HibernationOptions.Configured was set.
    pub hibernation_configured: bool,
    /// `mapping name -> device name`: `ami -> sda1`, `root -> /dev/sda1`, `ebs1 -> sdf`.
    pub block_devices: BTreeMap<String, String>,
    /// Interfaces; the first is the primary one.
    pub interfaces: Vec<InterfaceView>,
    /// Raw user data as given, at most 16 KiB.
    pub user_data: Option<Vec<u8>>,
    /// Key pairs: name and OpenSSH public key line.
    pub public_keys: Vec<PublicKey>,
    /// Instance tags.
    pub tags: BTreeMap<String, String>,
    /// Metadata options.
    pub options: MetadataOptions,
    /// One-minute CloudWatch monitoring was asked for (`fws/instance-monitoring`).
    pub detailed_monitoring: bool,
    /// What only some instances have; `Default::default()` is a plain on-demand instance.
    pub extras: Extras,
}

/// One network interface (ENI).
#[derive(Debug, Clone)]
pub struct InterfaceView {
    /// `eni-…`.
    pub interface_id: String,
    /// Lower case, colons; equal to the guest's NIC.
    pub mac: String,
    /// Device index.
    pub device_number: u32,
    /// Private addresses, the primary one first.
    pub private_ipv4s: Vec<Ipv4Addr>,
    /// Public address of the primary private address.
    pub public_ipv4: Option<Ipv4Addr>,
    /// IPv6 addresses.
    pub ipv6s: Vec<Ipv6Addr>,
    /// `subnet-…`.
    pub subnet_id: String,
    /// `172.31.0.0/20`.
    pub subnet_cidr: String,
    /// `vpc-…`.
    pub vpc_id: String,
    /// `172.31.0.0/16`, first the primary one.
    pub vpc_cidrs: Vec<String>,
    /// (`sg-…`, name).
    pub security_groups: Vec<(String, String)>,
    /// IPv6 ranges of the subnet.
    pub subnet_ipv6_cidrs: Vec<String>,
    /// IPv6 ranges of the VPC.
    pub vpc_ipv6_cidrs: Vec<String>,
}

/// A key pair's public half.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// Key pair name.
    pub name: String,
    /// `ssh-ed25519 AAAA… comment`, without a line end.
    pub openssh: String,
}

/// EC2's `MetadataOptions` (API: InstanceMetadataOptionsRequest).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataOptions {
    /// `HttpEndpoint`: the service answers.
    pub enabled: bool,
    /// `HttpTokens=required`: IMDSv2 only.
    pub tokens_required: bool,
    /// `HttpPutResponseHopLimit`, 1 to 64: IP TTL of PUT answers.
    pub hop_limit: u8,
    /// `InstanceMetadataTags=enabled`.
    pub instance_tags: bool,
    /// `HttpProtocolIpv6=enabled`.
    pub ipv6: bool,
}

/// Values that only some instances have. What is empty here is absent from the metadata tree.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// How the instance was bought.
    pub life_cycle: LifeCycle,
    /// AMIs the AMI was made from.
    pub ancestor_ami_ids: Vec<String>,
    /// Marketplace product codes.
    pub product_codes: Vec<String>,
    /// `aki-…`.
    pub kernel_id: Option<String>,
    /// `ari-…`.
    pub ramdisk_id: Option<String>,
    /// Placement group name.
    pub placement_group: Option<String>,
    /// `h-…`, on a dedicated host.
    pub host_id: Option<String>,
    /// Partition in a partition placement group.
    pub partition_number: Option<u32>,
    /// The IAM instance profile and its role's credentials.
    pub instance_profile: Option<InstanceProfile>,
    /// Credentials of the instance's own identity (`identity-credentials/ec2`).
    pub identity_credentials: Option<Credentials>,
    /// Spot: the instance is marked for interruption.
    pub spot_interruption: Option<SpotInterruption>,
    /// Spot: when the rebalance recommendation was given.
    pub rebalance_notice: Option<SystemTime>,
    /// `InService`, `Terminated`, … when the instance is in an Auto Scaling group.
    pub autoscaling_target_state: Option<String>,
    /// Maintenance to come.
    pub maintenance_scheduled: Vec<MaintenanceEvent>,
    /// Maintenance completed or canceled.
    pub maintenance_history: Vec<MaintenanceEvent>,
}

/// How an instance was bought (`instance-life-cycle`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LifeCycle {
    /// `on-demand`.
    #[default]
    OnDemand,
    /// `spot`.
    Spot,
    /// `scheduled`.
    Scheduled,
}

/// An IAM instance profile with the credentials of its role.
#[derive(Debug, Clone)]
pub struct InstanceProfile {
    /// `arn:aws:iam::…:instance-profile/…`.
    pub arn: String,
    /// `AIPA…`.
    pub id: String,
    /// Name of the role.
    pub role_name: String,
    /// Credentials of the role; replaced at least five minutes before they expire.
    pub credentials: Credentials,
}

/// Temporary credentials.
#[derive(Clone)]
pub struct Credentials {
    /// `ASIA…`.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token.
    pub token: String,
    /// When they were made.
    pub last_updated: SystemTime,
    /// When they stop working.
    pub expiration: SystemTime,
}

impl std::fmt::Debug for Credentials {
    /// Without the secrets: views end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

/// A spot interruption notice.
#[derive(Debug, Clone)]
pub struct SpotInterruption {
    /// `terminate`, `stop` or `hibernate`.
    pub action: String,
    /// When it happens.
    pub time: SystemTime,
}

/// A scheduled event of the host.
#[derive(Debug, Clone)]
pub struct MaintenanceEvent {
    /// `instance-event-…`.
    pub event_id: String,
    /// `system-reboot`, `instance-retirement`, …
    pub code: String,
    /// For people.
    pub description: String,
    /// Not before this.
    pub not_before: SystemTime,
    /// Not after this.
    pub not_after: Option<SystemTime>,
    /// `active`, `completed` or `canceled`.
    pub state: String,
}
