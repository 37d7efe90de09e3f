//! `cumulet stop`, `start`, `reboot` and `terminate`.
//!
//! An instance that the EC2 API launched is changed through the API while `cumulet serve` runs, so that API and command line
//! say the same. Every other one, and every one while nobody serves, is changed by its supervisor.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use super::args::{RebootArgs, StartArgs, StopArgs, TerminateArgs};
use super::output::Output;
use super::run;
use super::server::{Server, Target};
use super::shape::StateChange;
use crate::doctor;
use crate::error::{Error, Kind, Result};
use crate::launch;
use crate::state::record::{Record, State};
use crate::state::{Home, InstanceDir, Listed};
use crate::supervise;
use crate::supervise::protocol::Request;

/// How long the last process of an instance may take to let go of it.
const LET_GO: Duration = Duration::from_secs(30);

/// How long a guest may take to shut down for a reboot, when nothing else is said.
const REBOOT: Duration = Duration::from_secs(600);

/// An instance that somebody runs, or not.
enum Found {
    Held(Box<Record>),
    Free(Box<Record>),
    Damaged(Error),
}

fn look(dir: &InstanceDir) -> Result<Found> {
    match dir.look()? {
        // Its supervisor has done everything and is about to exit.
        Some(Listed::Good {
            record,
            holder: Some(_),
        }) if record.state == State::Stopped => {
            supervise::wait_until_free(dir, LET_GO)?;
            Ok(Found::Free(record))
        }
        Some(Listed::Good {
            record,
            holder: Some(_),
        }) => Ok(Found::Held(record)),
        Some(Listed::Good { record, .. }) => Ok(Found::Free(record)),
        Some(Listed::Damaged { error, .. }) => Ok(Found::Damaged(error)),
        None => Err(Error::new(
            Kind::NotFound,
            "InvalidInstanceID.NotFound",
            format!("the instance ID '{}' does not exist", dir.id()),
        )),
    }
}

/// Which way an instance is changed.
enum Way<'a> {
    /// Through the server, whose instance it is.
    Server(&'a Server, Target<'a>),
    /// By us.
    Direct,
}

impl Found {
    fn way<'a>(&'a self, server: Option<&'a Server>) -> Way<'a> {
        let target = match self {
            Self::Held(record) | Self::Free(record) => Target::of(record),
            Self::Damaged(_) => None,
        };
        match (server, target) {
            (Some(server), Some(target)) => Way::Server(server, target),
            _ => Way::Direct,
        }
    }

    fn is_of_the_api(&self) -> bool {
        match self {
            Self::Held(record) | Self::Free(record) => record.place.is_some(),
            Self::Damaged(_) => false,
        }
    }
}

/// Looks at every instance that is named.
fn look_all(home: &Home, wanted: &[String]) -> Result<Vec<(InstanceDir, Found)>> {
    let mut found = Vec::new();
    for dir in find_all(home, wanted)? {
        let one = look(&dir)?;
        found.push((dir, one));
    }
    Ok(found)
}

/// The running server, if one of the instances is of the API.
fn server(home: &Home, found: &[(InstanceDir, Found)]) -> Result<Option<Server>> {
    if found.iter().any(|(_, found)| found.is_of_the_api()) {
        Server::find(home)
    } else {
        Ok(None)
    }
}

fn find_all(home: &Home, wanted: &[String]) -> Result<Vec<InstanceDir>> {
    let mut found: Vec<InstanceDir> = Vec::new();
    for name in wanted {
        let dir = home.find(name)?;
        if found.iter().all(|other| other.id() != dir.id()) {
            found.push(dir);
        }
    }
    Ok(found)
}

fn print(output: Output, key: &str, changes: &[StateChange]) {
    output.result(&json!({ key: changes }), || {
        let lines: Vec<String> = changes.iter().map(StateChange::text).collect();
        lines.join("\n")
    });
}

fn milliseconds(timeout: Duration, force: bool) -> u64 {
    if force {
        0
    } else {
        u64::try_from(timeout.as_millis())
            .unwrap_or(u64::MAX / 4)
            .max(1)
    }
}

/// A stop that was asked for.
enum Stopping<'a> {
    Server(&'a Server, Target<'a>),
    /// The supervisor's end is the end of the stream.
    Supervisor(Box<dyn Read>),
    /// It was stopped before.
    Done,
}

/// `cumulet stop`: all at once, then waits for each.
pub(super) fn stop(home: &Home, output: Output, args: &StopArgs) -> Result<u8> {
    let timeout_ms = milliseconds(args.timeout, args.force);
    let found = look_all(home, &args.instances)?;
    let server = server(home, &found)?;
    let mut asked = Vec::new();
    for (dir, found) in &found {
        let (previous, stopping) = match (found.way(server.as_ref()), found) {
            (Way::Server(server, target), _) => {
                let previous = server.change("StopInstances", target, force(args.force))?;
                (previous, Stopping::Server(server, target))
            }
            (Way::Direct, Found::Held(_)) => {
                let accepted = supervise::ask(dir, &Request::Stop { timeout_ms })?;
                let stream = Box::new(accepted.stream);
                (accepted.previous, Stopping::Supervisor(stream))
            }
            (Way::Direct, Found::Free(record)) => (record.state, Stopping::Done),
            (Way::Direct, Found::Damaged(error)) => return Err(error.clone()),
        };
        asked.push((dir, previous, stopping));
    }
    let mut changes = Vec::new();
    for (dir, previous, stopping) in asked {
        let spinner = output.spinner(&format!("stopping {}", dir.id()));
        let now = match stopping {
            Stopping::Server(server, target) => {
                let over = [State::Stopped, State::Terminated];
                // EC2's API knows no limit; when ours is over, we ask again with force.
                let late = || {
                    let cut = server.change("StopInstances", target, force(true));
                    cut.map(drop)
                };
                server.wait(target, &over, args.timeout, late)?.state
            }
            Stopping::Supervisor(mut stream) => {
                let _ = stream.read_to_end(&mut Vec::new());
                supervise::wait_until_free(dir, LET_GO)?;
                state_now(dir)?
            }
            Stopping::Done => state_now(dir)?,
        };
        spinner.finish_and_clear();
        changes.push(StateChange::new(dir.id(), previous, now));
    }
    print(output, "StoppingInstances", &changes);
    Ok(0)
}

fn force(yes: bool) -> &'static [(&'static str, &'static str)] {
    if yes { &[("Force", "true")] } else { &[] }
}

fn state_now(dir: &InstanceDir) -> Result<State> {
    match look(dir)? {
        Found::Held(record) | Found::Free(record) => Ok(record.state),
        Found::Damaged(error) => Err(error),
    }
}

/// `cumulet start`.
pub(super) fn start(home: &Home, output: Output, args: &StartArgs) -> Result<u8> {
    let found = look_all(home, &args.instances)?;
    let server = server(home, &found)?;
    // Before anything is started.
    for (dir, found) in &found {
        if server.is_none() && found.is_of_the_api() && !matches!(found, Found::Held(_)) {
            return Err(unserved(dir));
        }
    }
    let is_direct = |found: &Found| matches!(found.way(server.as_ref()), Way::Direct);
    if !args.skip_doctor && found.iter().any(|(_, found)| is_direct(found)) {
        doctor::require_fit()?;
    }
    let mut changes = Vec::new();
    for (dir, found) in &found {
        let change = match found.way(server.as_ref()) {
            Way::Server(server, target) => start_by(server, target, output)?,
            Way::Direct => start_one(home, output, dir)?,
        };
        changes.push(change);
    }
    print(output, "StartingInstances", &changes);
    Ok(0)
}

/// Its network and its public address are the server's to make.
fn unserved(dir: &InstanceDir) -> Error {
    let id = dir.id();
    Error::new(
        Kind::Conflict,
        "NotServing",
        format!("{id} was launched by the EC2 API, and nobody serves this state folder now"),
    )
    .mend(format!(
        "start `cumulet serve` in another terminal, then say `cumulet start {id}` again"
    ))
}

fn start_by(server: &Server, target: Target<'_>, output: Output) -> Result<StateChange> {
    let previous = server.change("StartInstances", target, &[])?;
    let spinner = output.spinner(&format!("starting {}", target.id));
    let over = [State::Running, State::Stopped, State::Terminated];
    let told = server.wait(target, &over, Duration::MAX, || Ok(()));
    spinner.finish_and_clear();
    let told = told?;
    if told.state == State::Running {
        return Ok(StateChange::new(target.id, previous, told.state));
    }
    let why = told.reason.map_or_else(
        || format!("{} is {} again", target.id, told.state),
        |reason| reason.message,
    );
    Err(
        Error::new(Kind::Instance, "Server.InternalError", why).mend(format!(
            "`cumulet logs {0}` and `cumulet logs --supervisor {0}` show how far it came",
            target.id
        )),
    )
}

fn start_one(home: &Home, output: Output, dir: &InstanceDir) -> Result<StateChange> {
    if let Found::Held(record) = look(dir)? {
        // As on EC2, starting what runs changes nothing.
        return match record.state {
            State::Pending | State::Running => {
                Ok(StateChange::new(dir.id(), record.state, record.state))
            }
            state => Err(Error::wrong_state(format!(
                "The instance '{}' is not in a state from which it can be started: it is {state}",
                dir.id()
            ))
            .mend("wait until it is stopped")),
        };
    }
    let mut previous = State::Stopped;
    let held = launch::ready(home, dir, "cumulet start", |record| {
        previous = record.state;
        Ok(())
    })?;
    let launched = supervise::launch_kept(home, held, false)?;
    run::wait_for_start(launched, output, dir)?;
    Ok(StateChange::new(dir.id(), previous, State::Running))
}

/// `cumulet reboot`.
pub(super) fn reboot(home: &Home, output: Output, args: &RebootArgs) -> Result<u8> {
    let timeout_ms = milliseconds(args.timeout.unwrap_or(REBOOT), args.force);
    // EC2's API knows neither.
    let special = args.force || args.timeout.is_some();
    let found = look_all(home, &args.instances)?;
    let server = server(home, &found)?.filter(|_| !special);
    let mut ids = Vec::new();
    let mut lines = Vec::new();
    for (dir, found) in &found {
        let id = dir.id();
        match (found.way(server.as_ref()), found) {
            (Way::Server(server, target), _) => {
                server.reboot(target)?;
                lines.push(format!("{id}: asked to reboot\n"));
            }
            (Way::Direct, Found::Held(_)) => {
                let spinner = output.spinner(&format!("rebooting {id}"));
                let accepted = supervise::ask(dir, &Request::Reboot { timeout_ms });
                spinner.finish_and_clear();
                accepted?;
                lines.push(format!("{id}: rebooted\n"));
            }
            (Way::Direct, Found::Free(record)) => {
                return Err(Error::wrong_state(format!(
                    "The instance '{id}' is not in a state from which it can be rebooted: it is {}",
                    record.state
                ))
                .mend(format!("`cumulet start {id}` starts it")));
            }
            (Way::Direct, Found::Damaged(error)) => return Err(error.clone()),
        }
        ids.push(id);
    }
    output.result(&json!({ "Return": true, "InstanceIds": ids }), || {
        lines.concat()
    });
    Ok(0)
}

/// `cumulet terminate`.
pub(super) fn terminate(home: &Home, output: Output, args: &TerminateArgs) -> Result<u8> {
    let found = look_all(home, &args.instances)?;
    let server = server(home, &found)?;
    let mut changes = Vec::new();
    for (dir, found) in found {
        let spinner = output.spinner(&format!("terminating {}", dir.id()));
        let terminated = match found.way(server.as_ref()) {
            Way::Server(server, target) => terminate_by(server, target),
            Way::Direct => terminate_one(home, output, &dir, found),
        };
        spinner.finish_and_clear();
        changes.push(StateChange::new(dir.id(), terminated?, State::Terminated));
    }
    print(output, "TerminatingInstances", &changes);
    Ok(0)
}

/// Gives the state before.
fn terminate_by(server: &Server, target: Target<'_>) -> Result<State> {
    let previous = server.change("TerminateInstances", target, &[])?;
    server.wait(target, &[State::Terminated], Duration::MAX, || Ok(()))?;
    Ok(previous)
}

/// Gives the state before.
fn terminate_one(home: &Home, output: Output, dir: &InstanceDir, found: Found) -> Result<State> {
    match found {
        Found::Held(_) => {
            let mut accepted = supervise::ask(dir, &Request::Terminate)?;
            let _ = accepted.stream.read_to_end(&mut Vec::new());
            if dir.path().exists() {
                supervise::wait_until_free(dir, LET_GO)?;
                // A supervisor killed in the middle leaves the rest to us.
                if let Ok(held) = dir.hold(home, "cumulet terminate") {
                    held.delete(home)?;
                }
            }
            Ok(accepted.previous)
        }
        Found::Free(record) => {
            dir.hold(home, "cumulet terminate")?.delete(home)?;
            Ok(record.state)
        }
        Found::Damaged(error) => {
            output.warn(&format!("{error}; deleted all the same"));
            home.remove(dir)?;
            Ok(State::Stopped)
        }
    }
}
