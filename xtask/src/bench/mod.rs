//! `cargo xtask bench …`: ours against QEMU, in one run, on the same KVM host.
//!
//! The outer half prepares the host and pushes the programs; the inner half (`bench-inner`, hidden)
//! runs there and prints the table.

mod block;
mod boot;
mod cpu;
mod guest;
mod launch;
mod net;
mod probe;
mod run;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::host::BIN;
use crate::kvm_host::BIN_ENV;
use crate::l1::Flavour;
use crate::l1::client::{self, Lease};
use crate::l1::proto::Exec;
use crate::{payload, workspace};

/// Compare with QEMU on an emulated KVM host that counts instructions.
#[derive(Subcommand)]
pub(crate) enum BenchTask {
    /// exec to the first KVM_RUN and to HELLO on the serial line, exits, memory, threads.
    Boot(Common),
    /// 4 KiB random and 1 MiB sequential requests from inside the guest, on a raw file and a volume; always by the clock.
    Block(Common),
    /// TCP between guest and host by iperf3; always by the clock, as busy threads beside each other are what it is about.
    Net(Common),
    /// `cumulet run` of an AMI of 1 GiB and of one of 20 GiB: time and disk space.
    Launch(Common),
    /// CPU that RunInstances takes of `cumulet serve` and of every other process until the guest's first instruction.
    Run(RunArgs),
    /// DescribeInstances of 1,000 simulated instances, by ours and by moto_server, on this machine.
    Api,
    /// A security group's rule from its change to the kernel's filter, with 50 instances, on this machine.
    Groups,
}

/// What all benchmarks take.
#[derive(Args)]
pub(crate) struct Common {
    /// Measure by the clock on an L1 with two CPUs instead of counting instructions.
    #[arg(long)]
    wall: bool,
    /// Cargo profile of the measured binary.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Rounds that are counted; one more goes before them and is dropped.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// `bench run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// On this machine, with a VMM that only pretends: what the agent takes on a real processor. Needs root.
    #[arg(long)]
    here: bool,
}

/// What is measured.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    Boot,
    Block,
    Net,
    Launch,
    Run,
}

/// The half that runs inside the KVM host.
#[derive(Args)]
pub(crate) struct InnerTask {
    kind: Kind,
    /// Folder with the guest payload.
    #[arg(long)]
    payload: PathBuf,
    #[arg(long)]
    rounds: usize,
    /// Seconds of this host's time after which a guest that says nothing is lost.
    #[arg(long)]
    hang: u64,
    /// The VMM runs no guest.
    #[arg(long)]
    pretended: bool,
}

/// Runs a benchmark.
pub(crate) fn run(task: &BenchTask) -> Result<()> {
    match task {
        BenchTask::Boot(common) => run_inside(common, "boot"),
        BenchTask::Block(common) => run_inside(common, "block"),
        BenchTask::Net(common) => run_inside(common, "net"),
        BenchTask::Launch(common) => run_inside(common, "launch"),
        BenchTask::Run(args) if args.here => run_here(&args.common),
        BenchTask::Run(args) => run_inside(&args.common, "run"),
        BenchTask::Api => api(),
        BenchTask::Groups => groups(),
    }
}

/// Runs the inner half.
pub(crate) fn run_inner(task: &InnerTask) -> Result<()> {
    let kernel = task.payload.join("kernels/6.1/vmlinuz");
    let initrd = task.payload.join("kernels/6.1/initrd");
    let dir = tempdir()?;
    let mut machine = guest::Machine {
        kernel,
        initrd,
        memory_mib: 512,
        hang: Duration::from_secs(task.hang),
    };
    let table = match task.kind {
        Kind::Boot => {
            let contenders = boot::contenders(&dir, &machine.kernel, &machine.initrd)?;
            boot::table(&boot::measure(&contenders, task.rounds, machine.hang)?)
        }
        Kind::Block => block::measure(&dir, &machine, task.rounds)?,
        Kind::Net => net::measure(&dir, &mut machine, task.rounds)?,
        Kind::Launch => launch::measure(&dir, &machine, task.rounds)?,
        Kind::Run => run::measure(&dir, &machine, task.rounds, task.pretended)?,
    };
    std::fs::remove_dir_all(&dir)?;
    println!("{table}");
    Ok(())
}

/// Needs no KVM: there are ports, but nobody is plugged in.
fn groups() -> Result<()> {
    let mut cargo = workspace::cargo()?;
    cargo.args([
        "run",
        "--release",
        "-p",
        "cumulet-agent",
        "--example",
        "groups",
    ]);
    if !cargo.status()?.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}

/// Needs no KVM: both servers only keep records.
fn api() -> Result<()> {
    workspace::build_packages("release", &["cumulet-agent"])?;
    let python = crate::python::environment("bench/requirements.txt")?;
    let script = crate::python::scripts()?.join("bench/describe.py");
    let program = workspace::target()?.join("release/cumulet");
    crate::sh::run(Command::new(python).arg(script).arg(program))
}

fn tempdir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("cumulet-bench-{}", std::process::id()));
    crate::cache::private_dir(&dir)?;
    Ok(dir)
}

fn run_inside(common: &Common, inner: &str) -> Result<()> {
    let packages = match inner {
        "launch" | "run" => &["cumulet-vmm", "cumulet-agent"][..],
        _ => &["cumulet-vmm"],
    };
    workspace::build_packages(&common.profile, packages)?;
    let payload = payload::ensure()?;
    let wall = common.wall || matches!(inner, "block" | "net");
    let name = if wall { "bench" } else { "bench-icount" };
    let flavour = Flavour {
        name: name.into(),
        memory_mib: 4096,
        cpus: if wall { 2 } else { 1 },
        icount: !wall,
        idle_seconds: 1200,
        disks: Vec::new(),
    };
    let lease = client::lease(&flavour)?;
    crate::host::push_binaries(&lease, &common.profile)?;
    let xtask = Path::new(BIN).join("xtask");
    lease.push(&std::env::current_exe()?, &xtask)?;
    let remote = payload::push(&payload, &lease)?;
    let mut argv = vec![xtask.display().to_string(), "bench-inner".into()];
    argv.extend([inner.into(), "--payload".into(), remote]);
    argv.extend(["--rounds".into(), common.rounds.to_string()]);
    // A loaded machine does not show where instructions are counted, but a spinning guest makes time crawl there.
    let hang = if wall { 300 } else { 20 };
    argv.extend(["--hang".into(), hang.to_string()]);
    execute(&lease, argv)
}

/// Runs the inner half of `bench run` on this machine, with a VMM that only pretends.
fn run_here(common: &Common) -> Result<()> {
    let mut build = workspace::cargo()?;
    build.args(["build", "--profile", &common.profile, "-p", "cumulet-agent"]);
    crate::sh::run(build.args(["--bin", "cumulet", "--example", "pretended-vmm"]))?;
    let built = workspace::profile_dir(&common.profile)?;
    // A program looks for the other beside itself.
    let bin = tempdir()?;
    std::fs::copy(built.join("cumulet"), bin.join("cumulet"))?;
    std::fs::copy(
        built.join("examples/pretended-vmm"),
        bin.join("cumulet-vmm"),
    )?;
    let mut inner = Command::new(std::env::current_exe()?);
    inner
        .args(["bench-inner", "run", "--pretended", "--hang", "60"])
        .args(["--rounds", &common.rounds.to_string(), "--payload"])
        .arg(payload::ensure()?.dir)
        .env(BIN_ENV, &bin);
    let done = crate::sh::run(&mut inner);
    std::fs::remove_dir_all(&bin)?;
    done
}

fn execute(lease: &Lease, argv: Vec<String>) -> Result<()> {
    let request = Exec {
        argv,
        env: vec![(BIN_ENV.to_owned(), BIN.to_owned())],
        reap: true,
        ..Exec::default()
    };
    let exit = lease.exec(&request, None, None, client::pass_on)?;
    if exit.code != 0 {
        bail!("the benchmark ended with status {}", exit.code);
    }
    Ok(())
}
