//! A guest that obeys benchmark commands, under any VMM (docs/guest-payload.md has the commands).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::probe::Running;

/// A VMM with the test guest in it.
pub(super) struct Guest(Running);

impl Guest {
    /// Starts the VMM and waits for the guest's user space.
    pub(super) fn boot(argv: &[String], hang: Duration) -> Result<Self> {
        let mut running = Running::start(argv, hang)?;
        running.wait_for("HELLO")?;
        Ok(Self(running))
    }

    /// Process id of its VMM.
    pub(super) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Sends a command and gives the guest's answer.
    pub(super) fn ask(&mut self, command: &Value) -> Result<Value> {
        self.0.send(&command.to_string())?;
        let (line, _) = self.0.wait_for("@@")?;
        let (_, answer) = line.split_once("@@").context("no answer in the line")?;
        let mut answer: Value = serde_json::from_str(answer.trim())
            .with_context(|| format!("the guest's answer is no JSON: {line:?}"))?;
        if answer["ok"].is_null() && !answer["error"].is_null() {
            bail!("the guest says: {} (to {command})", answer["error"]);
        }
        Ok(answer["ok"].take())
    }
}

/// A contender: its guest is started when first used, and again when it ended. On an emulated host a guest is lost now
/// and then; that must not end the whole comparison.
pub(super) struct Contender<'a> {
    name: &'a str,
    argv: Vec<String>,
    hang: Duration,
    prepare: Box<Prepare<'a>>,
    guest: Option<Guest>,
}

/// What is done with a guest before it is measured.
type Prepare<'a> = dyn Fn(&mut Guest) -> Result<()> + 'a;

/// Guests lost in a row after which a contender is given up.
const TRIES: u32 = 4;

/// Does something with a guest of this contender, and again when the guest was lost over it.
pub(super) fn again<T>(name: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut tries = 0;
    loop {
        tries += 1;
        match attempt() {
            Err(error) if tries < TRIES => {
                eprintln!("{name}: started again, because: {error}");
            }
            result => return result,
        }
    }
}

impl<'a> Contender<'a> {
    /// `prepare` runs after each start; a guest that says nothing for `hang` is lost.
    pub(super) fn new(
        name: &'a str,
        argv: Vec<String>,
        hang: Duration,
        prepare: impl Fn(&mut Guest) -> Result<()> + 'a,
    ) -> Self {
        Self {
            name,
            argv,
            hang,
            prepare: Box::new(prepare),
            guest: None,
        }
    }

    /// Its name in tables.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// Measures something, with another guest if this one ends over it.
    pub(super) fn measure<T>(&mut self, measure: impl Fn(&mut Guest) -> Result<T>) -> Result<T> {
        let name = self.name;
        again(name, || self.attempt(&measure))
    }

    fn attempt<T>(&mut self, measure: impl Fn(&mut Guest) -> Result<T>) -> Result<T> {
        let mut guest = match self.guest.take() {
            Some(guest) => guest,
            None => {
                let mut guest = Guest::boot(&self.argv, self.hang)?;
                (self.prepare)(&mut guest)?;
                guest
            }
        };
        let value = measure(&mut guest)?;
        self.guest = Some(guest);
        Ok(value)
    }
}

/// What every machine of the block and net comparisons shares.
pub(super) struct Machine {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    pub(super) memory_mib: u64,
    /// A guest that says nothing for this long is lost.
    pub(super) hang: Duration,
}

const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

impl Machine {
    /// Our VMM's command line, with these disks and interfaces in the configuration.
    pub(super) fn ours(&self, config: &Path, disks: &Value, nets: &Value) -> Result<Vec<String>> {
        let document = json!({
            "memory_mib": self.memory_mib,
            "boot": { "kernel": { "kernel": self.kernel, "initrd": self.initrd, "cmdline": CMDLINE } },
            "disks": disks,
            "nets": nets,
            "console": { "stdio": true },
            "exit_on_reboot": true,
        });
        std::fs::write(config, document.to_string())
            .with_context(|| format!("cannot write {}", config.display()))?;
        Ok(vec![
            Path::new(crate::host::BIN)
                .join("cumulet-vmm")
                .display()
                .to_string(),
            "--config".into(),
            config.display().to_string(),
        ])
    }

    /// QEMU's command line on q35, with these further arguments.
    pub(super) fn qemu(&self, devices: &[&str]) -> Vec<String> {
        let mut argv = qemu("q35", self.memory_mib, &self.kernel, &self.initrd, CMDLINE);
        argv.extend(devices.iter().map(ToString::to_string));
        argv
    }
}

/// A bare QEMU machine that boots a kernel directly, its serial line on standard input and output.
pub(super) fn qemu(
    machine: &str,
    memory_mib: u64,
    kernel: &Path,
    initrd: &Path,
    cmdline: &str,
) -> Vec<String> {
    let mut argv: Vec<String> = [
        "qemu-system-x86_64",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-M",
        machine,
    ]
    .map(String::from)
    .to_vec();
    argv.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
    // Its threads have names of their own in what the benchmarks print.
    argv.extend(["-name", "qemu,debug-threads=on"].map(String::from));
    argv.extend(["-display", "none", "-serial", "stdio"].map(String::from));
    argv.extend(["-m".into(), memory_mib.to_string()]);
    argv.extend(["-kernel".into(), kernel.display().to_string()]);
    argv.extend(["-initrd".into(), initrd.display().to_string()]);
    argv.extend(["-append".into(), cmdline.into()]);
    argv
}

/// Units a second, from a count and the guest's nanoseconds.
pub(super) fn rate(count: &Value, ns: &Value) -> Result<f64> {
    let count = count.as_f64().context("a count is missing")?;
    let ns = ns.as_f64().context("a time is missing")?;
    Ok(count / Duration::from_nanos(1).as_secs_f64() / ns)
}
