//! Connections that the kernel tracks, by ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
//!
//! A connection keeps the translation that it began with. When a public address goes to somebody else its connections
//! have to end, so they are taken out of the kernel's table: the next packet meets the translation of now.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::error::{FabricError, Result};

/// A tracked connection: who began it with whom, and between whom its answers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    /// Who began it.
    pub(super) from: Ipv4Addr,
    /// Whom they meant.
    pub(super) to: Ipv4Addr,
    /// Who answers.
    pub(super) answer_from: Ipv4Addr,
    /// To whom they answer.
    pub(super) answer_to: Ipv4Addr,
}

impl Flow {
    /// Whether the address has any part in it.
    pub(super) fn has(&self, ip: Ipv4Addr) -> bool {
        [self.from, self.to, self.answer_from, self.answer_to].contains(&ip)
    }

    /// The private and the public address, if the sender's is translated.
    pub(super) fn source(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        (self.from != self.answer_to).then_some((self.from, self.answer_to))
    }

    /// The private and the public address, if the receiver's is translated.
    pub(super) fn destination(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        (self.to != self.answer_from).then_some((self.answer_from, self.to))
    }
}

/// Takes connections out of the table of the calling thread's network namespace; how many there were.
///
/// # Errors
/// When the kernel has no ctnetlink (`CONFIG_NF_CT_NETLINK`) or refuses.
pub(super) fn end(stale: impl Fn(&Flow) -> bool) -> Result<usize> {
    let work = || -> io::Result<usize> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        send(&socket, GET, NLM_F_REQUEST | NLM_F_DUMP, &[])?;
        let mut old = Vec::new();
        answers(&socket, |entry| {
            if let Some((flow, key)) = read(entry)
                && stale(&flow)
            {
                old.push(key);
            }
        })?;
        for key in &old {
            send(&socket, DELETE, NLM_F_REQUEST | NLM_F_ACK, key)?;
            match answers(&socket, |_| {}) {
                // It has ended by itself just now.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                done => done?,
            }
        }
        Ok(old.len())
    };
    work().map_err(FabricError::io("end tracked connections"))
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// `NFNL_SUBSYS_CTNETLINK`, in the high byte of a message's type.
const CTNETLINK: u16 = 1 << 8;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const TUPLE_IP: u16 = 1;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct nfgenmsg`.
const NFGENMSG: usize = 4;
/// The kernel sends no longer part of a list at once.
const PART_MAX: usize = 64 * 1024;

fn send(socket: &OwnedFd, kind: u16, flags: u16, attributes: &[u8]) -> io::Result<()> {
    let length = HEADER + NFGENMSG + attributes.len();
    let mut message = u32::try_from(length)
        .map_err(io::Error::other)?
        .to_ne_bytes()
        .to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and port id: there is one question at a time.
    message.extend([0; 8]);
    // Family, version, resource id.
    message.extend([
        u8::try_from(libc::AF_INET).map_err(io::Error::other)?,
        0,
        0,
        0,
    ]);
    message.extend(attributes);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
    Ok(())
}

/// Reads what the kernel answers, to its end.
fn answers(socket: &OwnedFd, mut entry: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; PART_MAX];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, body, after)) = message(rest) {
            rest = after;
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = body
                        .first_chunk()
                        .map_or(-libc::EIO, |code| i32::from_ne_bytes(*code));
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => entry(body),
            }
        }
    }
}

/// The first message: its type, its body, and what comes after.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    Some((
        kind,
        body,
        bytes.get(length.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

/// A table's entry, and the attributes by which the kernel finds it again.
fn read(entry: &[u8]) -> Option<(Flow, Vec<u8>)> {
    let attributes = entry.get(NFGENMSG..)?;
    let (from, to) = addresses(attribute(attributes, TUPLE_ORIG)?.1)?;
    let (answer_from, answer_to) = addresses(attribute(attributes, TUPLE_REPLY)?.1)?;
    let flow = Flow {
        from,
        to,
        answer_from,
        answer_to,
    };
    let mut key = attribute(attributes, TUPLE_ORIG)?.0.to_vec();
    // One that has just taken its place has another id.
    key.extend(attribute(attributes, ID)?.0);
    Some((flow, key))
}

/// Source and destination of a tuple.
fn addresses(tuple: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (_, ip) = attribute(tuple, TUPLE_IP)?;
    let address = |kind| {
        let (_, octets) = attribute(ip, kind)?;
        Some(Ipv4Addr::from(*octets.first_chunk::<4>()?))
    };
    Some((address(IP_V4_SRC)?, address(IP_V4_DST)?))
}

/// The first attribute of this type: all of it with its padding, and its value.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<(&[u8], &[u8])> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        // The two highest bits say how its value is to be read.
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        let padded = length.next_multiple_of(4);
        if kind == wanted {
            return Some((bytes.get(..padded)?, value));
        }
        bytes = bytes.get(padded..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
        let ip = [nla(IP_V4_SRC, &from), nla(IP_V4_DST, &to)].concat();
        // As the kernel does it: nested attributes are marked.
        nla(
            kind | 0x8000,
            &[nla(TUPLE_IP | 0x8000, &ip), nla(2, &[6])].concat(),
        )
    }

    fn entry() -> Vec<u8> {
        let orig = tuple(TUPLE_ORIG, [100, 64, 0, 20], [100, 64, 0, 10]);
        let reply = tuple(TUPLE_REPLY, [10, 0, 0, 10], [100, 64, 0, 20]);
        [
            vec![2, 0, 0, 0],
            orig,
            reply,
            nla(3, &[0; 4]),
            nla(ID, &[1, 2, 3, 4]),
        ]
        .concat()
    }

    #[test]
    fn an_entry_is_read_with_its_translation_and_its_key() {
        let (flow, key) = read(&entry()).unwrap();
        let (private, public) = (Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(100, 64, 0, 10));
        assert_eq!(flow.source(), None);
        assert_eq!(flow.destination(), Some((private, public)));
        assert!(flow.has(public) && !flow.has(Ipv4Addr::new(10, 0, 0, 11)));
        let orig = tuple(TUPLE_ORIG, [100, 64, 0, 20], [100, 64, 0, 10]);
        assert_eq!(key, [orig, nla(ID, &[1, 2, 3, 4])].concat());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = message(&bytes);
            let _ = read(&bytes);
        }

        #[test]
        fn any_damage_is_survived(at in 0usize..100, value: u8, cut in 0usize..100) {
            let mut bytes = entry();
            let length = bytes.len();
            bytes[at % length] = value;
            bytes.truncate(length - cut % length);
            let _ = read(&bytes);
        }
    }
}
