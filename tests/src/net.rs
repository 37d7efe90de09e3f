//! A network of the test's own: a namespace with a tap, and services on the host's side of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

use crate::HANG_GUARD;

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

/// Frames that a VMM has taken from `tap0`, and frames that were dropped because none did.
///
/// # Panics
/// When there is no such tap.
#[must_use]
pub fn tap_frames() -> (u64, u64) {
    let done = Command::new("ip")
        .args(["-json", "-statistics", "link", "show", "tap0"])
        .output()
        .expect("the program ip (package iproute2)");
    let list: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON of ip");
    let sent = &list[0]["stats64"]["tx"];
    let count = |name: &str| sent[name].as_u64().expect("a counter of the tap");
    (count("packets"), count("dropped"))
}

/// Waits until [`tap_frames`] are as they should be.
///
/// # Panics
/// When that does not happen.
pub fn wait_for_tap(what: &str, mut reached: impl FnMut(u64, u64) -> bool) {
    let start = std::time::Instant::now();
    loop {
        let (taken, dropped) = tap_frames();
        if reached(taken, dropped) {
            return;
        }
        assert!(
            start.elapsed() < HANG_GUARD,
            "{what}: {taken} frames taken, {dropped} dropped"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
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

/// A service that reads and forgets.
pub struct Sink {
    /// Where it listens.
    pub port: u16,
    read: Receiver<usize>,
}

impl Sink {
    /// Waits until it has read so many bytes.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for(&self, bytes: usize) {
        let mut seen = 0;
        while seen < bytes {
            match self.read.recv_timeout(HANG_GUARD) {
                Ok(more) => seen += more,
                Err(error) => panic!("{seen} bytes came, then: {error}"),
            }
        }
    }
}

/// Takes one TCP connection on a port of the system's choice and reads until it breaks.
///
/// # Panics
/// When the host refuses the socket.
#[must_use]
pub fn tcp_sink() -> Sink {
    let listener = TcpListener::bind((HOST, 0)).expect("a listening socket");
    let port = listener.local_addr().expect("its address").port();
    let (tell, read) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut chunk = vec![0; 1 << 16];
        while let Ok(got @ 1..) = stream.read(&mut chunk) {
            // Nobody may be counting any more.
            let _ = tell.send(got);
        }
    });
    Sink { port, read }
}

/// Datagrams on their way to the guest, until dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the flood");
        }
    }
}

/// Sends datagrams to a port of the guest, whether anybody listens or not.
///
/// # Panics
/// When the host refuses the socket.
#[must_use]
pub fn flood(port: u16) -> Flood {
    let socket = UdpSocket::bind((HOST, 0)).expect("a socket");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            // Refused while there is no guest to resolve its address. In bursts with pauses: the
            // host of a test may have one processor to spare.
            for _ in 0..4 {
                let _ = socket.send_to(&[0; 1000], (GUEST, port));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    Flood {
        stop,
        thread: Some(thread),
    }
}

/// Opens `tap0` as `cumulet` does, to be handed to a VMM.
///
/// # Panics
/// When the host refuses.
#[must_use]
pub fn open_tap() -> File {
    let tap = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .expect("/dev/net/tun");
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(c"tap0".to_bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(flags).expect("flags of 16 bits"),
        },
    };
    // SAFETY: the request is an ifreq with a name and flags, as this ioctl takes.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    nix::errno::Errno::result(done).expect("TUNSETIFF");
    tap
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
