//! Network interfaces, by the kernel's old and simple ioctls.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde_json::{Value, json};

use crate::command::Args;
use crate::disk::sysfs;

mod ioctl {
    use libc::{SIOCADDRT, SIOCETHTOOL, SIOCGIFFLAGS, SIOCSIFADDR, SIOCSIFFLAGS, SIOCSIFNETMASK};
    nix::ioctl_write_ptr_bad!(set_address, SIOCSIFADDR, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_netmask, SIOCSIFNETMASK, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, SIOCSIFFLAGS, libc::ifreq);
    nix::ioctl_read_bad!(get_flags, SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_read_bad!(ethtool, SIOCETHTOOL, libc::ifreq);
    nix::ioctl_write_ptr_bad!(add_route, SIOCADDRT, libc::rtentry);
}

/// ethtool's one-word questions (linux/ethtool.h).
const FEATURES: [(&str, u32); 6] = [
    ("rx_checksum", 0x14),
    ("tx_checksum", 0x16),
    ("scatter_gather", 0x18),
    ("tso", 0x1e),
    ("gso", 0x23),
    ("gro", 0x2b),
];

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Every interface but the loopback.
pub(crate) fn list() -> Result<Value> {
    let control = control_socket()?;
    let mut interfaces = Vec::new();
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "lo" {
            continue;
        }
        let of = |file: &str| sysfs(&entry.path().join(file));
        let mut features = serde_json::Map::new();
        for (feature, cmd) in FEATURES {
            features.insert(feature.to_owned(), json!(feature_of(&control, &name, cmd)?));
        }
        interfaces.push(json!({
            "name": name,
            "mac": of("address"),
            "mtu": of("mtu").and_then(|text| text.parse::<u32>().ok()),
            "carrier": of("carrier"),
            "queues": fs::read_dir(entry.path().join("queues")).map_or(0, Iterator::count),
            "features": features,
            "rx_bytes": of("statistics/rx_bytes").and_then(|text| text.parse::<u64>().ok()),
            "tx_bytes": of("statistics/tx_bytes").and_then(|text| text.parse::<u64>().ok()),
            "rx_packets": of("statistics/rx_packets").and_then(|text| text.parse::<u64>().ok()),
            "tx_packets": of("statistics/tx_packets").and_then(|text| text.parse::<u64>().ok()),
        }));
    }
    Ok(Value::Array(interfaces))
}

/// `{"name", "address", "prefix", "gateway"}`: gives the interface its address and starts it.
pub(crate) fn up(args: &Args) -> Result<Value> {
    let control = control_socket()?;
    let name = args.text("name")?;
    let address: Ipv4Addr = args.text("address")?.parse()?;
    let prefix = u32::try_from(args.number("prefix")?)?;
    ensure!((1..=32).contains(&prefix), "the prefix is 1 to 32 bits");
    let mask = Ipv4Addr::from_bits(u32::MAX << (32 - prefix));
    let fd = control.as_raw_fd();
    // SAFETY: each request reads an ifreq whose name and union member it defines.
    unsafe {
        ioctl::set_address(fd, &raw const *with_address(name, address)?).context("address")?;
        ioctl::set_netmask(fd, &raw const *with_address(name, mask)?).context("netmask")?;
    }
    start(&control, "lo")?;
    start(&control, name)?;
    if let Some(gateway) = args.get("gateway").as_str() {
        default_route(&control, gateway.parse()?)?;
    }
    Ok(json!(null))
}

fn control_socket() -> Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

fn request(name: &str) -> Result<Box<libc::ifreq>> {
    // SAFETY: ifreq is plain data for which all zeros is a valid value.
    let mut request: Box<libc::ifreq> = Box::new(unsafe { std::mem::zeroed() });
    ensure!(name.len() < libc::IFNAMSIZ, "{name:?} is no interface name");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from).map_err(|_| anyhow!("{name:?} is not ASCII"))?;
    }
    Ok(request)
}

fn internet(address: Ipv4Addr) -> Result<libc::sockaddr> {
    let plain = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain data; that is how the socket API is meant to be used.
    Ok(unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(plain) })
}

fn with_address(name: &str, address: Ipv4Addr) -> Result<Box<libc::ifreq>> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_addr = internet(address)?;
    Ok(request)
}

fn start(control: &OwnedFd, name: &str) -> Result<()> {
    let mut request = request(name)?;
    let fd = control.as_raw_fd();
    // SAFETY: the first call fills ifru_flags, which is changed and handed back.
    unsafe {
        ioctl::get_flags(fd, &raw mut *request).with_context(|| format!("flags of {name}"))?;
        request.ifr_ifru.ifru_flags |= libc::c_short::try_from(libc::IFF_UP)?;
        ioctl::set_flags(fd, &raw const *request).with_context(|| format!("starting {name}"))?;
    }
    Ok(())
}

fn default_route(control: &OwnedFd, gateway: Ipv4Addr) -> Result<()> {
    // SAFETY: rtentry is plain data for which all zeros is a valid value.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = internet(Ipv4Addr::UNSPECIFIED)?;
    route.rt_genmask = internet(Ipv4Addr::UNSPECIFIED)?;
    route.rt_gateway = internet(gateway)?;
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the request reads the rtentry; its device name pointer is null, which is allowed.
    unsafe { ioctl::add_route(control.as_raw_fd(), &raw const route) }.context("default route")?;
    Ok(())
}

fn feature_of(control: &OwnedFd, name: &str, cmd: u32) -> Result<Option<bool>> {
    let mut value = EthtoolValue { cmd, data: 0 };
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: ifru_data points to an ethtool_value, which is what the get commands fill.
    let done = unsafe { ioctl::ethtool(control.as_raw_fd(), &raw mut *request) };
    Ok(done.is_ok().then_some(value.data != 0))
}
