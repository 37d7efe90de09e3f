//! Talking to the router, and starting it.

use std::collections::BTreeMap;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Pid;

use super::protocol::{Reply, Request, SOCKET, VERSION};
use super::{LOG, Ready};
use crate::error::{Context, Error, Kind, Result};
use crate::fabric::network::Network;
use crate::fabric::{Answers, UplinkState};
use crate::state::{Home, connect_socket};

/// Code of the error that there is no router.
const GONE: &str = "RouterGone";
/// Code of the error that the router is of another version.
const ANOTHER_VERSION: &str = "RouterVersion";

/// A connection to the router. While one is open, the router does not end.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the router of a state folder, which must be running.
    ///
    /// # Errors
    /// `RouterGone` when it is not, `RouterVersion` when it is of another version.
    pub fn connect(home: &Home) -> Result<Self> {
        let mut client = Self::open(home)?;
        client.greet()?;
        Ok(client)
    }

    fn open(home: &Home) -> Result<Self> {
        let stream = connect_socket(home.root(), SOCKET).map_err(|error| {
            Error::new(
                Kind::Host,
                GONE,
                "the process that owns the network of the VPCs is not running",
            )
            .because(&error)
            .mend("`cumulet serve` starts it")
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Connects to the router of a state folder, starting it when it is not running. One of another version is replaced:
    /// the new one takes over what it leaves.
    ///
    /// # Errors
    /// What kept it from starting.
    pub fn start(home: &Home) -> Result<Self> {
        if let Ok(mut client) = Self::open(home) {
            match client.greet() {
                Ok(()) => return Ok(client),
                Err(error) if error.code == ANOTHER_VERSION => {
                    tracing::info!(%error, "replaces it");
                    client.end()?;
                }
                // It is just ending.
                Err(_) => {}
            }
        }
        spawn(home)?;
        Self::connect(home)
    }

    /// Finds out whether the router understands us.
    fn greet(&mut self) -> Result<()> {
        let version = VERSION.to_owned();
        let theirs = match self.ask(&Request::Hello { version }) {
            Ok(Reply::Hello { version }) if version == VERSION => return Ok(()),
            Ok(Reply::Hello { version }) => version,
            Err(error) if error.code == GONE => return Err(error),
            // It does not know the question, or we not the answer.
            Ok(_) | Err(_) => "unknown".to_owned(),
        };
        let message = format!(
            "the process that owns the network of the VPCs is of another version ({theirs}; this is {VERSION})"
        );
        let error = Error::new(Kind::Conflict, ANOTHER_VERSION, message);
        Err(error.mend("`cumulet serve` of this version replaces it"))
    }

    /// Ends the router. What VMs are plugged into lives on, for the next router.
    fn end(mut self) -> Result<()> {
        let doing = || "cannot end the process that owns the network of the VPCs";
        // Who listens on the socket of our state folder is its router, and lives as long as this connection.
        let router = getsockopt(self.stream.get_ref(), PeerCredentials)
            .map_err(io::Error::from)
            .context(doing)?;
        kill(Pid::from_raw(router.pid()), Signal::SIGKILL)
            .map_err(io::Error::from)
            .context(doing)?;
        // The end of the stream is the end of the process.
        let _ = self.stream.read_to_end(&mut Vec::new());
        Ok(())
    }

    /// Makes the VPCs' networks these.
    ///
    /// # Errors
    /// What the kernel or `nft` refused; `RouterGone`.
    pub fn apply(&mut self, networks: Vec<Network>) -> Result<()> {
        match self.ask(&Request::Apply { networks })? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The user and the network namespace of a VPC; no user namespace when root needs none.
    ///
    /// # Errors
    /// `InvalidVpcID.NotFound` when the router does not have it.
    pub fn find(&mut self, network: &str) -> Result<(File, File)> {
        let network = network.to_owned();
        match self.ask(&Request::Find { network })? {
            Reply::Found { pid, net } => {
                let open = |path: String| {
                    File::open(&path)
                        .context(|| format!("cannot open {path}, the router's network"))
                };
                Ok((
                    open(format!("/proc/{pid}/ns/user"))?,
                    open(format!("/proc/{pid}/fd/{net}"))?,
                ))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// How it stands with the way to the outside.
    ///
    /// # Errors
    /// `RouterGone`.
    pub fn uplink(&mut self) -> Result<UplinkState> {
        match self.ask(&Request::Uplink)? {
            Reply::Uplink { state } => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Which guests answer ARP, by instance.
    ///
    /// # Errors
    /// `RouterGone`.
    pub fn answers(&mut self) -> Result<BTreeMap<String, Answers>> {
        match self.ask(&Request::Answers)? {
            Reply::Answers { answers } => Ok(answers),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        let gone = |error: io::Error| {
            Error::new(
                Kind::Host,
                GONE,
                "the process that owns the network of the VPCs has ended",
            )
            .because(&error)
        };
        let mut line = serde_json::to_vec(request).context(|| "cannot write a request")?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(gone)?;
        let mut text = String::new();
        self.stream.read_line(&mut text).map_err(gone)?;
        if text.is_empty() {
            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&text).context(|| "cannot read the router's reply")? {
            Reply::Refused { error } => Err(error),
            reply => Ok(reply),
        }
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::internal(format!("the router answers something else: {reply:?}"))
}

/// Starts the router and waits until it listens. When two are started at once, one of them does.
fn spawn(home: &Home) -> Result<()> {
    let doing = || "cannot start the process that owns the network of the VPCs";
    let program = env::current_exe().context(doing)?;
    let (reader, writer) = io::pipe().context(doing)?;
    let writer = OwnedFd::from(writer);
    let log_path = home.root().join(LOG);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .context(|| format!("cannot write {}", log_path.display()))?;
    let ready = writer.as_raw_fd();
    let mut command = Command::new(program);
    command
        .arg("--home")
        .arg(home.root())
        .arg("__router")
        .args(["--ready-fd", &ready.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // SAFETY: between fork and exec only system calls on open descriptors and on the stack are made.
    unsafe { command.pre_exec(move || crate::supervise::detach(&[ready])) };
    let mut child = command.spawn().context(doing)?;
    drop(writer);
    let mut line = String::new();
    let read = BufReader::new(reader).read_line(&mut line);
    // It outlives us, and a process that nobody waits for stays as a zombie while we live.
    let reaper = thread::Builder::new().name("reaper".to_owned());
    let _ = reaper.spawn(move || child.wait());
    read.context(doing)?;
    match serde_json::from_str(&line) {
        Ok(Ready::Listening) => Ok(()),
        Ok(Ready::Failed { error }) => Err(error),
        Err(_) => Err(Error::internal(format!(
            "the process that owns the network of the VPCs ended at once; {} tells why",
            log_path.display()
        ))),
    }
}
