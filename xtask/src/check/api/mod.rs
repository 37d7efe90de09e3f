//! EC2's own SDKs against `cumulet serve`: the scripts of `tests/api`, one after another against one server.
//!
//! Each script prints one line a case, `ok NAME` or `FAIL NAME: WHY`, and is run by the harness of its language.

pub(super) mod server;

use super::{Log, Tally};
use crate::{api_lint, python, setup, workspace};
use anyhow::{Context as _, Result, bail};
use server::{Server, bound_to_us};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A script that runs so long hangs.
const GUARD: Duration = Duration::from_secs(900);

/// What a script is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Python,
    JavaScript,
    /// Python in the environment of Ansible, which is large: in `soak` only.
    Ansible,
    /// Python that runs Debian's Packer: in `soak` only.
    Packer,
    /// A project of its own that takes minutes to compile: in `soak` only.
    Rust,
}

impl Language {
    fn is_for_soak(self) -> bool {
        matches!(self, Self::Ansible | Self::Packer | Self::Rust)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Script {
    /// `python/key_pairs`.
    name: String,
    path: PathBuf,
    language: Language,
}

/// Runs api-lint, then every script whose name contains one of `wanted` (all when there is none).
pub(super) fn run(log: &Log, wanted: &[String], soak: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    log.say("api-lint");
    match api_lint::run(&api_lint::LintArgs::default()) {
        Ok(()) => tally.passed += 1,
        Err(error) => {
            log.say(&format!("FAILED api-lint: {error:#}"));
            tally.failed += 1;
        }
    }
    let mut scripts = scripts(&python::scripts()?)?;
    scripts.retain(|script| soak || !script.language.is_for_soak());
    let wanted = |script: &Script| {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|word| script.name.contains(word.as_str()))
    };
    scripts.retain(wanted);
    if scripts.is_empty() {
        bail!("no script of tests/api has such a name");
    }
    // Both before the server starts: the first time they take a minute.
    let python = python::interpreter()?;
    let modules = python::node_modules()?;
    let program = workspace::profile_dir("dev")?.join("cumulet");
    let server = Server::start(Command::new(&program))?;
    log.say(&format!("cumulet serve listens at {}", server.endpoint()));
    for script in &scripts {
        let mut command = match script.language {
            Language::Python => Command::new(&python),
            Language::JavaScript => Command::new("node"),
            Language::Packer => {
                setup::ensure_program("packer", &["packer"])?;
                Command::new(&python)
            }
            Language::Rust => Command::new(sdk(&script.path)?),
            Language::Ansible => Command::new(python::environment("ansible/requirements.txt")?),
        };
        command
            .arg(&script.path)
            .current_dir(server.scratch(&script.name)?)
            .env("CUMULET_NODE_MODULES", modules.join("node_modules"))
            .env("CUMULET_PYTHON", &python)
            .env("CUMULET_PROGRAM", &program)
            // Nothing is written beside the scripts.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        server.introduce(&mut command)?;
        let done = watch(&mut command).with_context(|| script.name.clone())?;
        log.say(&format!(
            "{}: {} passed, {} failed",
            script.name, done.passed, done.failed
        ));
        tally += done;
    }
    if tally.failed > 0 {
        log.say(&format!("the server said:\n{}", server.said()));
    }
    server.end()?;
    Ok(tally)
}

/// Builds the program of EC2's SDK for Rust.
fn sdk(source: &Path) -> Result<PathBuf> {
    let target = workspace::target()?.join("sdk-rust");
    let manifest = source.with_file_name("Cargo.toml");
    let mut build = workspace::cargo()?;
    build
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target);
    crate::sh::run(&mut build)?;
    Ok(target.join("debug/sdk"))
}

/// The scripts below `folder`, by name; the harnesses are none.
fn scripts(folder: &Path) -> Result<Vec<Script>> {
    let mut scripts = Vec::new();
    for (below, extension, language) in [
        ("python", "py", Language::Python),
        ("js", "mjs", Language::JavaScript),
        ("ansible", "py", Language::Ansible),
        ("packer", "py", Language::Packer),
        ("rust", "rs", Language::Rust),
    ] {
        let folder = folder.join(below);
        for found in
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let path = found?.path();
            let stem = path.file_stem().map(|stem| stem.to_string_lossy());
            let (Some(stem), true) = (stem, path.extension().is_some_and(|e| e == extension))
            else {
                continue;
            };
            if stem != "harness" {
                scripts.push(Script {
                    name: format!("{below}/{stem}"),
                    path: path.clone(),
                    language,
                });
            }
        }
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

/// Runs a script, shows its lines and counts its cases.
fn watch(command: &mut Command) -> Result<Tally> {
    let (reader, writer) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut script = bound_to_us(command)
        .spawn()
        .with_context(|| format!("cannot start `{}`", crate::sh::show(command)))?;
    // The command holds the writing ends too.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (lines, said) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines() {
            if line.map(|line| lines.send(line)).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + GUARD;
    let mut tally = Tally::default();
    loop {
        match said.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                tally += case(&line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                script.kill()?;
                script.wait()?;
                bail!("it had not ended after {} s", GUARD.as_secs());
            }
        }
    }
    let status = script.wait()?;
    if !status.success() && tally.failed == 0 {
        bail!("it ended with {status}");
    }
    if tally == Tally::default() {
        bail!("it ran no case");
    }
    Ok(tally)
}

/// What a line of a script tells.
fn case(line: &str) -> Tally {
    Tally {
        passed: u64::from(line.starts_with("ok ")),
        failed: u64::from(line.starts_with("FAIL ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Tally> {
        watch(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn cases_are_counted() {
        let two = shell("echo ok a; echo FAIL b: why; echo '  ok not a case'; exit 1").unwrap();
        let expected = Tally {
            passed: 1,
            failed: 1,
        };
        assert_eq!(two, expected);
    }

    #[test]
    fn a_script_that_breaks_or_does_nothing_fails() {
        let error = |script| shell(script).unwrap_err().to_string();
        assert!(error("echo ok a; exit 3").contains("exit status: 3"));
        assert!(error("true").contains("no case"));
    }

    #[test]
    fn harnesses_are_no_scripts() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "python/harness.py",
            "python/vpcs.py",
            "python/requirements.txt",
            "js/harness.mjs",
            "js/core.mjs",
            "ansible/play.py",
            "ansible/play.yml",
            "packer/build.json",
            "packer/build.py",
            "rust/Cargo.toml",
            "rust/sdk.rs",
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let scripts = scripts(folder.path()).unwrap();
        let names: Vec<_> = scripts.iter().map(|script| script.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "ansible/play",
                "js/core",
                "packer/build",
                "python/vpcs",
                "rust/sdk"
            ]
        );
    }
}
