//! Using an L1 from outside: leases, commands, files.

use super::forward::Forward;
use super::owner::{self, Ask, Tell};
use super::proto::{self, Exec, Exit, Opening, Request, kind};
use super::{Flavour, files};
use anyhow::{Context as _, Result, anyhow, bail};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// L1 went away under a request.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) reason: String,
    /// The emulator's fault, not that of what ran in it: worth another try.
    pub(crate) stalled: bool,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "the emulated host is gone: {}", self.reason)
    }
}

impl std::error::Error for Lost {}

/// A command took longer than its guard allows and was killed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overdue(pub(crate) Duration);

impl std::fmt::Display for Overdue {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "killed: it did not end within {} s", self.0.as_secs())
    }
}

impl std::error::Error for Overdue {}

/// The right to use an L1; it stays up at least as long as this value lives.
pub(crate) struct Lease {
    agent: Agent,
    lost: Arc<(Mutex<Option<Lost>>, Condvar)>,
    connection: UnixStream,
}

/// The way to the agent of an L1.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    port: u16,
    token: String,
}

impl Agent {
    /// A connection whose request has been sent.
    pub(super) fn open(&self, request: Request) -> Result<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        let opening = Opening {
            version: proto::VERSION,
            token: self.token.clone(),
            request,
        };
        proto::send_json(&mut stream, kind::OPEN, &opening)?;
        Ok(stream)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.connection.shutdown(std::net::Shutdown::Both);
    }
}

/// Takes a lease, starting L1 first when none runs.
pub(crate) fn lease(flavour: &Flavour) -> Result<Lease> {
    let dir = super::run_dir(&flavour.name)?;
    let connection = match connect(&dir) {
        Some(connection) => connection,
        None => start_owner(&dir, flavour)?,
    };
    lease_of(connection, &dir)
}

/// Takes a lease of the L1 with this run folder, which must run.
pub(crate) fn lease_running(dir: &Path) -> Result<Lease> {
    let connection =
        connect(dir).with_context(|| format!("no emulated host runs in {}", dir.display()))?;
    lease_of(connection, dir)
}

fn lease_of(mut connection: UnixStream, dir: &Path) -> Result<Lease> {
    ask(&mut connection, &Ask::Lease)?;
    let mut lines = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    if line.is_empty() {
        bail!(
            "the owner of the emulated host ended; its log:\n{}",
            super::tail(&dir.join("owner.log"), 20)
        );
    }
    let (port, token) = match serde_json::from_str(&line)? {
        Tell::Ready { port, token } => (port, token),
        Tell::Gone { reason, stalled } => return Err(Lost { reason, stalled }.into()),
        other @ Tell::Status { .. } => bail!("unexpected answer of the owner: {other:?}"),
    };
    let lost = Arc::new((Mutex::new(None), Condvar::new()));
    let news = Arc::clone(&lost);
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = lines.read_line(&mut line);
        let what = match serde_json::from_str(&line) {
            Ok(Tell::Gone { reason, stalled }) => Lost { reason, stalled },
            _ => Lost {
                reason: "its owner died".into(),
                stalled: false,
            },
        };
        *news.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
        news.1.notify_all();
    });
    Ok(Lease {
        agent: Agent { port, token },
        lost,
        connection,
    })
}

/// Asks the owner of a running L1; `None` when there is none.
pub(crate) fn query(name: &str, what: &Ask) -> Result<Option<Tell>> {
    let Some(mut connection) = connect(&super::run_dir(name)?) else {
        return Ok(None);
    };
    ask(&mut connection, what)?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    if line.is_empty() {
        Ok(None)
    } else {
        Ok(Some(serde_json::from_str(&line)?))
    }
}

fn connect(dir: &Path) -> Option<UnixStream> {
    UnixStream::connect(dir.join(owner::SOCKET)).ok()
}

fn ask(connection: &mut UnixStream, what: &Ask) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(connection.write_all(&line)?)
}

fn start_owner(dir: &Path, flavour: &Flavour) -> Result<UnixStream> {
    crate::cache::private_dir(dir)?;
    crate::setup::ensure()?;
    // Here, in the foreground, so that its progress is seen.
    super::image::ensure()?;
    let mut child = spawn_owner(dir, flavour)?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        if let Some(connection) = connect(dir) {
            return Ok(connection);
        }
        match child.try_wait()? {
            // It found another owner at work: one that has just started, or one that is about to end.
            Some(status) if status.success() => {
                std::thread::sleep(Duration::from_millis(200));
                if connect(dir).is_none() {
                    child = spawn_owner(dir, flavour)?;
                }
            }
            Some(status) => bail!(
                "the owner of the emulated host ended with {status}:\n{}",
                super::tail(&dir.join("owner.log"), 20)
            ),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    bail!(
        "the owner of the emulated host does not answer; see {}",
        dir.join("owner.log").display()
    )
}

fn spawn_owner(dir: &Path, flavour: &Flavour) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("owner.log"))?;
    let mut owner = Command::new("/proc/self/exe");
    owner
        .args(["host", "owner", "--name", &flavour.name])
        .args(["--memory", &flavour.memory_mib.to_string()])
        .args(["--idle", &flavour.idle_seconds.to_string()]);
    if flavour.icount {
        owner.arg("--icount");
    } else {
        owner.args(["--cpus", &flavour.cpus.to_string()]);
    }
    for disk in &flavour.disks {
        owner.arg("--disk").arg(disk);
    }
    owner
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/");
    // SAFETY: setsid is async-signal-safe and the closure touches nothing else.
    unsafe {
        owner.pre_exec(|| Ok(nix::unistd::setsid().map(|_| ())?));
    }
    owner
        .spawn()
        .context("cannot start the owner of the emulated host")
}

impl Lease {
    fn open(&self, request: Request) -> Result<TcpStream> {
        self.agent.open(request)
    }

    /// Makes a port of L1's own 127.0.0.1 one of this machine's.
    pub(crate) fn forward(&self, port: u16) -> Result<Forward> {
        Forward::start(self.agent.clone(), port)
    }

    /// Turns a broken connection into the news why, when L1 has gone.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let (lost, news) = &*self.lost;
        let guard = lost.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = news
            .wait_timeout_while(guard, Duration::from_secs(3), |lost| lost.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match &*guard {
            Some(lost) => lost.clone().into(),
            None => error,
        }
    }

    /// Sends a file, unless L1 still has it from an earlier push.
    pub(crate) fn push(&self, local: &Path, remote: &Path) -> Result<()> {
        self.try_push(local, remote)
            .with_context(|| {
                format!(
                    "cannot push {} to L1's {}",
                    local.display(),
                    remote.display()
                )
            })
            .map_err(|error| self.explain_if_broken(error))
    }

    fn try_push(&self, local: &Path, remote: &Path) -> Result<()> {
        let mut file = File::open(local)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            bail!("not a plain file");
        }
        let stamp = format!(
            "{}:{}:{}:{}:{}",
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        let request = Request::Put {
            path: remote.into(),
            mode: meta.mode() & 0o7777,
            size: meta.size(),
            stamp,
        };
        let mut stream = self.open(request)?;
        let answer = proto::receive(&mut stream)?.context("L1 closed the connection")?;
        match answer.kind {
            kind::HAVE => return Ok(()),
            kind::NEED => {}
            _ => bail!("{}", String::from_utf8_lossy(&answer.payload)),
        }
        files::send(&mut file, &mut stream)?;
        proto::send(&mut stream, kind::END, &[])?;
        proto::expect(&mut stream, kind::DONE)?;
        Ok(())
    }

    /// Fetches a file.
    pub(crate) fn pull(&self, remote: &Path, local: &Path) -> Result<()> {
        let fetch = || {
            let mut stream = self.open(Request::Get {
                path: remote.into(),
            })?;
            let meta: proto::Meta =
                serde_json::from_slice(&proto::expect(&mut stream, kind::META)?)?;
            files::receive(&mut stream, local, meta.mode, meta.size, kind::DONE)
        };
        fetch()
            .with_context(|| {
                format!(
                    "cannot pull L1's {} to {}",
                    remote.display(),
                    local.display()
                )
            })
            .map_err(|error| self.explain_if_broken(error))
    }

    fn explain_if_broken(&self, error: anyhow::Error) -> anyhow::Error {
        if error
            .chain()
            .any(<dyn std::error::Error>::is::<std::io::Error>)
        {
            self.explain(error)
        } else {
            error
        }
    }

    /// Runs a command, passing its output on as it comes; `input` (when given) is read in the background. With a
    /// `guard` the command (and all it started) is killed when that time has passed: [`Overdue`].
    pub(crate) fn exec(
        &self,
        exec: &Exec,
        input: Option<Box<dyn Read + Send>>,
        guard: Option<Duration>,
        mut take: impl FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<Exit> {
        let started = Instant::now();
        let mut stream = self
            .open(Request::Exec(exec.clone()))
            .map_err(|error| self.explain(error))?;
        let mut sender = stream.try_clone()?;
        match input {
            Some(mut input) => {
                std::thread::spawn(move || {
                    let mut buffer = [0; 32 << 10];
                    // Ends with the input, or with the connection when the command has ended.
                    while let Ok(count @ 1..) = input.read(&mut buffer) {
                        if proto::send(&mut sender, kind::DATA, &[&buffer[..count]]).is_err() {
                            return;
                        }
                    }
                    let _ = proto::send(&mut sender, kind::END, &[]);
                });
            }
            None => proto::send(&mut sender, kind::END, &[])?,
        }
        loop {
            if let Some(guard) = guard {
                let left = guard.saturating_sub(started.elapsed());
                if left.is_zero() {
                    // The agent kills the command when the connection closes.
                    return Err(Overdue(guard).into());
                }
                stream.set_read_timeout(Some(left))?;
            }
            let frame = match proto::receive(&mut stream) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err(self.explain(anyhow!("L1 closed the connection"))),
                Err(_) if guard.is_some_and(|guard| started.elapsed() >= guard) => continue,
                Err(error) => return Err(self.explain(error)),
            };
            match frame.kind {
                kind::OUT => take(Stream::Out, &frame.payload)?,
                kind::ERR => take(Stream::Err, &frame.payload)?,
                kind::DONE => return Ok(serde_json::from_slice(&frame.payload)?),
                kind::FAIL => bail!("{}", String::from_utf8_lossy(&frame.payload)),
                other => bail!("unexpected frame of kind {other}"),
            }
        }
    }
}

/// Where a command printed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Passes a command's output on to this program's own.
pub(crate) fn pass_on(stream: Stream, bytes: &[u8]) -> Result<()> {
    match stream {
        Stream::Out => {
            let mut out = std::io::stdout();
            out.write_all(bytes)?;
            out.flush()?;
        }
        Stream::Err => std::io::stderr().write_all(bytes)?,
    }
    Ok(())
}
