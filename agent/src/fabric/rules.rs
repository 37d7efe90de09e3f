//! The packet filter: one nftables transaction.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::config::{FabricConfig, IMDS_ADDRESS};
use super::error::{FabricError, Result};
use super::links::dns_addresses;
use super::{BRIDGE, UPLINK, tap_name, tools};

/// Most packets a second that one interface may send to link-local services
/// (EC2: 1024 per interface for DNS, metadata and time together).
const LINK_LOCAL_PACKETS: u32 = 1024;

/// The whole rule set of a fabric. `docs/fabric.md` explains it.
pub(super) fn ruleset(config: &FabricConfig) -> String {
    let mut text = bridge_table(config);
    let dns: Vec<String> = dns_addresses(config)
        .iter()
        .map(ToString::to_string)
        .collect();
    let (dns, gateway) = (dns.join(", "), config.gateway());
    let vpc_dns = config.dns();
    let subnet = config.subnet;
    let _ = write!(
        text,
        r#"
table inet cumulet {{
    set link_local_budget {{
        type ipv4_addr
        flags dynamic
        size 1024
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iif lo accept
        iifname "{BRIDGE}" ip daddr {{ 169.254.0.0/16, {vpc_dns} }} update @link_local_budget {{ ip saddr limit rate over {LINK_LOCAL_PACKETS}/second burst {LINK_LOCAL_PACKETS} packets }} drop
        ct state established,related accept
        ct state invalid drop
        iifname "{BRIDGE}" jump services
    }}
    chain services {{
        ip daddr {IMDS_ADDRESS} tcp dport 80 accept
        ip daddr {{ {dns} }} meta l4proto {{ tcp, udp }} th dport 53 accept
        udp sport 68 udp dport 67 accept
        ip daddr {gateway} icmp type echo-request accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ip daddr 169.254.0.0/16 drop
        ct state established,related accept
        ct state invalid drop
        iifname "{BRIDGE}" oifname "{UPLINK}" ip saddr {subnet} accept
    }}
    chain outbound {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{UPLINK}" masquerade
    }}
}}
"#
    );
    text
}

/// Who may send what from which port.
fn bridge_table(config: &FabricConfig) -> String {
    let mut chains = String::new();
    let mut from = Vec::new();
    let mut to = Vec::new();
    for (index, port) in config.ports.iter().enumerate() {
        let (tap, mac, ip) = (tap_name(index), port.mac, port.ip);
        // BOOTP's chaddr begins 28 bytes into the message, 36 behind the start of the UDP header.
        let chaddr = format!("@th,288,48 0x{}", mac.to_string().replace(':', ""));
        let _ = write!(
            chains,
            r"
    chain from_{tap} {{
        ether saddr != {mac} drop
        ether type arp arp saddr ether {mac} arp saddr ip {ip} accept
        ether type arp arp saddr ether {mac} arp saddr ip 0.0.0.0 arp operation request accept
        ether type ip udp dport 67 {chaddr} ip saddr {ip} accept
        ether type ip udp dport 67 {chaddr} ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 accept
        ether type ip udp dport 67 drop
        ether type ip ip saddr {ip} accept
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
    if config.ports.is_empty() {
        return "table bridge cumulet { }\n".to_owned();
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

/// Applies a rule set as one transaction: all of it or nothing.
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
