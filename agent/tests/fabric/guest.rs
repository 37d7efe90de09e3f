//! A guest without a VMM: a thread in a network namespace of its own, whose interface is joined
//! to the fabric's tap frame by frame, as a VMM joins a guest's driver to it.

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use cumulet_agent::fabric::{Fabric, FabricConfig, MacAddr, PortConfig, private_hostname};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

use crate::outer::sh;

/// Bytes of the virtio-net header before each frame.
pub(crate) const VNET_HEADER: usize = 10;

type Job = Box<dyn FnOnce() + Send>;

/// A guest on port `n` of [`config`].
pub(crate) struct Guest {
    jobs: mpsc::Sender<Job>,
}

/// Address of the guest on port `n`.
pub(crate) fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 0, 10 + n)
}

/// MAC address of the guest on port `n`.
pub(crate) fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, 10 + n])
}

/// EC2's default VPC with so many ports.
pub(crate) fn config(ports: u8) -> FabricConfig {
    let ports = (0..ports)
        .map(|n| PortConfig {
            mac: mac(n),
            ip: ip(n),
            hostname: private_hostname(ip(n)),
        })
        .collect();
    FabricConfig {
        ports,
        ..FabricConfig::default()
    }
}

impl Guest {
    /// Boots: interface up, no address.
    pub(crate) async fn boot(fabric: &Fabric, n: u8) -> Self {
        let port = fabric.open_tap(ip(n)).await.expect("open the tap");
        Self::on_cable(port, mac(n))
    }

    /// Boots with a tap as its cable: interface up, no address.
    pub(crate) fn on_cable(port: OwnedFd, mac: MacAddr) -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a guest's namespace");
            let nic = open_nic();
            sh(&format!(
                "ip link set lo up; ip link set eth0 address {mac} mtu 9001 up"
            ));
            thread::spawn(move || pump(port, nic));
            for job in inbox {
                job();
            }
        });
        Self { jobs }
    }

    /// Boots and configures by hand.
    pub(crate) async fn with_address(fabric: &Fabric, n: u8) -> Self {
        let guest = Self::boot(fabric, n).await;
        let address = ip(n);
        guest
            .run(move || {
                sh(&format!(
                    "ip addr add {address}/20 dev eth0; ip route add default via 172.31.0.1"
                ));
            })
            .await;
        guest
    }

    /// Runs something inside the guest.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (sender, receiver) = tokio::sync::oneshot::channel::<thread::Result<T>>();
        let job = move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let _ = sender.send(result.map_err(|panic: Box<dyn Any + Send>| panic));
        };
        self.jobs.send(Box::new(job)).expect("the guest runs");
        match receiver.await.expect("the guest runs") {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

nix::ioctl_write_ptr_bad!(
    tunsetiff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);

/// The guest's own end of the cable: another tap, called eth0.
fn open_nic() -> OwnedFd {
    make_tap("eth0")
}

/// A tap of this name, in the network namespace of the calling thread.
pub(crate) fn make_tap(name: &str) -> OwnedFd {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .expect("open /dev/net/tun");
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = u16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).expect("flags");
    request.ifr_ifru.ifru_flags = libc::c_short::from_ne_bytes(flags.to_ne_bytes());
    // SAFETY: the request is valid and outlives the call.
    unsafe { tunsetiff(file.as_raw_fd(), &raw const request) }.expect("make a tap");
    file.into()
}

/// Carries frames both ways until an end closes.
fn pump(port: OwnedFd, nic: OwnedFd) {
    let (mut port, mut nic) = (File::from(port), File::from(nic));
    let mut frame = vec![0; 65_550];
    loop {
        let mut fds = [
            PollFd::new(port.as_fd(), PollFlags::POLLIN),
            PollFd::new(nic.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut fds, PollTimeout::NONE).expect("poll");
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        if ready[0] && !carry(&mut port, &mut nic, &mut frame) {
            return;
        }
        if ready[1] && !carry(&mut nic, &mut port, &mut frame) {
            return;
        }
    }
}

fn carry(from: &mut File, to: &mut File, frame: &mut [u8]) -> bool {
    match from.read(frame) {
        // A device that is down drops the frame.
        Ok(length) => {
            let _ = to.write(&frame[..length]);
            true
        }
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}
