//! Ways for a guest to end, and the power button.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use nix::sys::reboot::{RebootMode, reboot};

static IGNORE_BUTTON: AtomicBool = AtomicBool::new(false);

/// Flushes what is dirty and powers off (ACPI S5).
pub(crate) fn off() -> ! {
    nix::unistd::sync();
    end(RebootMode::RB_POWER_OFF)
}

/// Ends the guest in the way asked for; `Err` means that it is still alive.
pub(crate) fn by_name(how: &str) -> Result<std::convert::Infallible> {
    match how {
        "poweroff" => off(),
        "reboot" => {
            nix::unistd::sync();
            end(RebootMode::RB_AUTOBOOT)
        }
        "halt" => end(RebootMode::RB_HALT_SYSTEM),
        // The kernel panics when its first process ends by a signal it cannot ignore.
        "panic" => {
            fs::write("/proc/sys/kernel/sysrq", "1")?;
            fs::write("/proc/sysrq-trigger", "c").context("sysrq did not crash the kernel")?;
            bail!("the kernel outlived sysrq-c")
        }
        // At once, without the kernel's own orderly way: reboot=t makes this a triple fault.
        "sysrq-reboot" => {
            fs::write("/proc/sys/kernel/sysrq", "1")?;
            fs::write("/proc/sysrq-trigger", "b").context("sysrq did not reboot")?;
            bail!("the kernel outlived sysrq-b")
        }
        other => bail!("no way to end called {other}"),
    }
}

fn end(mode: RebootMode) -> ! {
    // A halted or failing machine must not let its first process return: that would be a panic.
    let _ = reboot(mode);
    loop {
        std::thread::park();
    }
}

/// From now on the power button is left alone, as by a guest that does not listen.
pub(crate) fn ignore_button() {
    IGNORE_BUTTON.store(true, Ordering::Relaxed);
}

/// Powers off when the ACPI power button is pressed. Does nothing on a machine without one.
pub(crate) fn watch_button() {
    // Opened here and now: a press right after HELLO must find us listening.
    for mut events in input_devices().into_iter().flat_map(File::open) {
        std::thread::spawn(move || listen(&mut events));
    }
}

fn input_devices() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/dev/input") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().contains("/event"))
        .collect()
}

/// Reads `struct input_event` (24 bytes: time, type, code, value) until the power key goes down.
fn listen(events: &mut File) {
    const EV_KEY: u16 = 1;
    const KEY_POWER: u16 = 116;
    let mut event = [0_u8; 24];
    while events.read_exact(&mut event).is_ok() {
        let kind = u16::from_ne_bytes([event[16], event[17]]);
        let code = u16::from_ne_bytes([event[18], event[19]]);
        let down = event[20] == 1;
        if kind == EV_KEY && code == KEY_POWER && down && !IGNORE_BUTTON.load(Ordering::Relaxed) {
            off();
        }
    }
}
