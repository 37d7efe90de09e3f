//! A network of the test's own: a namespace with a tap, and services on the host's side of it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

/// Host's address on the tap's network.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The guest's.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Bits of the network's prefix.
pub const PREFIX: u8 = 24;

/// Moves the calling thread (and what it starts from now on) into a network namespace of its own
/// with a tap called `tap0` that has [`HOST`] as its address. Needs root.
///
/// # Panics
/// When the host refuses.
pub fn enter_with_tap() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: the test needs root");
    ip("link set lo up");
    ip("tuntap add tap0 mode tap vnet_hdr");
    ip(&format!("addr add {HOST}/{PREFIX} dev tap0"));
    ip("link set tap0 up");
}

/// Runs `ip` with these words.
///
/// # Panics
/// When it fails.
pub fn ip(words: &str) {
    let done = Command::new("ip")
        .args(words.split(' '))
        .output()
        .expect("the program ip (package iproute2)");
    assert!(
        done.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Serves one TCP connection on a port of the system's choice: reads to the end, then sends all of
/// it back. Gives the port and the thread, which returns the number of bytes.
///
/// # Panics
/// When the host refuses the socket.
#[must_use]
pub fn tcp_echo_once() -> (u16, JoinHandle<usize>) {
    let listener = TcpListener::bind((HOST, 0)).expect("a listening socket");
    let port = listener.local_addr().expect("its address").port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("what the guest sends");
        stream.write_all(&all).expect("what goes back");
        all.len()
    });
    (port, thread)
}

/// Echoes UDP datagrams on a port of the system's choice until the test ends.
///
/// # Panics
/// When the host refuses the socket.
#[must_use]
pub fn udp_echo() -> u16 {
    let socket = UdpSocket::bind((HOST, 0)).expect("a socket");
    let port = socket.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        let mut buf = vec![0; 1 << 16];
        while let Ok((got, from)) = socket.recv_from(&mut buf) {
            // The guest notices what is missing.
            let _ = socket.send_to(&buf[..got], from);
        }
    });
    port
}
