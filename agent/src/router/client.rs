//! Talking to the router, and starting it.

use std::collections::BTreeMap;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use super::protocol::{Reply, Request, SOCKET};
use super::{LOG, Ready};
use crate::error::{Context, Error, Kind, Result};
use crate::fabric::network::Network;
use crate::fabric::{Answers, UplinkState};
use crate::state::{Home, connect_socket};

/// A connection to the router. While one is open, the router does not end.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the router of a state folder, which must be running.
    ///
    /// # Errors
    /// `RouterGone` when it is not.
    pub fn connect(home: &Home) -> Result<Self> {
        let stream = connect_socket(home.root(), SOCKET).map_err(|error| {
            Error::new(
                Kind::Host,
                "RouterGone",
                "the process that owns the network of the VPCs is not running",
            )
            .because(&error)
            .mend("`cumulet serve` starts it")
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Connects to the router of a state folder, starting it when it is not running.
    ///
    /// # Errors
    /// What kept it from starting.
    pub fn start(home: &Home) -> Result<Self> {
        if let Ok(client) = Self::connect(home) {
            return Ok(client);
        }
        spawn(home)?;
        Self::connect(home)
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
                "RouterGone",
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
