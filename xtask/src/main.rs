//! Developer tasks. Each task is one module; this file only reads the command line.

mod ami;
mod api_lint;
mod apt;
mod bench;
mod cache;
mod check;
mod demo;
mod host;
mod kvm_host;
mod l1;
mod native;
mod payload;
mod python;
mod setup;
mod sh;
mod terminal;
mod workspace;

use clap::{Parser, Subcommand};

/// Developer tasks of cumulet. Run as `cargo xtask TASK`.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything, boot a Debian AMI on KVM with user data, and show the page that it serves.
    Demo(demo::DemoArgs),
    /// Everything that CI runs: formatting, lints, unit tests, EC2's SDKs against the API, end-to-end tests on the KVM host.
    Test(check::TestArgs),
    /// The same with the long versions of the tests.
    Soak(check::TestArgs),
    /// Install the Debian packages that the other tasks need (they call this themselves).
    Setup,
    /// Compare every field that the API reads or writes with EC2's public model.
    ApiLint(api_lint::LintArgs),
    /// Run commands on the emulated x86_64 KVM host ("L1").
    #[command(subcommand)]
    Host(Box<host::HostTask>),
    /// Build the test guest: stock kernels and our initramfs.
    Payload(payload::PayloadArgs),
    /// Compare with QEMU, in one run on the same KVM host.
    #[command(subcommand)]
    Bench(bench::BenchTask),
    /// The half of a benchmark that runs inside the KVM host.
    #[command(name = "bench-inner", hide = true)]
    BenchInner(bench::InnerTask),
    /// What `cumulet` is to the scripts of tests/first_hour where guests run in L1.
    #[command(name = "first-hour-cumulet", hide = true)]
    FirstHourCumulet(check::CumuletArgs),
    /// First process of L1 (started by its kernel, not by people).
    #[command(name = "l1-init", hide = true)]
    L1Init,
    /// Command server inside L1 (started by l1-init).
    #[command(name = "l1-agent", hide = true)]
    L1Agent,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => check::run(&args, false),
        Task::Soak(args) => check::run(&args, true),
        Task::Setup => setup::ensure(),
        Task::ApiLint(args) => api_lint::run(&args),
        Task::Host(task) => host::run(*task),
        Task::Payload(args) => payload::run(&args),
        Task::Bench(task) => bench::run(&task),
        Task::BenchInner(task) => bench::run_inner(&task),
        Task::FirstHourCumulet(args) => check::cumulet(args),
        Task::L1Init => l1::init::run(),
        Task::L1Agent => l1::agent::run(),
    }
}
