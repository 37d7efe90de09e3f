//! Traffic: TCP both ways, UDP, ICMP echo, and HTTP for the metadata service.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use serde_json::{Value, json};

use crate::command::Args;
use cumulet_tests::pattern::fill;

/// Nothing on a test's own wire takes longer than this, however loaded the host is.
const PATIENCE: Duration = Duration::from_secs(120);
/// An echo request is sent again when no answer came for so long.
const ASK_AGAIN_SECONDS: i64 = 2;
/// Bytes of one socket call.
const CHUNK: usize = 256 << 10;

/// `{"to", "send", "receive", "seed", "patience"}`: connects, for so many seconds at most, sends `send` pattern bytes,
/// closes its side, then expects `receive` bytes of the same pattern.
pub(crate) fn tcp_connect(args: &Args) -> Result<Value> {
    let to: SocketAddr = args.text("to")?.parse()?;
    let patience = Duration::from_secs(args.number_or("patience", PATIENCE.as_secs())?);
    let stream = TcpStream::connect_timeout(&to, patience).with_context(|| format!("to {to}"))?;
    transfer(stream, args)
}

/// `{"port", "send", "receive", "seed"}`: the same for one connection that comes in. Answers only
/// when it is over.
pub(crate) fn tcp_serve(args: &Args) -> Result<Value> {
    let port = u16::try_from(args.number("port")?)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let (stream, from) = listener.accept()?;
    let mut answer = transfer(stream, args)?;
    answer["from"] = json!(from.to_string());
    Ok(answer)
}

fn transfer(mut stream: TcpStream, args: &Args) -> Result<Value> {
    let seed = args.number_or("seed", 1)?;
    let (send, receive) = (args.number_or("send", 0)?, args.number_or("receive", 0)?);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let start = Instant::now();
    let mut buf = vec![0; CHUNK];
    let mut sent = 0;
    while sent < send {
        let now = usize::try_from((send - sent).min(CHUNK as u64))?;
        fill(&mut buf[..now], seed, sent);
        stream.write_all(&buf[..now]).context("send")?;
        sent += now as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let send_ns = u64::try_from(start.elapsed().as_nanos())?;
    let start = Instant::now();
    let mut got: u64 = 0;
    let mut expected = vec![0; CHUNK];
    while got < receive {
        // Whole words of the pattern at a time, so that chunks need no alignment of their own.
        let now = usize::try_from((receive - got).min(CHUNK as u64))?;
        stream.read_exact(&mut buf[..now]).context("receive")?;
        fill(&mut expected[..now], seed, got);
        ensure!(
            buf[..now] == expected[..now],
            "wrong bytes in the {now} after {got}"
        );
        got += now as u64;
    }
    ensure!(
        stream.read(&mut buf)? == 0,
        "more than {receive} bytes came"
    );
    let receive_ns = u64::try_from(start.elapsed().as_nanos())?;
    Ok(json!({ "sent": sent, "received": got, "send_ns": send_ns, "receive_ns": receive_ns }))
}

/// `{"to", "bytes", "count"}`: sends datagrams to an echo service and compares what comes back.
pub(crate) fn udp_echo(args: &Args) -> Result<Value> {
    let to: SocketAddr = args.text("to")?.parse()?;
    let (len, count) = (args.size("bytes")?, args.number_or("count", 1)?);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut out, mut back) = (vec![0; len], vec![0; len + 1]);
    for index in 0..count {
        fill(&mut out, index, 0);
        socket.send(&out)?;
        let got = socket.recv(&mut back).context("no echo")?;
        ensure!(back[..got] == out, "the echo differs from what was sent");
    }
    Ok(json!({ "echoed": count }))
}

/// `{"to", "bytes", "count"}`: ICMP echo requests, each of which must be answered.
pub(crate) fn icmp(args: &Args) -> Result<Value> {
    let to: Ipv4Addr = args.text("to")?.parse()?;
    let (len, count) = (args.size("bytes")?, args.number_or("count", 1)?);
    let raw = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )?;
    let until_again = nix::sys::time::TimeVal::new(ASK_AGAIN_SECONDS, 0);
    setsockopt(&raw, sockopt::ReceiveTimeout, &until_again)?;
    let address = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
    for index in 0..u16::try_from(count)? {
        let packet = echo_request(index, len);
        let ask = || sendto(raw.as_raw_fd(), &packet, &address, MsgFlags::empty()).context("send");
        let started = Instant::now();
        ask()?;
        loop {
            let mut buf = vec![0; len + 128];
            let got = match recv(raw.as_raw_fd(), &mut buf, MsgFlags::empty()) {
                Ok(got) => got,
                // Packets may be lost where a queue is full; only one that never comes is a fault.
                Err(Errno::EAGAIN) if started.elapsed() < PATIENCE => {
                    ask()?;
                    continue;
                }
                Err(error) => return Err(error).context("no answer"),
            };
            // An IPv4 header without options comes first; type 0 is the echo's answer.
            let reply = buf.get(20..got).unwrap_or_default();
            if reply.first() == Some(&0) && reply.get(4..) == packet.get(4..) {
                break;
            }
        }
    }
    Ok(json!({ "answered": count }))
}

fn echo_request(sequence: u16, len: usize) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0, 0x63, 0x75];
    packet.extend(sequence.to_be_bytes());
    let mut body = vec![0; len];
    fill(&mut body, u64::from(sequence), 0);
    packet.extend(body);
    let mut sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = u16::try_from(sum).map_or(0, |sum| !sum);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// `{"to", "method", "path", "headers": {…}, "ttl"}`: one HTTP/1.1 request. Answers status,
/// headers and body.
pub(crate) fn http(args: &Args) -> Result<Value> {
    let to: SocketAddr = args.text("to")?.parse()?;
    let mut request = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        args.text("method")?,
        args.text("path")?,
        to.ip()
    );
    for (name, value) in args.get("headers").as_object().into_iter().flatten() {
        request.push_str(&format!("{name}: {}\r\n", value.as_str().unwrap_or("")));
    }
    request.push_str("\r\n");
    let mut stream =
        TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if let Some(ttl) = args.get("ttl").as_u64() {
        stream.set_ttl(u32::try_from(ttl)?)?;
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no end of headers")?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse::<u16>().ok());
    let headers: serde_json::Map<String, Value> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), json!(value.trim())))
        .collect();
    Ok(json!({ "status": status, "headers": headers, "body": body }))
}
