//! The test guest: stock Debian kernels, each with an initramfs that holds `guest-init` and the kernel's own virtio
//! modules. See docs/guest-payload.md.

pub(crate) mod cpio;
mod guest;
mod kernel;
mod modules;

use crate::l1::client::Lease;
use crate::workspace;
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use kernel::Series;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the payload is put in L1; tests find it there by the environment variable [`ENV`].
pub(crate) const REMOTE: &str = "/opt/cumulet/payload";
/// The variable by which tests find the payload's folder.
pub(crate) const ENV: &str = "CUMULET_PAYLOAD_DIR";

/// Build the test guest and print its files as JSON.
#[derive(clap::Args)]
pub(crate) struct PayloadArgs {
    /// Only this kernel (repeatable); all of them by default.
    #[arg(long = "kernel")]
    kernels: Vec<Series>,
}

/// The built payload: a folder with `kernels/<series>/{vmlinuz,initrd}`.
#[derive(Debug, Serialize)]
pub(crate) struct Payload {
    /// The folder.
    pub(crate) dir: PathBuf,
    /// What is in it, by kernel series.
    pub(crate) kernels: BTreeMap<String, Kernel>,
}

/// One bootable pair.
#[derive(Debug, Serialize)]
pub(crate) struct Kernel {
    /// The bzImage as Debian ships it.
    pub(crate) kernel: PathBuf,
    /// Our initramfs, not compressed.
    pub(crate) initrd: PathBuf,
    /// `uname -r`.
    pub(crate) release: String,
}

/// `cargo xtask payload`.
pub(crate) fn run(args: &PayloadArgs) -> Result<()> {
    let payload = match args.kernels.as_slice() {
        [] => ensure()?,
        some => build(some)?,
    };
    println!("{}", serde_json::to_string_pretty(&payload)?);
    Ok(())
}

/// The payload with every kernel, built where something has changed.
pub(crate) fn ensure() -> Result<Payload> {
    build(Series::value_variants())
}

fn build(series: &[Series]) -> Result<Payload> {
    let init = guest::build()?;
    let dir = workspace::target()?.join("payload");
    let mut kernels = BTreeMap::new();
    for series in series {
        let stock = kernel::ensure(*series)?;
        let place = dir.join("kernels").join(series.name());
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let kernel = place.join("vmlinuz");
        replace(&kernel, &fs::read(stock.vmlinuz())?)?;
        let initrd = place.join("initrd");
        replace(&initrd, &initramfs(&init, &stock.modules())?)?;
        let release = stock.release()?;
        kernels.insert(
            series.name().to_owned(),
            Kernel {
                kernel,
                initrd,
                release,
            },
        );
    }
    Ok(Payload { dir, kernels })
}

/// Sends the payload to L1 (what it has already is not sent again) and gives the value for [`ENV`].
pub(crate) fn push(payload: &Payload, lease: &Lease) -> Result<String> {
    for kernel in payload.kernels.values() {
        for file in [&kernel.kernel, &kernel.initrd] {
            let inside = file.strip_prefix(&payload.dir)?;
            lease.push(file, &Path::new(REMOTE).join(inside))?;
        }
    }
    Ok(REMOTE.to_owned())
}

/// Writes the file unless it has this content already, so that its time tells of a change.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, content)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn initramfs(init: &Path, modules: &Path) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::new();
    for dir in ["dev", "proc", "sys", "tmp", "modules"] {
        archive.directory(dir)?;
    }
    // What the kernel gives its first process as standard input and output.
    archive.character_device("dev/console", (5, 1))?;
    archive.file("init", 0o755, &fs::read(init)?)?;
    let order = fs::read_to_string(modules.join("order"))?;
    for name in order.lines() {
        let content = fs::read(modules.join(name))?;
        archive.file(&format!("modules/{name}"), 0o644, &content)?;
    }
    archive.file("modules/order", 0o644, order.as_bytes())?;
    archive.finish()
}
