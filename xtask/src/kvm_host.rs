//! Where guests are run: on this machine when its KVM is fit, else in the emulated host.

use crate::host::{self, BIN};
use crate::l1::client::{self, Lease, Stream};
use crate::l1::forward::Forward;
use crate::l1::proto::{Exec, Exit};
use crate::l1::{self, Flavour};
use crate::payload::{self, Payload};
use crate::{native, sh, workspace};
use anyhow::{Context as _, Result, bail};
use std::io::{IsTerminal as _, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where test binaries are put in L1.
const TESTS: &str = "/opt/cumulet/test";
/// Where L1 has the state folder with the AMIs.
const AMI_HOME: &str = "/ami";
/// The variable that names the folder of the product's binaries.
pub(crate) const BIN_ENV: &str = "CUMULET_BIN_DIR";
/// The variable by which tests find a state folder that has the AMI `debian-12`.
const AMI_ENV: &str = "CUMULET_AMI_HOME";

/// What a host must have besides the product's binaries.
#[derive(Default)]
pub(crate) struct Needs<'a> {
    /// Cargo profile of the binaries.
    pub(crate) profile: &'a str,
    /// Kernels and initramfs of small guests.
    pub(crate) payload: Option<&'a Payload>,
    /// Test binaries with their names.
    pub(crate) tests: &'a [(String, PathBuf)],
    /// A state folder with AMIs, and the disk made of it.
    pub(crate) amis: Option<&'a crate::ami::Amis>,
}

/// A host that runs guests.
pub(crate) enum KvmHost {
    /// QEMU.
    Emulated {
        /// Keeps it running.
        lease: Lease,
        /// Its name.
        name: String,
        /// Tells programs where things are.
        env: Vec<(String, String)>,
    },
    /// This machine.
    Native {
        /// Tells programs where things are.
        env: Vec<(String, String)>,
        /// Folder of the test binaries by name.
        tests: Vec<(String, PathBuf)>,
    },
}

/// Does a guest run under this machine's own KVM? `cumulet doctor` has tried.
pub(crate) fn this_machine_is_fit(profile: &str) -> Result<bool> {
    let doctor = workspace::profile_dir(profile)?.join("cumulet");
    if !doctor.is_file() {
        // Nothing of cumulet is built that could run here or ask.
        return Ok(false);
    }
    let out = Command::new(&doctor)
        .args(["doctor", "--output", "json"])
        .output()
        .with_context(|| format!("cannot start {}", doctor.display()))?;
    // The exit status tells of everything that the doctor looks at; the question here is KVM alone.
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).with_context(|| {
        format!(
            "what `cumulet doctor` says is no JSON: {}",
            String::from_utf8_lossy(&out.stderr)
        )
    })?;
    let checks = report["checks"]
        .as_array()
        .context("`cumulet doctor` lists no checks")?;
    let guest = checks
        .iter()
        .find(|check| check["name"] == "kvm guest")
        .context("`cumulet doctor` has no check named \"kvm guest\"")?;
    Ok(guest["status"] == "ok")
}

impl KvmHost {
    /// This machine, or that L1, with everything in place.
    pub(crate) fn open(native: bool, flavour: Flavour, needs: &Needs<'_>) -> Result<Self> {
        if native {
            Self::open_native(needs)
        } else {
            Self::open_emulated(flavour, needs)
        }
    }

    fn open_native(needs: &Needs<'_>) -> Result<Self> {
        let text = |path: &Path| {
            path.to_str()
                .map(str::to_owned)
                .context("a path that is not UTF-8")
        };
        let mut env = vec![(
            BIN_ENV.to_owned(),
            text(&workspace::profile_dir(needs.profile)?)?,
        )];
        if let Some(payload) = needs.payload {
            env.push((payload::ENV.to_owned(), text(&payload.dir)?));
        }
        if let Some(amis) = needs.amis {
            env.push((AMI_ENV.to_owned(), text(&amis.home)?));
        }
        Ok(Self::Native {
            env,
            tests: needs.tests.to_vec(),
        })
    }

    fn open_emulated(mut flavour: Flavour, needs: &Needs<'_>) -> Result<Self> {
        if let Some(amis) = needs.amis {
            flavour.disks.insert(0, amis.disk.clone());
        }
        let lease = client::lease(&flavour)?;
        host::push_binaries(&lease, needs.profile)?;
        for (name, path) in needs.tests {
            lease.push(path, &Path::new(TESTS).join(name))?;
        }
        let mut env = vec![(BIN_ENV.to_owned(), BIN.to_owned())];
        if let Some(payload) = needs.payload {
            env.push((payload::ENV.to_owned(), payload::push(payload, &lease)?));
        }
        if needs.amis.is_some() {
            // The disk's files belong to whoever built them.
            let mount = format!(
                "mkdir -p {AMI_HOME}; mountpoint -q {AMI_HOME} || {{ mount /dev/nvme0n4 {AMI_HOME} && chown -R 0:0 {AMI_HOME}; }}"
            );
            let exit = lease.exec(
                &Exec {
                    argv: vec!["sh".into(), "-c".into(), mount],
                    ..Exec::default()
                },
                None,
                None,
                client::pass_on,
            )?;
            if exit.code != 0 {
                bail!(
                    "this emulated host has no disk with AMIs: `cargo xtask host stop`, then try again"
                );
            }
            env.push((AMI_ENV.to_owned(), AMI_HOME.to_owned()));
        }
        Ok(Self::Emulated {
            lease,
            name: flavour.name,
            env,
        })
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Emulated { .. } => "the emulated KVM host",
            Self::Native { .. } => "this machine's KVM",
        }
    }

    /// The state folder with the AMIs, as programs on the host see it.
    pub(crate) fn ami_home(&self) -> Option<&str> {
        let (Self::Emulated { env, .. } | Self::Native { env, .. }) = self;
        env.iter()
            .find(|(name, _)| name == AMI_ENV)
            .map(|(_, value)| value.as_str())
    }

    /// A test binary on the host.
    pub(crate) fn test_path(&self, name: &str) -> String {
        match self {
            Self::Emulated { .. } => format!("{TESTS}/{name}"),
            Self::Native { tests, .. } => {
                tests.iter().find(|(known, _)| known == name).map_or_else(
                    || name.to_owned(),
                    |(_, path)| path.to_string_lossy().into_owned(),
                )
            }
        }
    }

    /// Runs a command there, killed (with all it started) after `guard`.
    pub(crate) fn exec(
        &self,
        request: &Exec,
        guard: Duration,
        take: impl FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<Exit> {
        match self {
            Self::Emulated { lease, env, .. } => {
                let mut request = request.clone();
                request.env.splice(0..0, env.iter().cloned());
                lease.exec(&request, None, Some(guard), take)
            }
            Self::Native { env, .. } => native::run(here(request, env)?, request.reap, guard, take),
        }
    }

    /// Puts a file there.
    pub(crate) fn push(&self, local: &Path, remote: &Path) -> Result<()> {
        match self {
            Self::Emulated { lease, .. } => lease.push(local, remote),
            Self::Native { .. } => {
                let copied = std::fs::copy(local, remote);
                copied.with_context(|| {
                    format!("cannot copy {} to {}", local.display(), remote.display())
                })?;
                Ok(())
            }
        }
    }

    /// Runs a command there on this program's own terminal, input and output; gives its exit status.
    pub(crate) fn join(&self, request: &Exec) -> Result<i32> {
        match self {
            Self::Emulated { lease, env, .. } => {
                let mut request = request.clone();
                request.env.splice(0..0, env.iter().cloned());
                let at_terminal = std::io::stdin().is_terminal();
                let raw = (request.tty.is_some() && at_terminal)
                    .then(crate::terminal::Raw::enter)
                    .transpose()?;
                // A terminal that the command was not given is not read: a background job would only be stopped by that.
                let input: Option<Box<dyn Read + Send>> =
                    match request.tty.is_some() || !at_terminal {
                        true => Some(Box::new(std::io::stdin())),
                        false => None,
                    };
                let exit = lease.exec(&request, input, None, client::pass_on);
                drop(raw);
                Ok(exit?.code)
            }
            Self::Native { env, .. } => {
                if let Some(user) = &request.user {
                    bail!(
                        "on this machine commands run as yourself, not as {user:?} (--emulated has such a user)"
                    );
                }
                let mut command = here(request, env)?;
                let status = command
                    .status()
                    .with_context(|| format!("cannot start `{}`", sh::show(&command)))?;
                Ok(status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
            }
        }
    }

    /// Makes a port of the host's own 127.0.0.1 one of this machine's; `None` when it is that already.
    pub(crate) fn forward(&self, port: u16) -> Result<Option<Forward>> {
        match self {
            Self::Emulated { lease, .. } => lease.forward(port).map(Some),
            Self::Native { .. } => Ok(None),
        }
    }

    /// The end of L1's own console, when it has one.
    pub(crate) fn console(&self) -> Result<Option<String>> {
        match self {
            Self::Emulated { name, .. } => {
                Ok(Some(l1::tail(&l1::run_dir(name)?.join("console.log"), 30)))
            }
            Self::Native { .. } => Ok(None),
        }
    }

    /// Ends an emulated host; this machine goes on.
    pub(crate) fn end(self) -> Result<()> {
        match self {
            Self::Emulated { lease, name, .. } => {
                drop(lease);
                client::query(&name, &l1::owner::Ask::Stop).map(drop)
            }
            Self::Native { .. } => Ok(()),
        }
    }
}

/// The command, to be run on this machine, with the product's binaries on its PATH.
fn here(request: &Exec, env: &[(String, String)]) -> Result<Command> {
    let (program, arguments) = request.argv.split_first().context("no command given")?;
    let mut command = Command::new(program);
    command.args(arguments);
    let bin = env
        .iter()
        .filter(|(name, _)| name == BIN_ENV)
        .map(|(_, dir)| PathBuf::from(dir));
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env(
        "PATH",
        std::env::join_paths(bin.chain(std::env::split_paths(&path)))?,
    );
    command.envs(
        env.iter()
            .chain(&request.env)
            .map(|(name, value)| (name, value)),
    );
    if let Some(cwd) = &request.cwd {
        command.current_dir(cwd);
    }
    Ok(command)
}
