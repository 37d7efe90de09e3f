//! Describing a machine: the VMM's JSON configuration with defaults for tests.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Exit, Process};
use crate::{Vm, paths};

/// A last change to the command that starts the VMM.
type Prepare = Box<dyn FnMut(&mut Command)>;

/// A configuration in the making. Defaults: kernel 6.1 and the payload's initramfs, 1 vCPU,
/// 128 MiB, the console on standard output, a control socket, and an end at the first reboot, so
/// that a guest that crashes ends its test at once.
pub struct Machine {
    /// The JSON that the VMM is given; tests may write into it.
    pub config: Value,
    cmdline: String,
    dir: TempDir,
    prepare: Option<Prepare>,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// The default machine.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = json!({
            "vcpus": 1,
            "memory_mib": 128,
            "boot": {},
            "disks": [],
            "nets": [],
            "console": { "stdio": true },
            "control": { "path": dir.path().join("vm.sock") },
            "exit_on_reboot": true,
        });
        let machine = Self {
            config,
            cmdline: "console=ttyS0 quiet panic=-1".to_owned(),
            dir,
            prepare: None,
        };
        machine.kernel("6.1")
    }

    /// Boots this kernel series.
    #[must_use]
    pub fn kernel(self, series: &str) -> Self {
        let kernel = paths::payload(series, "vmlinuz");
        let initrd = paths::payload(series, "initrd");
        self.boot(&kernel, Some(&initrd))
    }

    /// Boots these files.
    #[must_use]
    pub fn boot(mut self, kernel: &Path, initrd: Option<&Path>) -> Self {
        self.config["boot"] = json!({ "kernel": { "kernel": kernel, "initrd": initrd } });
        self
    }

    /// Adds words to the kernel command line.
    #[must_use]
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline.push(' ');
        self.cmdline.push_str(words);
        self
    }

    /// Number of vCPUs.
    #[must_use]
    pub fn vcpus(mut self, vcpus: u64) -> Self {
        self.config["vcpus"] = json!(vcpus);
        self
    }

    /// Guest RAM in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.config["memory_mib"] = json!(mib);
        self
    }

    /// Resets the machine when the guest reboots, in the same process.
    #[must_use]
    pub fn reboots(mut self) -> Self {
        self.config["exit_on_reboot"] = json!(false);
        self
    }

    /// Adds a raw disk.
    #[must_use]
    pub fn disk(self, path: &Path, serial: &str) -> Self {
        self.disk_with(json!({ "path": path, "serial": serial }))
    }

    /// Adds a disk by its whole description.
    ///
    /// # Panics
    /// When `config.disks` is no longer a list.
    #[must_use]
    pub fn disk_with(mut self, disk: Value) -> Self {
        let disks = self.config["disks"].as_array_mut().expect("a list");
        disks.push(disk);
        self
    }

    /// Adds an interface on a tap that exists.
    ///
    /// # Panics
    /// When `config.nets` is no longer a list.
    #[must_use]
    pub fn tap(mut self, tap: &str, mac: &str) -> Self {
        let nets = self.config["nets"].as_array_mut().expect("a list");
        nets.push(json!({ "tap": { "name": tap }, "mac": mac }));
        self
    }

    /// Changes the command that starts the VMM (user, environment, inherited files).
    #[must_use]
    pub fn prepare(mut self, prepare: impl FnMut(&mut Command) + 'static) -> Self {
        self.prepare = Some(Box::new(prepare));
        self
    }

    /// The machine's own folder, gone with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a sparse raw file of this size in the machine's folder and gives its path.
    ///
    /// # Panics
    /// When the host refuses.
    #[must_use]
    pub fn raw_file(&self, name: &str, bytes: u64) -> std::path::PathBuf {
        raw_file(&self.dir.path().join(name), bytes)
    }

    /// Starts the VMM.
    #[must_use]
    pub fn start(mut self) -> Vm {
        let process = self.spawn();
        Vm::new(process, self.dir)
    }

    /// Starts the VMM and waits for its end: for configurations that must be refused.
    #[must_use]
    pub fn refused(mut self) -> Exit {
        self.spawn().wait()
    }

    fn spawn(&mut self) -> Process {
        if let Some(boot) = self.config["boot"].get_mut("kernel")
            && boot.get("cmdline").is_none()
        {
            boot["cmdline"] = json!(self.cmdline);
        }
        let config = self.dir.path().join("config.json");
        std::fs::write(&config, self.config.to_string()).expect("the configuration");
        let mut command = Command::new(paths::binary("cumulet-vmm"));
        command
            .arg("--config")
            .arg(&config)
            .current_dir(self.dir.path());
        // SAFETY: prctl is async-signal-safe. A test that is killed takes its VMM with it.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                Ok(())
            });
        }
        if let Some(prepare) = &mut self.prepare {
            prepare(&mut command);
        }
        Process::start(&mut command)
    }
}

/// Makes a sparse raw file of this size and gives its path.
///
/// # Panics
/// When the host refuses.
#[must_use]
pub fn raw_file(path: &Path, bytes: u64) -> std::path::PathBuf {
    std::fs::File::create(path)
        .and_then(|file| file.set_len(bytes))
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    path.to_owned()
}
