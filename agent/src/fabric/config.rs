//! What the caller says: [`EnterConfig`] before the namespace exists, [`FabricConfig`] after.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::BRIDGE;
use super::error::{FabricError, Result};
use super::network::{Network, Options, Outside, Peer, Port, Rule, Subnet, Traffic, offset};

/// Where public addresses come from: shared address space (RFC 6598), which is routed nowhere on the Internet and is no
/// private network that a host is likely to be in. The documentation ranges (RFC 5737) hold 762 addresses, fewer than one
/// host's simulated instances.
pub const PUBLIC_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
/// `169.254.169.254`: the instance metadata service.
pub const IMDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// `169.254.169.253`: the VPC's DNS server at its link-local address.
pub const DNS_LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// MTU inside a VPC, as on EC2 (jumbo frames).
pub const VPC_MTU: u16 = 9001;
/// Most ports (instances' interfaces) on one fabric.
pub const MAX_PORTS: usize = 250;

/// What has to be known before the process leaves the host's network.
#[derive(Debug, Clone, Default)]
pub struct EnterConfig {
    /// Host addresses that lead to a guest's TCP port; they are bound on the host at once.
    pub publish: Vec<Publish>,
    /// The way to the outside.
    pub uplink: UplinkMode,
}

/// A TCP port of a guest, reachable at an address of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Publish {
    /// Where to listen on the host, normally `127.0.0.1:PORT`; port 0 takes any free one.
    pub host: SocketAddr,
    /// The guest's address and port.
    pub guest: SocketAddrV4,
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.host, self.guest)
    }
}

/// How guests reach the outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UplinkMode {
    /// `pasta`, else `slirp4netns`, else none with a warning.
    #[default]
    Auto,
    /// `pasta` (Debian package `passt`): changes nothing of the host, needs no privilege.
    Pasta,
    /// `slirp4netns`: the older one of the kind.
    Slirp4netns,
    /// A veth pair and masquerading by nftables on the host; root only.
    Veth,
    /// No outside.
    None,
}

impl fmt::Display for UplinkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
            Self::Veth => "veth",
            Self::None => "none",
        })
    }
}

impl FromStr for UplinkMode {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        [
            Self::Auto,
            Self::Pasta,
            Self::Slirp4netns,
            Self::Veth,
            Self::None,
        ]
        .into_iter()
        .find(|mode| mode.to_string() == text)
        .ok_or_else(|| {
            format!("unknown uplink '{text}': use auto, pasta, slirp4netns, veth or none")
        })
    }
}

/// The network inside: one VPC with one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricConfig {
    /// The VPC's range; its base + 2 is the DNS server. EC2's default VPC is `172.31.0.0/16`.
    pub vpc: Ipv4Net,
    /// The subnet; its base + 1 is the gateway. Lies inside the VPC.
    pub subnet: Ipv4Net,
    /// DNS domain of private names: `ec2.internal` in us-east-1, `REGION.compute.internal` elsewhere.
    pub domain: String,
    /// MTU of bridge, taps and DHCP option 26.
    pub mtu: u16,
    /// One port an interface.
    pub ports: Vec<PortConfig>,
}

impl Default for FabricConfig {
    /// EC2's default VPC and its first subnet, without ports.
    fn default() -> Self {
        Self {
            vpc: Ipv4Net::new_assert(Ipv4Addr::new(172, 31, 0, 0), 16),
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(172, 31, 0, 0), 20),
            domain: "ec2.internal".to_owned(),
            mtu: VPC_MTU,
            ports: Vec::new(),
        }
    }
}

/// A port of the bridge: one network interface of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// The guest NIC's address; frames from any other never leave the port.
    pub mac: MacAddr,
    /// The one IPv4 address that the guest may use and that DHCP gives it.
    pub ip: Ipv4Addr,
    /// First label of its DNS name; see [`private_hostname`].
    pub hostname: String,
}

/// EC2's IP name of an instance: `ip-172-31-0-10`.
#[must_use]
pub fn private_hostname(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("ip-{a}-{b}-{c}-{d}")
}

impl FabricConfig {
    /// The same as a network: everything may go out, nothing comes in, everybody behind one address.
    pub(super) fn network(&self) -> Network {
        let group = "outbound";
        let all = Rule {
            egress: true,
            traffic: Traffic::All,
            peer: Peer::Range(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        };
        let ports = self.ports.iter().enumerate().map(|(index, port)| Port {
            tap: format!("tap{index}"),
            bridge: BRIDGE.to_owned(),
            mac: port.mac,
            ip: port.ip,
            more: Vec::new(),
            public: Vec::new(),
            hostname: port.hostname.clone(),
            groups: vec![group.to_owned()],
            checked: true,
            primary: true,
            instance: None,
        });
        Network {
            id: "private".to_owned(),
            cidr: self.vpc,
            domain: self.domain.clone(),
            dns: true,
            hostnames: false,
            options: Options {
                domain: Some(self.domain.clone()),
                dns: vec![self.dns()],
                ..Options::default()
            },
            mtu: self.mtu,
            subnets: vec![Subnet {
                bridge: BRIDGE.to_owned(),
                cidr: self.subnet,
                routes: Vec::new(),
            }],
            ports: ports.collect(),
            groups: [(group.to_owned(), vec![all])].into(),
            outside: Outside::Masquerade,
        }
    }

    /// The subnet's router: base + 1.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        offset(self.subnet, 1)
    }

    /// The VPC's DNS server: base + 2 of the VPC.
    #[must_use]
    pub fn dns(&self) -> Ipv4Addr {
        offset(self.vpc, 2)
    }

    /// Checks everything that the rest relies on.
    ///
    /// # Errors
    /// [`FabricError::Config`] names the field and what is wrong with it.
    pub fn validate(&self) -> Result<()> {
        let wrong = |message: String| Err(FabricError::Config { message });
        for (name, net) in [("VPC", self.vpc), ("subnet", self.subnet)] {
            if net.addr() != net.network() {
                return wrong(format!(
                    "{name} {net}: the address has host bits set, use {}",
                    net.trunc()
                ));
            }
            // EC2's own limits (VPC user guide, "VPC CIDR blocks").
            if !(16..=28).contains(&net.prefix_len()) {
                return wrong(format!(
                    "{name} {net}: the prefix must be between /16 and /28"
                ));
            }
            if net.network().is_loopback()
                || net.network().is_link_local()
                || net.network().is_multicast()
            {
                return wrong(format!("{name} {net}: not a range that hosts can use"));
            }
        }
        if !self.vpc.contains(&self.subnet) {
            return wrong(format!(
                "subnet {} is not inside VPC {}",
                self.subnet, self.vpc
            ));
        }
        if !(576..=9216).contains(&self.mtu) {
            return wrong(format!("MTU {}: must be between 576 and 9216", self.mtu));
        }
        if !is_domain(&self.domain) {
            return wrong(format!("domain '{}' is not a DNS name", self.domain));
        }
        if self.ports.len() > MAX_PORTS {
            return wrong(format!(
                "{} ports: at most {MAX_PORTS} fit on one fabric",
                self.ports.len()
            ));
        }
        self.validate_ports()
    }

    fn validate_ports(&self) -> Result<()> {
        let wrong = |message: String| Err(FabricError::Config { message });
        // The first four addresses and the last one are EC2's.
        let first = u32::from(offset(self.subnet, 4));
        let last = u32::from(self.subnet.broadcast()) - 1;
        for (index, port) in self.ports.iter().enumerate() {
            if !(first..=last).contains(&u32::from(port.ip)) || port.ip == self.dns() {
                return wrong(format!(
                    "address {} cannot be used in subnet {}: use {} to {}",
                    port.ip,
                    self.subnet,
                    Ipv4Addr::from(first),
                    Ipv4Addr::from(last)
                ));
            }
            if !port.mac.is_unicast() || port.mac == GATEWAY_MAC {
                return wrong(format!("MAC address {} cannot be an instance's", port.mac));
            }
            if !is_label(&port.hostname) {
                return wrong(format!("host name '{}' is not a DNS label", port.hostname));
            }
            for other in &self.ports[..index] {
                if other.ip == port.ip || other.mac == port.mac || other.hostname == port.hostname {
                    return wrong(format!(
                        "two ports share an address or name: {} {} {}",
                        port.ip, port.mac, port.hostname
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The bridge's own MAC address, the same on every fabric so that a guest's ARP entry for its
/// gateway stays true over stop and start.
pub(crate) const GATEWAY_MAC: MacAddr = MacAddr([0x0a, 0xff, 0xc0, 0xa8, 0x00, 0x01]);

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_domain(text: &str) -> bool {
    text.len() <= 200 && text.split('.').all(is_label)
}

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Neither multicast nor all zeros.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("'{text}' is not a MAC address; write it like 02:00:00:00:00:01");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(last: u8) -> PortConfig {
        let ip = Ipv4Addr::new(172, 31, 0, last);
        PortConfig {
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            ip,
            hostname: private_hostname(ip),
        }
    }

    fn with(ports: Vec<PortConfig>) -> FabricConfig {
        FabricConfig {
            ports,
            ..FabricConfig::default()
        }
    }

    #[test]
    fn default_vpc_has_ec2s_addresses() {
        let config = with(vec![port(10), port(11)]);
        config.validate().unwrap();
        assert_eq!(config.gateway(), Ipv4Addr::new(172, 31, 0, 1));
        assert_eq!(config.dns(), Ipv4Addr::new(172, 31, 0, 2));
        assert_eq!(config.ports[0].hostname, "ip-172-31-0-10");
    }

    #[test]
    fn wrong_ports_are_named() {
        for (ports, part) in [
            (vec![port(2)], "172.31.0.4 to 172.31.15.254"),
            (vec![port(10), port(10)], "share"),
            (
                vec![PortConfig {
                    mac: MacAddr([1, 0, 0, 0, 0, 1]),
                    ..port(10)
                }],
                "01:00:00:00:00:01",
            ),
            (
                vec![PortConfig {
                    hostname: "a b".into(),
                    ..port(10)
                }],
                "'a b'",
            ),
            (
                vec![PortConfig {
                    ip: Ipv4Addr::new(172, 31, 16, 9),
                    ..port(10)
                }],
                "172.31.16.9",
            ),
        ] {
            let message = with(ports).validate().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn wrong_networks_are_named() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        for (vpc, subnet) in [
            ("10.0.0.0/15", "10.0.0.0/24"),
            ("10.0.0.0/16", "10.1.0.0/24"),
            ("10.0.0.1/16", "10.0.0.0/24"),
            ("10.0.0.0/16", "10.0.0.0/29"),
            ("127.0.0.0/16", "127.0.0.0/24"),
            ("169.254.0.0/16", "169.254.0.0/24"),
        ] {
            let config = FabricConfig {
                vpc: net(vpc),
                subnet: net(subnet),
                ..FabricConfig::default()
            };
            assert!(config.validate().is_err(), "{vpc} {subnet}");
        }
    }

    #[test]
    fn mac_addresses_parse_and_print() {
        let mac: MacAddr = "02:AB:cd:00:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:ab:cd:00:00:01");
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02-00-00-00-00-01",
            "+2:00:00:00:00:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
