//! Completion of the command line in the user's shell: `cumulet completions`, and what it completes with.
//!
//! The shell's script asks this program ([`answer`]), so that instances and images complete as they are now. Nothing is made
//! and nothing is changed for it, and whatever goes wrong, nothing is offered.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, CompletionCandidate};
use cumulet_images::build::RECIPES;
use cumulet_images::store::AmiStore;
use serde_json::json;

use super::args::{Cli, CompletionsArgs};
use super::env::quoted;
use super::output::Output;
use crate::error::{Context as _, Error, Result};
use crate::state::record::State;
use crate::state::{Home, Listed};
use crate::types;

/// In the environment of this program when a shell asks it.
const ASKED: &str = "CUMULET_COMPLETE";

/// Answers a shell that asks what may come next, and ends the process; does nothing in any other case.
pub(super) fn answer() {
    CompleteEnv::with_factory(Cli::command)
        .var(ASKED)
        .complete();
}

/// `cumulet completions`.
pub(super) fn command(output: Output, args: &CompletionsArgs) -> Result<u8> {
    let name = args.shell.to_string();
    let doing = || format!("cannot make the completions for {name}");
    let shells = Shells::builtins();
    let shell = shells
        .completer(&name)
        .ok_or_else(|| Error::internal(doing()))?;
    let own = called(&env::args_os().next().unwrap_or_default());
    let program = own.to_string_lossy();
    let mut script = Vec::new();
    shell
        .write_registration(ASKED, "cumulet", "cumulet", &program, &mut script)
        .context(doing)?;
    let script = String::from_utf8(script).context(doing)?;
    output.result(&json!({ "Shell": name, "Script": script }), || {
        script.clone()
    });
    Ok(0)
}

/// How the script finds this program: by PATH if that is how it was called, else where it is.
fn called(first: &OsString) -> PathBuf {
    let path = Path::new(first);
    if path.components().count() > 1 {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    } else {
        path.to_owned()
    }
}

/// The state folder that the words before name, as it is.
fn home() -> Option<Home> {
    let typed = typed_home(env::args_os());
    let from_env = || env::var_os("CUMULET_HOME").map(PathBuf::from);
    Home::look(typed.or_else(from_env).as_deref()).ok()
}

/// `--home` among the words that are there already.
fn typed_home(words: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut words = words.filter_map(|word| word.into_string().ok());
    while let Some(word) = words.next() {
        if word == "--home" {
            return words.next().map(PathBuf::from);
        }
        if let Some(folder) = word.strip_prefix("--home=") {
            return Some(folder.into());
        }
    }
    None
}

fn candidate(value: &str, help: String) -> CompletionCandidate {
    CompletionCandidate::new(value).help(Some(help.into()))
}

/// Ids and names of the instances in these states.
fn instances(wanted: fn(State) -> bool) -> Vec<CompletionCandidate> {
    let listed = home().and_then(|home| home.list().ok());
    let mut found = Vec::new();
    for one in listed.unwrap_or_default() {
        let Listed::Good { record, .. } = one else {
            continue;
        };
        if !wanted(record.state) {
            continue;
        }
        let (id, state) = (&record.instance_id, record.state);
        let name = record.name().unwrap_or("no name");
        found.push(candidate(id, format!("{name}, {state}")));
        // What has to be quoted is not offered.
        if let Some(name) = record.name().filter(|name| quoted(name) == *name) {
            found.push(candidate(name, format!("{id}, {state}")));
        }
    }
    found
}

/// Every instance.
pub(super) fn any() -> Vec<CompletionCandidate> {
    instances(|_| true)
}

/// Instances that can be started.
pub(super) fn stopped() -> Vec<CompletionCandidate> {
    instances(|state| state == State::Stopped)
}

/// Instances that somebody runs.
pub(super) fn running() -> Vec<CompletionCandidate> {
    instances(|state| state != State::Stopped)
}

/// Ids and names of AMIs.
pub(super) fn amis() -> Vec<CompletionCandidate> {
    let folder = home().map(|home| home.amis());
    // Opening a store makes it.
    let store = folder
        .filter(|folder| folder.is_dir())
        .and_then(|folder| AmiStore::open(&folder).ok());
    let amis = store.and_then(|store| store.list().ok());
    let mut found = Vec::new();
    for ami in amis.unwrap_or_default() {
        found.push(candidate(&ami.id, ami.name.clone()));
        if quoted(&ami.name) == ami.name {
            found.push(candidate(&ami.name, ami.id));
        }
    }
    found
}

/// Instance types.
pub(super) fn types() -> Vec<CompletionCandidate> {
    let help =
        |known: &types::InstanceType| format!("{} vCPUs, {} MiB", known.vcpus, known.memory_mib);
    types::all()
        .map(|known| candidate(&known.name, help(&known)))
        .collect()
}

/// What `cumulet images build` can build.
pub(super) fn recipes() -> Vec<CompletionCandidate> {
    RECIPES.iter().map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_is_the_one_typed() {
        let typed = |line: &str| typed_home(line.split(' ').map(OsString::from));
        assert_eq!(typed("cumulet -- cumulet stop "), None);
        let given = Some(PathBuf::from("/a"));
        assert_eq!(typed("cumulet -- cumulet --home /a stop "), given);
        assert_eq!(typed("cumulet -- cumulet stop --home=/a "), given);
    }

    #[test]
    fn a_program_called_by_its_path_is_found_from_anywhere() {
        assert_eq!(called(&"cumulet".into()), Path::new("cumulet"));
        assert!(called(&"target/debug/cumulet".into()).is_absolute());
    }
}
