//! The programs that the fabric runs, checked before anything is made.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::config::UplinkMode;
use super::error::{FabricError, Result};

/// A program, its Debian package and what it is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    name: &'static str,
    package: &'static str,
    purpose: &'static str,
}

/// nftables.
pub(super) const NFT: Tool = Tool {
    name: "nft",
    package: "nftables",
    purpose: "the packet filter",
};
/// pasta.
pub(super) const PASTA: Tool = Tool {
    name: "pasta",
    package: "passt",
    purpose: "the guests' way to the outside",
};
/// slirp4netns.
pub(super) const SLIRP: Tool = Tool {
    name: "slirp4netns",
    package: "slirp4netns",
    purpose: "the guests' way to the outside",
};

impl Tool {
    /// Where the program is. Beside `PATH` the system folders are searched: an ordinary user's
    /// `PATH` on Debian lacks `/usr/sbin`.
    pub(super) fn path(self) -> Result<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
            .map(|folder| folder.join(self.name))
            .find(|file| {
                fs::metadata(file)
                    .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            })
            .ok_or(FabricError::MissingTool {
                tool: self.name,
                package: self.package,
                purpose: self.purpose,
            })
    }
}

/// Checks that everything needed for this kind of uplink is installed.
pub(super) fn check(uplink: UplinkMode) -> Result<()> {
    NFT.path()?;
    match uplink {
        UplinkMode::Pasta => PASTA.path().map(drop),
        UplinkMode::Slirp4netns => SLIRP.path().map(drop),
        UplinkMode::Auto | UplinkMode::Veth | UplinkMode::None => Ok(()),
    }
}
