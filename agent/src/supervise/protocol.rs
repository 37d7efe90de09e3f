//! What passes between the command line and a supervisor, as lines of JSON.
//!
//! * [`Report`]: from the supervisor to the command that started it, on an inherited pipe.
//! * [`Request`] and [`Reply`]: on the supervisor's socket, from any later command. After the reply
//!   to [`Request::Dial`] the connection is the byte stream to the guest's port. After the reply to
//!   [`Request::Stop`] and [`Request::Terminate`] the connection stays open until it is done: the
//!   supervisor's end is the news.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::state::record::{MetadataOptions, Place, State};

/// Name of the supervisor's socket in the instance's folder.
pub const SOCKET: &str = "supervisor.sock";
/// Name of the VMM's control socket in the instance's folder.
pub const VMM_SOCKET: &str = "vmm.sock";
/// Name of the console log in the instance's folder.
pub const CONSOLE_LOG: &str = "console.log";
/// Name of the supervisor's own log in the instance's folder.
pub const SUPERVISOR_LOG: &str = "supervisor.log";

/// A line on the pipe to the command that started the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// What is being done now.
    Phase {
        /// In words.
        what: String,
    },
    /// Worth knowing, and no reason to fail.
    Warning {
        /// In words.
        what: String,
    },
    /// The guest's vCPUs run.
    Running,
    /// The instance has ended; the supervisor exits next.
    Ended {
        /// Stopped, or terminated and deleted.
        state: State,
        /// Why it ended, for people.
        why: String,
        /// What went wrong, if something did.
        error: Option<Error>,
        /// The console's last lines, when something went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        console: Option<String>,
        /// What the VMM counted, with `--trace`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<String>,
    },
}

/// A request line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Press the power button; cut the power after this many milliseconds (0: at once).
    Stop {
        /// Milliseconds.
        timeout_ms: u64,
    },
    /// Press the power button and start again; reset after this many milliseconds (0: at once).
    Reboot {
        /// Milliseconds.
        timeout_ms: u64,
    },
    /// End it and delete everything of it.
    Terminate,
    /// What the metadata service says has changed.
    Update {
        /// Tags.
        tags: BTreeMap<String, String>,
        /// Metadata options.
        metadata: MetadataOptions,
        /// Where the instance is.
        place: Box<Place>,
    },
    /// Connect to a TCP port of the guest.
    Dial {
        /// Guest port.
        port: u16,
    },
}

/// A reply line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// It is done or under way.
    Accepted {
        /// The state before.
        previous: State,
        /// The state now.
        current: State,
    },
    /// It is not.
    Refused {
        /// Why.
        error: Error,
    },
}
