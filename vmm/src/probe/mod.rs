//! Can this host's KVM run unmodified kernels? Found out by doing, not by asking.
//!
//! "Can open /dev/kvm" says little: there are KVM modules (software ones, in clouds and
//! containers) that open, take memory slots and run toy guests, and then fail on the first
//! instruction of a real kernel that their emulator does not know. So [`run`] starts a tiny guest
//! that executes instructions every distribution kernel uses, and reports which one failed.

mod payload;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use kvm_ioctls::{Cap, Kvm};
use serde::Serialize;

pub use payload::Stage;

/// The device that KVM is reached through.
pub const KVM_DEVICE: &str = "/dev/kvm";

/// What a machine of ours needs from KVM.
const REQUIRED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    #[cfg(target_arch = "x86_64")]
    (Cap::Pit2, "KVM_CAP_PIT2"),
    #[cfg(target_arch = "x86_64")]
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    #[cfg(target_arch = "x86_64")]
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    #[cfg(target_arch = "x86_64")]
    (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
];

/// Why guests cannot run here. The message says what is wrong and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// There is no such device.
    #[error(
        "{path} does not exist: KVM is not loaded. Switch on virtualisation (VT-x, AMD-V) in the \
         firmware and run `modprobe kvm-intel` or `modprobe kvm-amd`; in a cloud VM ask for \
         nested virtualisation",
        path = .0.display()
    )]
    Absent(PathBuf),
    /// We may not open it.
    #[error(
        "no permission to open {path}: add yourself to the group that owns it \
         (`sudo usermod -aG kvm \"$USER\"`, then log in again)",
        path = .0.display()
    )]
    Forbidden(PathBuf),
    /// It cannot be opened for another reason.
    #[error("cannot open {path}", path = .path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It opens and is not KVM, or is a KVM from before 2007.
    #[error("{path} speaks KVM API version {version}, not 12", path = .path.display())]
    ApiVersion {
        /// The device.
        path: PathBuf,
        /// What it said.
        version: i32,
    },
    /// Something every machine needs is not offered.
    #[error("this kernel's KVM lacks {}: use a distribution kernel of 5.10 or later", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    /// Another hypervisor holds the processor's virtualisation.
    #[error(
        "KVM cannot make a virtual machine because something else uses the processor's \
         virtualisation (VirtualBox, VMware?): stop it"
    )]
    Busy,
    /// An ioctl failed while the test guest was made.
    #[error("KVM refused to {action}")]
    Setup {
        /// What was asked.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The test guest could not execute what real kernels execute.
    #[error(
        "this KVM cannot run real kernels: the test guest failed at {stage} ({detail}). It is a \
         software KVM or an incomplete nested one: use a host with VT-x, AMD-V or EL2, or nested \
         virtualisation switched on"
    )]
    Instruction {
        /// The first thing that did not work.
        stage: Stage,
        /// How KVM ended the guest.
        detail: String,
    },
}

impl Unfit {
    /// A stable word for programs: `absent`, `forbidden`, `instruction`, …
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Absent(_) => "absent",
            Self::Forbidden(_) => "forbidden",
            Self::Open { .. } => "open",
            Self::ApiVersion { .. } => "api_version",
            Self::Capabilities(_) => "capabilities",
            Self::Busy => "busy",
            Self::Setup { .. } => "setup",
            Self::Instruction { .. } => "instruction",
        }
    }
}

/// What a fit KVM offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fitness {
    /// Most vCPUs that one machine may have.
    pub max_vcpus: usize,
    /// Which instructions the test guest executed, in order.
    pub passed: Vec<Stage>,
}

impl fmt::Display for Fitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a test guest ran; up to {} vCPUs a machine",
            self.max_vcpus
        )
    }
}

/// Probes `/dev/kvm` by running a guest. Takes a few milliseconds.
///
/// # Errors
/// The reason why guests cannot run, worded for a person.
pub fn run() -> Result<Fitness, Unfit> {
    run_on(Path::new(KVM_DEVICE))
}

/// Probes another device node.
///
/// # Errors
/// As [`run`].
pub fn run_on(device: &Path) -> Result<Fitness, Unfit> {
    let kvm = open(device)?;
    let missing: Vec<_> = REQUIRED
        .iter()
        .filter(|(cap, _)| !kvm.check_extension(*cap))
        .map(|(_, n)| *n)
        .collect();
    if !missing.is_empty() {
        return Err(Unfit::Capabilities(missing));
    }
    let passed = payload::run(&kvm)?;
    Ok(Fitness {
        max_vcpus: kvm.get_max_vcpus(),
        passed,
    })
}

/// Opens a device node and makes sure that it is KVM's.
pub(crate) fn open(device: &Path) -> Result<Kvm, Unfit> {
    use std::os::unix::ffi::OsStrExt;
    let fault = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Unfit::Absent(device.to_path_buf()),
        io::ErrorKind::PermissionDenied => Unfit::Forbidden(device.to_path_buf()),
        // ENXIO, ENODEV: a node whose module is not loaded.
        _ if matches!(source.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => {
            Unfit::Absent(device.to_path_buf())
        }
        _ => Unfit::Open {
            path: device.to_path_buf(),
            source,
        },
    };
    let path = std::ffi::CString::new(device.as_os_str().as_bytes())
        .map_err(|_| fault(io::ErrorKind::InvalidInput.into()))?;
    let kvm = Kvm::new_with_path(path).map_err(|e| fault(e.into()))?;
    match kvm.get_api_version() {
        12 => Ok(kvm),
        version => Err(Unfit::ApiVersion {
            path: device.to_path_buf(),
            version,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_says_how_to_load_kvm() {
        let unfit = run_on(Path::new("/nonexistent/kvm")).unwrap_err();
        assert_eq!(unfit.kind(), "absent");
        assert!(unfit.to_string().contains("modprobe"), "{unfit}");
    }

    #[test]
    fn a_device_that_is_not_kvm_is_refused() {
        let unfit = run_on(Path::new("/dev/null")).unwrap_err();
        assert_eq!(unfit.kind(), "api_version", "{unfit}");
    }

    #[test]
    fn stages_are_named_in_the_verdict() {
        let unfit = Unfit::Instruction {
            stage: Stage::Xrstor,
            detail: "internal error".into(),
        };
        assert!(unfit.to_string().contains("xrstor"), "{unfit}");
    }
}
