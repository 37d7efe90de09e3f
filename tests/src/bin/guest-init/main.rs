//! First process of the test guest: a static program that is the whole user space of an initramfs.
//!
//! It prints `HELLO <kernel release>` on the serial console and then obeys one-line JSON commands
//! from there, each answered by exactly one line `@@{…}`. `docs/guest-payload.md` lists them.
//!
//! Kernel command line: `cumulet.mode=cmd` (default), `hello` (print and power off, no modules
//! loaded), `hold` (the same, then idle).

mod bench;
mod boot;
mod command;
mod console;
mod disk;
mod hostile;
mod journal;
mod mem;
mod net;
mod net_if;
mod power;
mod system;
mod torture;

use console::Console;

/// What the kernel command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Hello,
    Hold,
    Command,
}

impl Mode {
    fn from_cmdline(cmdline: &str) -> Self {
        let word = cmdline
            .split_whitespace()
            .rev()
            .find_map(|word| word.strip_prefix("cumulet.mode="));
        match word {
            Some("hello") => Self::Hello,
            Some("hold") => Self::Hold,
            _ => Self::Command,
        }
    }
}

fn main() {
    if std::process::id() != 1 {
        eprintln!("guest-init is the first process of a test guest; it does nothing elsewhere");
        std::process::exit(2);
    }
    let error = match run() {
        Err(error) => error,
        Ok(never) => match never {},
    };
    // The console may be what failed: the kernel log is the second place to say it.
    let text = format!("guest-init: {error:#}\n");
    let _ = std::fs::write("/dev/kmsg", &text);
    let _ = std::fs::write("/dev/ttyS0", &text);
    power::off();
}

fn run() -> anyhow::Result<std::convert::Infallible> {
    boot::mount_all()?;
    let cmdline = std::fs::read_to_string("/proc/cmdline")?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let hello = format!("HELLO {}", release.trim());
    let mut console = Console::open()?;
    match Mode::from_cmdline(&cmdline) {
        Mode::Hello => {
            console.line(&hello)?;
            power::off();
        }
        Mode::Hold => {
            console.line(&hello)?;
            loop {
                std::thread::park();
            }
        }
        Mode::Command => {
            boot::load_modules()?;
            power::watch_button();
            console.line(&hello)?;
            boot::quiet_kernel_log()?;
            loop {
                let line = console.read_line()?;
                if !line.trim().is_empty() {
                    let answer = command::answer(&line);
                    console.line(&format!("@@{answer}"))?;
                }
            }
        }
    }
}
