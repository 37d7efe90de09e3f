//! The scripts of `tests/first_hour`: what a newcomer types, against `cumulet serve` over real machines.
//!
//! ```text
//!  this machine     aws, boto3 ── AWS_ENDPOINT_URL ──┐        cumulet ssh, list, console
//!                                                    │ forwarded            │ carried over, with the folder's files
//!  where guests run          cumulet serve at 127.0.0.1:PORT             cumulet
//! ```
//!
//! On a machine whose own KVM is fit both lines are one.

use super::api::server::{Folder, bound_to_us, clear_aws};
use crate::host::BIN;
use crate::kvm_host::KvmHost;
use crate::l1::proto::{Exec, Exit};
use crate::l1::{self, client};
use crate::{native, python, workspace};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// A script that runs so long hangs: three boots of a Debian take minutes each where the processor is emulated.
const GUARD: Duration = Duration::from_secs(2 * 3600);
/// The server has this long to say where it is, and each small command to end.
const START: Duration = Duration::from_secs(600);
/// What the scripts have in common, and no script.
const COMMON: &str = "terminal";

/// Runs the agent until it is told to end.
const SERVE: &str = r#"mkdir -p "$CUMULET_HOME" && ln -s "$CUMULET_AMI_HOME/amis" "$CUMULET_HOME/amis" &&
echo $$ >"$CUMULET_HOME.pid" && exec "$CUMULET_BIN_DIR/cumulet" serve --listen 127.0.0.1:0"#;
/// Ends it as a user would, and after a while as nobody would like.
const END: &str = r#"pid=$(cat "$CUMULET_HOME.pid") || exit 0
kill -TERM "$pid" 2>/dev/null
for i in $(seq 60); do kill -0 "$pid" 2>/dev/null || exit 0; sleep 1; done
kill -KILL "$pid""#;
/// Shows what the supervisors of machines that are left have logged.
const SUPERVISORS: &str = r#"cd "$CUMULET_HOME/instances" && tail -n 30 -- */supervisor.log"#;

/// Name and path of every script.
pub(super) fn scripts() -> Result<Vec<(String, PathBuf)>> {
    let folder = workspace::root()?.join("tests/first_hour");
    let mut scripts = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if let Some(stem) = path.file_stem().map(|stem| stem.to_string_lossy())
            && path.extension().is_some_and(|extension| extension == "py")
            && stem != COMMON
        {
            scripts.push((stem.into_owned(), path));
        }
    }
    scripts.sort();
    Ok(scripts)
}

/// The line with which a script ends that went well.
pub(super) fn proof(script: &Path) -> String {
    let name = script.file_name().unwrap_or_default().to_string_lossy();
    format!("ok   {name}")
}

/// Runs a script against a server and a state folder of its own on that host.
pub(super) fn run(host: &KvmHost, script: &Path, output: &mut Vec<u8>) -> Result<Exit> {
    let python = python::interpreter()?;
    let folder = Folder::make()?;
    let stage = Stage {
        host,
        home: folder.path().join("home"),
        folder: folder.path(),
    };
    let said = Mutex::new(Vec::new());
    let (played, served) = thread::scope(|scope| {
        let server = scope.spawn(|| stage.serve(&said));
        let played = stage
            .find_server(&server)
            .and_then(|variables| stage.play(&python, script, &variables, output));
        // A server that has ended by itself, or with its host, is told of below.
        let _ = stage.shell(END);
        let served = match server.join() {
            Ok(served) => served,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (played, served)
    });
    let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
    let well = |exit: &Result<Exit>| exit.as_ref().is_ok_and(|exit| exit.code == 0);
    if !well(&played) || !well(&served) {
        output.extend_from_slice(b"--- cumulet serve\n");
        output.extend_from_slice(&said);
        if let Ok((_, logs)) = stage.shell(SUPERVISORS) {
            output.extend_from_slice(b"--- supervisors\n");
            output.extend_from_slice(logs.as_bytes());
        }
    }
    // Whatever a script makes of it: with its host gone it was not the script that failed.
    stage.tidy()?;
    let (played, served) = (played?, served?);
    if played.code == 0 && served.code != 0 {
        bail!("`cumulet serve` ended with {}", served.code);
    }
    Ok(Exit {
        code: played.code,
        leftovers: served.leftovers,
    })
}

/// Where a script plays.
struct Stage<'a> {
    host: &'a KvmHost,
    /// A folder of this machine, and of the host where that is another.
    folder: &'a Path,
    /// The state folder, on the host.
    home: PathBuf,
}

impl Stage<'_> {
    fn request(&self, script: &str) -> Exec {
        Exec {
            argv: ["sh", "-c", script].map(String::from).into(),
            env: vec![(
                "CUMULET_HOME".into(),
                self.home.to_string_lossy().into_owned(),
            )],
            cwd: Some("/tmp".into()),
            ..Exec::default()
        }
    }

    /// Runs a small command on the host; its exit code and what it prints.
    fn shell(&self, script: &str) -> Result<(i32, String)> {
        let mut text = Vec::new();
        let exit = self.host.exec(&self.request(script), START, |_, bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok((exit.code, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Runs the server to its end. Machines that it leaves running are named, and killed.
    fn serve(&self, said: &Mutex<Vec<u8>>) -> Result<Exit> {
        let request = Exec {
            reap: true,
            ..self.request(SERVE)
        };
        self.host.exec(&request, GUARD + START, |_, bytes| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.extend_from_slice(bytes);
            Ok(())
        })
    }

    /// The variables that `cumulet env` prints, when the server is there.
    fn find_server(
        &self,
        server: &ScopedJoinHandle<'_, Result<Exit>>,
    ) -> Result<HashMap<String, String>> {
        let end = Instant::now() + START;
        loop {
            let (code, text) =
                self.shell("\"$CUMULET_BIN_DIR/cumulet\" --output json env 2>/dev/null")?;
            if code == 0 {
                return serde_json::from_str(&text)
                    .with_context(|| format!("`cumulet env` prints no variables: {text}"));
            }
            if server.is_finished() {
                bail!("`cumulet serve` has ended");
            }
            if Instant::now() > end {
                bail!(
                    "`cumulet serve` has not said where it is for {} s",
                    START.as_secs()
                );
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Runs the script on this machine, with `aws` and `cumulet` on its PATH.
    fn play(
        &self,
        python: &Path,
        script: &Path,
        variables: &HashMap<String, String>,
        output: &mut Vec<u8>,
    ) -> Result<Exit> {
        let endpoint = variables
            .get("AWS_ENDPOINT_URL")
            .context("`cumulet env` names no endpoint")?;
        let port = endpoint
            .rsplit_once(':')
            .and_then(|(_, port)| port.trim_end_matches('/').parse().ok())
            .with_context(|| format!("the endpoint {endpoint} names no port"))?;
        let forward = self.host.forward(port)?;
        let endpoint = match &forward {
            Some(forward) => format!("http://{}", forward.address()),
            None => endpoint.clone(),
        };
        let (bin, work) = (self.folder.join("bin"), self.folder.join("work"));
        fs::create_dir(&bin)?;
        fs::create_dir(&work)?;
        program(
            &bin.join("aws"),
            &format!("exec '{}' -m awscli \"$@\"", python.display()),
        )?;
        program(&bin.join("cumulet"), &self.cumulet()?)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&path)))?;
        let nothing = self.folder.join("nothing");
        fs::write(&nothing, "")?;
        let mut command = Command::new(python);
        clear_aws(&mut command);
        command
            .arg(script)
            .current_dir(&work)
            .envs(variables)
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_CONFIG_FILE", &nothing)
            .env("AWS_SHARED_CREDENTIALS_FILE", &nothing)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            // An error is to be seen, not tried again.
            .env("AWS_MAX_ATTEMPTS", "1")
            .env("AWS_PAGER", "")
            .env("CUMULET_HOME", &self.home)
            .env("HOME", self.folder)
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .env("PATH", path)
            // Nothing is written beside the scripts.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        bound_to_us(&mut command);
        let mut terminal = terminal(script)?;
        native::run(command, false, GUARD, |_, bytes| {
            output.extend_from_slice(bytes);
            Ok(terminal.write_all(bytes)?)
        })
    }

    /// What `cumulet` is on this machine.
    fn cumulet(&self) -> Result<String> {
        Ok(match self.host {
            KvmHost::Native { .. } => {
                let program = workspace::profile_dir(super::e2e::PROFILE)?.join("cumulet");
                format!("exec '{}' \"$@\"", program.display())
            }
            KvmHost::Emulated { name, .. } => {
                let xtask = std::env::current_exe().context("cannot find our own program")?;
                format!(
                    "exec '{}' first-hour-cumulet --run '{}' -- \"$@\"",
                    xtask.display(),
                    l1::run_dir(name)?.display()
                )
            }
        })
    }

    /// Removes what is left on the host; an error when the host is no more.
    fn tidy(&self) -> Result<()> {
        let folder = self.folder.display();
        let (code, text) = self.shell(&format!("rm -rf '{folder}'"))?;
        if code != 0 {
            bail!("cannot remove {folder}: {text}");
        }
        Ok(())
    }
}

/// The file in which a script's terminal can be watched, and read afterwards.
fn terminal(script: &Path) -> Result<File> {
    let folder = workspace::target()?.join("first_hour");
    fs::create_dir_all(&folder)?;
    let name = script.with_extension("txt");
    let path = folder.join(name.file_name().unwrap_or_default());
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a program of the shell's.
fn program(path: &Path, line: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{line}\n"))?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

/// `cumulet` in an emulated host that runs, typed on this machine.
#[derive(Args)]
pub(crate) struct CumuletArgs {
    /// The L1's run folder. By its name it could not be found: a script has another home folder.
    #[arg(long)]
    run: PathBuf,
    /// Arguments of cumulet.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs it there as it would run here: the plain files of the current folder are brought along, and it has the state
/// folder that `CUMULET_HOME` names.
pub(crate) fn cumulet(args: CumuletArgs) -> Result<()> {
    let lease = client::lease_running(&args.run)?;
    let here = std::env::current_dir().context("cannot find the current folder")?;
    for entry in fs::read_dir(&here)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            lease.push(&entry.path(), &entry.path())?;
        }
    }
    let home = std::env::var("CUMULET_HOME").context("no CUMULET_HOME")?;
    let mut argv = vec![format!("{BIN}/cumulet")];
    argv.extend(args.arguments);
    let request = Exec {
        argv,
        env: vec![("CUMULET_HOME".into(), home)],
        cwd: Some(here),
        ..Exec::default()
    };
    let exit = lease.exec(&request, None, None, client::pass_on)?;
    drop(lease);
    std::process::exit(exit.code)
}
