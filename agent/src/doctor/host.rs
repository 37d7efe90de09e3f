//! Everything beside KVM.

use std::env;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::Check;
use crate::size::{GIB, Size};
use crate::supervise;

const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// The kernel's version: io_uring, landlock and the nftables features in use want 5.10.
pub(super) fn kernel() -> Check {
    const NAME: &str = "kernel";
    let Ok(uname) = nix::sys::utsname::uname() else {
        return Check::warn(NAME, "unknown", "`uname -r` should work");
    };
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    let found = format!("Linux {release}");
    if version >= OLDEST_KERNEL {
        Check::ok(NAME, found)
    } else {
        Check::warn(
            NAME,
            found,
            "cumulet is made for Linux 5.10 and later: update the kernel",
        )
    }
}

/// Our own VMM.
pub(super) fn vmm() -> Check {
    const NAME: &str = "cumulet-vmm";
    match supervise::find_vmm() {
        Ok(path) => Check::ok(NAME, path.display().to_string()),
        Err(error) => Check::fail(NAME, error.message, error.mend.unwrap_or_default()),
    }
}

fn run_apart(prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> io::Result<()> {
    let mut command = Command::new("true");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: the closures given here only make system calls on memory of their own; they neither
    // allocate nor take locks, as the time between fork and exec demands.
    unsafe { command.pre_exec(prepare) };
    command.spawn()?.wait().map(drop)
}

fn leave_host_network(root: bool) -> io::Result<()> {
    let user = if root {
        CloneFlags::empty()
    } else {
        CloneFlags::CLONE_NEWUSER
    };
    unshare(user | CloneFlags::CLONE_NEWNET).map_err(Into::into)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

const USERNS: &str = "let users make namespaces: `sudo sysctl -w kernel.unprivileged_userns_clone=1 \
    user.max_user_namespaces=15000` (and `kernel.apparmor_restrict_unprivileged_userns=0` where \
    there is such a switch); in a container allow CLONE_NEWUSER and CLONE_NEWNET; or run as root";

/// A network of our own can be made.
pub(super) fn namespaces() -> Check {
    const NAME: &str = "namespaces";
    let root = is_root();
    let kind = if root { "network" } else { "user and network" };
    match run_apart(move || leave_host_network(root)) {
        Ok(()) => Check::ok(NAME, format!("a {kind} namespace can be made")),
        Err(error) => Check::fail(NAME, format!("no {kind} namespace: {error}"), USERNS),
    }
}

/// A tap can be made in such a network.
pub(super) fn tun() -> Check {
    const NAME: &str = "tap devices";
    const TUN: &str = "/dev/net/tun";
    let file = match fs::OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Check::fail(
                NAME,
                format!("{TUN}: {error}"),
                "`sudo chmod 0666 /dev/net/tun`, as udev has it",
            );
        }
        Err(error) => {
            return Check::fail(
                NAME,
                format!("{TUN}: {error}"),
                "`sudo modprobe tun`; in a container pass the device in (`--device /dev/net/tun`)",
            );
        }
    };
    let root = is_root();
    let made = run_apart(move || {
        leave_host_network(root)?;
        // The open file above belongs to the host's network: open it anew in ours.
        let inner = nix::fcntl::open(
            c"/dev/net/tun",
            nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )?;
        // SAFETY: all zeros is a valid ifreq: no name (the kernel picks one) and no flags.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap_or_default();
        // SAFETY: the descriptor is open and `request` is the ifreq that TUNSETIFF reads and writes.
        let status = unsafe { libc::ioctl(inner.as_raw_fd(), libc::TUNSETIFF, &mut request) };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    });
    drop(file);
    match made {
        Ok(()) => Check::ok(NAME, "a tap can be made in a network of our own"),
        Err(error) => Check::fail(
            NAME,
            format!("no tap in a network of our own: {error}"),
            USERNS,
        ),
    }
}

/// Where a program is; like the fabric we also look where an ordinary user's PATH does not.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| {
            fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// The packet filter's tool.
pub(super) fn nft() -> Check {
    const NAME: &str = "nftables";
    match program("nft") {
        Some(path) => Check::ok(NAME, path.display().to_string()),
        None => Check::fail(
            NAME,
            "the program `nft` is not installed",
            "`sudo apt-get install nftables`",
        ),
    }
}

/// The way out for guests.
pub(super) fn pasta() -> Check {
    const NAME: &str = "uplink";
    if let Some(path) = ["pasta", "slirp4netns"].into_iter().find_map(program) {
        return Check::ok(NAME, path.display().to_string());
    }
    Check::warn(
        NAME,
        "neither `pasta` nor `slirp4netns` is installed: guests do not reach the outside",
        "`sudo apt-get install passt`",
    )
}

/// ssh, for `cumulet ssh`.
pub(super) fn ssh() -> Check {
    const NAME: &str = "ssh";
    match (program("ssh"), program("ssh-keygen")) {
        (Some(path), Some(_)) => Check::ok(NAME, path.display().to_string()),
        _ => Check::warn(
            NAME,
            "`ssh` or `ssh-keygen` is not installed: `cumulet ssh` and `run --ssh` cannot work",
            "`sudo apt-get install openssh-client`",
        ),
    }
}

/// What `images build` runs.
pub(super) fn builder() -> Check {
    const NAME: &str = "image building";
    let missing: Vec<&str> = [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")]
        .into_iter()
        .filter(|(name, _)| program(name).is_none())
        .map(|(_, package)| package)
        .collect();
    if missing.is_empty() {
        return Check::ok(NAME, "mmdebstrap and mke2fs are there");
    }
    Check::warn(
        NAME,
        "`cumulet images build` cannot work; importing images can",
        format!("`sudo apt-get install {}`", missing.join(" ")),
    )
}

/// Memory for guests now.
pub(super) fn memory() -> Check {
    const NAME: &str = "memory";
    match available_memory() {
        Some(free) if free.0 >= GIB => Check::ok(NAME, format!("{free} available")),
        Some(free) => Check::warn(
            NAME,
            format!("only {free} available"),
            "end something large, or use small instance types (t3.nano)",
        ),
        None => Check::warn(NAME, "unknown", "/proc/meminfo should be readable"),
    }
}

/// `MemAvailable` of /proc/meminfo.
pub(crate) fn available_memory() -> Option<Size> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(Size(kib.checked_mul(1024)?))
}

/// Space for volumes.
pub(super) fn space(home: Option<&Path>) -> Check {
    const NAME: &str = "disk space";
    let root = match crate::state::Home::root_for(home) {
        Ok(root) => root,
        Err(error) => return Check::fail(NAME, error.message, error.mend.unwrap_or_default()),
    };
    // The nearest folder that exists: the doctor makes nothing.
    let Some(existing) = root.ancestors().find(|path| path.exists()) else {
        return Check::warn(
            NAME,
            root.display().to_string(),
            "name a folder with --home",
        );
    };
    match nix::sys::statvfs::statvfs(existing) {
        Ok(stat) => {
            let free = Size(stat.blocks_available().saturating_mul(stat.fragment_size()));
            let found = format!("{free} free for {}", root.display());
            if free.0 >= 4 * GIB {
                Check::ok(NAME, found)
            } else {
                Check::warn(
                    NAME,
                    found,
                    "free some space, or name another folder with --home",
                )
            }
        }
        Err(error) => Check::warn(
            NAME,
            format!("{}: {error}", existing.display()),
            "name another folder with --home",
        ),
    }
}
