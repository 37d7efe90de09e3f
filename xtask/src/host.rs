//! `cargo xtask host …`: the emulated KVM host from the command line.

use crate::kvm_host::{self, KvmHost, Needs};
use crate::l1::client::{self, Lease};
use crate::l1::owner::{self, Ask, Tell};
use crate::l1::proto::Exec;
use crate::l1::{self, Flavour};
use crate::{ami, payload, workspace};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// Where the workspace's binaries are put in L1 (on its PATH).
pub(crate) const BIN: &str = "/opt/cumulet/bin";
/// The workspace's binaries that are pushed when they are built.
pub(crate) const BINARIES: &[&str] = &["cumulet", "cumulet-vmm"];

/// A KVM host: this machine when `cumulet doctor` finds its KVM fit, else the emulated host L1, which starts when first
/// needed and ends by itself when idle.
#[derive(Subcommand)]
pub(crate) enum HostTask {
    /// Run a command there; its output and exit status are passed on.
    Exec(ExecArgs),
    /// A shell there.
    Shell(ExecArgs),
    /// Send a file to L1.
    Push {
        /// File here.
        local: PathBuf,
        /// Full path in L1.
        remote: PathBuf,
        #[command(flatten)]
        size: Size,
    },
    /// Fetch a file from L1.
    Pull {
        /// Full path in L1.
        remote: PathBuf,
        /// File here.
        local: PathBuf,
        #[command(flatten)]
        size: Size,
    },
    /// Start L1 and wait until it answers.
    Start(Size),
    /// End L1 now.
    Stop(Kind),
    /// Is L1 running, since when, how many use it?
    Status(Kind),
    /// The background process that owns L1.
    #[command(hide = true)]
    Owner(Size),
}

#[derive(Args, Clone)]
pub(crate) struct Kind {
    /// Another L1 than the usual one: each name is a machine of its own.
    #[arg(long)]
    name: Option<String>,
    /// The L1 that counts instructions instead of time (one CPU, slow, repeatable): for benchmarks.
    #[arg(long)]
    icount: bool,
}

impl Kind {
    fn name(&self) -> &str {
        let usual = if self.icount { "icount" } else { "l1" };
        self.name.as_deref().unwrap_or(usual)
    }
}

/// What L1 to use; only the start of a new one looks at anything but `--icount`.
#[derive(Args, Clone)]
pub(crate) struct Size {
    #[command(flatten)]
    kind: Kind,
    /// Memory of a newly started L1, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    memory: u32,
    /// CPUs of a newly started L1. With more than one a nested guest is lost now and then.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 1,
        conflicts_with = "icount"
    )]
    cpus: u32,
    /// A newly started L1 ends after so many seconds without use.
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    idle: u64,
    /// The emulated host even where this machine's own KVM is fit.
    #[arg(long)]
    emulated: bool,
    /// Raw image that a newly started L1 sees as /dev/nvme0n4 (then n5, …); its writes are dropped.
    #[arg(long = "disk", value_name = "FILE")]
    disks: Vec<PathBuf>,
}

impl Size {
    /// Whether only L1 will do.
    fn asks_for_l1(&self) -> bool {
        self.emulated || self.kind.icount || self.kind.name.is_some() || !self.disks.is_empty()
    }

    fn flavour(&self) -> Result<Flavour> {
        let disks = self.disks.iter().map(|disk| {
            disk.canonicalize()
                .with_context(|| format!("cannot find the disk {}", disk.display()))
        });
        Ok(Flavour {
            name: self.kind.name().to_owned(),
            memory_mib: self.memory,
            cpus: self.cpus,
            icount: self.kind.icount,
            idle_seconds: self.idle,
            disks: disks.collect::<Result<_>>()?,
        })
    }
}

#[derive(Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    size: Size,
    /// Send a file first (to the same name in /tmp, or to REMOTE).
    #[arg(long, value_name = "LOCAL[:REMOTE]")]
    push: Vec<String>,
    /// Whose binaries cumulet and cumulet-vmm to put on L1's PATH, when built.
    #[arg(long, default_value = "e2e")]
    profile: String,
    /// Build those binaries first.
    #[arg(long)]
    build: bool,
    /// Build the test binary tests/tests/NAME.rs of the crate `cumulet-tests` (or PACKAGE/NAME, or PACKAGE for its unit tests), push and run it; the command is its arguments.
    #[arg(long, value_name = "[PACKAGE/]NAME")]
    test: Option<String>,
    /// Send the test guest (`cargo xtask payload`) too and name its folder in CUMULET_PAYLOAD_DIR; implied by `--test` for
    /// the end-to-end crate.
    #[arg(long)]
    payload: bool,
    /// Make the AMI debian-12 and give L1 a disk with it: CUMULET_AMI_HOME names the state folder (`cumulet --home`).
    #[arg(long)]
    amis: bool,
    /// Run as this user of L1 (there is `dev`, an ordinary user in group kvm) instead of root.
    #[arg(long)]
    user: Option<String>,
    /// Set in the command's environment.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Directory in L1.
    #[arg(long)]
    cwd: Option<PathBuf>,
    /// Give the command a terminal (as `shell` does).
    #[arg(short, long)]
    tty: bool,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs one of the tasks.
pub(crate) fn run(task: HostTask) -> Result<()> {
    match task {
        HostTask::Exec(args) => {
            if args.command.is_empty() && args.test.is_none() {
                bail!("no command: cargo xtask host exec -- COMMAND ARGUMENTS…");
            }
            exec(args)
        }
        HostTask::Shell(mut args) => {
            if args.command.is_empty() {
                args.command = ["bash", "-l"].map(String::from).into();
            }
            args.tty = true;
            exec(args)
        }
        HostTask::Push {
            local,
            remote,
            size,
        } => client::lease(&size.flavour()?)?.push(&local, &remote),
        HostTask::Pull {
            remote,
            local,
            size,
        } => client::lease(&size.flavour()?)?.pull(&remote, &local),
        HostTask::Start(size) => client::lease(&size.flavour()?).map(drop),
        HostTask::Stop(kind) => client::query(kind.name(), &Ask::Stop).map(drop),
        HostTask::Status(kind) => status(&kind),
        HostTask::Owner(size) => {
            let flavour = size.flavour()?;
            owner::run(&l1::run_dir(&flavour.name)?, &flavour)
        }
    }
}

fn status(kind: &Kind) -> Result<()> {
    match client::query(kind.name(), &Ask::Status)? {
        Some(Tell::Status {
            pid,
            ready,
            leases,
            up_seconds,
            idle_seconds,
            memory_mib,
        }) => println!(
            "{}: owner {pid}, {memory_mib} MiB, up {up_seconds} s, {leases} in use, idle {idle_seconds} s",
            if ready { "running" } else { "starting" }
        ),
        Some(other) => bail!("unexpected answer of the owner: {other:?}"),
        None => println!("not running"),
    }
    Ok(())
}

/// Puts the workspace's binaries of that profile on L1's PATH, those that are built.
pub(crate) fn push_binaries(lease: &Lease, profile: &str) -> Result<()> {
    let dir = workspace::profile_dir(profile)?;
    for name in BINARIES {
        let file = dir.join(name);
        if file.is_file() {
            lease.push(&file, &Path::new(BIN).join(name))?;
        }
    }
    Ok(())
}

fn exec(args: ExecArgs) -> Result<()> {
    if args.build {
        workspace::build_binaries(&args.profile)?;
    }
    let end_to_end = args.test.as_ref().is_some_and(|name| !name.contains('/'));
    let payload = match args.payload || end_to_end {
        true => Some(payload::ensure()?),
        false => None,
    };
    let amis = args.amis.then(|| ami::ensure(&args.profile)).transpose()?;
    let mut tests = Vec::new();
    if let Some(test) = &args.test {
        tests.push((
            test.replace('/', "-"),
            workspace::build_test(test, &args.profile)?,
        ));
    }
    let needs = Needs {
        profile: &args.profile,
        payload: payload.as_ref(),
        tests: &tests,
        amis: amis.as_ref(),
    };
    let native = !args.size.asks_for_l1() && kvm_host::this_machine_is_fit(&args.profile)?;
    let host = KvmHost::open(native, args.size.flavour()?, &needs)?;
    for push in &args.push {
        let (local, remote) = parse_push(push)?;
        host.push(&local, &remote)?;
    }
    let mut argv = args.command;
    if let Some((name, _)) = tests.first() {
        argv.insert(0, host.test_path(name));
    }
    let mut env = Vec::new();
    for pair in &args.env {
        let (name, value) = pair
            .split_once('=')
            .with_context(|| format!("--env {pair:?} is not NAME=VALUE"))?;
        env.push((name.to_owned(), value.to_owned()));
    }
    let terminal = args.tty.then(crate::terminal::size).flatten();
    if args.tty
        && let Ok(term) = std::env::var("TERM")
    {
        env.push(("TERM".into(), term));
    }
    let request = Exec {
        argv,
        env,
        cwd: args.cwd,
        user: args.user,
        tty: args.tty.then(|| terminal.unwrap_or((24, 80))),
        reap: false,
    };
    match host.join(&request) {
        Ok(code) => {
            drop(host);
            std::process::exit(code)
        }
        Err(error)
            if error
                .downcast_ref::<client::Lost>()
                .is_some_and(|lost| lost.stalled) =>
        {
            eprintln!("xtask: {error:#}; the next `host exec` starts a new one");
            // EX_TEMPFAIL: not the command's fault, worth another try.
            std::process::exit(75)
        }
        Err(error) => Err(error),
    }
}

fn parse_push(text: &str) -> Result<(PathBuf, PathBuf)> {
    let (local, remote) = match text.split_once(':') {
        Some((local, remote)) => (PathBuf::from(local), PathBuf::from(remote)),
        None => {
            let local = PathBuf::from(text);
            let name = local
                .file_name()
                .with_context(|| format!("{text:?} is no file name"))?;
            let remote = Path::new("/tmp").join(name);
            (local, remote)
        }
    };
    if !remote.is_absolute() {
        bail!("--push {text:?}: the place in L1 must be a full path");
    }
    Ok((local, remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_name_both_ends() {
        let (local, remote) = parse_push("target/x").unwrap();
        assert_eq!(
            (local.as_path(), remote.as_path()),
            (Path::new("target/x"), Path::new("/tmp/x"))
        );
        let (local, remote) = parse_push("a:/b/c").unwrap();
        assert_eq!(
            (local.as_path(), remote.as_path()),
            (Path::new("a"), Path::new("/b/c"))
        );
        assert!(parse_push("a:b").is_err());
    }
}
