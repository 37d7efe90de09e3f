//! The control protocol: newline-delimited JSON over a Unix stream socket.
//!
//! A client sends [`Request`] lines and gets one [`Reply`] line for each, in order. After
//! [`Command::Subscribe`] the VMM also sends [`Event`] lines. [`Command::Console`] turns the
//! connection into a raw byte stream, both ways, after its reply line.

use serde::{Deserialize, Serialize};

/// A request line: `{"id":1,"command":"pause"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, returned in the reply.
    #[serde(default)]
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub command: Command,
}

/// What a client can ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// State, identity and boot timeline.
    Status,
    /// Stop all vCPUs.
    Pause,
    /// Let them run again.
    Resume,
    /// Press the ACPI power button.
    PowerButton,
    /// Reset the machine at once, as the reset button does.
    Reset,
    /// End the VMM at once; volumes are flushed first.
    Quit,
    /// Exit counts, device metrics, memory.
    Stats,
    /// The console ring (the last 64 KiB), base64 in the reply's `result.output`.
    ConsoleOutput,
    /// Turn this connection into the interactive console.
    Console {
        /// Send the ring's content first.
        #[serde(default)]
        replay: bool,
    },
    /// Send events on this connection from now on.
    Subscribe,
}

/// A reply line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// The result, when it worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Why not, when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Something that happened, sent to subscribers as `{"event":"…", …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// vCPUs run.
    Running,
    /// vCPUs are paused.
    Paused,
    /// The guest asked for a reset and the machine starts anew.
    Reset,
    /// The machine has ended; the process exits next.
    Ended {
        /// Why.
        #[serde(flatten)]
        reason: EndReason,
    },
    /// A device was taken from the guest because it misbehaved.
    DeviceFailed {
        /// Device name, `blk0`.
        device: String,
        /// What was wrong.
        reason: String,
    },
}

/// Why a machine ended. Also the last line on standard error (as JSON) and the exit status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum EndReason {
    /// The guest powered off by itself (ACPI S5). Exit status 0.
    GuestPoweroff,
    /// The guest powered off after the power button. Exit status 0.
    PowerButton,
    /// The guest rebooted and `exit_on_reboot` is set. Exit status 0.
    GuestReboot,
    /// [`Command::Quit`] or SIGTERM. Exit status 0.
    Quit,
    /// A vCPU could not go on: triple fault with resets exhausted or under `exit_on_reboot`, KVM
    /// internal error, failed entry. Exit status 2.
    VcpuError {
        /// Which vCPU.
        vcpu: u8,
        /// What KVM said.
        message: String,
        /// Register dump, readable text.
        registers: String,
    },
    /// The VMM itself failed. Exit status 1.
    InternalError {
        /// What happened.
        message: String,
    },
}

impl EndReason {
    /// The process's exit status for this reason.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::GuestPoweroff | Self::PowerButton | Self::GuestReboot | Self::Quit => 0,
            Self::InternalError { .. } => 1,
            Self::VcpuError { .. } => 2,
        }
    }
}
