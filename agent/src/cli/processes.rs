//! The processes of a running instance, as the kernel tells them.

use std::fs;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::state::{InstanceDir, connect_socket};
use crate::supervise::protocol::SOCKET;

/// Name of the VMM's process.
const VMM: &str = "cumulet-vmm";

/// Process ids.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// The process that owns the instance.
    pub(super) supervisor: Option<i32>,
    /// Its child that runs the guest.
    pub(super) vmm: Option<i32>,
}

impl Processes {
    /// Finds them. One that is just starting or ending may be missing.
    pub(super) fn of(dir: &InstanceDir) -> Self {
        // A socket's peer is whoever listens on it: no file that could be stale is believed.
        let supervisor = connect_socket(dir.path(), SOCKET)
            .ok()
            .and_then(|stream| getsockopt(&stream, PeerCredentials).ok())
            .map(|peer| peer.pid());
        Self {
            supervisor,
            vmm: supervisor.and_then(child),
        }
    }
}

/// The VMM among the children of a process.
fn child(parent: i32) -> Option<i32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, of) = name_and_parent(&stat)?;
        (of == parent && name == VMM).then_some(pid)
    })
}

/// From `PID (NAME) STATE PARENT …` (proc_pid_stat(5)); a name may itself hold parentheses and spaces.
fn name_and_parent(stat: &str) -> Option<(&str, i32)> {
    let (front, rest) = stat.rsplit_once(") ")?;
    let (_, name) = front.split_once(" (")?;
    let parent = rest.split(' ').nth(1)?.parse().ok()?;
    Some((name, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_nasty() {
        assert_eq!(name_and_parent("12 (a) b) S 7 12 0"), Some(("a) b", 7)));
        assert_eq!(name_and_parent("12 (cumulet-vmm) S 7 1"), Some((VMM, 7)));
        assert_eq!(name_and_parent("12 (x"), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, parent) = name_and_parent(&own).unwrap();
        assert_eq!(parent, nix::unistd::getppid().as_raw());
    }
}
