//! The network that plays the host, and the ordinary user on it.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// The played host's address.
pub(crate) const HOST: &str = "198.51.100.2";

/// A server in the world outside.
pub(crate) const WORLD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 8080);

/// Whether the host around us is the played one.
pub(crate) fn is_played() -> bool {
    Path::new("/mnt/bin/fabric").exists()
}

/// Runs a shell script; its failure is the test's.
pub(crate) fn sh(script: &str) {
    let status = Command::new("sh")
        .args(["-euc", script])
        .status()
        .expect("start sh");
    assert!(status.success(), "'{script}' failed: {status}");
}

/// Output of a shell script.
pub(crate) fn output_of(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .output()
        .expect("start sh");
    assert!(
        output.status.success(),
        "'{script}' failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Moves this process, as root, into a new network with an address and a default route, and makes
/// `/dev/net/tun` usable by everybody, as udev does, for this process's children only.
pub(crate) fn play_host() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .expect("root needs CAP_SYS_ADMIN for namespaces");
    let world = play_world();
    sh(&format!(
        "ip link set lo up; ip link add eth0 type veth peer name world0; \
         ip link set world0 netns {world}; ip addr add {HOST}/24 dev eth0; \
         ip link set eth0 up; ip route add default via 198.51.100.1"
    ));
    settle();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .expect("make mounts private");
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none).expect("mount a tmpfs");
    let node = Path::new("/mnt/tun");
    mknod(node, SFlag::S_IFCHR, Mode::empty(), makedev(10, 200)).expect("make a tun node");
    fs::set_permissions(node, fs::Permissions::from_mode(0o666)).expect("chmod");
    mount(Some(node), "/dev/net/tun", none, MsFlags::MS_BIND, none)
        .expect("/dev/net/tun must exist: modprobe tun");
    fs::write("/mnt/resolv.conf", "nameserver 127.0.0.1\n").expect("write");
    mount(
        Some("/mnt/resolv.conf"),
        "/etc/resolv.conf",
        none,
        MsFlags::MS_BIND,
        none,
    )
    .expect("/etc/resolv.conf must exist");
    // Where that user finds this program.
    fs::DirBuilder::new()
        .mode(0o755)
        .create("/mnt/bin")
        .expect("make a folder");
    let program = std::env::current_exe().expect("own path");
    fs::copy(program, "/mnt/bin/fabric").expect("copy the test program");
}

/// Waits until the played host's network changes no more by itself: the world's end of the wire is up, and the
/// link-local address (where there is IPv6) has been checked for duplicates.
fn settle() {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6/conf/eth0").exists();
    let settled = |addresses: &str| {
        let checked = addresses.contains("inet6 ") && !addresses.contains("tentative");
        addresses.contains("LOWER_UP") && (checked || !has_ipv6)
    };
    let mut addresses = String::new();
    for _ in 0..3000 {
        addresses = output_of("ip addr show dev eth0");
        if settled(&addresses) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the played host's network does not settle:\n{addresses}");
}

/// A network beyond the host's. Every connection to [`WORLD`] is told whence it came.
fn play_world() -> String {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        let task = fs::read_link("/proc/thread-self").expect("own thread");
        sender
            .send(format!("/proc/{}/ns/net", task.display()))
            .expect("the main thread waits");
        while nix::net::if_::if_nametoindex("world0").is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        sh("ip addr add 198.51.100.1/24 dev world0; ip link set world0 up");
        let listener = TcpListener::bind(WORLD).expect("bind");
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            let peer = stream.peer_addr().expect("peer").ip();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
    receiver.recv().expect("the world exists")
}

/// Lets the command run as an ordinary user without any privilege.
pub(crate) fn as_user(command: &mut Command, user: u32) {
    let environment: Vec<_> = command
        .get_envs()
        .filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned())))
        .collect();
    *command = Command::new("/mnt/bin/fabric");
    command
        .envs(environment)
        .current_dir("/")
        .uid(user)
        .gid(user);
}
