//! L1's root disk and kernel: an unmodified Debian made from packages, without loop devices, mounts or root.

use crate::{apt, cache, sh};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages beyond Debian's minimal set: what the product needs at run time, what tests look with, and the rival VMM.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "cpio",
    "curl",
    "dosfstools",
    "e2fsprogs",
    "ethtool",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "linux-image-cloud-amd64",
    "mtools",
    "nftables",
    "openssh-client",
    "openssl",
    "ovmf",
    "passt",
    "procps",
    "qemu-system-x86",
    "qemu-utils",
    "seabios",
    "socat",
    "strace",
    "tcpdump",
    "uidmap",
    "util-linux",
    "xfsprogs",
    "xz-utils",
    "zstd",
];

/// Name of L1's ordinary user (uid 1000, in group kvm, with subordinate ids).
pub(crate) const USER: &str = "dev";

/// Size of the root file system; blocks nobody writes cost nothing.
const ROOT_SIZE: &str = "6G";

/// First program of L1: finds the seed disk, which holds this very xtask, and becomes it.
const L1INIT: &str = "#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
mount -t ext4 -o ro /dev/nvme0n3 /mnt
exec /mnt/xtask l1-init
";

/// Prefers the backported emulator: Debian 12's own is older than the one this project's figures are measured with.
const PINS: &str = "Package: src:qemu:any src:seabios:any
Pin: release n=*-backports
Pin-Priority: 900
";

/// What the build gives.
#[derive(Debug)]
pub(crate) struct Image {
    /// Raw ext4 root disk. Never opened for writing.
    pub(crate) root: PathBuf,
    /// Kernel of the same Debian.
    pub(crate) kernel: PathBuf,
}

/// L1's disk and kernel from the cache, built first when the recipe has changed.
pub(crate) fn ensure() -> Result<Image> {
    // The workspace's binaries are linked against this machine's C library, so L1 runs the same release.
    let suite = match apt::codename()?.as_str() {
        newer @ "trixie" => newer.to_owned(),
        _ => "bookworm".to_owned(),
    };
    let packages = PACKAGES.join(",");
    let recipe = ["3", &suite, &packages, USER, ROOT_SIZE, L1INIT, PINS];
    let dir = cache::entry("l1-image", &cache::key(&recipe), true, |dir| {
        build(dir, &suite, &packages)
    })?;
    Ok(Image {
        root: dir.join("root.img"),
        kernel: dir.join("vmlinuz"),
    })
}

fn build(dir: &Path, suite: &str, packages: &str) -> Result<()> {
    eprintln!("xtask: building the emulated host's disk ({suite}; about a minute, once)");
    let uri = apt::archive()?;
    let mut suites = vec![suite.to_owned(), format!("{suite}-updates")];
    if suite == "bookworm" {
        suites.push(format!("{suite}-backports"));
    }
    fs::write(dir.join("pins"), PINS)?;
    fs::write(dir.join("l1init"), L1INIT)?;
    let mut args: Vec<String> = [
        "--variant=minbase",
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--setup-hook=mkdir -p \"$1/etc/apt/preferences.d\"",
        "--setup-hook=upload pins /etc/apt/preferences.d/xtask",
        &format!("--include={packages}"),
        "--customize-hook=upload l1init /sbin/l1init",
        "--customize-hook=chmod 0755 \"$1/sbin/l1init\"; rm -f \"$1\"/boot/initrd*",
        "--customize-hook=chroot \"$1\" sh -c 'getent group kvm || groupadd --system kvm' >/dev/null",
        &format!("--customize-hook=chroot \"$1\" useradd -m -u 1000 -G kvm -s /bin/bash {USER}"),
        "--customize-hook=rm -f \"$1/etc/resolv.conf\" \"$1/etc/hostname\"",
        "--customize-hook=echo nameserver 192.168.127.3 > \"$1/etc/resolv.conf\"; echo l1 > \"$1/etc/hostname\"; echo '127.0.0.1 localhost l1' > \"$1/etc/hosts\"",
        suite,
        "root.tar",
    ]
    .map(str::to_owned)
    .into();
    args.extend(suites.iter().map(|s| format!("deb {uri} {s} main")));
    apt::mmdebstrap(dir, &args)?;
    // Under `unshare` root is this user and the other owners are its subordinate ids, which is how tar can give the
    // files their owners and mke2fs can record them. It may make no device nodes; L1 has devtmpfs.
    let unpack = format!(
        "set -e; mkdir tree; tar --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*' -xpf root.tar -C tree; \
         cp tree/boot/vmlinuz-* vmlinuz; mke2fs -q -t ext4 -E lazy_itable_init=1 -d tree root.img {ROOT_SIZE}; rm -rf tree root.tar"
    );
    let mut shell = if nix::unistd::geteuid().is_root() {
        Command::new("sh")
    } else {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-auto", "--map-root-user", "--", "sh"]);
        unshare
    };
    sh::run(
        shell.args(["-c", &unpack]).current_dir(dir).stdout(
            fs::File::options()
                .append(true)
                .open(dir.join("build.log"))?,
        ),
    )?;
    Ok(())
}
