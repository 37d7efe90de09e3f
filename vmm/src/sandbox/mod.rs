//! What this process gives up once everything it needs is open, so that a bug in a device model is
//! not a compromise of the host.
//!
//! ```text
//! open resources ─► give_up_privileges ─┬─► build machine ─► vCPU threads: their own filter
//!                   (limits,             │                   main thread: its filter
//!                    capabilities,       │                       │
//!                    no new privileges,  │                       ▼
//!                    landlock)           │                   run the guest
//!                                        └─► loader thread: the main thread's filter
//!                                                                │
//!                                                                ▼
//!                                            read the (untrusted) image, end
//! ```

mod filter;
mod report;
mod rules;

use std::io;
use std::sync::Arc;

pub use filter::{Filter, FilterError};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};

/// Open files at most; every vector of every device is one.
const MAX_FILES: u64 = 4096;

/// Why the process cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A system call.
    #[error("sandbox: cannot {what} (--no-sandbox does without, for debugging only)")]
    System {
        /// What was asked.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Landlock.
    #[error("sandbox: landlock refused its rules")]
    Landlock(#[from] landlock::RulesetError),
    /// A filter that cannot be built or installed.
    #[error("sandbox: no seccomp filter (--no-sandbox does without, for debugging only)")]
    Seccomp(#[from] FilterError),
}

fn check(result: i32, what: &'static str) -> Result<(), SandboxError> {
    if result == 0 {
        Ok(())
    } else {
        Err(SandboxError::System {
            what,
            source: io::Error::last_os_error(),
        })
    }
}

/// The filters, compiled once.
pub struct Sandbox {
    main: Arc<Filter>,
    vcpu: Arc<Filter>,
}

impl Sandbox {
    /// Compiles the filters and installs the reporter of violations.
    ///
    /// # Errors
    /// When a filter is not valid.
    pub fn new() -> Result<Self, SandboxError> {
        report::install()?;
        Ok(Self {
            main: Arc::new(rules::main_thread()?),
            vcpu: Arc::new(rules::vcpu_thread()?),
        })
    }

    /// For vCPU threads.
    #[must_use]
    pub fn vcpu(&self) -> &Arc<Filter> {
        &self.vcpu
    }

    /// For the main thread and the one that loads the first kernel. No file can be opened, no
    /// thread or process made after it.
    #[must_use]
    pub fn main(&self) -> &Arc<Filter> {
        &self.main
    }
}

/// Drops all that the process does not need beyond its open descriptors. Threads made later
/// inherit it.
///
/// # Errors
/// When the kernel refuses something it should not.
pub fn give_up_privileges() -> Result<(), SandboxError> {
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_NOFILE, MAX_FILES)?;
    drop_capabilities()?;
    // SAFETY: sets a flag of this process.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    check(done, "renounce new privileges")?;
    landlock_everything()
}

/// Lowers a limit; never raises it.
fn limit(resource: libc::__rlimit_resource_t, value: u64) -> Result<(), SandboxError> {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: fills the structure.
    let done = unsafe { libc::getrlimit(resource, &raw mut old) };
    check(done, "read a limit")?;
    let new = libc::rlimit {
        rlim_cur: value.min(old.rlim_max),
        rlim_max: value.min(old.rlim_max),
    };
    // SAFETY: reads the structure.
    let done = unsafe { libc::setrlimit(resource, &raw const new) };
    check(done, "set a limit")
}

/// Version 3 of the capability interface: two words of 32 bits each.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Leaves root without root's powers. Does nothing for others, who have none.
fn drop_capabilities() -> Result<(), SandboxError> {
    // The bounding set can be lowered only while CAP_SETPCAP is there.
    for capability in 0..64 {
        // SAFETY: changes this process's credentials only.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if done != 0 {
            // Not root, or beyond the last capability.
            break;
        }
    }
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let none = [CapabilityWords {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: both structures have the layout of capset(2) and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const none) };
    check(i32::from(done != 0), "drop capabilities")
}

/// Allows no file system access and no TCP by name or address; open descriptors go on working.
/// Kernels without landlock (before 5.13) or with less of it do what they can.
fn landlock_everything() -> Result<(), SandboxError> {
    let abi = ABI::V6;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(())
}
