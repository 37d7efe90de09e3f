//! `cumulet ssh` and the byte stream under it.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::args::{DialArgs, SshArgs};
use super::output::Output;
use crate::error::{Context, Error, Kind, Result};
use crate::state::record::Record;
use crate::state::{Home, InstanceDir, Listed};
use crate::supervise;

/// The user that the AMIs of `cumulet images build` have.
pub(super) const DEFAULT_USER: &str = "ec2-user";
/// How long a guest may take until its ssh server answers.
pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(15 * 60);
const SSH_PORT: u16 = 22;
/// Status with which ssh says that the connection failed (ssh(1), "EXIT STATUS").
const BROKEN: i32 = 255;
/// How long one try may take.
const TRY: Duration = Duration::from_secs(20);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// What the session is to be.
#[derive(Debug)]
pub(super) struct Session<'a> {
    /// User in the guest.
    pub(super) user: &'a str,
    /// Private key, when not the instance's own.
    pub(super) identity: Option<&'a Path>,
    /// Command, or a shell.
    pub(super) command: &'a [String],
    /// How long to wait for the guest.
    pub(super) wait: Duration,
}

/// `cumulet ssh`.
pub(super) fn command(home: &Home, output: Output, args: SshArgs) -> Result<u8> {
    let dir = home.find(&args.instance)?;
    let record = running(&dir)?;
    let session = Session {
        user: &args.user,
        identity: args.identity.as_deref(),
        command: &args.command,
        wait: args.wait,
    };
    let mut alive = || running(&dir).map(drop);
    self::session(home, output, &record, &session, &mut alive)
}

/// The record of an instance that somebody runs.
pub(super) fn running(dir: &InstanceDir) -> Result<Record> {
    match dir.look()? {
        Some(Listed::Good {
            record,
            holder: Some(_),
        }) => Ok(*record),
        Some(Listed::Good { record, .. }) => {
            let id = dir.id();
            Err(Error::wrong_state(format!("{id} is {}", record.state))
                .mend(format!("`cumulet start {id}` starts it")))
        }
        Some(Listed::Damaged { error, .. }) => Err(error),
        None => Err(Error::new(
            Kind::NotFound,
            "InvalidInstanceID.NotFound",
            format!("{} has ended", dir.id()),
        )),
    }
}

/// Waits for the guest's ssh server and runs ssh; gives its exit status. `go_on` is asked between
/// tries.
pub(super) fn session(
    home: &Home,
    output: Output,
    record: &Record,
    session: &Session<'_>,
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<u8> {
    let dir = home.instance(&record.instance_id)?;
    wait_for_server(&dir, output, session.wait, go_on)?;
    let identity = session
        .identity
        .or_else(|| record.key.as_ref().and_then(|key| key.identity.as_deref()));
    let program = env::current_exe().context(|| "cannot find our own program")?;
    let proxy = [
        &*program.to_string_lossy(),
        "--home",
        &home.root().to_string_lossy(),
    ]
    .map(quote)
    .join(" ");
    let hosts = dir.file("known_hosts");
    let mut ssh = Command::new("ssh");
    let mut option = |text: String| {
        ssh.arg("-o").arg(text);
    };
    option(format!("ProxyCommand={proxy} __dial {} %p", dir.id()));
    option(format!("UserKnownHostsFile=\"{}\"", hosts.display()));
    // The name is the instance's id, and the way to it is ours: the first key seen is its own.
    option("StrictHostKeyChecking=accept-new".into());
    option("LogLevel=ERROR".into());
    option("ControlMaster=no".into());
    option("ControlPath=none".into());
    if let Some(identity) = identity {
        option("IdentitiesOnly=yes".into());
        ssh.arg("-i").arg(identity);
    }
    ssh.args(["-l", session.user, "--", dir.id()]);
    ssh.args(session.command);
    // While ssh runs, the terminal's Ctrl-C is its business. A handler (unlike "ignore") is not
    // inherited over exec.
    let _quiet = Quiet::start();
    // SAFETY: between fork and exec only sigprocmask is called, on the stack.
    unsafe { ssh.pre_exec(|| SigSet::empty().thread_set_mask().map_err(Into::into)) };
    let status = ssh.status().map_err(|error| {
        Error::host("MissingTool", "cannot start ssh")
            .because(&error)
            .mend("`sudo apt-get install openssh-client`")
    })?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    if code == BROKEN {
        output.note(&broken(&dir));
    }
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// What to say of a connection that did not come about or broke. Of the latter, as in a reboot, ssh says nothing at the
/// level at which it does not chatter.
fn broken(dir: &InstanceDir) -> String {
    let id = dir.id();
    match running(dir) {
        Ok(_) => format!(
            "the ssh connection to {id} ended before its time: the guest restarts, or refused it; `cumulet ssh {id}` waits \
             until it answers again"
        ),
        Err(error) => format!("the ssh connection to {id} ended before its time: {error}"),
    }
}

/// Quotes a word for the shell that runs ProxyCommand; `%` is ssh's own.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''").replace('%', "%%"))
}

/// Ctrl-C does nothing while it lives.
struct Quiet(Option<SigAction>);

extern "C" fn nothing(_: libc::c_int) {}

impl Quiet {
    fn start() -> Self {
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing at all.
        Self(unsafe { sigaction(Signal::SIGINT, &action) }.ok())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: this is the action that was in force before.
            let _ = unsafe { sigaction(Signal::SIGINT, before) };
        }
    }
}

/// Waits until the guest's ssh server says its first line.
fn wait_for_server(
    dir: &InstanceDir,
    output: Output,
    limit: Duration,
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let spinner = output.spinner(&format!("waiting for ssh on {}", dir.id()));
    let end = Instant::now() + limit;
    loop {
        let why = match banner(dir) {
            Ok(()) => break,
            Err(why) => why,
        };
        let gone = go_on();
        if gone.is_err() || Instant::now() >= end {
            spinner.finish_and_clear();
            gone?;
            let id = dir.id();
            return Err(Error::new(
                Kind::Instance,
                "GuestUnreachable",
                format!(
                    "no ssh server answered on {id} in {}",
                    humantime::format_duration(limit)
                ),
            )
            .because(&why)
            .mend(format!(
                "`cumulet console --log {id}` shows how far it came; --wait waits longer"
            )));
        }
        thread::sleep(PAUSE);
    }
    spinner.finish_and_clear();
    Ok(())
}

fn banner(dir: &InstanceDir) -> Result<()> {
    let doing = || "no answer on port 22";
    let mut stream = supervise::dial(dir, SSH_PORT)?;
    stream
        .get_ref()
        .set_read_timeout(Some(TRY))
        .context(doing)?;
    let mut line = Vec::new();
    (&mut stream)
        .take(255)
        .read_until(b'\n', &mut line)
        .context(doing)?;
    if line.starts_with(b"SSH-") {
        Ok(())
    } else {
        Err(Error::internal("port 22 does not speak ssh"))
    }
}

/// `cumulet __dial`: standard input and output become the guest's port.
pub(super) fn dial(home: &Home, args: &DialArgs) -> Result<u8> {
    let dir = home.instance(&args.instance)?;
    let stream = supervise::dial(&dir, args.port)?;
    join(stream).context(|| "the connection to the guest broke")?;
    Ok(0)
}

fn join(mut from_guest: BufReader<UnixStream>) -> io::Result<()> {
    let mut to_guest = from_guest.get_ref().try_clone()?;
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut to_guest);
        let _ = to_guest.shutdown(Shutdown::Write);
    });
    // Not io::copy: standard output is line-buffered, and ssh waits for every byte.
    let mut out = io::stdout().lock();
    loop {
        let bytes = from_guest.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        out.write_all(bytes)?;
        out.flush()?;
        let used = bytes.len();
        from_guest.consume(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_a_shell() {
        for word in ["plain", "with space", "it's", "$HOME `x`", "a\\b"] {
            let out = Command::new("sh")
                .args(["-c", &format!("printf %s {}", quote(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), word);
        }
        assert_eq!(quote("50%"), "'50%%'");
    }
}
