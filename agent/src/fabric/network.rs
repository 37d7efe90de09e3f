//! What the network of a VPC is to be: links, routes, filter, DHCP and DNS are all made from this.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::config::MacAddr;

/// One VPC's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `vpc-…`.
    pub id: String,
    /// The VPC's range; its base + 2 is the DNS server.
    pub cidr: Ipv4Net,
    /// DNS domain of private names: `ec2.internal` in us-east-1, `REGION.compute.internal` elsewhere.
    pub domain: String,
    /// Whether the DNS server answers (`enableDnsSupport`).
    pub dns: bool,
    /// Whether public names mean private addresses in here (`enableDnsHostnames`).
    pub hostnames: bool,
    /// What DHCP tells.
    pub options: Options,
    /// MTU of bridges, taps and DHCP option 26.
    pub mtu: u16,
    /// Subnets: a bridge each.
    pub subnets: Vec<Subnet>,
    /// Interfaces that are plugged in or may be at any time.
    pub ports: Vec<Port>,
    /// Security groups by id, at least those of the ports.
    pub groups: BTreeMap<String, Vec<Rule>>,
    /// How packets get out.
    pub outside: Outside,
}

/// A DHCP option set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Domain (options 15 and 119).
    pub domain: Option<String>,
    /// DNS servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Time servers (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// NetBIOS name servers (option 44).
    pub netbios: Vec<Ipv4Addr>,
    /// NetBIOS node type (option 46).
    pub netbios_node: Option<u8>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its bridge's name: [`bridge_name`].
    pub bridge: String,
    /// Its range; its base + 1 is the gateway.
    pub cidr: Ipv4Net,
    /// Routes beside the VPC's own.
    pub routes: Vec<Route>,
}

impl Subnet {
    /// The subnet's router: base + 1.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        offset(self.cidr, 1)
    }
}

/// A route of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where packets are going.
    pub destination: Ipv4Net,
    /// Where they are sent.
    pub target: Target,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The internet gateway.
    Outside,
    /// The interface with this primary private address.
    Port(Ipv4Addr),
    /// Nowhere (`blackhole`).
    Nowhere,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its tap's name: [`tap_name`].
    pub tap: String,
    /// Its subnet's bridge.
    pub bridge: String,
    /// The guest NIC's address; frames from any other never leave the port.
    pub mac: MacAddr,
    /// The primary private address, which DHCP gives.
    pub ip: Ipv4Addr,
    /// Secondary private addresses.
    pub more: Vec<Ipv4Addr>,
    /// Private addresses that have a public one.
    pub public: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// First label of its private DNS name.
    pub hostname: String,
    /// Ids of its security groups.
    pub groups: Vec<String>,
    /// Whether it may send only from its own addresses (`sourceDestCheck`).
    pub checked: bool,
    /// The instance whose metadata its addresses may read.
    pub instance: Option<String>,
    /// Whether it is the instance's primary interface (device index 0), by which it is seen whether the guest answers.
    pub primary: bool,
}

impl Port {
    /// All private addresses, the primary one first.
    pub fn ips(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        std::iter::once(self.ip).chain(self.more.iter().copied())
    }

    /// What packets from this port are marked with on their way through the kernel.
    pub(super) fn mark(&self) -> u32 {
        u32::from(self.ip)
    }
}

/// A rule of a security group: it lets packets in or out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Whether it is for what members send.
    pub egress: bool,
    /// What it lets pass.
    pub traffic: Traffic,
    /// From or to whom.
    pub peer: Peer,
}

/// What a rule lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Traffic {
    /// Everything.
    All,
    /// TCP to these ports, first and last.
    Tcp(u16, u16),
    /// UDP to these ports, first and last.
    Udp(u16, u16),
    /// ICMP of this type and code; `None`: of any.
    Icmp(Option<u8>, Option<u8>),
    /// Another protocol, by its number.
    Protocol(u8),
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    /// Addresses.
    Range(Ipv4Net),
    /// The private addresses of the members of this security group.
    Group(String),
}

/// How packets get out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outside {
    /// Everybody behind the uplink's one address; the way of a run without the agent.
    Masquerade,
    /// Who has a public address, by that address, as behind EC2's internet gateway.
    OneToOne,
}

impl Network {
    /// The VPC's DNS server: base + 2.
    #[must_use]
    pub fn dns_address(&self) -> Ipv4Addr {
        offset(self.cidr, 2)
    }

    /// The subnet on this bridge.
    #[must_use]
    pub fn subnet(&self, bridge: &str) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.bridge == bridge)
    }

    /// All private addresses that have a public one, with it.
    pub fn public_pairs(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> + '_ {
        self.ports.iter().flat_map(|port| &port.public).copied()
    }
}

/// Name of the bridge of a subnet: as much of the id as a link's name (15 bytes) has room for.
#[must_use]
pub fn bridge_name(subnet_id: &str) -> String {
    link_name('s', subnet_id)
}

/// Name of the tap of a network interface.
#[must_use]
pub fn tap_name(interface_id: &str) -> String {
    link_name('e', interface_id)
}

pub(super) fn link_name(kind: char, id: &str) -> String {
    let digits = id.rsplit('-').next().unwrap_or(id);
    let start = digits.len().saturating_sub(14);
    format!("{kind}{}", digits.get(start..).unwrap_or(digits))
}

pub(super) fn offset(net: Ipv4Net, by: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()).saturating_add(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_by_the_ends_of_ids() {
        assert_eq!(bridge_name("subnet-0123456789abcdef0"), "s3456789abcdef0");
        assert_eq!(tap_name("eni-0a"), "e0a");
    }
}
