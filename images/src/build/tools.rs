//! Running the host's programs: checked first, their words forwarded, ended with us.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::BuildError;

/// Lines kept of a program's output for its error.
const TAIL: usize = 20;

/// A program and the Debian package that has it.
pub(super) type Tool = (&'static str, &'static str);

/// The search path with the places where administration programs are.
pub(super) fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Checks that `tools` are installed.
pub(super) fn check(tools: &[Tool]) -> Result<(), BuildError> {
    let path = path();
    let there = |name: &str| {
        path.split(':')
            .any(|dir| Path::new(dir).join(name).is_file())
    };
    let missing: Vec<&Tool> = tools.iter().filter(|(name, _)| !there(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    Err(BuildError::Tools {
        programs: missing
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", "),
        line: format!(
            "apt-get install --no-install-recommends {}",
            packages.join(" ")
        ),
    })
}

/// Runs a program to its end; each line of its standard error goes to `line`. It is terminated when
/// we die.
pub(super) fn run(
    mut command: Command,
    what: &'static str,
    line: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |tail: String| BuildError::Program {
        what,
        program: program.clone(),
        tail,
    };
    command
        .env("PATH", path())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec only async-signal-safe work is allowed; prctl is one system call
    // and the closure allocates nothing.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from));
    }
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    let mut tail: VecDeque<String> = VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        for bytes in BufReader::new(stderr).split(b'\n') {
            let Ok(bytes) = bytes else { break };
            // Progress meters overwrite their line.
            let text = String::from_utf8_lossy(&bytes);
            let text = text.rsplit('\r').find(|part| !part.trim().is_empty());
            let Some(text) = text.map(str::trim_end) else {
                continue;
            };
            line(text);
            tail.push_back(text.to_owned());
            if tail.len() > TAIL {
                tail.pop_front();
            }
        }
    }
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    if status.success() {
        return Ok(());
    }
    tail.push_front(status.to_string());
    Err(failed(tail.into_iter().collect::<Vec<_>>().join("\n  ")))
}
