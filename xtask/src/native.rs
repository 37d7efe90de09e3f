//! Running a command on this machine: its output piece by piece, killed when it is overdue, and nothing of it left behind.
//!
//! There is no cgroup for an ordinary user. Instead, what a command leaves behind becomes a child of this process
//! (`PR_SET_CHILD_SUBREAPER`), and an environment variable tells whose it was.

use crate::l1::client::{Overdue, Stream};
use crate::l1::proto::Exit;
use crate::sh;
use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Tells the processes of one command from those of another.
const MARK: &str = "CUMULET_XTASK_COMMAND";
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Runs the command in a process group of its own. With `reap`, what it leaves running is named and killed.
pub(crate) fn run(
    mut command: Command,
    reap: bool,
    guard: Duration,
    mut take: impl FnMut(Stream, &[u8]) -> Result<()>,
) -> Result<Exit> {
    let family = Family::new()?;
    command
        .env(MARK, &family.mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", sh::show(&command)))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, pieces) = mpsc::channel();
    let out: OwnedFd = child.stdout.take().context("no standard output")?.into();
    let err: OwnedFd = child.stderr.take().context("no standard error")?.into();
    for (stream, from) in [(Stream::Out, out), (Stream::Err, err)] {
        let sender = sender.clone();
        std::thread::spawn(move || forward(stream, from.into(), &sender));
    }
    drop(sender);
    let started = Instant::now();
    // A process left behind may hold the output open, so the end of the output is not waited for.
    let status = loop {
        match pieces.recv_timeout(Duration::from_millis(100)) {
            Ok((stream, bytes)) => take(stream, &bytes)?,
            Err(RecvTimeoutError::Disconnected) => break child.wait()?,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
            }
        }
        if started.elapsed() > guard {
            family.kill(pid);
            child.wait()?;
            return Err(Overdue(guard).into());
        }
    };
    let mut leftovers = Vec::new();
    if reap {
        // What is just ending is no leftover.
        for _ in 0..50 {
            leftovers = family.members();
            if leftovers.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        family.kill(pid);
    }
    while let Ok((stream, bytes)) = pieces.recv_timeout(Duration::from_millis(100)) {
        take(stream, &bytes)?;
    }
    Ok(Exit {
        code: status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        leftovers: leftovers.into_iter().map(|process| process.line).collect(),
    })
}

fn forward(stream: Stream, mut from: File, to: &Sender<(Stream, Vec<u8>)>) {
    let mut buffer = [0; 32 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.send((stream, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

/// A command and everything it started.
struct Family {
    mark: String,
}

/// A running process.
struct Member {
    pid: Pid,
    line: String,
}

impl Family {
    fn new() -> Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)
            .context("cannot adopt what commands leave behind")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            mark: format!("{}-{number}", std::process::id()),
        })
    }

    /// Those that run. A process that hides its environment (another user's) counts as one of ours when it descends from
    /// us at all.
    fn members(&self) -> Vec<Member> {
        let parents = parents();
        let own = Pid::this();
        let descends = |pid: Pid| {
            let line = std::iter::successors(Some(pid), |pid| parents.get(pid).copied());
            line.skip(1).take(parents.len()).any(|pid| pid == own)
        };
        let wanted = format!("{MARK}={}\0", self.mark).into_bytes();
        let of_ours = |pid: Pid| match fs::read(format!("/proc/{pid}/environ")) {
            Ok(environ) => environ.windows(wanted.len()).any(|window| window == wanted),
            Err(_) => true,
        };
        parents
            .keys()
            .filter(|pid| descends(**pid) && of_ours(**pid))
            .filter_map(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                // Empty for the dead that nobody has collected yet.
                (!line.is_empty()).then(|| Member {
                    pid: *pid,
                    line: line.trim_end().to_owned(),
                })
            })
            .collect()
    }

    /// Kills them all, those they start meanwhile too. The command itself is left to be waited for.
    fn kill(&self, command: Pid) {
        for _ in 0..100 {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            for member in &members {
                // Fails when it has just ended.
                let _ = kill(member.pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
            for member in members.iter().filter(|member| member.pid != command) {
                // Fails for those that are not our own children (yet).
                let _ = waitpid(member.pid, Some(WaitPidFlag::WNOHANG));
            }
        }
    }
}

/// The parent of every process.
fn parents() -> HashMap<Pid, Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read(entry.path().join("stat")).ok()?;
            // `PID (NAME) STATE PARENT …`; a name may hold anything.
            let stat = String::from_utf8_lossy(&stat).into_owned();
            let parent: i32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((Pid::from_raw(pid), Pid::from_raw(parent)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn output_and_status_come_back() {
        let mut seen = Vec::new();
        let take = |stream, bytes: &[u8]| {
            seen.push((stream, String::from_utf8_lossy(bytes).into_owned()));
            Ok(())
        };
        let mut command = shell("echo $WORD; exit 3");
        command.env("WORD", "hello");
        let exit = run(command, true, Duration::from_secs(60), take).unwrap();
        assert_eq!((exit.code, exit.leftovers.len()), (3, 0));
        assert_eq!(seen, [(Stream::Out, "hello\n".to_owned())]);
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let line = sleep(1001);
        let command = shell(&format!("setsid {line} & {line}"));
        let error = run(command, true, Duration::from_millis(300), |_, _| Ok(()));
        assert!(error.unwrap_err().is::<Overdue>());
        assert_eq!(running(&line), 0);
    }

    #[test]
    fn what_is_left_running_is_named_and_killed() {
        // Its own session, its parent gone, the output held open.
        let line = sleep(1002);
        let command = shell(&format!("(setsid {line} &) ; exit 0"));
        let exit = run(command, true, Duration::from_secs(60), |_, _| Ok(())).unwrap();
        assert_eq!(exit.leftovers, [line.as_str()]);
        assert_eq!(running(&line), 0);
    }

    /// A command that no other run of these tests has: they may run at the same time.
    fn sleep(seconds: u32) -> String {
        format!("sleep {seconds}.{}", std::process::id())
    }

    fn running(line: &str) -> usize {
        let lines = parents().into_keys().filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " "))
        });
        lines.filter(|found| found.trim_end() == line).count()
    }
}
