//! KVM: the device node, and a real guest.

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use cumulet_vmm::probe::{self, KVM_DEVICE, Unfit};

use super::Check;

const FIRMWARE: &str = "switch on virtualisation (VT-x, AMD-V) in the firmware and run \
    `sudo modprobe kvm-intel` or `sudo modprobe kvm-amd`; in a cloud VM choose a type with nested \
    virtualisation; in a container pass the device in (`--device /dev/kvm`)";

/// The device node: there, a device, and ours to open.
pub(super) fn device() -> Check {
    const NAME: &str = "kvm device";
    let meta = match fs::metadata(KVM_DEVICE) {
        Ok(meta) => meta,
        Err(error) => return Check::fail(NAME, format!("{KVM_DEVICE}: {error}"), FIRMWARE),
    };
    if !meta.file_type().is_char_device() {
        return Check::fail(NAME, format!("{KVM_DEVICE} is not a device"), FIRMWARE);
    }
    let group = nix::unistd::Group::from_gid(meta.gid().into())
        .ok()
        .flatten()
        .map_or_else(|| meta.gid().to_string(), |group| group.name);
    let found = format!(
        "{KVM_DEVICE}, mode {:04o}, group {group}",
        meta.permissions().mode() & 0o7777
    );
    match fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(KVM_DEVICE)
    {
        Ok(_) => Check::ok(NAME, found),
        Err(error) => Check::fail(NAME, format!("{found}: {error}"), permission(&group)),
    }
}

fn permission(group: &str) -> String {
    if group == "root" {
        "make the device belong to group kvm (package udev does) and join it: \
         `sudo usermod -aG kvm \"$USER\"`, then log in again"
            .to_owned()
    } else {
        format!("join its group: `sudo usermod -aG {group} \"$USER\"`, then log in again")
    }
}

/// A small guest that runs what every distribution kernel runs.
pub(super) fn guest() -> Check {
    const NAME: &str = "kvm guest";
    match probe::run() {
        Ok(fitness) => Check::ok(NAME, fitness.to_string()),
        Err(unfit) => {
            let mut found = unfit.to_string();
            let mut cause = unfit.source();
            while let Some(error) = cause {
                found = format!("{found}: {error}");
                cause = error.source();
            }
            Check::fail(NAME, found, mend(&unfit))
        }
    }
}

fn mend(unfit: &Unfit) -> &'static str {
    match unfit {
        Unfit::Absent(_) => FIRMWARE,
        Unfit::Forbidden(_) => {
            "join the device's group: `sudo usermod -aG kvm \"$USER\"`, then log in again"
        }
        Unfit::Busy => "stop the other hypervisor, or unload its module",
        Unfit::Capabilities(_) | Unfit::ApiVersion { .. } => {
            "boot a distribution kernel of 5.10 or later with its own KVM modules"
        }
        Unfit::Instruction { .. } => {
            "use a host with hardware virtualisation (vmx or svm in /proc/cpuinfo); to try cumulet \
             on this one, `cargo xtask host shell` gives an emulated host"
        }
        Unfit::Open { .. } | Unfit::Setup { .. } => {
            "look at `dmesg`; the KVM modules of another kernel or hypervisor may be in the way"
        }
    }
}
