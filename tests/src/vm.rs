//! A running virtual machine: its console, the guest behind it, its control socket.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::control::Control;
use crate::process::{Exit, Process};

/// A VMM process with a guest. Killed when dropped.
pub struct Vm {
    process: Process,
    dir: TempDir,
    /// Place on the console up to which everything has been looked at.
    seen: usize,
}

impl Vm {
    pub(crate) fn new(process: Process, dir: TempDir) -> Self {
        Self {
            process,
            dir,
            seen: 0,
        }
    }

    /// Waits until the guest says HELLO; gives the kernel's release.
    ///
    /// # Panics
    /// When it does not.
    pub fn hello(&mut self) -> String {
        self.wait_line("HELLO", |line| {
            line.strip_prefix("HELLO ").map(str::to_owned)
        })
    }

    /// Waits for a console line that `find` accepts.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_line<T>(&mut self, what: &str, find: impl FnMut(&str) -> Option<T>) -> T {
        match self.process.stdout.wait_line(self.seen, find) {
            Some((found, seen)) => {
                self.seen = seen;
                found
            }
            None => panic!("waited in vain for {what}.\n{}", self.evidence()),
        }
    }

    /// Gives the guest a command and waits for its answer.
    ///
    /// # Panics
    /// When the guest answers with an error, or not at all.
    pub fn guest(&mut self, command: &Value) -> Value {
        self.try_guest(command)
            .unwrap_or_else(|error| panic!("guest, {command}: {error}"))
    }

    /// As [`Vm::guest`], but an error of the guest is the caller's.
    ///
    /// # Errors
    /// What the guest said.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn try_guest(&mut self, command: &Value) -> Result<Value, String> {
        self.send(command);
        let answer = self.wait_line(&format!("the answer to {command}"), |line| {
            line.strip_prefix("@@").map(str::to_owned)
        });
        let mut answer: Value = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{answer:?} is no JSON: {error}"));
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }

    /// What became of a guest that was given a command which may be its end: its answer, or `None`
    /// when the machine rebooted, ended or said nothing for so long.
    pub fn outcome(&mut self, patience: Duration) -> Option<Value> {
        let look = |line: &str| match line.strip_prefix("@@") {
            Some(answer) => Some(serde_json::from_str(answer).ok()),
            None => line.starts_with("HELLO").then_some(None),
        };
        let found = self.process.stdout.wait_line_for(self.seen, patience, look);
        let (answer, seen) = found?;
        self.seen = seen;
        answer
    }

    /// Gives the guest a command that it will not answer.
    ///
    /// # Panics
    /// When the console is closed.
    pub fn send(&mut self, command: &Value) {
        let stdin = self.process.stdin.as_mut().expect("the console");
        writeln!(stdin, "{command}")
            .and_then(|()| stdin.flush())
            .unwrap_or_else(|error| {
                panic!("cannot write to the console: {error}\n{}", self.evidence())
            });
    }

    /// A new connection to the control socket.
    ///
    /// # Panics
    /// When the VMM does not listen.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::connect(&self.socket())
            .unwrap_or_else(|error| panic!("control socket: {error}\n{}", self.evidence()))
    }

    /// Path of the control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("vm.sock")
    }

    /// Process id of the VMM.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether the VMM still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// `kill -9` of the VMM.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Waits until the VMM ends by itself.
    pub fn exit(&mut self) -> Exit {
        self.process.wait()
    }

    /// Everything on the console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.process.stdout.text()
    }

    /// Everything on the console of a VMM that has ended: waits until its output is read.
    ///
    /// # Panics
    /// When the output does not end.
    #[must_use]
    pub fn console_at_end(&self) -> String {
        assert!(self.process.stdout.wait_end(), "the console does not end");
        self.console()
    }

    /// Forgets what was on the console: waits look at what comes from now on.
    pub fn skip_console(&mut self) {
        self.seen = self.process.stdout.mark();
    }

    /// What is known about the machine, for messages.
    #[must_use]
    pub fn evidence(&self) -> String {
        let console = self.console();
        let tail: Vec<&str> = console.lines().rev().take(60).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!(
            "--- console\n{}\n--- stderr of the VMM\n{}",
            tail.join("\n"),
            self.process.stderr.text()
        )
    }
}
