//! The record of one instance: its state and everything that makes it itself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::cloud::net;
use crate::fabric::UplinkMode;
use crate::size::Size;

/// Version of the record's form that this program writes and reads.
pub const VERSION: u32 = 1;

/// EC2's instance states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Being started.
    #[default]
    Pending,
    /// The guest's vCPUs run.
    Running,
    /// Being terminated.
    ShuttingDown,
    /// Gone.
    Terminated,
    /// The power button was pressed; the guest has not yet powered off.
    Stopping,
    /// Off; volumes kept.
    Stopped,
}

impl State {
    /// EC2's number for it.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }

    /// EC2's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the instance is in its state, in EC2's codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReason {
    /// `Client.UserInitiatedShutdown`, `Server.InternalError`, …
    pub code: String,
    /// In words.
    pub message: String,
}

impl StateReason {
    /// A reason with this code.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// The user asked for it.
    #[must_use]
    pub fn user() -> Self {
        Self::new(
            "Client.UserInitiatedShutdown",
            "Client.UserInitiatedShutdown: User initiated shutdown",
        )
    }

    /// The guest powered itself off.
    #[must_use]
    pub fn guest() -> Self {
        Self::new(
            "Client.InstanceInitiatedShutdown",
            "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
        )
    }

    /// Our side failed.
    #[must_use]
    pub fn internal(what: &str) -> Self {
        Self::new(
            "Server.InternalError",
            format!("Server.InternalError: {what}"),
        )
    }
}

/// The AMI an instance was made from, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// `ami-…`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
}

/// The key pair whose public half the guest gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// Key pair name.
    pub name: String,
    /// OpenSSH public key line, without a line end.
    pub openssh: String,
    /// Where its private half is, when we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
}

/// What a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskKind {
    /// Copy-on-write volume over the AMI.
    Root,
    /// Blank volume; kept while the instance exists.
    Data,
    /// Instance store: blank at every start, kept on reboot.
    Scratch,
}

/// One disk of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What it is.
    pub kind: DiskKind,
    /// `vol-…`, or `ephemeral0` for a scratch disk. Also the file's or folder's name in the
    /// instance's folder.
    pub id: String,
    /// `/dev/sda1`: EC2's name for the place it is attached to.
    pub device: String,
    /// Size.
    pub size: Size,
}

impl Disk {
    /// What the guest reads as the disk's serial (virtio GET_ID, 20 bytes): the volume id without
    /// its dash, as on EC2.
    #[must_use]
    pub fn serial(&self) -> String {
        self.id.replace('-', "")
    }

    /// Name of the file or folder that holds it, in the instance's folder.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self.kind {
            DiskKind::Root | DiskKind::Data => self.id.clone(),
            DiskKind::Scratch => format!("{}.raw", self.id),
        }
    }
}

/// A guest port that the host offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Host address to listen on.
    pub address: Ipv4Addr,
    /// Host port.
    pub host: u16,
    /// Guest port.
    pub guest: u16,
}

/// The primary network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `eni-…`.
    pub interface_id: String,
    /// `02:…`.
    pub mac: String,
    /// In 172.31.0.0/20.
    pub private_ip: Ipv4Addr,
    /// Ports offered on the host.
    #[serde(default)]
    pub publish: Vec<Published>,
    /// How the guest reaches the outside.
    pub uplink: UplinkMode,
}

/// EC2's metadata options of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOptions {
    /// `HttpEndpoint=enabled`.
    pub enabled: bool,
    /// `HttpTokens=required`.
    pub tokens_required: bool,
    /// `HttpPutResponseHopLimit`.
    pub hop_limit: u8,
    /// `InstanceMetadataTags=enabled`.
    pub instance_tags: bool,
}

impl Default for MetadataOptions {
    /// IMDSv2 only with two hops, as new EC2 accounts and current AMIs have it.
    fn default() -> Self {
        Self {
            enabled: true,
            tokens_required: true,
            hop_limit: 2,
            instance_tags: false,
        }
    }
}

/// A kernel from the host instead of the one inside the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectKernel {
    /// bzImage or ELF with a PVH note.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The whole command line.
    #[serde(default)]
    pub cmdline: String,
}

/// The hardware that the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// `t3.micro`.
    pub instance_type: String,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// Guest RAM in MiB.
    pub memory_mib: u64,
    /// The guest may run KVM itself.
    #[serde(default)]
    pub nested: bool,
    /// A kernel from the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<DirectKernel>,
    /// Appended to the command line found in the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub extra_cmdline: String,
    /// The VMM counts exits and prints them at the end.
    #[serde(default)]
    pub trace: bool,
}

/// Everything about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Form of this record.
    pub version: u32,
    /// `i-…`.
    pub instance_id: String,
    /// `r-…`.
    pub reservation_id: String,
    /// Where it is in its life.
    pub state: State,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<StateReason>,
    /// Survives the command that made it.
    pub keep: bool,
    /// When it was last launched or started.
    #[serde(with = "time::serde::rfc3339")]
    pub launch_time: OffsetDateTime,
    /// What it was made from; none for a kernel without a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// CPU, memory, boot.
    pub hardware: Hardware,
    /// SMBIOS UUID and serial, `ec2…`.
    pub system_uuid: String,
    /// Disks in order; the first is the root disk if there is an image.
    pub disks: Vec<Disk>,
    /// The network interface.
    pub network: Network,
    /// Key pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyPair>,
    /// User data, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Tags; `Name` is the instance's name.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Metadata options.
    pub metadata: MetadataOptions,
    /// Where it is in EC2's world; none when it was launched without the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// Where an instance of the agent's is, in EC2's world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Account, 12 digits.
    pub account: String,
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Zone id.
    pub zone_id: String,
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
    /// Public address.
    #[serde(default)]
    pub public_ip: Option<Ipv4Addr>,
    /// Number in the reservation.
    pub launch_index: u32,
    /// Detailed monitoring.
    pub monitoring: bool,
    /// Secondary private addresses of the primary interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondary_ips: Vec<Ipv4Addr>,
    /// The interfaces beside the primary one, by device index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Ids of the volumes that outlive the instance: DeleteOnTermination is false.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_volumes: Vec<String>,
}

/// A network interface beside the primary one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eni-…`.
    pub interface_id: String,
    /// `02:…`.
    pub mac: String,
    /// Its place at the instance, from 1.
    pub device_index: u32,
    /// Private addresses, the primary one first.
    pub private_ips: Vec<Ipv4Addr>,
    /// Public address of the primary private one.
    #[serde(default)]
    pub public_ip: Option<Ipv4Addr>,
    /// Subnet.
    pub subnet_id: String,
    /// Its range.
    pub subnet_cidr: String,
    /// Security groups: id, name.
    pub groups: Vec<(String, String)>,
}

impl Record {
    /// MAC addresses of all interfaces, the primary one first.
    pub fn macs(&self) -> impl Iterator<Item = &str> {
        let more = self.place.iter().flat_map(|place| &place.interfaces);
        std::iter::once(self.network.mac.as_str()).chain(more.map(|one| one.mac.as_str()))
    }

    /// The `Name` tag.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.tags.get("Name").map(String::as_str)
    }

    /// EC2's private DNS name, `ip-172-31-0-10.ec2.internal`.
    #[must_use]
    pub fn private_dns_name(&self) -> String {
        // A run without the agent is in us-east-1.
        let place = self.place.as_ref();
        let region = place.map_or("us-east-1", |place| place.region.as_str());
        net::private_dns_name(region, self.network.private_ip)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ids;

    pub(crate) fn sample() -> Record {
        Record {
            version: VERSION,
            instance_id: ids::new("i"),
            reservation_id: ids::new("r"),
            state: State::Stopped,
            state_reason: None,
            keep: true,
            launch_time: OffsetDateTime::UNIX_EPOCH,
            image: None,
            hardware: Hardware {
                instance_type: "t3.micro".into(),
                vcpus: 2,
                memory_mib: 1024,
                nested: false,
                direct: None,
                extra_cmdline: String::new(),
                trace: false,
            },
            system_uuid: ids::system_uuid(),
            disks: vec![Disk {
                kind: DiskKind::Data,
                id: ids::new("vol"),
                device: "/dev/sdf".into(),
                size: Size(1 << 30),
            }],
            network: Network {
                interface_id: ids::new("eni"),
                mac: ids::mac(),
                private_ip: Ipv4Addr::new(172, 31, 0, 10),
                publish: Vec::new(),
                uplink: UplinkMode::Auto,
            },
            key: None,
            user_data: None,
            tags: BTreeMap::new(),
            metadata: MetadataOptions::default(),
            place: None,
        }
    }

    pub(crate) fn sample_place() -> Place {
        Place {
            account: "123456789012".into(),
            region: "eu-west-1".into(),
            zone: "eu-west-1a".into(),
            zone_id: "euw1-az1".into(),
            vpc_id: ids::new("vpc"),
            vpc_cidr: "172.31.0.0/16".into(),
            subnet_id: ids::new("subnet"),
            subnet_cidr: "172.31.0.0/20".into(),
            ..Place::default()
        }
    }

    #[test]
    fn survives_json() {
        let record = sample();
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn serials_fit_and_names_are_ec2s() {
        let record = sample();
        assert_eq!(record.disks[0].serial().len(), 20);
        assert_eq!(record.private_dns_name(), "ip-172-31-0-10.ec2.internal");
        let record = Record {
            place: Some(sample_place()),
            ..record
        };
        let name = "ip-172-31-0-10.eu-west-1.compute.internal";
        assert_eq!(record.private_dns_name(), name);
    }
}
