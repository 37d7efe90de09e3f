//! Starting a supervisor.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::SigSet;

use super::protocol::{Report, SUPERVISOR_LOG};
use crate::error::{Context, Result};
use crate::state::record::{State, StateReason};
use crate::state::{Held, Home};

/// A supervisor that we started.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    reports: BufReader<File>,
    leash: Option<OwnedFd>,
}

/// Starts a supervisor for the instance and hands the instance over to it.
///
/// `first`: the instance has never run; if the start fails, the supervisor deletes it. `tied`: the
/// supervisor terminates the instance when the [`Launched`] is dropped or this process ends,
/// however it ends.
///
/// # Errors
/// When the process cannot be started; the instance is then as it was.
pub fn launch(home: &Home, held: &Held, first: bool, tied: bool) -> Result<Launched> {
    let doing = || format!("cannot start the supervisor of {}", held.dir.id());
    let program = env::current_exe().context(doing)?;
    let (reports, status) = pipe().context(doing)?;
    let (leash, hand) = if tied {
        let (leash, hand) = pipe().context(doing)?;
        (Some(leash), Some(hand))
    } else {
        (None, None)
    };
    let log_path = held.dir.file(SUPERVISOR_LOG);
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&log_path)
        .context(|| format!("cannot write {}", log_path.display()))?;

    let mut fds: Vec<RawFd> = vec![held.lock.as_fd().as_raw_fd(), status.as_raw_fd()];
    let mut command = Command::new(program);
    command
        .arg("--home")
        .arg(home.root())
        .arg("__supervise")
        .arg(held.dir.id())
        .args(["--lock-fd", &fds[0].to_string()])
        .args(["--status-fd", &fds[1].to_string()]);
    if first {
        command.arg("--first");
    }
    if let Some(leash) = &leash {
        fds.push(leash.as_raw_fd());
        command.args(["--leash-fd", &leash.as_raw_fd().to_string()]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // SAFETY: between fork and exec only system calls on open descriptors and on the stack are made.
    unsafe { command.pre_exec(move || detach(&fds)) };
    let child = command.spawn().context(doing)?;
    Ok(Launched {
        child,
        reports: BufReader::new(reports.into()),
        leash: hand,
    })
}

/// Starts a supervisor as [`launch`] does, for an instance that outlives us. When that fails, the record says that the
/// instance is stopped, and why.
///
/// # Errors
/// As [`launch`].
pub fn launch_kept(home: &Home, mut held: Held, first: bool) -> Result<Launched> {
    match launch(home, &held, first, false) {
        // The supervisor has the lock now, too; ours, dropped here, must not keep a dead instance alive.
        Ok(launched) => Ok(launched),
        Err(error) => {
            let reason = StateReason::internal(&error.to_string());
            held.enter(State::Stopped, Some(reason))?;
            Err(error)
        }
    }
}

/// A session of its own, so that a terminal's Ctrl-C is ours to interpret; no signal blocked, as
/// we may have some; and the descriptors stay open over exec.
pub(crate) fn detach(fds: &[RawFd]) -> io::Result<()> {
    nix::unistd::setsid()?;
    SigSet::empty().thread_set_mask()?;
    for fd in fds {
        // SAFETY: clearing FD_CLOEXEC touches no memory; a bad descriptor is an error.
        if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// (reading end, writing end), both closed on exec.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader.into(), writer.into()))
}

impl Launched {
    /// The next report; `None` when the supervisor has ended. Blocks.
    pub fn report(&mut self) -> Option<Report> {
        loop {
            let mut line = String::new();
            match self.reports.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            if let Ok(report) = serde_json::from_str(&line) {
                return Some(report);
            }
        }
    }

    /// Tells the supervisor to terminate the instance, if it is tied to us.
    pub fn let_go(&mut self) {
        self.leash = None;
    }

    /// Takes the leash away from us, so that another owner decides.
    pub fn take_leash(&mut self) -> Option<OwnedFd> {
        self.leash.take()
    }

    /// Waits until the supervisor process has ended.
    pub fn wait(&mut self) {
        let _ = self.child.wait();
    }
}
