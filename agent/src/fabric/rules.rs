//! The packet filter: one nftables transaction.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use super::config::{DNS_LINK_LOCAL, IMDS_ADDRESS};
use super::error::{FabricError, Result};
use super::network::{Network, Outside, Peer, Port, Rule, Traffic};
use super::{UPLINK, conntrack, tools};

/// Most packets a second that one interface may send to link-local services
/// (EC2: 1024 per interface for DNS, metadata and time together).
const LINK_LOCAL_PACKETS: u32 = 1024;

/// The rule set of a network, a text for each of its tables. Each replaces the table in force, so that one which has not
/// changed may be left out. `docs/fabric.md` explains it.
pub(super) fn ruleset(network: &Network) -> [String; 3] {
    // Adding it first makes the deletion of what may not be there no error.
    let anew = |table: &str| format!("table {table}\ndelete table {table}\n");
    [
        anew("bridge cumulet") + &bridge_table(network),
        anew("inet cumulet") + &filter_table(network),
        nat_table(network),
    ]
}

/// A set's or map's elements; nft takes no empty list.
fn elements(all: &[String]) -> String {
    if all.is_empty() {
        String::new()
    } else {
        format!("elements = {{ {} }}", all.join(", "))
    }
}

fn list<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    all.join(", ")
}

/// Who may send what from which port.
fn bridge_table(network: &Network) -> String {
    if network.ports.is_empty() {
        // Nothing is plugged in.
        return "table bridge cumulet { }\n".to_owned();
    }
    let mut chains = String::new();
    let mut from = Vec::new();
    let mut to = Vec::new();
    for port in &network.ports {
        let (tap, mac, ip, mark) = (&port.tap, port.mac, port.ip, port.mark());
        let own = list(port.ips());
        // BOOTP's chaddr begins 28 bytes into the message, 36 behind the start of the UDP header.
        let chaddr = format!("@th,288,48 0x{}", mac.to_string().replace(':', ""));
        // Metadata and DNS are told by source address, whatever else the port may send.
        let packets = if port.checked {
            format!(
                "ether type arp arp saddr ether {mac} arp saddr ip {{ {own} }} accept\n        ether type ip ip saddr {{ {own} }} accept"
            )
        } else {
            format!(
                "ether type arp arp saddr ether {mac} accept\n        ether type ip ip daddr {{ 169.254.0.0/16, {} }} ip saddr != {{ {own} }} drop\n        ether type ip accept",
                network.dns_address()
            )
        };
        let _ = write!(
            chains,
            r"
    chain from_{tap} {{
        ether saddr != {mac} drop
        meta mark set {mark:#x}
        ether type arp arp saddr ether {mac} arp saddr ip 0.0.0.0 arp operation request accept
        ether type ip udp dport 67 {chaddr} ip saddr {ip} accept
        ether type ip udp dport 67 {chaddr} ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 accept
        ether type ip udp dport 67 drop
        {packets}
        drop
    }}
    chain to_{tap} {{
        ether type ip udp sport 67 udp dport 68 {chaddr} accept
        ether type ip udp sport 67 udp dport 68 drop
        accept
    }}"
        );
        from.push(format!("\"{tap}\" : goto from_{tap}"));
        to.push(format!("\"{tap}\" : goto to_{tap}"));
    }
    format!(
        r#"table bridge cumulet {{{chains}
    chain prerouting {{
        type filter hook prerouting priority filter; policy drop;
        iifname vmap {{ {} }}
    }}
    chain postrouting {{
        type filter hook postrouting priority filter; policy drop;
        oifname vmap {{ {} }}
    }}
}}
"#,
        from.join(", "),
        to.join(", ")
    )
}

/// What this host's own services take, and the security groups.
fn filter_table(network: &Network) -> String {
    let dns = network.dns_address();
    let gateways = list(network.subnets.iter().map(super::network::Subnet::gateway));
    let answers = if network.dns {
        format!(
            "ip daddr {{ {dns}, {DNS_LINK_LOCAL} }} meta l4proto {{ tcp, udp }} th dport 53 accept"
        )
    } else {
        String::new()
    };
    let ping = if gateways.is_empty() {
        String::new()
    } else {
        format!("ip daddr {{ {gateways} }} icmp type echo-request accept")
    };
    let leave = match network.outside {
        Outside::Masquerade => "accept",
        Outside::OneToOne => "ip saddr @public accept",
    };
    let public = network.public_pairs();
    let public: Vec<String> = public.map(|(private, _)| private.to_string()).collect();
    let groups = Groups::of(network);
    format!(
        r#"table inet cumulet {{
    set link_local_budget {{
        type ipv4_addr
        flags dynamic
        size 1024
    }}
    set public {{
        type ipv4_addr
        {public}
    }}
{sets}    map egress {{
        type mark : verdict
        {egress}
    }}
    map ingress {{
        type ipv4_addr : verdict
        {ingress}
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iif lo accept
        iifname != "{UPLINK}" ip daddr {{ 169.254.0.0/16, {dns} }} update @link_local_budget {{ ip saddr limit rate over {LINK_LOCAL_PACKETS}/second burst {LINK_LOCAL_PACKETS} packets }} drop
        ct state established,related accept
        ct state invalid drop
        iifname != "{UPLINK}" jump services
    }}
    chain services {{
        ip daddr {IMDS_ADDRESS} tcp dport 80 accept
        {answers}
        udp sport 68 udp dport 67 accept
        {ping}
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ip daddr 169.254.0.0/16 drop
        ct state established,related accept
        ct state invalid drop
        iifname "{UPLINK}" goto arrive
        meta mark vmap @egress
    }}
    chain arrive {{
        oifname "{UPLINK}" goto leave
        rt ip nexthop vmap @ingress
    }}
    chain leave {{
        {leave}
    }}
{chains}}}
"#,
        public = elements(&public),
        sets = groups.sets,
        egress = elements(&groups.egress),
        ingress = elements(&groups.ingress),
        chains = groups.chains,
    )
}

/// Public addresses are one to one with private ones. Its chains stay while its maps change: connections keep their
/// translation, new ones get the new. Those whose translation is no more are ended by [`end_untranslated`].
fn nat_table(network: &Network) -> String {
    match network.outside {
        Outside::Masquerade => format!(
            r#"table ip cumulet_nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
    }}
}}
flush table ip cumulet_nat
add rule ip cumulet_nat postrouting oifname "{UPLINK}" masquerade
"#
        ),
        Outside::OneToOne => {
            let pairs = || network.public_pairs();
            let out: Vec<_> = pairs().map(|(one, two)| format!("{one} : {two}")).collect();
            let back: Vec<_> = pairs().map(|(one, two)| format!("{two} : {one}")).collect();
            let mut text = format!(
                r#"table ip cumulet_nat {{
    map to_public {{ type ipv4_addr : ipv4_addr; }}
    map to_private {{ type ipv4_addr : ipv4_addr; }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
    }}
}}
flush table ip cumulet_nat
flush map ip cumulet_nat to_public
flush map ip cumulet_nat to_private
add rule ip cumulet_nat prerouting iifname "{UPLINK}" dnat to ip daddr map @to_private
add rule ip cumulet_nat postrouting oifname "{UPLINK}" snat to ip saddr map @to_public
"#
            );
            for (map, pairs) in [("to_public", out), ("to_private", back)] {
                if !pairs.is_empty() {
                    let _ = writeln!(
                        text,
                        "add element ip cumulet_nat {map} {{ {} }}",
                        pairs.join(", ")
                    );
                }
            }
            text
        }
    }
}

/// Ends the connections of public addresses that are another's now, or nobody's, in the caller's network namespace.
pub(super) fn end_untranslated(network: &Network) {
    if network.outside == Outside::Masquerade {
        return;
    }
    let pairs: HashSet<(Ipv4Addr, Ipv4Addr)> = network.public_pairs().collect();
    let gone = |pair: Option<_>| pair.is_some_and(|pair| !pairs.contains(&pair));
    match conntrack::end(|flow| gone(flow.source()) || gone(flow.destination())) {
        Ok(0) => {}
        Ok(ended) => {
            tracing::info!(
                vpc = network.id,
                ended,
                "connections of addresses that moved"
            );
        }
        // All new connections are as they are to be.
        Err(error) => {
            tracing::warn!(vpc = network.id, %error, "connections of addresses that moved go on");
        }
    }
}

/// Security groups as sets and chains: two chains a group, a set for each that rules name, and two chains a combination
/// of groups that a port has.
struct Groups {
    sets: String,
    chains: String,
    egress: Vec<String>,
    ingress: Vec<String>,
}

impl Groups {
    fn of(network: &Network) -> Self {
        let mut made = Self {
            sets: String::new(),
            chains: String::new(),
            egress: Vec::new(),
            ingress: Vec::new(),
        };
        for (id, rules) in &network.groups {
            made.add_group(id, rules);
        }
        // Ports with the same groups share their chains.
        let mut combined: BTreeMap<Vec<&str>, Vec<&Port>> = BTreeMap::new();
        for port in &network.ports {
            let known = |id: &&String| network.groups.contains_key(*id);
            let mut groups: Vec<&str> = port
                .groups
                .iter()
                .filter(known)
                .map(String::as_str)
                .collect();
            groups.sort_unstable();
            groups.dedup();
            combined.entry(groups).or_default().push(port);
        }
        for (number, (groups, ports)) in combined.iter().enumerate() {
            for side in ["out", "in"] {
                let _ = writeln!(made.chains, "    chain {side}_{number} {{");
                for id in groups {
                    let _ = writeln!(made.chains, "        jump {side}_{}", set_name(id));
                }
                made.chains.push_str("        drop\n    }\n");
            }
            for port in ports {
                let out = format!("{:#x} : goto out_{number}", port.mark());
                made.egress.push(out);
                // A route through an interface has its primary address as the next hop.
                let inward = port.ips().map(|ip| format!("{ip} : goto in_{number}"));
                made.ingress.extend(inward);
            }
        }
        made.add_sets(network);
        made
    }

    /// A group's rules. What none of them lets pass is for the next group to decide.
    fn add_group(&mut self, id: &str, rules: &[Rule]) {
        for (egress, side, verdict) in [(true, "out", "goto arrive"), (false, "in", "accept")] {
            let _ = writeln!(self.chains, "    chain {side}_{} {{", set_name(id));
            for rule in rules.iter().filter(|rule| rule.egress == egress) {
                let _ = writeln!(self.chains, "        {}{verdict}", matching(rule));
            }
            self.chains.push_str("    }\n");
        }
    }

    /// The members of the groups that rules name.
    fn add_sets(&mut self, network: &Network) {
        let rules = network.groups.values().flatten();
        let mut named: Vec<&str> = rules
            .filter_map(|rule| match &rule.peer {
                Peer::Group(id) => Some(id.as_str()),
                Peer::Range(_) => None,
            })
            .collect();
        named.sort_unstable();
        named.dedup();
        for id in named {
            let members = network
                .ports
                .iter()
                .filter(|port| port.groups.iter().any(|group| group == id))
                .flat_map(Port::ips)
                .map(|ip: Ipv4Addr| ip.to_string())
                .collect::<Vec<_>>();
            let _ = writeln!(
                self.sets,
                "    set {} {{\n        type ipv4_addr\n        {}\n    }}",
                set_name(id),
                elements(&members)
            );
        }
    }
}

fn set_name(group: &str) -> String {
    group.replace('-', "_")
}

/// The left side of a rule, with a space behind it if there is one.
fn matching(rule: &Rule) -> String {
    let side = if rule.egress { "daddr" } else { "saddr" };
    let mut text = match &rule.peer {
        Peer::Range(net) if net.prefix_len() == 0 => String::new(),
        Peer::Range(net) => format!("ip {side} {} ", net.trunc()),
        Peer::Group(id) => format!("ip {side} @{} ", set_name(id)),
    };
    let ports = |name: &str, first: u16, last: u16| match (first, last) {
        (0, u16::MAX) => format!("meta l4proto {name} "),
        (first, last) if first == last => format!("{name} dport {first} "),
        (first, last) => format!("{name} dport {first}-{last} "),
    };
    text.push_str(&match rule.traffic {
        Traffic::All => String::new(),
        Traffic::Tcp(first, last) => ports("tcp", first, last),
        Traffic::Udp(first, last) => ports("udp", first, last),
        Traffic::Icmp(None, _) => "meta l4proto icmp ".to_owned(),
        Traffic::Icmp(Some(kind), None) => format!("icmp type {kind} "),
        Traffic::Icmp(Some(kind), Some(code)) => format!("icmp type {kind} icmp code {code} "),
        Traffic::Protocol(number) => format!("meta l4proto {number} "),
    });
    text
}

/// Applies a rule set as one transaction, all of it or nothing, in the caller's network namespace.
pub(super) fn apply(ruleset: &str) -> Result<()> {
    let mut nft = Command::new(tools::NFT.path()?)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(FabricError::io("start nft"))?;
    if let Some(mut stdin) = nft.stdin.take() {
        // nft explains on standard error why it stopped reading.
        let _ = stdin.write_all(ruleset.as_bytes());
    }
    let output = nft
        .wait_with_output()
        .map_err(FabricError::io("wait for nft"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(FabricError::Rules {
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
