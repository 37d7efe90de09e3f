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
