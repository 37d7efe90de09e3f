//! Talking to the supervisor of a running instance.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::protocol::{Reply, Request, SOCKET};
use crate::error::{Context, Error, Kind, Result};
use crate::state::record::State;
use crate::state::{InstanceDir, connect_socket};

/// A connection whose request was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// State before.
    pub previous: State,
    /// State now.
    pub current: State,
    /// The connection: to the guest's port, or open until the supervisor ends.
    pub stream: BufReader<UnixStream>,
}

/// Sends a request and waits for the reply.
///
/// # Errors
/// What the supervisor refuses, and `IncorrectInstanceState` when there is none.
pub fn ask(dir: &InstanceDir, request: &Request) -> Result<Accepted> {
    let doing = || format!("cannot talk to the supervisor of {}", dir.id());
    let mut stream = connect_socket(dir.path(), SOCKET).map_err(|error| {
        Error::wrong_state(format!("{} is not running", dir.id()))
            .because(&error)
            .mend(format!("`cumulet describe {}` shows its state", dir.id()))
    })?;
    let mut line = serde_json::to_vec(request).context(doing)?;
    line.push(b'\n');
    stream.write_all(&line).context(doing)?;
    let mut stream = BufReader::new(stream);
    let mut text = String::new();
    stream.read_line(&mut text).context(doing)?;
    if text.is_empty() {
        return Err(Error::new(
            Kind::Conflict,
            "IncorrectInstanceState",
            format!("the supervisor of {} ended before it answered", dir.id()),
        )
        .mend("look with `cumulet list` and try again"));
    }
    match serde_json::from_str(&text).context(doing)? {
        Reply::Accepted { previous, current } => Ok(Accepted {
            previous,
            current,
            stream,
        }),
        Reply::Refused { error } => Err(error),
    }
}

/// Connects to a TCP port of the guest.
///
/// # Errors
/// As [`ask`]; `GuestUnreachable` when the guest does not answer.
pub fn dial(dir: &InstanceDir, port: u16) -> Result<BufReader<UnixStream>> {
    ask(dir, &Request::Dial { port }).map(|accepted| accepted.stream)
}

/// Waits until nobody runs the instance any more.
///
/// # Errors
/// When the lock cannot be asked, or it is still held after `limit`.
pub fn wait_until_free(dir: &InstanceDir, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    while let Some(holder) = dir.holder()? {
        if Instant::now() >= end {
            return Err(Error::new(
                Kind::Conflict,
                "IncorrectInstanceState",
                format!("{} is still held by {holder}", dir.id()),
            ));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
