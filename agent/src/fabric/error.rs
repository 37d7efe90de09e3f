//! What can go wrong in the fabric, said so that the reader knows the mend.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::config::UplinkMode;

/// Result of the fabric's functions.
pub type Result<T, E = FabricError> = std::result::Result<T, E>;

/// An error of the fabric.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// The configuration contradicts itself.
    #[error("network configuration: {message}")]
    Config {
        /// What is wrong.
        message: String,
    },
    /// A program is not installed.
    #[error("'{tool}' is needed for {purpose}: install it with 'apt-get install {package}'")]
    MissingTool {
        /// Program name.
        tool: &'static str,
        /// Debian package.
        package: &'static str,
        /// What it is for.
        purpose: &'static str,
    },
    /// `enter` came too late in the life of the process.
    #[error(
        "the network namespace must be entered before the process starts threads ({threads} are running)"
    )]
    NotSingleThreaded {
        /// Threads found.
        threads: usize,
    },
    /// The kernel refused a namespace.
    #[error("cannot make a {kind} namespace: {hint}")]
    Namespace {
        /// `user` or `network`.
        kind: &'static str,
        /// How to mend it.
        hint: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A published port is taken.
    #[error(
        "port {} on {} is busy: another program listens there; stop it or publish another port",
        .address.port(), .address.ip()
    )]
    PortBusy {
        /// The address asked for.
        address: SocketAddr,
    },
    /// A published port cannot be bound for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A TUN/TAP device cannot be made.
    #[error("cannot make tap device {name}: {hint}")]
    Tap {
        /// Its name.
        name: String,
        /// How to mend it.
        hint: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A change of links, addresses or routes failed.
    #[error("cannot {action}")]
    Netlink {
        /// What was tried, `add address 172.31.0.1/20 to vpc0`.
        action: String,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
    /// A network setting cannot be written.
    #[error("cannot set {path} to {value}")]
    Sysctl {
        /// File under /proc/sys.
        path: PathBuf,
        /// Value tried.
        value: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// nftables refused the rules.
    #[error("nft refused the rules: {stderr}")]
    Rules {
        /// What nft wrote.
        stderr: String,
    },
    /// The way to the outside could not be made.
    #[error("uplink {mode}: {message}")]
    Uplink {
        /// Which.
        mode: UplinkMode,
        /// Why not, and the mend.
        message: String,
    },
    /// The process that stays in the host's network failed.
    #[error("the fabric's host-side process failed: {message}")]
    HostProcess {
        /// What happened.
        message: String,
    },
    /// A system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl FabricError {
    /// An [`FabricError::Io`] maker for `map_err`.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// A [`FabricError::Netlink`] maker for `map_err`.
    pub(crate) fn netlink(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let action = action.into();
        move |source| Self::Netlink { action, source }
    }
}
