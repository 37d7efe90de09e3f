//! `cumulet` from a test: a state folder, commands, and the console of a test guest.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A hang guard: emulated guests on a loaded machine are slow.
const PATIENCE: Duration = Duration::from_secs(600);

/// The folder that the runner names in this variable.
///
/// # Panics
/// When it is not set.
#[must_use]
pub fn folder(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(folder) => folder.into(),
        None => panic!("{variable} is not set: run this by `cargo xtask test`"),
    }
}

/// A state folder. What a test leaves in it is terminated at the end.
pub struct Cumulet {
    home: PathBuf,
    own: bool,
}

impl Cumulet {
    /// An empty state folder.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let home = env::temp_dir().join(format!("cumulet-{name}-{}", std::process::id()));
        Self { home, own: true }
    }

    /// A state folder that is there.
    #[must_use]
    pub fn at(home: PathBuf) -> Self {
        Self { home, own: false }
    }

    /// The folder of an instance.
    #[must_use]
    pub fn instance(&self, id: &str) -> PathBuf {
        self.home.join("instances").join(id)
    }

    /// A command, not yet started.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(folder("CUMULET_BIN_DIR").join("cumulet"));
        command.arg("--home").arg(&self.home).args(args);
        command
    }

    /// Runs a command to its end, whatever it is.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn try_run(&self, args: &[&str]) -> Output {
        eprintln!("$ cumulet {}", args.join(" "));
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs a command that must work; gives its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.try_run(args);
        assert!(output.status.success(), "{}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must work; gives its result.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(args);
        serde_json::from_str(&self.run(&all)).unwrap()
    }

    /// What EC2's DescribeInstances would say of an instance.
    ///
    /// # Panics
    /// When there is no such instance.
    #[track_caller]
    #[must_use]
    pub fn describe(&self, id: &str) -> Value {
        self.json(&["describe", id])["Instances"][0].clone()
    }

    /// The name of its state.
    ///
    /// # Panics
    /// When there is no such instance.
    #[track_caller]
    #[must_use]
    pub fn state(&self, id: &str) -> String {
        text(&self.describe(id)["State"]["Name"])
    }

    /// Launches a test guest that is kept; gives its id.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn launch_guest(&self, more: &[&str]) -> String {
        let payload = folder("CUMULET_PAYLOAD_DIR").join("kernels/6.1");
        let (kernel, initrd) = (payload.join("vmlinuz"), payload.join("initrd"));
        let mut args = vec!["run", "--keep", "--vcpus", "1", "--memory", "256M"];
        args.extend(["--kernel", kernel.to_str().unwrap()]);
        args.extend(["--initrd", initrd.to_str().unwrap()]);
        args.extend(["--cmdline", "console=ttyS0 panic=-1 quiet"]);
        args.extend(["--uplink", "none"]);
        args.extend(more);
        text(&self.json(&args)["Instances"][0]["InstanceId"])
    }

    /// Kills (`kill -9`) the `supervisor` of an instance, or its child whose command line says
    /// `what`.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn kill(&self, id: &str, what: &str) {
        let supervisor = processes()
            .into_iter()
            .find(|process| process.line.contains("__supervise") && process.line.contains(id))
            .expect("a supervisor");
        let victim = if what == "supervisor" {
            supervisor.pid
        } else {
            processes()
                .into_iter()
                .find(|process| process.parent == supervisor.pid && process.line.contains(what))
                .expect("a VMM")
                .pid
        };
        let victim = nix::unistd::Pid::from_raw(victim);
        nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

impl Drop for Cumulet {
    fn drop(&mut self) {
        let ids: Vec<String> = fs::read_dir(self.home.join("instances"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("i-"))
            .collect();
        for id in &ids {
            if thread::panicking() {
                eprintln!("--- {id}");
                self.try_run(&["console", "--log", id]);
                let log = fs::read_to_string(self.instance(id).join("supervisor.log"));
                eprintln!("{}", log.unwrap_or_default());
            }
            self.try_run(&["terminate", id]);
        }
        if self.own {
            let _ = fs::remove_dir_all(&self.home);
        }
    }
}

/// A JSON value that must be text.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => panic!("{value} is not text"),
    }
}

struct Process {
    pid: i32,
    parent: i32,
    line: String,
}

fn processes() -> Vec<Process> {
    let read = |path: PathBuf| fs::read(path).ok();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let folder = Path::new("/proc").join(pid.to_string());
            let line = String::from_utf8_lossy(&read(folder.join("cmdline"))?).replace('\0', " ");
            let stat = String::from_utf8_lossy(&read(folder.join("stat"))?).into_owned();
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some(Process { pid, parent, line })
        })
        .collect()
}

/// Waits until it is so.
///
/// # Panics
/// When it does not get so.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(500));
    }
}

/// The test guest behind a console (docs/guest-payload.md).
pub struct Guest {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Guest {
    /// Joins the console of a guest that boots; must be the first to do so on this boot, because
    /// old answers would be replayed. Waits until the guest takes commands.
    ///
    /// # Panics
    /// When the guest does not boot.
    #[track_caller]
    pub fn join(cumulet: &Cumulet, id: &str) -> Self {
        let mut child = cumulet
            .command(&["console", id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut guest = Self {
            child,
            input,
            lines,
            seen: Vec::new(),
        };
        guest.wait_for("HELLO");
        guest
    }

    /// The next line that begins so.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn wait_for(&mut self, start: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    eprintln!("guest: {line}");
                    self.seen.push(line.clone());
                    if line.starts_with(start) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no `{start}` from the guest; seen: {:#?}", self.seen)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the console ended before `{start}`; seen: {:#?}", self.seen)
                }
            }
        }
    }

    /// Sends a command and does not wait.
    ///
    /// # Panics
    /// When the console has ended.
    pub fn send(&mut self, command: &Value) {
        eprintln!("to the guest: {command}");
        writeln!(self.input, "{command}").unwrap();
    }

    /// Sends a command that must work; gives the answer.
    ///
    /// # Panics
    /// When it does not work.
    #[track_caller]
    pub fn ask(&mut self, command: &Value) -> Value {
        self.send(command);
        let line = self.wait_for("@@");
        let answer: Value = serde_json::from_str(&line[2..]).unwrap();
        assert!(answer.get("ok").is_some(), "{command}: {answer}");
        answer["ok"].clone()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
