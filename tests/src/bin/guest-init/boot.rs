//! What must be there before anything else: file systems and kernel modules.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

/// Mounts `/proc`, `/sys`, `/dev` and a `/tmp`.
pub(crate) fn mount_all() -> Result<()> {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(place)?;
        match mount(
            Some(kind),
            place,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        ) {
            // The kernel may have mounted /dev itself (CONFIG_DEVTMPFS_MOUNT).
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot mount {place}")),
        }
    }
    Ok(())
}

/// Loads the modules that `/modules/order` lists, one file name a line.
pub(crate) fn load_modules() -> Result<()> {
    let order = Path::new("/modules/order");
    if !order.exists() {
        return Ok(());
    }
    for name in fs::read_to_string(order)?.lines() {
        let path = Path::new("/modules").join(name);
        let file = File::open(&path).with_context(|| format!("no module {}", path.display()))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot load {name}")),
        }
    }
    Ok(())
}

/// Keeps the kernel's messages off the console, so that they cannot land inside an answer.
/// Emergencies (a panic) are still shown.
pub(crate) fn quiet_kernel_log() -> Result<()> {
    fs::write("/proc/sys/kernel/printk", "1").context("cannot set the console log level")
}
