//! The background process that owns one L1: runs QEMU, hands out leases, watches the heartbeat, ends when idle.
//!
//! Clients connect to the socket `owner.sock` in the run folder and send one JSON [`Ask`]. A lease lasts as long as
//! its connection: the owner answers with [`Tell`] lines. Nothing outlives the owner, whatever happens to it: QEMU has
//! a parent-death signal, and its disks are files that the next owner replaces.

use super::{Flavour, emulator, image, proto, qemu};
use crate::cache;
use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Name of the owner's socket in the run folder.
pub(crate) const SOCKET: &str = "owner.sock";
/// Without a heartbeat for so long the emulator is taken to be stalled (it beats every second when well).
const STALL: Duration = Duration::from_secs(120);
/// L1 boots in seconds; on a machine under heavy load in a minute or two.
const BOOT: Duration = Duration::from_secs(300);
/// So many boots are tried before the owner gives up.
const BOOT_TRIES: u32 = 3;

/// What a client may ask.
#[derive(Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Keep L1 alive while this connection is open, and say how to reach its agent.
    Lease,
    /// End L1 now.
    Stop,
    /// How is it?
    Status,
}

/// What the owner says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Tell {
    /// L1 is up; its agent listens there.
    Ready { port: u16, token: String },
    /// L1 is gone (a reason for people; `stalled` when it was the emulator's fault).
    Gone { reason: String, stalled: bool },
    /// Answer to `Status`.
    Status {
        pid: u32,
        ready: bool,
        leases: usize,
        up_seconds: u64,
        idle_seconds: u64,
        memory_mib: u32,
    },
}

struct State {
    ready: Option<(u16, String)>,
    leases: Vec<(u64, UnixStream)>,
    next: u64,
    idle_since: Instant,
    last_beat: Instant,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    started: Instant,
    memory_mib: u32,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs as the owner until L1 has ended. Another owner of the same folder makes this one return at once.
pub(crate) fn run(dir: &Path, flavour: &Flavour) -> Result<()> {
    cache::private_dir(dir)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("owner.lock"))?;
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
        return Ok(());
    };
    let socket = dir.join(SOCKET);
    if socket.exists() {
        fs::remove_file(&socket)?;
    }
    let listener = UnixListener::bind(&socket)
        .with_context(|| format!("cannot listen at {}", socket.display()))?;
    eprintln!("owner {}: begins", std::process::id());
    let now = Instant::now();
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            ready: None,
            leases: Vec::new(),
            next: 0,
            idle_since: now,
            last_beat: now,
            stop: false,
        }),
        changed: Condvar::new(),
        started: now,
        memory_mib: flavour.memory_mib,
    });
    let accepting = Arc::clone(&shared);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = Arc::clone(&accepting);
            std::thread::spawn(move || serve(&shared, stream));
        }
    });
    let end = own(dir, flavour, &shared);
    // Gone before the leases hear of it: a client that asks again must start a new owner.
    let _ = fs::remove_file(&socket);
    let (reason, stalled) = match &end {
        Ok(End { reason, stalled }) => (reason.clone(), *stalled),
        Err(error) => (format!("{error:#}"), false),
    };
    eprintln!("owner: L1 ended: {reason}");
    for (_, lease) in &mut shared.state().leases {
        let _ = tell(
            lease,
            &Tell::Gone {
                reason: reason.clone(),
                stalled,
            },
        );
    }
    for file in ["scratch.img", "seed.img"] {
        let _ = fs::remove_file(dir.join(file));
    }
    end.map(|_| ())
}

struct End {
    reason: String,
    stalled: bool,
}

fn own(dir: &Path, flavour: &Flavour, shared: &Arc<Shared>) -> Result<End> {
    let emulator = emulator::ensure(flavour.icount)?;
    let image = image::ensure()?;
    let mut tries = 0;
    loop {
        tries += 1;
        let token = token()?;
        qemu::prepare(dir, &token)?;
        let port = free_port()?;
        let mut vm = Vm(qemu::start(dir, &emulator, &image, flavour, port)?);
        match wait_for_agent(&mut vm, port, &token, shared) {
            Ok(Some(beat)) => {
                let mut state = shared.state();
                state.last_beat = Instant::now();
                state.idle_since = Instant::now();
                state.ready = Some((port, token));
                drop(state);
                shared.changed.notify_all();
                watch_beats(shared, beat);
                return watch(&mut vm, flavour, shared);
            }
            Ok(None) => {
                return Ok(End {
                    reason: "stopped".into(),
                    stalled: false,
                });
            }
            Err(error) if tries < BOOT_TRIES => {
                eprintln!("owner: boot {tries} of L1 failed, again: {error:#}");
            }
            Err(error) => {
                let console = super::tail(&dir.join("console.log"), 15);
                let log = super::tail(&dir.join("qemu.log"), 5);
                return Err(error.context(format!(
                    "L1 does not come up; the end of its console:\n{console}\n{log}"
                )));
            }
        }
    }
}

/// QEMU, killed when dropped.
struct Vm(Child);

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn token() -> Result<String> {
    let mut bytes = [0; 24];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn wait_for_agent(
    vm: &mut Vm,
    port: u16,
    token: &str,
    shared: &Shared,
) -> Result<Option<TcpStream>> {
    let started = Instant::now();
    while started.elapsed() < BOOT {
        if let Some(status) = vm.0.try_wait()? {
            bail!("QEMU ended with {status} while booting");
        }
        if shared.state().stop {
            return Ok(None);
        }
        // QEMU accepts before the guest listens and then just closes: only a beat proves the agent.
        if let Ok(beat) = first_beat(port, token) {
            return Ok(Some(beat));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("no sign of its agent for {} s", BOOT.as_secs())
}

fn first_beat(port: u16, token: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let opening = proto::Opening {
        version: proto::VERSION,
        token: token.to_owned(),
        request: proto::Request::Beat,
    };
    proto::send_json(&mut stream, proto::kind::OPEN, &opening)?;
    proto::expect(&mut stream, proto::kind::BEAT)?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

fn watch_beats(shared: &Arc<Shared>, mut stream: TcpStream) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        while proto::expect(&mut stream, proto::kind::BEAT).is_ok() {
            shared.state().last_beat = Instant::now();
        }
    });
}

fn watch(vm: &mut Vm, flavour: &Flavour, shared: &Shared) -> Result<End> {
    loop {
        let end = |reason: String, stalled| Ok(End { reason, stalled });
        if let Some(status) = vm.0.try_wait()? {
            return end(format!("QEMU ended with {status}"), false);
        }
        let state = shared.state();
        if state.stop {
            return end("stopped".into(), false);
        }
        let silent = state.last_beat.elapsed();
        if silent > STALL {
            return end(
                format!(
                    "no heartbeat for {} s: the emulator stalled",
                    silent.as_secs()
                ),
                true,
            );
        }
        if state.leases.is_empty()
            && state.idle_since.elapsed() > Duration::from_secs(flavour.idle_seconds)
        {
            return end(format!("idle for {} s", flavour.idle_seconds), false);
        }
        drop(
            shared
                .changed
                .wait_timeout(state, Duration::from_millis(500))
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

fn tell(to: &mut UnixStream, what: &Tell) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(to.write_all(&line)?)
}

fn serve(shared: &Shared, mut stream: UnixStream) {
    // A client that breaks the rules or goes away costs only its own connection.
    if let Err(error) = serve_one(shared, &mut stream) {
        eprintln!("owner: a client: {error:#}");
    }
}

fn serve_one(shared: &Shared, stream: &mut UnixStream) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    match serde_json::from_str(&line)? {
        Ask::Stop => {
            shared.state().stop = true;
            shared.changed.notify_all();
            // Answered by the connection's end, when the owner's process ends.
            let mut state = shared.state();
            state.leases.push((u64::MAX, stream.try_clone()?));
            Ok(())
        }
        Ask::Status => {
            let state = shared.state();
            let status = Tell::Status {
                pid: std::process::id(),
                ready: state.ready.is_some(),
                leases: state.leases.len(),
                up_seconds: shared.started.elapsed().as_secs(),
                idle_seconds: if state.leases.is_empty() {
                    state.idle_since.elapsed().as_secs()
                } else {
                    0
                },
                memory_mib: shared.memory_mib,
            };
            drop(state);
            tell(stream, &status)
        }
        Ask::Lease => {
            let mut state = shared.state();
            let id = state.next;
            state.next += 1;
            state.leases.push((id, stream.try_clone()?));
            while state.ready.is_none() {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let ready = state.ready.clone();
            drop(state);
            if let Some((port, token)) = ready {
                let _ = tell(stream, &Tell::Ready { port, token });
            }
            // The lease lasts until the client closes (or dies).
            let _ = lines.read_to_string(&mut line);
            let mut state = shared.state();
            state.leases.retain(|(lease, _)| *lease != id);
            state.idle_since = Instant::now();
            drop(state);
            shared.changed.notify_all();
            Ok(())
        }
    }
}
