//! `cumulet` from a test: a state folder, commands, and the console of a test guest.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, User};
use serde_json::Value;

use crate::process::{Found, Process};
use crate::{HANG_GUARD, paths};

/// A state folder. What a test leaves in it is terminated at the end.
pub struct Cumulet {
    home: PathBuf,
    own: bool,
    program: PathBuf,
    user: Option<Ordinary>,
}

/// A user who is not root, in the group that may use KVM.
#[derive(Clone, Copy)]
struct Ordinary {
    uid: Uid,
    gid: Gid,
    kvm: Gid,
}

impl Ordinary {
    /// The first one that this host has, or a number if it has none.
    fn find() -> Self {
        let known = (1000..1100).find_map(|uid| User::from_uid(Uid::from_raw(uid)).ok()?);
        let (uid, gid) = known.map_or((Uid::from_raw(1000), Gid::from_raw(1000)), |user| {
            (user.uid, user.gid)
        });
        let kvm = fs::metadata("/dev/kvm").expect("/dev/kvm").gid();
        Self {
            uid,
            gid,
            kvm: Gid::from_raw(kvm),
        }
    }

    /// Makes the calling process this user's.
    fn become_it(self) -> std::io::Result<()> {
        nix::unistd::setgroups(&[self.kvm])?;
        nix::unistd::setgid(self.gid)?;
        nix::unistd::setuid(self.uid)?;
        Ok(())
    }
}

impl Cumulet {
    /// An empty state folder.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let home = env::temp_dir().join(format!("cumulet-{name}-{}", std::process::id()));
        let mut cumulet = Self::at(home);
        cumulet.own = true;
        cumulet
    }

    /// An empty state folder of an ordinary user: of whoever runs the test, or, when that is root, of
    /// one who may use KVM by group and nothing else.
    ///
    /// # Panics
    /// When the host refuses to make it.
    #[must_use]
    pub fn of_ordinary_user(name: &str) -> Self {
        let mut cumulet = Self::new(name);
        if !Uid::current().is_root() {
            return cumulet;
        }
        let user = Ordinary::find();
        // A root's checkout may be where nobody else may look.
        if !cumulet.program.ancestors().all(is_public) {
            let bin = cumulet.home.with_extension("bin");
            fs::create_dir(&bin).expect("a folder for the programs");
            for name in ["cumulet", "cumulet-vmm"] {
                fs::copy(paths::binary(name), bin.join(name)).expect("a copy of a program");
            }
            cumulet.program = bin.join("cumulet");
        }
        cumulet.user = Some(user);
        cumulet
    }

    /// A state folder that is there.
    #[must_use]
    pub fn at(home: PathBuf) -> Self {
        Self {
            home,
            own: false,
            program: paths::binary("cumulet"),
            user: None,
        }
    }

    /// The state folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder of an instance.
    #[must_use]
    pub fn instance(&self, id: &str) -> PathBuf {
        self.home.join("instances").join(id)
    }

    /// A command, not yet started.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(&self.home).args(args);
        if let Some(user) = self.user {
            command
                .current_dir("/")
                .env("HOME", &self.home)
                .env_remove("XDG_RUNTIME_DIR");
            // SAFETY: only system calls between fork and exec.
            unsafe { command.pre_exec(move || user.become_it()) };
        }
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

    /// Launches a test guest that is kept, without a way out unless `more` gives one; gives its id.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn launch_guest(&self, more: &[&str]) -> String {
        let kernel = self.reachable(&paths::payload("6.1", "vmlinuz"));
        let initrd = self.reachable(&paths::payload("6.1", "initrd"));
        let mut args = vec!["run", "--keep", "--vcpus", "1", "--memory", "256M"];
        args.extend(["--kernel", kernel.to_str().unwrap()]);
        args.extend(["--initrd", initrd.to_str().unwrap()]);
        args.extend(["--cmdline", "console=ttyS0 panic=-1 quiet"]);
        if !more.contains(&"--uplink") {
            args.extend(["--uplink", "none"]);
        }
        args.extend(more);
        text(&self.json(&args)["Instances"][0]["InstanceId"])
    }

    /// Kills (`kill -9`) the `supervisor` of an instance, or its child whose command line says
    /// `what`.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn kill(&self, id: &str, what: &str) {
        let supervisor = Found::all()
            .into_iter()
            .find(|process| process.line.contains("__supervise") && process.line.contains(id))
            .expect("a supervisor");
        let victim = if what == "supervisor" {
            supervisor.pid
        } else {
            Found::all()
                .into_iter()
                .find(|process| process.parent == supervisor.pid && process.line.contains(what))
                .expect("a VMM")
                .pid
        };
        let victim = nix::unistd::Pid::from_raw(victim);
        nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// The file, or a copy of it where an ordinary user may read it.
    fn reachable(&self, file: &Path) -> PathBuf {
        let bin = self.home.with_extension("bin");
        if self.program.parent() != Some(&bin) {
            return file.to_owned();
        }
        let copy = bin.join(file.file_name().expect("a file name"));
        fs::copy(file, &copy).expect("a copy of the payload");
        copy
    }
}

/// Whether everybody may look into the folder, or run the program.
fn is_public(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o005 == 0o005)
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
        // The network of VPCs ends by itself when the last instance is gone.
        let home = self.home.display().to_string();
        let end = Instant::now() + HANG_GUARD;
        let routed = || {
            let all = Found::all().into_iter();
            let mut routers = all.filter(|one| one.line.contains("__router"));
            routers.any(|one| one.line.contains(&home))
        };
        while routed() && Instant::now() < end {
            thread::sleep(Duration::from_millis(100));
        }
        if self.own {
            let _ = fs::remove_dir_all(&self.home);
            let _ = fs::remove_dir_all(self.home.with_extension("bin"));
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

/// Waits until it is so.
///
/// # Panics
/// When it does not get so.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + HANG_GUARD;
    while !so() {
        assert!(Instant::now() < end, "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(500));
    }
}

/// The test guest behind a console (docs/guest-payload.md).
pub struct Guest {
    console: Process,
    /// Place on the console up to which everything has been looked at.
    seen: usize,
}

impl Guest {
    /// Joins the console of a guest that boots; must be the first to do so on this boot, because
    /// old answers would be replayed. Waits until the guest takes commands.
    ///
    /// # Panics
    /// When the guest does not boot.
    #[track_caller]
    #[must_use]
    pub fn join(cumulet: &Cumulet, id: &str) -> Self {
        let mut guest = Self {
            console: Process::start(&mut cumulet.command(&["console", id])),
            seen: 0,
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
        let found = self.console.stdout.wait_line(self.seen, |line| {
            eprintln!("guest: {line}");
            line.starts_with(start).then(|| line.to_owned())
        });
        match found {
            Some((line, seen)) => {
                self.seen = seen;
                line
            }
            None => panic!(
                "no `{start}` from the guest.\n--- console\n{}\n--- stderr of `cumulet console`\n{}",
                self.console.stdout.text(),
                self.console.stderr.text()
            ),
        }
    }

    /// Sends a command and does not wait.
    ///
    /// # Panics
    /// When the console has ended.
    pub fn send(&mut self, command: &Value) {
        eprintln!("to the guest: {command}");
        let input = self.console.stdin.as_mut().expect("the console's input");
        writeln!(input, "{command}").unwrap();
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
