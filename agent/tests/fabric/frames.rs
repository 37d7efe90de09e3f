//! Ethernet frames by hand, for what a decent guest never sends.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use cumulet_agent::fabric::MacAddr;

use crate::guest::VNET_HEADER;

pub(crate) const BROADCAST: MacAddr = MacAddr([0xff; 6]);
pub(crate) const ETHER_IPV4: u16 = 0x0800;
pub(crate) const ETHER_ARP: u16 = 0x0806;
pub(crate) const ETHER_IPV6: u16 = 0x86dd;

/// An Ethernet frame, padded to the least length.
pub(crate) fn ethernet(from: MacAddr, to: MacAddr, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An ARP packet (RFC 826); `operation` 1 asks, 2 answers.
pub(crate) fn arp(
    operation: u16,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    for (mac, ip) in [sender, target] {
        packet.extend(mac.0);
        packet.extend(ip.octets());
    }
    packet
}

/// A UDP datagram in an IPv4 packet; `fragment` is the raw flags-and-offset field.
pub(crate) fn udp(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let udp_length = u16::try_from(8 + payload.len()).expect("short");
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp_length).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, 17, 0, 0]);
    packet.extend(from.0.octets());
    packet.extend(to.0.octets());
    let sum = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded");
    packet[10..12].copy_from_slice(&(!folded).to_be_bytes());
    packet.extend(from.1.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    // Checksum 0: none (RFC 768).
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// Sends a frame out of a guest's port.
pub(crate) fn inject(port: &OwnedFd, frame: &[u8]) {
    let mut bytes = vec![0; VNET_HEADER];
    bytes.extend(frame);
    let mut port = File::from(port.try_clone().expect("clone"));
    assert_eq!(port.write(&bytes).expect("send a frame"), bytes.len());
}

/// Frames waiting at a guest's port.
pub(crate) fn waiting(port: &OwnedFd) -> Vec<Vec<u8>> {
    let mut port = File::from(port.try_clone().expect("clone"));
    let mut frame = vec![0; 65_550];
    let mut frames = Vec::new();
    while let Ok(length) = port.read(&mut frame) {
        frames.push(frame[VNET_HEADER..length].to_vec());
    }
    frames
}

/// Everything that arrives at an interface of ours (packet(7)).
pub(crate) struct Capture(File);

impl Capture {
    pub(crate) fn on(interface: &str) -> Self {
        let protocol = u16::try_from(libc::ETH_P_ALL).expect("a protocol").to_be();
        // SAFETY: makes a socket.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                i32::from(protocol),
            )
        };
        assert!(
            fd >= 0,
            "packet socket: {}",
            std::io::Error::last_os_error()
        );
        // SAFETY: just made.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = nix::net::if_::if_nametoindex(interface).expect("the interface");
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("a family");
        address.sll_protocol = protocol;
        address.sll_ifindex = i32::try_from(index).expect("an index");
        let size = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a size");
        // SAFETY: the address is valid and as long as said.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) };
        assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
        Self(File::from(fd))
    }

    /// All frames up to the first for which `last` says so.
    pub(crate) fn until(&mut self, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 65_550];
        loop {
            let length = self.0.read(&mut buffer).expect("capture");
            let frame = buffer[..length].to_vec();
            if last(&frame) {
                return frames;
            }
            frames.push(frame);
        }
    }
}
