//! The records.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::api::tokens::{Stamp, Stamped};
use crate::api::wire::Timestamp;
use crate::cloud::table::{Resource, Tags};

/// A VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    /// `vpc-…`.
    pub vpc_id: String,
    /// Its addresses, /16 to /28.
    pub cidr_block: Ipv4Net,
    /// `vpc-cidr-assoc-…`.
    pub cidr_association_id: String,
    /// `default`; `dedicated` is recorded (one host serves everybody here).
    pub instance_tenancy: String,
    /// Whether it is the region's default VPC.
    pub is_default: bool,
    /// `dopt-…`, or `default` when it has none.
    pub dhcp_options_id: String,
    /// Whether the resolver at base + 2 answers.
    pub enable_dns_support: bool,
    /// Whether instances with public addresses get public names.
    pub enable_dns_hostnames: bool,
    /// Recorded.
    pub enable_network_address_usage_metrics: bool,
    /// Tags.
    pub tags: Tags,
}

/// A subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// `subnet-…`.
    pub subnet_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Its addresses, a part of the VPC's.
    pub cidr_block: Ipv4Net,
    /// `us-east-1a`.
    pub availability_zone: String,
    /// Whether it is the default VPC's subnet for its zone.
    pub default_for_az: bool,
    /// Whether interfaces of new instances get a public address.
    pub map_public_ip_on_launch: bool,
    /// `ip-name` or `resource-name`.
    pub hostname_type: String,
    /// Recorded.
    pub resource_name_dns_a_record: bool,
    /// `aclassoc-…`: its association with the VPC's default network ACL.
    pub acl_association_id: String,
    /// Tags.
    pub tags: Tags,
}

/// An internet gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternetGateway {
    /// `igw-…`.
    pub internet_gateway_id: String,
    /// The VPC that it is attached to.
    pub vpc_id: Option<String>,
    /// Tags.
    pub tags: Tags,
}

/// A route table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// `rtb-…`.
    pub route_table_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Routes; the first is the local one, which cannot be deleted.
    pub routes: Vec<Route>,
    /// What uses it.
    pub associations: Vec<RouteAssociation>,
    /// Client token that made it, so that the same request makes no second one.
    #[serde(default, alias = "client_token")]
    pub stamp: Option<Stamp>,
    /// Tags.
    pub tags: Tags,
}

impl Stamped for RouteTable {
    fn stamp(&self) -> Option<&Stamp> {
        self.stamp.as_ref()
    }
}

impl RouteTable {
    /// Whether it is the VPC's main route table.
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.associations.iter().any(|one| one.subnet_id.is_none())
    }
}

/// A route. Packets take the one with the longest prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where packets are going.
    pub destination: Ipv4Net,
    /// Where they are sent.
    pub target: RouteTarget,
    /// `CreateRouteTable` or `CreateRoute`.
    pub origin: String,
}

/// Where a route sends packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteTarget {
    /// Inside the VPC.
    Local,
    /// An internet gateway's id.
    Gateway(String),
    /// A network interface's id.
    Interface(String),
}

/// Use of a route table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAssociation {
    /// `rtbassoc-…`.
    pub association_id: String,
    /// The subnet; `None`: this is the VPC's main route table.
    pub subnet_id: Option<String>,
}

/// A security group. Its rules are [`SecurityGroupRule`]s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// `sg-…`.
    pub group_id: String,
    /// Unique in the VPC.
    pub group_name: String,
    /// What it is for.
    pub description: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Tags.
    pub tags: Tags,
}

/// One rule of a security group: it lets packets in or out; what no rule lets pass is dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// `sgr-…`.
    pub rule_id: String,
    /// The group whose members it is for.
    pub group_id: String,
    /// Whether it is for what members send, not for what they get.
    pub egress: bool,
    /// What it lets pass.
    pub traffic: Traffic,
    /// From or to whom.
    pub peer: Peer,
    /// What it is for.
    pub description: Option<String>,
    /// Tags.
    pub tags: Tags,
}

/// A protocol and its ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Traffic {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, a protocol's number, or `-1` for all.
    pub protocol: String,
    /// First port, or ICMP type (-1: all). None for protocols without ports.
    pub from_port: Option<i32>,
    /// Last port, or ICMP code (-1: all). None for protocols without ports.
    pub to_port: Option<i32>,
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Peer {
    /// Addresses.
    Ipv4(Ipv4Net),
    /// Addresses; recorded, as the fabric has no IPv6.
    Ipv6(Ipv6Net),
    /// The private addresses of a security group's members (its id).
    Group(String),
}

impl Default for Peer {
    /// Everybody's addresses.
    fn default() -> Self {
        Self::Ipv4(Ipv4Net::default())
    }
}

/// A DHCP option set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOptions {
    /// `dopt-…`.
    pub dhcp_options_id: String,
    /// `domain-name`, `domain-name-servers`, … with their values.
    pub options: Vec<(String, Vec<String>)>,
    /// Tags.
    pub tags: Tags,
}

/// A network interface (ENI).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// `eni-…`.
    pub network_interface_id: String,
    /// Account.
    pub owner_id: String,
    /// VPC of the subnet.
    pub vpc_id: String,
    /// Subnet.
    pub subnet_id: String,
    /// Zone of the subnet.
    pub availability_zone: String,
    /// MAC address.
    pub mac: String,
    /// Primary private address; never changes.
    pub private_ip: Ipv4Addr,
    /// Further private addresses.
    pub secondary_ips: Vec<Ipv4Addr>,
    /// Ids of its security groups.
    pub groups: Vec<String>,
    /// Auto-assigned public address of the primary private one.
    pub public_ip: Option<Ipv4Addr>,
    /// Whether its instance was launched with an auto-assigned public address, which decides for all its life. `None`:
    /// not known of instances of before; their subnets decide.
    #[serde(default)]
    pub auto_public: Option<bool>,
    /// What it is for.
    pub description: String,
    /// Whether it may only send from and get for its own addresses.
    pub source_dest_check: bool,
    /// `interface`, or a kind that is recorded.
    pub interface_type: String,
    /// The instance that has it.
    pub attachment: Option<Attachment>,
    /// When it was made.
    pub create_time: Timestamp,
    /// Client token that made it, so that the same request makes no second one.
    #[serde(default, alias = "client_token")]
    pub stamp: Option<Stamp>,
    /// Tags.
    pub tags: Tags,
}

impl Default for NetworkInterface {
    /// One without an address.
    fn default() -> Self {
        Self {
            network_interface_id: String::new(),
            owner_id: String::new(),
            vpc_id: String::new(),
            subnet_id: String::new(),
            availability_zone: String::new(),
            mac: String::new(),
            private_ip: Ipv4Addr::UNSPECIFIED,
            secondary_ips: Vec::new(),
            groups: Vec::new(),
            public_ip: None,
            auto_public: None,
            description: String::new(),
            source_dest_check: true,
            interface_type: "interface".to_owned(),
            attachment: None,
            create_time: Timestamp::default(),
            stamp: None,
            tags: Tags::default(),
        }
    }
}

impl Stamped for NetworkInterface {
    fn stamp(&self) -> Option<&Stamp> {
        self.stamp.as_ref()
    }
}

impl NetworkInterface {
    /// All private addresses, the primary one first.
    pub fn private_ips(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        std::iter::once(self.private_ip).chain(self.secondary_ips.iter().copied())
    }
}

/// An interface's place at an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// `eni-attach-…`.
    pub attachment_id: String,
    /// The instance.
    pub instance_id: String,
    /// 0 is the primary interface.
    pub device_index: i32,
    /// Since when.
    pub attach_time: Timestamp,
    /// Whether it goes when the instance is terminated.
    pub delete_on_termination: bool,
    /// `attached`.
    pub status: String,
}

/// An Elastic IP address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// `eipalloc-…`.
    pub allocation_id: String,
    /// The address.
    pub public_ip: Ipv4Addr,
    /// Whose it is at present.
    pub association: Option<AddressAssociation>,
    /// Tags.
    pub tags: Tags,
}

/// Use of an Elastic IP address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressAssociation {
    /// `eipassoc-…`.
    pub association_id: String,
    /// The interface.
    pub network_interface_id: String,
    /// Which of its private addresses.
    pub private_ip: Ipv4Addr,
}

/// A VPC's default network ACL, which lets everything pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAcl {
    /// `acl-…`.
    pub network_acl_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Tags.
    pub tags: Tags,
}

macro_rules! resources {
    ($($type:ident: $kind:literal, $id:ident;)*) => {$(
        impl Resource for $type {
            const KIND: &'static str = $kind;

            fn id(&self) -> &str {
                &self.$id
            }

            fn tags(&self) -> &Tags {
                &self.tags
            }

            fn tags_mut(&mut self) -> &mut Tags {
                &mut self.tags
            }
        }
    )*};
}

resources! {
    Vpc: "vpc", vpc_id;
    Subnet: "subnet", subnet_id;
    InternetGateway: "internet-gateway", internet_gateway_id;
    RouteTable: "route-table", route_table_id;
    SecurityGroup: "security-group", group_id;
    SecurityGroupRule: "security-group-rule", rule_id;
    DhcpOptions: "dhcp-options", dhcp_options_id;
    NetworkInterface: "network-interface", network_interface_id;
    Address: "elastic-ip", allocation_id;
    NetworkAcl: "network-acl", network_acl_id;
}
