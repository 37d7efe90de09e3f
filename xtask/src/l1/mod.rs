//! The emulated x86_64 KVM host, called L1: an unmodified Debian in QEMU's TCG with nested SVM, for machines whose own
//! KVM cannot run guests. See docs/emulated-host.md.
//!
//! Who is who: `client` (in `cargo xtask host …`) asks the `owner` (one background process per L1, which runs QEMU
//! and ends it when idle) for a lease, then speaks `proto` to the `agent` inside L1.

pub(crate) mod agent;
pub(crate) mod client;
mod emulator;
mod exec;
mod files;
pub(crate) mod forward;
mod image;
pub(crate) mod init;
pub(crate) mod owner;
pub(crate) mod proto;
mod qemu;

use anyhow::Result;
use std::path::PathBuf;

/// Memory of a large L1, in MiB.
pub(crate) const LARGE_MIB: u32 = 6144;

/// What kind of L1, and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flavour {
    /// Which of this workspace's L1s: each name has its own machine.
    pub(crate) name: String,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// L1's CPUs, each a thread. With more than one a nested guest is lost now and then (docs/emulated-host.md).
    pub(crate) cpus: u32,
    /// Count instructions instead of time: one CPU, one thread, repeatable to 0.2 % (for benchmarks).
    pub(crate) icount: bool,
    /// Seconds without a client after which the L1 ends.
    pub(crate) idle_seconds: u64,
    /// Raw disk images that L1 sees as /dev/nvme0n4 and on; writes to them are dropped when L1 ends.
    pub(crate) disks: Vec<PathBuf>,
}

impl Flavour {
    /// A large L1 of its own for tests or the demo, which ends soon after its last use.
    pub(crate) fn large(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            memory_mib: LARGE_MIB,
            cpus: 1,
            icount: false,
            idle_seconds: 300,
            disks: Vec::new(),
        }
    }
}

/// The folder of this workspace's L1 of that name: socket, console log, owner's log.
pub(crate) fn run_dir(name: &str) -> Result<PathBuf> {
    let workspace = crate::workspace::root()?;
    let key = crate::cache::key(&[workspace.as_os_str().as_encoded_bytes()]);
    Ok(crate::cache::root()?
        .join("run")
        .join(format!("{name}-{key}")))
}

/// The last lines of a text file, for error messages.
pub(crate) fn tail(path: &std::path::Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
