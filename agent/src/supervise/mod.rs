//! The process that owns one running instance.
//!
//! ```text
//!  cumulet run ──spawns──► cumulet __supervise ──spawns──► cumulet-vmm ──KVM──► guest
//!       │  ▲                 │ network namespace, DHCP, DNS,    ▲
//!       │  └──── reports ────┤ metadata, published ports        │
//!       └─leash──────────────► (no --keep: the pipe's end       │ control socket, events
//!  cumulet ssh, stop, … ─────► supervisor.sock      ends all)───┘
//! ```
//!
//! Supervisor and VMM share the instance's lock: while it is held, the instance is alive. The VMM
//! dies with the supervisor. `docs/lifecycle.md` tells what happens when which of them is killed.

mod client;
mod console;
mod launch;
mod life;
mod machine;
mod network;
pub mod protocol;
mod requests;
mod view;
mod vmm;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

pub use client::{ask, dial, wait_until_free};
pub use console::{log_tail, tail_lines};
pub(crate) use launch::detach;
pub use launch::{Launched, launch, launch_kept};
pub(crate) use network::translate;
pub(crate) use view::of as view_of;
pub use vmm::find_vmm;

use crate::error::{Context, Error, Result};
use crate::state::record::{Record, State, StateReason};
use crate::state::{Held, Home, Listed, OwnerLock};
use life::Life;
use protocol::Report;

/// `cumulet __supervise`.
#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// Instance id
    pub instance: String,
    /// Inherited lock of the instance
    #[arg(long)]
    pub lock_fd: RawFd,
    /// Inherited pipe on which progress is told
    #[arg(long)]
    pub status_fd: RawFd,
    /// This is the instance's first start: if it fails, nothing of it is left
    #[arg(long)]
    pub first: bool,
    /// Inherited pipe whose end means that the command which wants the instance has ended
    #[arg(long)]
    pub leash_fd: Option<RawFd>,
}

/// The pipe to the command that started us. That it may be gone is no concern of ours.
#[derive(Debug)]
struct Reporter(File);

impl Reporter {
    fn tell(&mut self, report: &Report) {
        let Ok(mut line) = serde_json::to_vec(report) else {
            return;
        };
        line.push(b'\n');
        let _ = self.0.write_all(&line);
    }

    fn phase(&mut self, what: &str) {
        self.tell(&Report::Phase {
            what: what.to_owned(),
        });
    }
}

/// Takes over a descriptor that the parent left open for us.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the parent names descriptors it opened for this purpose alone; the fcntl below fails
    // if it is not open, and nothing else in this process uses it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(owned)
}

/// Runs an instance from start to end. Called by [`launch`] in a process of its own.
///
/// # Errors
/// When the process was not started as [`launch`] does it. All other failures go to the pipe and
/// into the record.
pub fn main(home: Option<&Path>, args: &SuperviseArgs) -> Result<u8> {
    let bad = || "`cumulet __supervise` is started by `cumulet run` and `cumulet start`";
    let lock = OwnerLock::adopt(args.lock_fd).context(bad)?;
    let status = inherited(args.status_fd).context(bad)?;
    let leash = args.leash_fd.map(inherited).transpose().context(bad)?;
    let mut reporter = Reporter(status.into());
    init_log();
    std::env::set_current_dir("/").context(|| "cannot leave the working folder")?;
    let home = Home::open(home)?;
    let mut held = Held::adopt(home.instance(&args.instance)?, lock)?;
    held.lock.sign("cumulet, running the instance");
    let ended = match prepare(&home, held, &mut reporter, leash) {
        Ok((runtime, life)) => runtime.block_on(life.live(reporter, args.first)),
        Err(failed) => {
            let (held, error) = *failed;
            let report = settle_failure(&home, held, error, args.first);
            reporter.tell(&report);
            report
        }
    };
    Ok(match ended {
        Report::Ended { error: None, .. } => 0,
        Report::Ended {
            error: Some(error), ..
        } => error.kind.exit_status(),
        _ => 1,
    })
}

pub(crate) fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CUMULET_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber would be a bug elsewhere; logging is not worth failing for.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(io::stderr)
        .try_init();
}

/// Everything up to the point where the instance's life begins. Gives the instance back when it
/// fails, so that its record can be settled.
fn prepare(
    home: &Home,
    held: Held,
    reporter: &mut Reporter,
    leash: Option<OwnedFd>,
) -> Result<(tokio::runtime::Runtime, Life), Box<(Held, Error)>> {
    reporter.phase("making the network");
    let left = match network::leave_host(home, &held.record) {
        Ok(left) => left,
        Err(error) => return Err(Box::new((held, error))),
    };
    // One thread: the VMM is tied to the life of the thread that starts it.
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start the supervisor");
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => return Err(Box::new((held, error))),
    };
    let started = runtime.block_on(async {
        let net = Arc::new(left.start(home, &held.record).await?);
        let inbox = requests::listen(&held, Arc::clone(&net))?;
        Ok((net, inbox))
    });
    match started {
        Ok((net, inbox)) => {
            let life = Life::new(home.clone(), held, net, inbox, leash);
            Ok((runtime, life))
        }
        Err(error) => Err(Box::new((held, error))),
    }
}

/// The record of an instance that could not be started, or that broke.
fn settle_failure(home: &Home, mut held: Held, error: Error, first: bool) -> Report {
    let why = error.to_string();
    let console = tail_lines(&held.dir, 15);
    let state = if first || vanishes(&held.record) {
        if let Err(error) = held.delete(home) {
            tracing::error!(%error, "cannot delete the instance");
        }
        State::Terminated
    } else {
        let reason = StateReason::internal(&why);
        if let Err(error) = held.enter(State::Stopped, Some(reason)) {
            tracing::error!(%error, "cannot write the record");
        }
        State::Stopped
    };
    Report::Ended {
        state,
        why,
        error: Some(error),
        console,
        trace: None,
    }
}

/// Whether an instance that ends now is deleted.
fn vanishes(record: &Record) -> bool {
    !record.keep || record.state == State::ShuttingDown
}

/// Processes that are in the network of a VPC, with its id: the supervisors of the agent's running instances.
///
/// # Errors
/// When the state folder cannot be read.
pub(crate) fn in_vpcs(home: &Home) -> Result<Vec<(String, i32)>> {
    let own = fs::metadata("/proc/self/ns/net").context(|| "cannot look at our own network")?;
    let mut found = Vec::new();
    for listed in home.list()? {
        let Listed::Good {
            record,
            holder: Some(holder),
        } = listed
        else {
            continue;
        };
        let (Some(place), Some(pid)) = (record.place, holder.pid()) else {
            continue;
        };
        // Whoever starts an instance holds it, too, for a moment, and is in the host's network.
        let theirs = fs::metadata(format!("/proc/{pid}/ns/net"));
        if theirs.is_ok_and(|theirs| (theirs.dev(), theirs.ino()) != (own.dev(), own.ino())) {
            found.push((place.vpc_id, pid));
        }
    }
    Ok(found)
}
