//! First process of L1: makes a small Linux host of an empty one, starts the agent and reaps orphans.

use super::image::USER;
use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

/// Modules that a virtualisation host has loaded; what a kernel lacks is reported, and is no error here.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "virtio_rng",
    "kvm-amd",
    "tun",
    "veth",
    "bridge",
    "br_netfilter",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "nf_conntrack",
    "nf_conntrack_bridge",
    "vhost_net",
    "vhost_vsock",
    "overlay",
    "loop",
];

/// Where the seed disk with this program is mounted.
const SEED: &str = "/mnt";

/// Runs as process 1.
pub(crate) fn run() -> Result<()> {
    if nix::unistd::getpid().as_raw() != 1 {
        anyhow::bail!("l1-init is the first process of the emulated host and nothing else");
    }
    if let Err(error) = set_up().and_then(|()| serve()) {
        eprintln!("l1-init: {error:#}");
    }
    nix::unistd::sync();
    nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF)?;
    Ok(())
}

fn set_up() -> Result<()> {
    for (kind, target, options) in [
        ("proc", "/proc", None),
        ("sysfs", "/sys", None),
        ("devpts", "/dev/pts", Some("mode=0620,gid=5,ptmxmode=0666")),
        ("tmpfs", "/dev/shm", None),
        ("tmpfs", "/run", Some("mode=0755")),
        ("cgroup2", "/sys/fs/cgroup", None),
        ("securityfs", "/sys/kernel/security", None),
        ("debugfs", "/sys/kernel/debug", None),
        ("tracefs", "/sys/kernel/tracing", None),
    ] {
        fs::create_dir_all(target)?;
        mount(Some(kind), target, Some(kind), MsFlags::empty(), options)
            .with_context(|| format!("cannot mount {kind} at {target}"))?;
    }
    for (link, to) in [
        ("/dev/fd", "self/fd"),
        ("/dev/stdin", "self/fd/0"),
        ("/dev/stdout", "self/fd/1"),
        ("/dev/stderr", "self/fd/2"),
    ] {
        symlink(Path::new("/proc").join(to), link)
            .with_context(|| format!("cannot link {link}"))?;
    }
    nix::unistd::sethostname("l1")?;
    // Each on its own: a module that this kernel lacks must not stop the others.
    for module in MODULES {
        let tried = Command::new("modprobe").args(["-q", module]).status();
        if !tried.is_ok_and(|status| status.success()) {
            eprintln!("l1-init: no module {module}");
        }
    }
    scratch()?;
    devices()?;
    network()?;
    for (key, value) in [
        // A 5 GiB guest fits a smaller L1 as long as it does not touch all of it.
        ("vm/overcommit_memory", "1"),
        ("kernel/unprivileged_userns_clone", "1"),
        ("net/ipv4/ping_group_range", "0 2147483647"),
    ] {
        // Not every kernel has every one of them.
        let _ = fs::write(Path::new("/proc/sys").join(key), value);
    }
    let runtime = "/run/user/1000";
    fs::create_dir_all(runtime)?;
    nix::unistd::chown(runtime, Some(1000.into()), Some(1000.into()))?;
    Ok(())
}

/// The big disk that only this L1 uses: temporary folders and everything that tests write.
fn scratch() -> Result<()> {
    fs::create_dir_all("/scratch")?;
    mount(
        Some("/dev/nvme0n2"),
        "/scratch",
        Some("ext4"),
        MsFlags::MS_NOATIME,
        Some("discard"),
    )
    .context("cannot mount the scratch disk")?;
    for (dir, mode) in [("tmp", 0o1777), ("var-tmp", 0o1777), (USER, 0o700)] {
        let path = Path::new("/scratch").join(dir);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    let home = format!("/home/{USER}");
    nix::unistd::chown("/scratch/dev", Some(1000.into()), Some(1000.into()))?;
    for (from, to) in [
        ("/scratch/tmp", "/tmp"),
        ("/scratch/var-tmp", "/var/tmp"),
        ("/scratch/dev", home.as_str()),
    ] {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot bind {from} to {to}"))?;
    }
    Ok(())
}

/// Access as udev's rules give it: KVM and vhost to group kvm, tun to everyone.
fn devices() -> Result<()> {
    let kvm = nix::unistd::Group::from_name("kvm")?
        .context("L1 has no group kvm")?
        .gid;
    for (path, group, mode) in [
        ("/dev/kvm", Some(kvm), 0o660),
        ("/dev/vhost-net", Some(kvm), 0o660),
        ("/dev/vhost-vsock", Some(kvm), 0o660),
        ("/dev/net/tun", None, 0o666),
    ] {
        if !Path::new(path).exists() {
            eprintln!("l1-init: no {path}");
            continue;
        }
        nix::unistd::chown(path, None, group)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn network() -> Result<()> {
    let nic = fs::read_dir("/sys/class/net")?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name != "lo")
        .context("L1 has no network interface")?;
    for words in [
        "link set lo up",
        &format!("link set {nic} up"),
        &format!("address add 192.168.127.15/24 dev {nic}"),
        "route add default via 192.168.127.2",
    ] {
        crate::sh::run(Command::new("ip").args(words.split(' ')))?;
    }
    Ok(())
}

/// Starts the agent and collects dead processes until the agent itself is among them.
fn serve() -> Result<()> {
    let agent = Command::new(format!("{SEED}/xtask"))
        .arg("l1-agent")
        .spawn()
        .context("cannot start the agent")?;
    let agent = nix::unistd::Pid::from_raw(agent.id().cast_signed());
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) if pid == agent => {
                return Ok(());
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("nothing left to wait for"),
        }
    }
}
