//! Helpers of the command line's tests: a state folder of its own, a way to run `cumulet` in it,
//! and a VMM that only pretends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cumulet_images::testing::{TinyImage, host_kernel, tiny_image};
use serde_json::{Value, json};

/// A hang guard, not a measure: nothing should take this long on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A state folder and a folder with `cumulet` and the pretended `cumulet-vmm` side by side.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let cumulet = bin.join("cumulet");
        if fs::hard_link(env!("CARGO_BIN_EXE_cumulet"), &cumulet).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_cumulet"), &cumulet).unwrap();
        }
        let vmm = bin.join("cumulet-vmm");
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\nexec '{}' --ignored --exact --nocapture --test-threads=1 pretended_vmm\n",
            own.display()
        );
        fs::write(&vmm, script).unwrap();
        fs::set_permissions(&vmm, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("kernel"), "not really").unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.command_of(&self.path("bin/cumulet"));
        command.args(args);
        command
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("CUMULET_HOME", self.home())
            .env("PATH", self.search_path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `cumulet` and its tools, `mke2fs` among them.
    pub(crate) fn search_path(&self) -> String {
        let path = std::env::var("PATH").unwrap();
        format!("{}:{path}:/usr/sbin:/sbin", self.path("bin").display())
    }

    /// Writes a bootable image `name` of 16 MiB whose kernel is this long; it only passes for one.
    pub(crate) fn image(&self, name: &str, kernel: usize) -> PathBuf {
        let file = self.path(&format!("{name}.kernel"));
        fs::write(&file, host_kernel(kernel)).unwrap();
        let path = self.path(name);
        let image = TinyImage {
            kernel: &file,
            initrd: None,
            cmdline: "root=/dev/vda1",
            size: 16 << 20,
            tree: None,
        };
        tiny_image(&path, &image).unwrap();
        path
    }

    /// Runs to the end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let output = self.command(args).output().unwrap();
        Done {
            what: args.join(" "),
            output,
        }
    }

    /// As [`World::run`], after the shell commands `prepare` as root of a user and mount namespace of
    /// its own; `$HOME_FOLDER` is the state folder. `prepare` ends with what runs the command: `"$@"`.
    pub(crate) fn run_within(&self, prepare: &str, args: &[&str]) -> Done {
        let output = self
            .command_of(Path::new("unshare"))
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-euc",
                prepare,
            ])
            .args(["sh", "cumulet"])
            .args(args)
            .env("HOME_FOLDER", self.home())
            .output()
            .unwrap();
        Done {
            what: args.join(" "),
            output,
        }
    }

    /// Launches a pretended guest that lives on; gives its id.
    pub(crate) fn launch(&self, behaviour: &str, more: &[&str]) -> String {
        let mut args = vec!["--output", "json", "run", "--keep"];
        let base = self.pretend(behaviour);
        args.extend(base.iter().map(String::as_str));
        args.extend(more);
        let done = self.run(&args);
        done.succeeds();
        done.json()["Instances"][0]["InstanceId"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Arguments of `run` for a pretended guest without a way out.
    pub(crate) fn pretend(&self, behaviour: &str) -> Vec<String> {
        let kernel = self.path("kernel").display().to_string();
        [
            "--skip-doctor",
            "--uplink",
            "none",
            "--kernel",
            &kernel,
            "--cmdline",
            behaviour,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// What `describe` says of one instance.
    pub(crate) fn describe(&self, id: &str) -> Value {
        let done = self.run(&["--output", "json", "describe", id]);
        done.succeeds();
        done.json()["Instances"][0].clone()
    }

    pub(crate) fn state(&self, id: &str) -> String {
        self.describe(id)["State"]["Name"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let done = self.run(&["--output", "json", "list"]);
        done.succeeds();
        let json = done.json();
        let all = json["Instances"].as_array().unwrap();
        all.iter()
            .map(|one| one["InstanceId"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn instance(&self, id: &str) -> PathBuf {
        self.home().join("instances").join(id)
    }

    /// Changes the record of an instance that nobody holds.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        let path = self.instance(id).join("instance.json");
        let mut record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut record);
        fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    }

    /// Makes a stopped instance one that the API has launched, as far as its record tells.
    pub(crate) fn adopt(&self, id: &str) {
        self.change(id, |record| {
            record["place"] = json!({
                "account": "123456789012",
                "region": "us-east-1",
                "zone": "us-east-1a",
                "zone_id": "use1-az1",
                "vpc_id": "vpc-0123456789abcdef0",
                "vpc_cidr": "172.31.0.0/16",
                "subnet_id": "subnet-0123456789abcdef0",
                "subnet_cidr": "172.31.16.0/20",
                "groups": [["sg-0123456789abcdef0", "default"]],
                "public_ip": "100.64.1.2",
                "launch_index": 0,
                "monitoring": false,
            });
        });
    }

    /// Instance folders of any kind, also half-deleted ones.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.home().join("instances")) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".lock")
            .collect()
    }

    /// Process ids with this instance's id on their command line or in their environment's
    /// stead: the supervisor.
    pub(crate) fn supervisor(&self, id: &str) -> i32 {
        until("the supervisor", || {
            processes().into_iter().find_map(|(pid, line)| {
                (line.contains("__supervise") && line.contains(id)).then_some(pid)
            })
        })
    }

    /// The pretended VMM of this supervisor.
    pub(crate) fn vmm(&self, id: &str) -> i32 {
        let text = until("the pretended VMM", || {
            fs::read_to_string(self.instance(id).join("pretended.pid")).ok()
        });
        text.parse().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for id in self.leftovers() {
            let _ = self.run(&["terminate", &id]);
        }
    }
}

/// A finished command.
pub(crate) struct Done {
    what: String,
    output: Output,
}

impl Done {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub(crate) fn status(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    #[track_caller]
    pub(crate) fn succeeds(&self) {
        assert_eq!(
            self.status(),
            0,
            "{}\n{}{}",
            self.what,
            self.stdout(),
            self.stderr()
        );
    }

    /// Ends with this status, and says each of these on standard error.
    #[track_caller]
    pub(crate) fn fails(&self, status: i32, says: &[&str]) {
        let text = self.stderr();
        assert_eq!(
            self.status(),
            status,
            "{}\n{}{text}",
            self.what,
            self.stdout()
        );
        for part in says {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout(), self.stderr()))
    }
}

/// The first line that a long-running command prints, as JSON.
#[track_caller]
pub(crate) fn first_said(child: &mut Child) -> Value {
    let mut line = String::new();
    let out = child.stdout.as_mut().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    if line.is_empty() {
        let mut error = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut error);
        panic!("it says nothing: {error}");
    }
    serde_json::from_str(&line).unwrap()
}

/// Waits until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A child that is killed when it is dropped.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a child; kills it when it hangs.
#[track_caller]
pub(crate) fn finish(child: Child) -> i32 {
    let mut child = Killed(child);
    let status = until("a command to end", || child.0.try_wait().unwrap());
    status.code().unwrap_or(-1)
}

pub(crate) fn alive(pid: i32) -> bool {
    let state = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    state.is_ok_and(|text| !text.contains(") Z "))
}

pub(crate) fn kill(pid: i32) {
    let target = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(target, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn processes() -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .collect()
}
