//! A child process whose output is kept, and which never outlives its test.

use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::HANG_GUARD;

/// What a stream has said so far.
#[derive(Clone, Default)]
pub struct Stream(Arc<(Mutex<Said>, Condvar)>);

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn follow(mut from: impl Read + Send + 'static) -> Self {
        let stream = Self::default();
        let to = stream.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let got = from.read(&mut chunk).unwrap_or(0);
                let (said, news) = &*to.0;
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                said.bytes.extend(chunk.iter().take(got));
                said.ended = got == 0;
                news.notify_all();
                if said.ended {
                    return;
                }
            }
        });
        stream
    }

    /// Everything so far.
    #[must_use]
    pub fn text(&self) -> String {
        let said = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said.bytes).into_owned()
    }

    /// Number of bytes so far: a place to wait from.
    #[must_use]
    pub fn mark(&self) -> usize {
        let said = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.bytes.len()
    }

    /// Waits until `find` sees what it wants in the whole lines after `from`; gives what it
    /// returned and the place after that line. `None` when the stream ended or the guard fired.
    pub fn wait_line<T>(
        &self,
        from: usize,
        find: impl FnMut(&str) -> Option<T>,
    ) -> Option<(T, usize)> {
        self.wait_line_for(from, HANG_GUARD, find)
    }

    /// As [`Stream::wait_line`], for at most `patience`.
    pub fn wait_line_for<T>(
        &self,
        from: usize,
        patience: Duration,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Option<(T, usize)> {
        let (said, news) = &*self.0;
        let start = Instant::now();
        let mut at = from;
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(len) = said
                .bytes
                .get(at..)
                .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
            {
                let line = String::from_utf8_lossy(&said.bytes[at..at + len]).into_owned();
                at += len + 1;
                if let Some(found) = find(line.trim_end()) {
                    return Some((found, at));
                }
            }
            let left = patience.checked_sub(start.elapsed())?;
            if said.ended {
                return None;
            }
            said = news
                .wait_timeout(said, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until everything is read; `false` when the hang guard fired.
    #[must_use]
    pub fn wait_end(&self) -> bool {
        let (said, news) = &*self.0;
        let guard = said.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = news
            .wait_timeout_while(guard, HANG_GUARD, |said| !said.ended)
            .unwrap_or_else(PoisonError::into_inner);
        guard.ended
    }
}

/// A process of this host, whoever started it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Process id.
    pub pid: i32,
    /// Process id of its parent.
    pub parent: i32,
    /// Its command line, words joined by spaces.
    pub line: String,
}

impl Found {
    /// All processes; those that end meanwhile may be missing.
    ///
    /// # Panics
    /// When there is no `/proc`.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        entries
            .filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let line = std::fs::read(entry.path().join("cmdline")).ok()?;
                let stat = std::fs::read(entry.path().join("stat")).ok()?;
                // `PID (NAME) STATE PARENT …`; a name may hold anything.
                let stat = String::from_utf8_lossy(&stat).into_owned();
                let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                Some(Self { pid, parent, line })
            })
            .collect()
    }
}

/// Whether this process may still have its files open: some thread of it is neither gone nor a
/// zombie. (The first thread is one as soon as it has ended, whatever the others do.)
#[must_use]
pub fn is_alive(pid: nix::unistd::Pid) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.flatten().any(|task| {
        let stat = std::fs::read(task.path().join("stat"));
        stat.is_ok_and(|stat| !String::from_utf8_lossy(&stat).contains(") Z "))
    })
}

/// A running program. Killed when dropped.
pub struct Process {
    child: Child,
    /// Its standard input.
    pub stdin: Option<ChildStdin>,
    /// Its standard output.
    pub stdout: Stream,
    /// Its standard error.
    pub stderr: Stream,
}

/// How a program ended.
#[derive(Debug)]
pub struct Exit {
    /// Exit status, if it ended by itself.
    pub code: Option<i32>,
    /// Signal that killed it.
    pub signal: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Exit {
    /// The last line on standard error as JSON: the VMM's reason. `Null` when it is something else.
    #[must_use]
    pub fn reason(&self) -> Value {
        let last = self.stderr.lines().rfind(|line| !line.trim().is_empty());
        last.and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or(Value::Null)
    }
}

impl Process {
    /// Starts the command with all three streams taken.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Stream::follow(child.stdout.take().expect("a pipe"));
        let stderr = Stream::follow(child.stderr.take().expect("a pipe"));
        Self {
            stdin: child.stdin.take(),
            child,
            stdout,
            stderr,
        }
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("wait");
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the kernel refuses to say.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end before the hang guard.
    pub fn wait(&mut self) -> Exit {
        // Both streams end with the process; waiting for them needs no polling.
        let ended = self.stdout.wait_end() && self.stderr.wait_end();
        assert!(
            ended,
            "process {} does not end.\n--- stdout\n{}\n--- stderr\n{}",
            self.id(),
            self.stdout.text(),
            self.stderr.text()
        );
        let status: ExitStatus = self.child.wait().expect("wait");
        Exit {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
