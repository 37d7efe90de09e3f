//! Building `guest-init`.

use crate::{sh, workspace};
use anyhow::Result;
use std::path::PathBuf;

/// The target of the guest's program: static, so that the initramfs needs no library.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the program and gives its path. It has a target folder of its own, because its flags
/// would make cargo build everything else anew.
pub(crate) fn build() -> Result<PathBuf> {
    let target = workspace::target()?.join("guest");
    sh::run(
        workspace::cargo()?
            .args(["build", "--quiet", "--profile", "guest", "--target", TARGET])
            .args(["-p", "cumulet-tests", "--bin", "guest-init", "--target-dir"])
            .arg(&target)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env(
                "RUSTFLAGS",
                "-C target-feature=+crt-static -C relocation-model=static",
            ),
    )?;
    Ok(target.join(TARGET).join("guest").join("guest-init"))
}
