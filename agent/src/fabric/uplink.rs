//! The way to the outside: a user-mode network stack on the host, attached to our namespace.
//!
//! `pasta` and `slirp4netns` read packets from an interface inside the namespace and speak to the
//! world through ordinary sockets of the host. Nothing of the host's network changes, no
//! privilege is needed, and nobody outside can begin a connection inwards.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::UPLINK;
use super::config::UplinkMode;
use super::enter::Namespaces;
use super::error::{FabricError, Result};
use super::host::{HostSide, Request};
use super::links::{EVERYWHERE, Links};
use super::tools::{self, Tool};
use super::veth::{self, Slot};

/// Longest wait for the program to set up its interface.
const READY_MAX: Duration = Duration::from_secs(20);
/// Pause between two looks at it.
const READY_POLL: Duration = Duration::from_millis(20);
/// Pause before a program that has ended is started again; it doubles each time.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// It does not get longer than this.
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// One that has run for so long before it ended is started again without a longer pause.
const STEADY: Duration = Duration::from_secs(300);
/// Lines of the program's output that an error shows.
const SHOWN_LINES: usize = 5;

/// How it stands with the way to the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UplinkState {
    /// Being made.
    Starting,
    /// Guests reach the outside this way.
    Up(UplinkMode),
    /// Not wanted.
    Off,
    /// Guests do not reach the outside; the text says why and what helps. What has worked before is made again.
    Down(String),
}

/// Makes the uplink in the background and makes it again when it ends; how it stands is what is returned.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    host: &Arc<HostSide>,
    namespaces: Namespaces,
    mode: UplinkMode,
) -> watch::Receiver<UplinkState> {
    let (sender, state) = watch::channel(UplinkState::Starting);
    tasks.spawn(run(Arc::clone(host), namespaces, mode, sender));
    state
}

async fn run(
    host: Arc<HostSide>,
    namespaces: Namespaces,
    mode: UplinkMode,
    state: watch::Sender<UplinkState>,
) {
    let candidates: &[UplinkMode] = match mode {
        UplinkMode::None => {
            state.send_replace(UplinkState::Off);
            return;
        }
        UplinkMode::Auto => &[UplinkMode::Pasta, UplinkMode::Slirp4netns],
        UplinkMode::Pasta => &[UplinkMode::Pasta],
        UplinkMode::Slirp4netns => &[UplinkMode::Slirp4netns],
        UplinkMode::Veth => &[UplinkMode::Veth],
    };
    let mut pause = AGAIN_MIN;
    let mut worked = false;
    loop {
        let begun = Instant::now();
        let reason = match start(&host, &namespaces, candidates).await {
            Ok((mode, running)) => {
                tracing::info!(%mode, "guests reach the outside");
                state.send_replace(UplinkState::Up(mode));
                worked = true;
                let output = running.ended().await;
                if begun.elapsed() >= STEADY {
                    pause = AGAIN_MIN;
                }
                format!("{mode} has ended: {output}")
            }
            Err(reason) => reason,
        };
        state.send_replace(UplinkState::Down(reason.clone()));
        if !worked {
            // What has never worked needs the user.
            tracing::warn!("guests run without the outside: {reason}");
            return;
        }
        tracing::warn!("guests have lost the outside: {reason}; it is made again in {pause:?}");
        sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

/// Starts the first that can be.
async fn start(
    host: &HostSide,
    namespaces: &Namespaces,
    candidates: &[UplinkMode],
) -> Result<(UplinkMode, Running), String> {
    let mut reasons = Vec::new();
    for &mode in candidates {
        match Running::start(host, namespaces, mode).await {
            Ok(running) => return Ok((mode, running)),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(reasons.join("; "))
}

/// An uplink's program at work; its output ends when it does.
struct Running {
    output: Lines<BufReader<pipe::Receiver>>,
    last: Vec<String>,
}

impl Running {
    async fn start(host: &HostSide, namespaces: &Namespaces, mode: UplinkMode) -> Result<Self> {
        let refused = |message: String| FabricError::Uplink { mode, message };
        let output = match mode {
            UplinkMode::Veth => start_veth(host, namespaces).await,
            UplinkMode::Slirp4netns => {
                start_program(host, namespaces, tools::SLIRP, slirp_arguments(namespaces))
            }
            _ => start_program(host, namespaces, tools::PASTA, pasta_arguments(namespaces)),
        };
        let output = pipe::Receiver::from_owned_fd(output.map_err(refused)?)
            .map_err(FabricError::io("read from a pipe"))?;
        let mut running = Self {
            output: BufReader::new(output).lines(),
            last: Vec::new(),
        };
        running.ready().await.map_err(refused)?;
        Ok(running)
    }

    /// Waits until the interface is there and routes lead to it.
    async fn ready(&mut self) -> Result<(), String> {
        let links = Links::connect().map_err(|error| error.to_string())?;
        let deadline = Instant::now() + READY_MAX;
        loop {
            if links
                .leads_outside(UPLINK)
                .await
                .map_err(|error| error.to_string())?
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("no route after {READY_MAX:?}: {}", self.shown()));
            }
            tokio::select! {
                line = self.output.next_line() => match line {
                    Ok(Some(line)) => self.keep(line),
                    Ok(None) | Err(_) => return Err(self.shown()),
                },
                () = sleep(READY_POLL) => {}
            }
        }
    }

    /// Waits for the program's end; returns what it said last.
    async fn ended(mut self) -> String {
        while let Ok(Some(line)) = self.output.next_line().await {
            tracing::debug!("uplink: {line}");
            self.keep(line);
        }
        self.shown()
    }

    fn keep(&mut self, line: String) {
        // pasta notes on standard error that it could not reach the system's log.
        if line.trim().is_empty() || line.contains("to syslog") {
            return;
        }
        if self.last.len() == SHOWN_LINES {
            self.last.remove(0);
        }
        self.last.push(line);
    }

    fn shown(&self) -> String {
        if self.last.is_empty() {
            "it said nothing".to_owned()
        } else {
            self.last.join(", ")
        }
    }
}

fn start_program(
    host: &HostSide,
    namespaces: &Namespaces,
    tool: Tool,
    arguments: Vec<&str>,
) -> Result<OwnedFd, String> {
    let path = tool.path().map_err(|error| error.to_string())?;
    let mut command = vec![path.display().to_string()];
    command.extend(arguments.into_iter().map(str::to_owned));
    let mut fds: Vec<BorrowedFd<'_>> = vec![namespaces.net.as_fd()];
    fds.extend(namespaces.user.as_ref().map(AsFd::as_fd));
    host.start(
        &Request::Spawn {
            command,
            as_nobody: namespaces.root,
        },
        &fds,
    )
}

/// Takes the first free slot, beginning anywhere, and sets up our end.
async fn start_veth(host: &HostSide, namespaces: &Namespaces) -> Result<OwnedFd, String> {
    for slot in Slot::all() {
        if let Some(output) = host.veth(slot, namespaces.net.as_fd())? {
            let links = Links::connect().map_err(|error| error.to_string())?;
            let set_up = links.set_up_veth(UPLINK, slot.own(), slot.host(), EVERYWHERE);
            return set_up
                .await
                .map(|()| output)
                .map_err(|error| error.to_string());
        }
    }
    Err(veth::full())
}

/// The namespaces come as descriptors 0 and 1: no path leads to them that `pasta`, without
/// `CAP_SYS_PTRACE`, may follow.
const NET_PATH: &str = "/proc/self/fd/0";
const USER_PATH: &str = "/proc/self/fd/1";

fn pasta_arguments(namespaces: &Namespaces) -> Vec<&'static str> {
    let mut arguments = vec![
        "--foreground",
        "--ipv4-only",
        "--config-net",
        "--ns-ifname",
        UPLINK,
        // Addresses of the wire between router and pasta (IETF protocol assignments, RFC 6890):
        // no host's network and no VPC uses them.
        "--address",
        "192.0.0.2",
        "--netmask",
        "24",
        "--gateway",
        "192.0.0.1",
        // No way from here to the host's own loopback, and none from the host or the world to us.
        "--no-map-gw",
        "--tcp-ports",
        "none",
        "--udp-ports",
        "none",
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
        "--no-dhcp",
        "--no-netns-quit",
        "--netns",
        NET_PATH,
    ];
    if namespaces.user.is_some() {
        arguments.extend(["--userns", USER_PATH]);
    }
    arguments
}

fn slirp_arguments(namespaces: &Namespaces) -> Vec<&'static str> {
    let mut arguments = vec![
        "--configure",
        "--mtu=65520",
        "--cidr=192.0.0.0/24",
        "--disable-host-loopback",
        "--disable-dns",
        "--enable-seccomp",
        "--netns-type=path",
    ];
    if namespaces.user.is_some() {
        // Its sandbox needs to be root somewhere, which `nobody` is not.
        arguments.push("--userns-path=/proc/self/fd/1");
    } else {
        arguments.push("--enable-sandbox");
    }
    arguments.extend([NET_PATH, UPLINK]);
    arguments
}
