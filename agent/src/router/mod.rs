//! The process that owns the network of all VPCs: their bridges, routes, filters, DHCP, DNS and metadata.
//!
//! ```text
//!  cumulet serve ── networks as they are to be ──► cumulet __router ── a namespace for each VPC
//!  cumulet __supervise ── where is the VPC? ─────►    │                        ▲
//!        └── enters the VPC's namespace, opens the tap there ──────────────────┘
//! ```
//!
//! It outlives the agent, as the VMs do, and ends when nobody needs it any more: no connection is open and no VM is
//! plugged in. When it is killed, the VPCs' namespaces live on in the supervisors, and the next router, which the agent
//! starts at once, takes them over: guests lose the outside, DHCP, DNS and metadata for that moment, and nothing else.

mod client;
mod protocol;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use clap::Args;
use cumulet_imds::view::InstanceView;
use cumulet_imds::{Keys, server};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;

pub use client::Client;

use crate::error::{Context, Error, Kind, Result};
use crate::fabric::network::Network;
use crate::fabric::{self, EnterConfig, Entered, Shared, UplinkMode};
use crate::state::{Home, OwnerLock, bind_socket};
use crate::supervise::{self, inherited, init_log, translate};
use protocol::{Reply, Request, SOCKET, VERSION};

/// Name of the lock in the state folder that the router holds.
const LOCK: &str = "router.lock";
/// Name of the router's log in the state folder.
const LOG: &str = "router.log";
/// How often it is looked whether the router is still needed; it ends when it was not at two looks.
const LOOK: Duration = Duration::from_millis(500);

/// How long another router may hold the lock without answering.
const BUSY: Duration = Duration::from_secs(30);

/// `cumulet __router`.
#[derive(Debug, Args)]
pub struct RouterArgs {
    /// Inherited pipe on which is told that requests are heard
    #[arg(long)]
    pub ready_fd: RawFd,
}

/// What the process that started the router hears.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "router", rename_all = "snake_case")]
enum Ready {
    /// It listens, or another does.
    Listening,
    /// It could not start.
    Failed {
        /// Why.
        error: Error,
    },
}

/// Runs the router. Called by [`Client::start`] in a process of its own.
///
/// # Errors
/// When the process was not started so. All else goes to the pipe.
pub fn main(home: Option<&Path>, args: &RouterArgs) -> Result<u8> {
    let ready =
        inherited(args.ready_fd).context(|| "`cumulet __router` is started by `cumulet serve`")?;
    init_log();
    std::env::set_current_dir("/").context(|| "cannot leave the working folder")?;
    let home = Home::open(home)?;
    let (told, status) = match prepare(&home) {
        Ok(Some(prepared)) => return prepared.run(home, ready),
        // Another has just been started; whoever started us talks to that one.
        Ok(None) => (Ready::Listening, 0),
        Err(error) => {
            tracing::error!(%error, "cannot start");
            let status = error.kind.exit_status();
            (Ready::Failed { error }, status)
        }
    };
    tell(ready, &told);
    Ok(status)
}

fn tell(ready: OwnedFd, what: &Ready) {
    let mut line = serde_json::to_vec(what).unwrap_or_default();
    line.push(b'\n');
    // Whoever started us may be gone.
    let _ = File::from(ready).write_all(&line);
}

/// Everything that has to be done while there is one thread.
struct Prepared {
    lock: OwnerLock,
    listener: std::os::unix::net::UnixListener,
    entered: Entered,
    adopted: Vec<(String, OwnedFd)>,
}

/// `None`: another router runs, and listens.
fn prepare(home: &Home) -> Result<Option<Prepared>> {
    let path = home.root().join(LOCK);
    let doing = || format!("cannot lock {}", path.display());
    let what = "cumulet, the network of the VPCs";
    let limit = Instant::now() + BUSY;
    let mut lock = loop {
        match OwnerLock::try_take(&path, what).context(doing)? {
            Ok(lock) => break lock,
            // It may not listen yet, or be about to end.
            Err(_) if Client::connect(home).is_ok() => return Ok(None),
            Err(_) if Instant::now() < limit => std::thread::sleep(Duration::from_millis(50)),
            Err(holder) => {
                return Err(Error::new(
                    Kind::Conflict,
                    "RouterBusy",
                    format!("the network of the VPCs belongs to {holder}, which does not answer"),
                )
                .mend("end that process"));
            }
        }
    };
    lock.sign(what);
    let listener = bind_socket(home.root(), SOCKET).context(|| "cannot listen for requests")?;
    let left = left_behind(home)?;
    let config = EnterConfig {
        publish: Vec::new(),
        uplink: UplinkMode::Auto,
    };
    let user = left.first().map(|left| left.user.as_fd());
    let entered = fabric::enter_beside(&config, user).map_err(|error| translate(&error))?;
    Ok(Some(Prepared {
        lock,
        listener,
        entered,
        adopted: left.into_iter().map(|left| (left.vpc, left.net)).collect(),
    }))
}

/// A VPC whose instances run although its router is gone.
struct Left {
    vpc: String,
    user: OwnedFd,
    net: OwnedFd,
}

/// The namespaces of VPCs that live on in supervisors.
fn left_behind(home: &Home) -> Result<Vec<Left>> {
    let mut left: Vec<Left> = Vec::new();
    for (vpc, pid) in supervise::in_vpcs(home)? {
        if left.iter().any(|known| known.vpc == vpc) {
            continue;
        }
        let open = |kind: &str| -> io::Result<OwnedFd> {
            Ok(File::open(format!("/proc/{pid}/ns/{kind}"))?.into())
        };
        match (open("user"), open("net")) {
            (Ok(user), Ok(net)) => left.push(Left { vpc, user, net }),
            // It has just ended.
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(pid, %error, "cannot look into a supervisor");
            }
        }
    }
    Ok(left)
}

/// What the metadata service says, by VPC and address.
type Views = Arc<RwLock<HashMap<String, HashMap<Ipv4Addr, Arc<InstanceView>>>>>;

struct Router {
    home: Home,
    shared: Mutex<Shared>,
    views: Views,
    keys: Arc<Keys>,
    /// Open connections.
    clients: AtomicUsize,
}

impl Prepared {
    fn run(self, home: Home, ready: OwnedFd) -> Result<u8> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context(|| "cannot start the router")?;
        let result = runtime.block_on(self.serve(home, ready));
        runtime.shutdown_background();
        result.map(|()| 0)
    }

    async fn serve(self, home: Home, ready: OwnedFd) -> Result<()> {
        let (router, listener) = match self.start(home).await {
            Ok(started) => started,
            Err(error) => {
                tracing::error!(%error, "cannot start");
                tell(
                    ready,
                    &Ready::Failed {
                        error: error.clone(),
                    },
                );
                return Err(error);
            }
        };
        tell(ready, &Ready::Listening);
        tracing::info!("the network of the VPCs is up");
        tokio::select! {
            () = accept(Arc::clone(&router), listener) => {}
            () = router.until_idle() => {}
        }
        tracing::info!("nobody needs the network of the VPCs any more");
        Ok(())
    }

    async fn start(self, home: Home) -> Result<(Arc<Router>, UnixListener)> {
        // Held until the process ends.
        std::mem::forget(self.lock);
        let doing = || "cannot listen for requests";
        self.listener.set_nonblocking(true).context(doing)?;
        let listener = UnixListener::from_std(self.listener).context(doing)?;
        let keys = Keys::open(&home.imds_keys())
            .context(|| "cannot open the keys of the metadata service")?;
        let mut shared = Shared::start(self.entered)
            .await
            .map_err(|error| translate(&error))?;
        for (id, net) in self.adopted {
            tracing::info!(vpc = id, "takes over a VPC whose router is gone");
            shared.adopt(id, net);
        }
        let router = Router {
            home,
            shared: Mutex::new(shared),
            views: Views::default(),
            keys: Arc::new(keys),
            clients: AtomicUsize::new(0),
        };
        Ok((Arc::new(router), listener))
    }
}

async fn accept(router: Arc<Router>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = Arc::clone(&router);
                tokio::spawn(async move {
                    router.clients.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = router.converse(stream).await {
                        tracing::debug!(%error, "a client went away");
                    }
                    router.clients.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Router {
    /// Requests of one client, one after the other.
    async fn converse(&self, stream: UnixStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let reply = match serde_json::from_str(&line) {
                Ok(request) => self.answer(request).await,
                Err(error) => {
                    Err(Error::internal("this request is not understood").because(&error))
                }
            };
            let reply = reply.unwrap_or_else(|error| Reply::Refused { error });
            let mut bytes = serde_json::to_vec(&reply)?;
            bytes.push(b'\n');
            stream.write_all(&bytes).await?;
        }
    }

    async fn answer(&self, request: Request) -> Result<Reply> {
        match request {
            Request::Hello { version } => {
                if version != VERSION {
                    tracing::info!(theirs = version, ours = VERSION, "another version asks");
                }
                Ok(Reply::Hello {
                    version: VERSION.to_owned(),
                })
            }
            Request::Apply { networks } => {
                self.apply(networks).await?;
                Ok(Reply::Done)
            }
            Request::Find { network } => {
                let shared = self.shared.lock().await;
                let net = shared.namespace(&network).ok_or_else(|| {
                    Error::new(
                        Kind::NotFound,
                        "InvalidVpcID.NotFound",
                        format!("{network} has no network here at present"),
                    )
                })?;
                Ok(Reply::Found {
                    pid: std::process::id(),
                    net,
                })
            }
            Request::Uplink => Ok(Reply::Uplink {
                state: self.shared.lock().await.uplink(),
            }),
            Request::Answers => Ok(Reply::Answers {
                answers: self.shared.lock().await.answers(),
            }),
        }
    }

    async fn apply(&self, networks: Vec<Network>) -> Result<()> {
        let mut shared = self.shared.lock().await;
        // What instances may read is known before they can ask for it.
        let views = self.views_of(&networks);
        *self.views.write().unwrap_or_else(PoisonError::into_inner) = views;
        let applied = shared.apply(networks).await;
        for (vpc, listener) in shared.take_imds_listeners() {
            let listener = tokio::net::TcpListener::from_std(listener)
                .context(|| format!("cannot serve the metadata of {vpc}"))?;
            let task = server::serve(
                listener,
                lookup(Arc::clone(&self.views), vpc.clone()),
                Arc::clone(&self.keys),
                server::Config::default(),
            );
            shared.serve(&vpc, async move { match task.await {} });
        }
        applied.map_err(|error| translate(&error))
    }

    /// What each address may read: its instance's own record.
    fn views_of(
        &self,
        networks: &[Network],
    ) -> HashMap<String, HashMap<Ipv4Addr, Arc<InstanceView>>> {
        let mut known: HashMap<&str, Option<Arc<InstanceView>>> = HashMap::new();
        let mut views: HashMap<String, HashMap<_, _>> = HashMap::new();
        for network in networks {
            let vpc = views.entry(network.id.clone()).or_default();
            for port in &network.ports {
                let Some(id) = port.instance.as_deref() else {
                    continue;
                };
                let view = known.entry(id).or_insert_with(|| self.view(id));
                if let Some(view) = view {
                    vpc.extend(port.ips().map(|ip| (ip, Arc::clone(view))));
                }
            }
        }
        views
    }

    fn view(&self, id: &str) -> Option<Arc<InstanceView>> {
        let read = || {
            let record = self.home.instance(id)?.load()?;
            record.as_ref().map(supervise::view_of).transpose()
        };
        match read() {
            Ok(view) => view.map(Arc::new),
            Err(error) => {
                tracing::error!(instance = id, %error, "it gets no metadata");
                None
            }
        }
    }

    /// Done when nobody has needed the router for a while.
    async fn until_idle(&self) {
        let mut idle = 0;
        while idle < 2 {
            tokio::time::sleep(LOOK).await;
            let used = self.shared.lock().await.in_use().await;
            let needed = self.clients.load(Ordering::Relaxed) > 0 || used.unwrap_or(true);
            idle = if needed { 0 } else { idle + 1 };
        }
    }
}

fn lookup(views: Views, vpc: String) -> impl server::Lookup {
    move |client| {
        let IpAddr::V4(client) = client else {
            return None;
        };
        let views = views.read().unwrap_or_else(PoisonError::into_inner);
        views.get(&vpc)?.get(&client).cloned()
    }
}
