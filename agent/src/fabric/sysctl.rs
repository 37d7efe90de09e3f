//! Settings under `/proc/sys/net`, which are the network namespace's own.

use std::fs;
use std::path::Path;

use super::error::{FabricError, Result};

/// Settings of the whole namespace, to be written before any link is made.
pub(super) fn prepare() -> Result<()> {
    // The VPC has no IPv6 yet: nothing of it may leak through. Absent on kernels without IPv6.
    for name in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        if Path::new(&path).exists() {
            set(&path, "1")?;
        }
    }
    // Where br_netfilter is loaded (Docker does), bridged frames would pass the IP hooks, too.
    for name in [
        "bridge-nf-call-iptables",
        "bridge-nf-call-ip6tables",
        "bridge-nf-call-arptables",
    ] {
        let path = format!("/proc/sys/net/bridge/{name}");
        if Path::new(&path).exists() {
            set(&path, "0")?;
        }
    }
    // First: a change of ip_forward resets the others (ip-sysctl.rst).
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    for name in ["all", "default"] {
        let base = format!("/proc/sys/net/ipv4/conf/{name}");
        set(&format!("{base}/send_redirects"), "0")?;
        set(&format!("{base}/accept_redirects"), "0")?;
        set(&format!("{base}/accept_source_route"), "0")?;
        // Who sends from where is decided port by port, and an interface without the check may send from anywhere.
        set(&format!("{base}/rp_filter"), "0")?;
    }
    Ok(())
}

/// Settings of a bridge.
pub(super) fn bridge(name: &str) -> Result<()> {
    let base = format!("/proc/sys/net/ipv4/conf/{name}");
    // Ports are isolated, so the bridge answers ARP for neighbours and routes between them.
    set(&format!("{base}/proxy_arp_pvlan"), "1")?;
    // As quickly as the neighbour itself would (arp(7): up to 0.8 s otherwise).
    set(&format!("/proc/sys/net/ipv4/neigh/{name}/proxy_delay"), "0")?;
    set(&format!("{base}/send_redirects"), "0")
}

/// Settings of the end of a wire to a VPC: packets come from that VPC's own addresses only.
pub(super) fn wire(name: &str) -> Result<()> {
    set(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "1")
}

fn set(path: &str, value: &'static str) -> Result<()> {
    fs::write(path, value).map_err(|source| FabricError::Sysctl {
        path: path.into(),
        value,
        source,
    })
}
