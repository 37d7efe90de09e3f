//! The `cumulet` command as a person uses it, in a home folder of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::paths;

/// A full distribution takes minutes to boot on an emulated host; this is a hang guard.
pub const BOOT_GUARD: Duration = Duration::from_secs(1500);

/// A cumulet home. Ends its instances and goes when dropped.
pub struct Home {
    dir: PathBuf,
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit status.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// The same, after the command has worked.
    ///
    /// # Panics
    /// When it failed.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "it failed: {self:?}");
        self
    }
}

impl Home {
    /// A new home, with the AMIs that the environment offers (`CUMULET_AMI_HOME`) when `with_amis`.
    ///
    /// # Panics
    /// When it cannot be made, or the AMIs are missing.
    #[must_use]
    pub fn new(name: &str, with_amis: bool) -> Self {
        let dir = std::env::temp_dir().join(format!("cumulet-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a home folder");
        if with_amis {
            let amis = std::env::var_os("CUMULET_AMI_HOME").expect(
                "CUMULET_AMI_HOME is not set: run tests by `cargo xtask test` or `cargo xtask host exec --test`",
            );
            std::os::unix::fs::symlink(Path::new(&amis).join("amis"), dir.join("amis"))
                .expect("a link to the AMIs");
        }
        Self { dir }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Writes a file into it.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    }

    /// The command with these arguments, not started yet.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(paths::binary("cumulet"));
        command
            .arg("--home")
            .arg(&self.dir)
            .args(["--output", "json"])
            .args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started, or does not end within [`BOOT_GUARD`].
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Answer {
        let started = Instant::now();
        let mut command = self.command(args);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let pid = child.id();
        let (send, receive) = mpsc::channel();
        thread::spawn(move || send.send(child.wait_with_output()));
        let Ok(output) = receive.recv_timeout(BOOT_GUARD) else {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            panic!("cumulet {args:?} hangs; {}", self.consoles());
        };
        let Output {
            status,
            stdout,
            stderr,
        } = output.expect("its output");
        println!(
            "[{:>4}s] cumulet {}",
            started.elapsed().as_secs(),
            args.join(" ")
        );
        Answer {
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// The state of an instance as `describe` says it.
    ///
    /// # Panics
    /// When there is no such instance.
    #[must_use]
    pub fn describe(&self, instance: &str) -> Value {
        self.run(&["describe", instance]).ok().json()["Instances"][0].take()
    }

    /// Runs a shell command in the guest and gives its trimmed output.
    ///
    /// # Panics
    /// When it fails.
    pub fn ssh(&self, instance: &str, script: &str) -> String {
        let answer = self.run(&["ssh", instance, "--", script]);
        assert_eq!(
            answer.code,
            Some(0),
            "in the guest: {script}\n{answer:?}\n{}",
            self.consoles()
        );
        answer.stdout.trim().to_owned()
    }

    /// The ends of all console logs, for failure messages.
    #[must_use]
    pub fn consoles(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.dir.join("instances"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let log = std::fs::read(entry.path().join("console.log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            text.push_str(&format!(
                "console of {}:\n{}\n",
                entry.path().display(),
                tail.join("\n")
            ));
        }
        text
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let list = self.command(&["list"]).output();
        let list: Value = list
            .ok()
            .and_then(|o| serde_json::from_slice(&o.stdout).ok())
            .unwrap_or_default();
        for instance in list["Instances"].as_array().into_iter().flatten() {
            if let Some(id) = instance["InstanceId"].as_str() {
                let _ = self.command(&["terminate", id]).output();
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
