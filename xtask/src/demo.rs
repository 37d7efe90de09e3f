//! `cargo xtask demo`: builds everything, makes a Debian AMI, boots it on KVM with user data, and shows the page that
//! the user data serves.

use crate::kvm_host::{self, KvmHost, Needs};
use crate::l1::proto::{Exec, Exit};
use crate::l1::{Flavour, client};
use crate::{ami, setup, workspace};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::time::{Duration, Instant};

/// The user data, a file of the repository so that people can read and change it.
const USER_DATA: &str = include_str!("demo.sh");
/// Where the page appears on the host.
const PORT: u16 = 8080;
/// A first boot takes seconds on hardware, and minutes in emulation.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
const INSTANCE: &str = "demo";

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Cargo profile to build.
    #[arg(long, default_value = "e2e")]
    profile: String,
    /// Let the instance (and the emulated host, for its idle time) live on.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let started = Instant::now();
    let step = |what: &str| println!("[{:4} s] {what}", started.elapsed().as_secs());
    setup::ensure()?;
    step("building cumulet");
    workspace::build_binaries(&args.profile)?;
    step("making the AMI debian-12 (about two minutes the first time)");
    let amis = ami::ensure(&args.profile)?;
    let native = kvm_host::this_machine_is_fit(&args.profile)?;
    if !native {
        step(
            "this machine's KVM cannot run guests (`cumulet doctor` says why): starting an emulated host instead",
        );
    }
    let needs = Needs {
        profile: &args.profile,
        amis: Some(&amis),
        ..Needs::default()
    };
    let host = KvmHost::open(native, Flavour::large("demo"), &needs)?;
    step(&format!("launching an instance on {}", host.describe()));
    let demo = Demo { host: &host };
    let shown = demo.launch().and_then(|()| demo.wait_for_page(&step));
    if shown.is_err() {
        eprintln!("xtask: the end of the instance's console:");
        // The first error is the one to tell of.
        let _ = demo.cumulet(&["console", "--log", INSTANCE]);
    }
    let page = match shown {
        Ok(page) => {
            step("the page that the user data serves:");
            println!("{page}");
            Ok(())
        }
        Err(error) => Err(error),
    };
    if args.keep {
        if let KvmHost::Emulated { .. } = host {
            println!(
                "In the emulated host: cargo xtask host shell --name demo, then CUMULET_HOME=/ami cumulet ssh {INSTANCE}"
            );
        }
        return page;
    }
    let ended = demo.cumulet(&["terminate", INSTANCE]);
    if ended.is_ok() {
        step("the instance is gone");
    }
    host.end()?;
    // What went wrong first is what matters.
    page.and(ended)
}

struct Demo<'a> {
    host: &'a KvmHost,
}

impl Demo<'_> {
    fn home(&self) -> Result<&str> {
        self.host.ami_home().context("the host has no AMIs")
    }

    /// Runs cumulet on the host; what it prints is shown.
    fn cumulet(&self, arguments: &[&str]) -> Result<()> {
        let words = ["--home", self.home()?]
            .into_iter()
            .chain(arguments.iter().copied());
        // The shell finds the binary by the variable that every host sets.
        let script = "exec \"$CUMULET_BIN_DIR/cumulet\" \"$@\"";
        let argv = ["sh", "-c", script, "cumulet"]
            .into_iter()
            .chain(words)
            .map(String::from)
            .collect();
        let exit = self.host.exec(
            &Exec {
                argv,
                ..Exec::default()
            },
            PATIENCE,
            client::pass_on,
        )?;
        match exit {
            Exit { code: 0, .. } => Ok(()),
            Exit { code, .. } => {
                bail!("`cumulet {}` ended with status {code}", arguments.join(" "))
            }
        }
    }

    fn launch(&self) -> Result<()> {
        // A demo that was interrupted may have left its instance.
        let write = format!(
            "cat > /tmp/cumulet-demo.sh <<'EOF_OF_USER_DATA'\n{USER_DATA}EOF_OF_USER_DATA\n"
        );
        self.shell(&write)?;
        let publish = format!("{PORT}:80");
        let arguments = [
            "run",
            ami::NAME,
            "--name",
            INSTANCE,
            "--user-data",
            "/tmp/cumulet-demo.sh",
            "--publish",
            &publish,
            "--keep",
        ];
        self.cumulet(&arguments)
    }

    fn shell(&self, script: &str) -> Result<(i32, String)> {
        let mut text = Vec::new();
        let argv = ["sh", "-c", script].map(String::from).into();
        let exit = self.host.exec(
            &Exec {
                argv,
                ..Exec::default()
            },
            PATIENCE,
            |_, bytes| {
                text.extend_from_slice(bytes);
                Ok(())
            },
        )?;
        Ok((exit.code, String::from_utf8_lossy(&text).into_owned()))
    }

    fn wait_for_page(&self, step: &impl Fn(&str)) -> Result<String> {
        step("waiting for the page: the guest boots, cloud-init runs the user data");
        let started = Instant::now();
        let mut last_line = String::new();
        while started.elapsed() < PATIENCE {
            let (code, page) = self.shell(&format!(
                "curl --silent --fail --max-time 20 http://127.0.0.1:{PORT}/"
            ))?;
            if code == 0 && !page.is_empty() {
                return Ok(page);
            }
            let log = format!(
                "\"$CUMULET_BIN_DIR/cumulet\" --home '{}' console --log {INSTANCE} | tail -n 1",
                self.home()?
            );
            let (_, line) = self.shell(&log)?;
            if line != last_line {
                step(&format!("  guest: {}", line.trim()));
                last_line = line;
            }
            std::thread::sleep(Duration::from_secs(5));
        }
        bail!("no page after {} minutes", PATIENCE.as_secs() / 60)
    }
}
