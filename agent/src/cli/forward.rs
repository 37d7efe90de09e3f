//! `cumulet forward`: ports of this host that lead to ports of a running guest, as long as the command runs.
//!
//! ```text
//!  client ──TCP──► we, 127.0.0.1:8080 ──supervisor.sock──► supervisor ──its network──► guest:80
//! ```
//!
//! No privilege is needed, and nothing of the instance changes: every connection goes the way of `cumulet ssh`.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net;
use std::str::FromStr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinSet, spawn_blocking};

use super::args::ForwardArgs;
use super::output::Output;
use super::ssh::running;
use crate::error::{Context as _, Error, Kind, Result};
use crate::state::{Home, InstanceDir, Listed};
use crate::supervise;

/// How often it is looked whether the instance still runs.
const LOOK: Duration = Duration::from_millis(250);
/// Before accepting is tried again, when it failed: out of descriptors or memory, as a rule.
const PAUSE: Duration = Duration::from_millis(100);

/// `[ADDRESS:]HOSTPORT:GUESTPORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Where to listen; port 0 is any free one.
    pub host: SocketAddr,
    /// Guest port.
    pub guest: u16,
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bad = || {
            format!("`{text}` is not [ADDRESS:]HOSTPORT:GUESTPORT, as 8080:80 or 192.0.2.7:8080:80")
        };
        let (host, guest) = text.rsplit_once(':').ok_or_else(bad)?;
        let guest = guest.parse().ok().filter(|port| *port != 0);
        let guest = guest.ok_or_else(bad)?;
        let host = match host.rsplit_once(':') {
            None => SocketAddr::new(
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                host.parse().map_err(|_| bad())?,
            ),
            // With its port, an IPv6 address is in brackets.
            Some(_) => host.parse().map_err(|_| bad())?,
        };
        Ok(Self { host, guest })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.host, self.guest)
    }
}

/// `cumulet forward`.
pub(super) fn command(home: &Home, output: Output, args: &ForwardArgs) -> Result<u8> {
    let dir = home.find(&args.instance)?;
    running(&dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start forwarding")?;
    let ended = runtime.block_on(forward(&dir, output, &args.forwards));
    // A guest that does not answer is not waited for.
    runtime.shutdown_background();
    ended
}

async fn forward(dir: &InstanceDir, output: Output, wanted: &[Forward]) -> Result<u8> {
    // Before the ports are told: whoever reads them may end us at once.
    let catch = |kind| signal(kind).context(|| "cannot wait for signals");
    let mut signals = [
        catch(SignalKind::interrupt())?,
        catch(SignalKind::terminate())?,
        catch(SignalKind::hangup())?,
    ];
    // All or nothing: no port is served before every one is ours.
    let mut listeners = Vec::new();
    for forward in wanted {
        listeners.push(listen(*forward).await?);
    }
    announce(dir, output, &listeners);
    let mut tasks = JoinSet::new();
    for (listener, forward) in listeners {
        tasks.spawn(accept(listener, forward, dir.clone(), output));
    }
    tokio::select! {
        () = interrupted(&mut signals) => {}
        why = ended(dir) => output.note(&format!("{why}; nothing is forwarded any more")),
    }
    Ok(0)
}

async fn listen(mut forward: Forward) -> Result<(TcpListener, Forward)> {
    let address = forward.host;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let (kind, code, mend) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                Kind::Conflict,
                "PortBusy",
                format!(
                    "choose another port, or 0 for any free one: 0:{}",
                    forward.guest
                ),
            ),
            io::ErrorKind::PermissionDenied => (
                Kind::Host,
                "ListenRefused",
                "choose a port from 1024 on".to_owned(),
            ),
            _ => (
                Kind::Host,
                "ListenRefused",
                "choose an address of this machine".to_owned(),
            ),
        };
        Error::new(kind, code, format!("cannot listen on {address}"))
            .because(&error)
            .mend(mend)
    })?;
    forward.host = listener
        .local_addr()
        .context(|| format!("cannot find the port of {address}"))?;
    Ok((listener, forward))
}

/// Tells which ports lead where, at once and in one line for programs.
fn announce(dir: &InstanceDir, output: Output, listeners: &[(TcpListener, Forward)]) {
    let forwards = listeners.iter().map(|(_, forward)| forward);
    let text = if output.is_json() {
        let forwards: Vec<_> = forwards
            .map(|forward| {
                json!({
                    "Address": forward.host.ip(),
                    "HostPort": forward.host.port(),
                    "GuestPort": forward.guest,
                })
            })
            .collect();
        format!(
            "{}\n",
            json!({ "InstanceId": dir.id(), "Forwards": forwards })
        )
    } else {
        let lines: String = forwards.map(|forward| format!("{forward}\n")).collect();
        format!("{lines}Ctrl-C ends it.\n")
    };
    // A reader that went away is no reason to end.
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn interrupted(signals: &mut [Signal; 3]) {
    let [a, b, c] = signals;
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
        _ = c.recv() => {}
    }
}

/// Ready when nobody runs the instance any more; says so.
async fn ended(dir: &InstanceDir) -> String {
    loop {
        match dir.look() {
            Ok(Some(Listed::Good {
                holder: None,
                record,
            })) => {
                return format!("{} is {}", dir.id(), record.state);
            }
            Ok(None) => return format!("{} has ended", dir.id()),
            // One that cannot be read may run.
            Ok(Some(_)) | Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn accept(listener: TcpListener, forward: Forward, dir: InstanceDir, output: Output) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((client, _)) => {
                connections.spawn(connection(client, forward.guest, dir.clone(), output));
            }
            Err(error) => {
                output.warn(&format!(
                    "cannot accept a connection to {}: {error}",
                    forward.host
                ));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One connection, until both sides have said everything.
async fn connection(mut client: TcpStream, port: u16, dir: InstanceDir, output: Output) {
    let _ = client.set_nodelay(true);
    match dial(dir, port).await {
        Ok((first, mut guest)) => {
            // A side that breaks off ends the other; who it was has learnt it, and nobody else needs to.
            if client.write_all(&first).await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut guest).await;
            }
        }
        Err(error) => {
            output.warn(&format!(
                "no connection to port {port} of the guest: {error}"
            ));
            // Reset, not closed: the guest has not said "nothing", it has said no.
            let _ = client.set_zero_linger();
        }
    }
}

/// Connects to the guest; what it has said already, and the stream.
async fn dial(dir: InstanceDir, port: u16) -> Result<(Vec<u8>, UnixStream)> {
    let doing = || format!("cannot connect to port {port}");
    let dialled = spawn_blocking(move || supervise::dial(&dir, port)).await;
    let stream = dialled.context(doing)??;
    let first = stream.buffer().to_vec();
    let stream: net::UnixStream = stream.into_inner();
    stream.set_nonblocking(true).context(doing)?;
    Ok((first, UnixStream::from_std(stream).context(doing)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_understood() {
        let parse = |text: &str| text.parse::<Forward>();
        let plain = parse("8080:80").unwrap();
        assert_eq!(plain.host, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(plain.guest, 80);
        assert_eq!(parse("0:22").unwrap().host.port(), 0);
        let all = parse("0.0.0.0:8080:80").unwrap();
        assert!(all.host.ip().is_unspecified());
        let six = parse("[::1]:8080:80").unwrap();
        assert_eq!(six.host, "[::1]:8080".parse().unwrap());
        for bad in [
            "",
            "80",
            "8080:0",
            "x:80",
            ":80",
            "1:2:3",
            "::1:80:80",
            "1:70000",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
