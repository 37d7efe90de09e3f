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
        Err(unfit) => Check::fail(NAME, found(&unfit), mend(&unfit)),
    }
}

/// What is wrong, without the mend that the probe's own message holds.
fn found(unfit: &Unfit) -> String {
    match unfit {
        Unfit::Absent(path) => format!("{} does not exist: KVM is not loaded", path.display()),
        Unfit::Forbidden(path) => format!("no permission to open {}", path.display()),
        Unfit::Busy => "something else uses the processor's virtualisation".to_owned(),
        Unfit::Capabilities(missing) => format!("this KVM lacks {}", missing.join(", ")),
        Unfit::Instruction { stage, detail } => format!(
            "the test guest failed at {stage} ({detail}): a software KVM, or an incomplete nested one"
        ),
        Unfit::ApiVersion { .. } | Unfit::Open { .. } | Unfit::Setup { .. } => {
            let mut text = unfit.to_string();
            let mut cause = unfit.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
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
            "use a host with VT-x, AMD-V or EL2 (vmx or svm in /proc/cpuinfo), or switch nested \
             virtualisation on; to try cumulet on this one, `cargo xtask host shell` gives an \
             emulated host"
        }
        Unfit::Open { .. } | Unfit::Setup { .. } => {
            "look at `dmesg`; the KVM modules of another kernel or hypervisor may be in the way"
        }
    }
}
