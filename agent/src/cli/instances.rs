//! `cumulet stop`, `start`, `reboot` and `terminate`.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use super::args::{RebootArgs, StartArgs, StopArgs, TerminateArgs};
use super::output::Output;
use super::run;
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

/// `cumulet stop`: all at once, then waits for each.
pub(super) fn stop(home: &Home, output: Output, args: &StopArgs) -> Result<u8> {
    let timeout_ms = milliseconds(args.timeout, args.force);
    let dirs = find_all(home, &args.instances)?;
    let mut asked = Vec::new();
    for dir in dirs {
        match look(&dir)? {
            Found::Held(_) => {
                let accepted = supervise::ask(&dir, &Request::Stop { timeout_ms })?;
                asked.push((dir, accepted.previous, Some(accepted.stream)));
            }
            Found::Free(record) => asked.push((dir, record.state, None)),
            Found::Damaged(error) => return Err(error),
        }
    }
    let mut changes = Vec::new();
    for (dir, previous, stream) in asked {
        if let Some(mut stream) = stream {
            let spinner = output.spinner(&format!("stopping {}", dir.id()));
            // The end of the stream is the end of the supervisor.
            let _ = stream.read_to_end(&mut Vec::new());
            supervise::wait_until_free(&dir, LET_GO)?;
            spinner.finish_and_clear();
        }
        let now = match look(&dir)? {
            Found::Held(record) | Found::Free(record) => record,
            Found::Damaged(error) => return Err(error),
        };
        changes.push(StateChange::new(dir.id(), previous, now.state));
    }
    print(output, "StoppingInstances", &changes);
    Ok(0)
}

/// `cumulet start`.
pub(super) fn start(home: &Home, output: Output, args: &StartArgs) -> Result<u8> {
    let dirs = find_all(home, &args.instances)?;
    if !args.skip_doctor {
        doctor::require_fit()?;
    }
    let mut changes = Vec::new();
    for dir in dirs {
        let change = start_one(home, output, &dir)?;
        changes.push(change);
    }
    print(output, "StartingInstances", &changes);
    Ok(0)
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
    let timeout_ms = milliseconds(args.timeout, args.force);
    let dirs = find_all(home, &args.instances)?;
    let mut ids = Vec::new();
    for dir in dirs {
        match look(&dir)? {
            Found::Held(_) => {}
            Found::Free(record) => {
                return Err(Error::wrong_state(format!(
                    "The instance '{}' is not in a state from which it can be rebooted: it is {}",
                    dir.id(),
                    record.state
                ))
                .mend(format!("`cumulet start {}` starts it", dir.id())));
            }
            Found::Damaged(error) => return Err(error),
        }
        let spinner = output.spinner(&format!("rebooting {}", dir.id()));
        let accepted = supervise::ask(&dir, &Request::Reboot { timeout_ms });
        spinner.finish_and_clear();
        accepted?;
        ids.push(dir.id().to_owned());
    }
    output.result(&json!({ "Return": true, "InstanceIds": ids }), || {
        ids.iter().map(|id| format!("{id}: rebooted\n")).collect()
    });
    Ok(0)
}

/// `cumulet terminate`.
pub(super) fn terminate(home: &Home, output: Output, args: &TerminateArgs) -> Result<u8> {
    let dirs = find_all(home, &args.instances)?;
    let mut changes = Vec::new();
    for dir in dirs {
        let previous = match look(&dir)? {
            Found::Held(_) => {
                let spinner = output.spinner(&format!("terminating {}", dir.id()));
                let accepted = supervise::ask(&dir, &Request::Terminate);
                let mut accepted = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        spinner.finish_and_clear();
                        return Err(error);
                    }
                };
                let _ = accepted.stream.read_to_end(&mut Vec::new());
                spinner.finish_and_clear();
                if dir.path().exists() {
                    supervise::wait_until_free(&dir, LET_GO)?;
                    // A supervisor killed in the middle leaves the rest to us.
                    if let Ok(held) = dir.hold(home, "cumulet terminate") {
                        held.delete(home)?;
                    }
                }
                accepted.previous
            }
            Found::Free(record) => {
                dir.hold(home, "cumulet terminate")?.delete(home)?;
                record.state
            }
            Found::Damaged(error) => {
                output.warn(&format!("{error}; deleted all the same"));
                home.remove(&dir)?;
                State::Stopped
            }
        };
        changes.push(StateChange::new(dir.id(), previous, State::Terminated));
    }
    print(output, "TerminatingInstances", &changes);
    Ok(0)
}
