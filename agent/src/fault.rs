//! Named points at which a test ends this process as `kill -9` or a lost host would, or makes it panic.
//!
//! Only with the feature `fault-injection`. Nothing that users run is built with it: without it, all of this is nothing.
//!
//! | variable | does |
//! |---|---|
//! | `CUMULET_FAULT=NAME[:NTH]` | the process kills itself (SIGKILL) when it comes to this point the `NTH` time; 1 unless said |
//! | `CUMULET_FAULT=panic@NAME[:NTH]` | it panics there |
//! | `CUMULET_FAULT_SHOWN=MILLISECONDS` | terminated instances are shown so long, not an hour |

use std::time::Duration;

use crate::state::record::State;

/// A point: `CUMULET_FAULT` may end the process here. Its name is one of `POINTS`.
#[inline]
pub fn point(name: &'static str) {
    #[cfg(feature = "fault-injection")]
    armed::reached(name);
    #[cfg(not(feature = "fault-injection"))]
    let _ = name;
}

/// The point `entered.STATE`: an instance is committed to be in this state, and nobody has been told yet.
#[inline]
pub fn entered(state: State) {
    point(match state {
        State::Pending => "entered.pending",
        State::Running => "entered.running",
        State::Stopping => "entered.stopping",
        State::Stopped => "entered.stopped",
        State::ShuttingDown => "entered.shutting-down",
        State::Terminated => "entered.terminated",
    });
}

/// How long terminated instances are shown: what is usual, unless a test says otherwise.
#[inline]
#[must_use]
pub fn shown(usual: Duration) -> Duration {
    #[cfg(feature = "fault-injection")]
    if let Some(other) = armed::shown() {
        return other;
    }
    usual
}

#[cfg(feature = "fault-injection")]
pub use armed::{ANY_BACKEND, KVM};

#[cfg(feature = "fault-injection")]
mod armed {
    use std::env;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};

    /// The points that a life over any backend comes by.
    pub const ANY_BACKEND: &[&str] = &[
        // A file was written and not yet given its name.
        "file.written",
        // The database has its table and not yet its form.
        "database.made",
        // A handler has changed the tables in memory; the lock is held.
        "change.made",
        // Around the transaction.
        "commit.begun",
        "commit.written",
        "commit.done",
        // Committed, and nobody has been told.
        "entered.pending",
        "entered.running",
        "entered.stopping",
        "entered.stopped",
        "entered.shutting-down",
        "entered.terminated",
        "reboot.committed",
        // The answer is made and not sent.
        "request.served",
        // Around what the backend does.
        "start.before",
        "start.after",
        "stop.before",
        "stop.after",
        "reboot.before",
        "reboot.after",
        "terminate.before",
        "terminate.after",
        // The engine has woken every instance.
        "engine.woken",
        // Instances that were shown long enough are out of the records.
        "engine.forgotten",
    ];

    /// The points that only real machines come by.
    pub const KVM: &[&str] = &[
        // The root volume is a clone of the AMI's disk.
        "volume.made",
        // The instance's folder is whole and committed.
        "machine.made",
        // The router knows its networks.
        "machine.plugged",
        // Its supervisor runs.
        "supervisor.started",
        // The machine has ended and its volumes that stay are not yet moved.
        "machine.ended",
        // They are moved and the folder is still there.
        "volumes.kept",
    ];

    /// What `CUMULET_FAULT` says.
    struct Fault {
        name: String,
        left: AtomicU64,
        panic: bool,
    }

    impl Fault {
        fn read(text: &str) -> Self {
            let (panic, rest) = match text.strip_prefix("panic@") {
                Some(rest) => (true, rest),
                None => (false, text),
            };
            let (name, nth) = rest.split_once(':').unwrap_or((rest, "1"));
            let nth: u64 = nth.parse().unwrap_or(0);
            if nth == 0 || !(ANY_BACKEND.contains(&name) || KVM.contains(&name)) {
                eprintln!("CUMULET_FAULT={text}: this is no [panic@]POINT[:NTH]");
                std::process::exit(2);
            }
            Self {
                name: name.to_owned(),
                left: AtomicU64::new(nth),
                panic,
            }
        }
    }

    pub(super) fn reached(name: &'static str) {
        static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
        debug_assert!(
            ANY_BACKEND.contains(&name) || KVM.contains(&name),
            "{name} is not listed"
        );
        let fault = FAULT.get_or_init(|| Some(Fault::read(&env::var("CUMULET_FAULT").ok()?)));
        let Some(fault) = fault.as_ref().filter(|fault| fault.name == name) else {
            return;
        };
        if fault.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        assert!(!fault.panic, "CUMULET_FAULT wants a panic at {name}");
        // Nothing after this point may happen, whether or not the signal came at once.
        let _ = raise(Signal::SIGKILL);
        std::process::abort();
    }

    pub(super) fn shown() -> Option<Duration> {
        let text = env::var("CUMULET_FAULT_SHOWN").ok()?;
        text.parse().ok().map(Duration::from_millis)
    }
}
