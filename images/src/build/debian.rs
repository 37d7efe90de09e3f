//! The recipe of the Debian AMI: stock packages, stock kernel, stock cloud-init.
//!
//! What differs from an installation by hand is what an AMI needs (no identity of its own, the user
//! `ec2-user`, DHCP) and what shortens its boot without taking anything a user would miss.

use super::{Extra, Recipe};

/// Debian's own mirrors, which the guest uses whatever mirror it was built from.
const GUEST_SOURCES: &str = "deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
";

const PACKAGES: [&str; 26] = [
    "acpid",
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "curl",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "isc-dhcp-client",
    "kmod",
    "less",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "tzdata",
    "udev",
    "vim-tiny",
    "zstd",
];

/// The disks which a virtual machine of ours, or QEMU, offers. Before the kernel is configured.
const INITRAMFS_MODULES: &str = "virtio_pci
virtio_blk
virtio_mmio
virtio_scsi
virtio_net
nvme
ext4
";

/// cloud-init: EC2 only, the user, and no modules that do nothing on Debian in EC2 (other
/// distributions' package systems, configuration managers that are not installed).
const CLOUD_CFG: &str = "# Where the instance is told what to do; see also 05_logging.cfg.
datasource_list: [ Ec2, None ]
disable_root: true
ssh_pwauth: false
ssh_genkeytypes: [ ed25519 ]
system_info:
  default_user:
    name: ec2-user
    gecos: EC2 user
    lock_passwd: true
    groups: [ adm, sudo ]
    sudo: [ \"ALL=(ALL) NOPASSWD:ALL\" ]
    shell: /bin/bash
  network:
    renderers: [ networkd ]
growpart:
  mode: auto
  devices: [ / ]
cloud_init_modules:
  - seed_random
  - bootcmd
  - write-files
  - growpart
  - resizefs
  - disk_setup
  - mounts
  - set_hostname
  - update_hostname
  - update_etc_hosts
  - ca-certs
  - users-groups
  - ssh
cloud_config_modules:
  - ssh-import-id
  - set-passwords
  - apt-configure
  - ntp
  - timezone
  - runcmd
cloud_final_modules:
  - package-update-upgrade-install
  - write-files-deferred
  - scripts-vendor
  - scripts-per-once
  - scripts-per-boot
  - scripts-per-instance
  - scripts-user
  - ssh-authkey-fingerprints
  - phone-home
  - final-message
  - power-state-change
";

/// The links that Debian keeps at its newest kernel; a kernel upgrade needs no change here.
const GRUB_CFG: &str = "# Read by cumulet and by GRUB alike.
set default=0
set timeout=0
search --no-floppy --label --set=root root
menuentry 'Debian GNU/Linux' --id debian {
	linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200n8 quiet cryptomgr.notests
	initrd /initrd.img
}
";

const FSTAB: &str = "LABEL=root / ext4 rw,discard,errors=remount-ro 0 1\n";

/// Timers and services that would only take the first minutes of a short life.
const MASKED: [&str; 7] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "man-db.timer",
    "dpkg-db-backup.timer",
];

/// In the finished tree, as root: what must not be the same in two instances goes.
const FINISH: &str = "systemctl enable systemd-networkd.service systemd-resolved.service
passwd --lock root
rm -f /etc/hostname /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: > /etc/machine-id
printf '127.0.0.1 localhost\\n::1 localhost ip6-localhost ip6-loopback\\n' > /etc/hosts
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
rm -rf /var/log/*.log /var/log/apt /var/cache/debconf/*-old /var/lib/dpkg/*-old
test -e /vmlinuz && test -e /initrd.img
";

/// The recipe for this machine's architecture.
pub(super) fn debian_12(architecture: &'static str) -> Recipe {
    let mut files = vec![
        ("etc/apt/sources.list", GUEST_SOURCES.to_owned()),
        ("etc/cloud/cloud.cfg.d/10_ec2.cfg", CLOUD_CFG.to_owned()),
        ("etc/fstab", FSTAB.to_owned()),
        (
            "etc/initramfs-tools/conf.d/virtual",
            "MODULES=list\nCOMPRESS=zstd\n".to_owned(),
        ),
        ("etc/initramfs-tools/modules", INITRAMFS_MODULES.to_owned()),
        (
            "etc/ssh/sshd_config.d/10-ec2.conf",
            "PermitRootLogin no\nPasswordAuthentication no\n".to_owned(),
        ),
        ("boot/grub/grub.cfg", GRUB_CFG.to_owned()),
    ];
    files.sort();
    let mut packages: Vec<String> = PACKAGES.iter().map(|&p| p.to_owned()).collect();
    packages.push(format!("linux-image-cloud-{architecture}"));
    Recipe {
        name: "debian-12",
        description: "Debian 12 (bookworm), cloud kernel, cloud-init",
        suite: "bookworm",
        architecture,
        packages,
        files: files
            .into_iter()
            .map(|(path, text)| Extra {
                path: path.into(),
                text,
            })
            .collect(),
        masked: MASKED.iter().map(|&unit| unit.to_owned()).collect(),
        finish: FINISH.into(),
    }
}
