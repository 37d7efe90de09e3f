//! The network of one VPC at work: a network namespace made to be what a [`Network`] says.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::thread;

use nix::sched::{CloneFlags, setns};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::config::IMDS_ADDRESS;
use super::error::{FabricError, Result};
use super::host::HostSide;
use super::links::Links;
use super::network::Network;
use super::probe::{self, Answers, Pace, Prober};
use super::uplink::UplinkState;
use super::{dhcp, dns, rules, sysctl};

/// A network as it is now, for those who serve it.
#[derive(Debug, Clone)]
pub(super) struct Current(watch::Receiver<Arc<Network>>);

impl Current {
    pub(super) fn get(&self) -> Arc<Network> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits until it has changed since the last look; false when there is none any more.
    pub(super) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// A network that does not change.
    #[cfg(test)]
    pub(super) fn fixed(network: Network) -> Self {
        Self(watch::channel(Arc::new(network)).1)
    }
}

/// Does something in a network namespace: sockets, settings, programs belong to the one of the thread that makes them.
///
/// # Errors
/// When the namespace may not be entered.
pub(super) fn inside<T: Send>(net: &OwnedFd, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let runtime = tokio::runtime::Handle::try_current().ok();
    let entered = move || {
        setns(net, CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(FabricError::io("enter a network namespace"))?;
        let _runtime = runtime.as_ref().map(tokio::runtime::Handle::enter);
        job()
    };
    let done = thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, entered)
            .map(thread::ScopedJoinHandle::join)
    });
    match done {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => Err(FabricError::io("start a thread")(error)),
    }
}

/// Settings of a new namespace, and a filter before there is anything to filter.
pub(super) fn prepare(net: &OwnedFd, network: &Network) -> Result<()> {
    inside(net, || {
        sysctl::prepare()?;
        rules::apply(&rules::ruleset(network).concat())?;
        // What is taken over may have been something else.
        rules::end_untranslated(network);
        Ok(())
    })
}

/// A running network. Dropping it ends its servers; links and rules stay until the namespace ends.
#[derive(Debug)]
pub(super) struct Vpc {
    net: OwnedFd,
    links: Links,
    network: watch::Sender<Arc<Network>>,
    dns: Arc<dns::Server>,
    dhcp: HashMap<String, AbortHandle>,
    imds: Option<TcpListener>,
    answers: probe::Known,
    tasks: JoinSet<()>,
}

impl Vpc {
    /// Builds the network in a namespace that has been [`prepare`]d and starts its servers on the
    /// caller's tokio runtime. What is there already is taken over.
    pub(super) async fn start(
        net: OwnedFd,
        network: Network,
        host: Arc<HostSide>,
        uplink: watch::Receiver<UplinkState>,
    ) -> Result<Self> {
        let links = inside(&net, Links::connect)?;
        links.apply(&network).await?;
        let mut tasks = JoinSet::new();
        let dns = Arc::new(dns::Server::new(&network, host, uplink));
        let sockets = inside(&net, || dns::bind(&network))?;
        dns::spawn(&mut tasks, &dns, sockets)?;
        let imds = inside(&net, listen_for_imds)?;
        let mut vpc = Self {
            net,
            links,
            network: watch::channel(Arc::new(network)).0,
            dns,
            dhcp: HashMap::new(),
            imds: Some(imds),
            answers: probe::Known::default(),
            tasks,
        };
        vpc.serve_subnets()?;
        Ok(vpc)
    }

    /// Makes the network another. The filter comes first: what is to be closed is closed before anything else, and what
    /// is new is filtered from its first packet on.
    pub(super) async fn apply(&mut self, network: Network) -> Result<()> {
        let old = self.network();
        if *old == network {
            return Ok(());
        }
        let tables = rules::ruleset(&network).into_iter();
        let tables = tables.zip(rules::ruleset(&old));
        let changed: String = tables
            .filter_map(|(new, old)| (new != old).then_some(new))
            .collect();
        if !changed.is_empty() {
            let moved = !old.public_pairs().eq(network.public_pairs());
            inside(&self.net, || {
                rules::apply(&changed)?;
                if moved {
                    rules::end_untranslated(&network);
                }
                Ok(())
            })?;
        }
        if wiring(&old) != wiring(&network) {
            self.links.apply(&network).await?;
        }
        self.dns.follow(&network);
        self.network.send_replace(Arc::new(network));
        self.serve_subnets()
    }

    /// The network as it is.
    pub(super) fn network(&self) -> Arc<Network> {
        Arc::clone(&self.network.borrow())
    }

    /// Follows the network.
    pub(super) fn current(&self) -> Current {
        Current(self.network.subscribe())
    }

    /// Its namespace.
    pub(super) fn namespace(&self) -> &OwnedFd {
        &self.net
    }

    /// Its links.
    pub(super) fn links(&self) -> &Links {
        &self.links
    }

    /// The socket that listens at `169.254.169.254:80`; `None` the second time.
    pub(super) fn take_imds_listener(&mut self) -> Option<TcpListener> {
        self.imds.take()
    }

    /// Watches from now on whether its instances answer.
    pub(super) fn watch(&mut self, pace: Pace) -> Result<()> {
        let (links, socket) = inside(&self.net, || Ok((Links::connect()?, probe::socket()?)))?;
        let answers = Arc::clone(&self.answers);
        let prober = Prober::new(self.current(), links, socket, pace, answers)?;
        self.tasks.spawn(prober.run());
        Ok(())
    }

    /// What is known of its instances' answers, by instance.
    pub(super) fn answers(&self) -> BTreeMap<String, Answers> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.clone()
    }

    /// Does this as long as the network is there.
    pub(super) fn serve(&mut self, what: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(what);
    }

    /// A DHCP server for each subnet, and none for those that are gone.
    fn serve_subnets(&mut self) -> Result<()> {
        let network = self.network();
        self.dhcp.retain(|bridge, task| {
            let stays = network.subnet(bridge).is_some();
            if !stays {
                task.abort();
            }
            stays
        });
        for subnet in &network.subnets {
            if self.dhcp.contains_key(&subnet.bridge) {
                continue;
            }
            let socket = inside(&self.net, || {
                sysctl::bridge(&subnet.bridge)?;
                dhcp::socket(&subnet.bridge)
            })?;
            let socket =
                UdpSocket::from_std(socket).map_err(FabricError::io("poll the DHCP socket"))?;
            let server = dhcp::Server::new(&subnet.bridge, self.current());
            let task = self.tasks.spawn(server.run(socket));
            self.dhcp.insert(subnet.bridge.clone(), task);
        }
        Ok(())
    }
}

/// What links, addresses, neighbours and routes are made from.
fn wiring(network: &Network) -> Network {
    let mut network = network.clone();
    network.groups.clear();
    network.domain.clear();
    network.hostnames = false;
    network.options = super::network::Options::default();
    for port in &mut network.ports {
        port.groups.clear();
        port.public.clear();
        port.instance = None;
        port.primary = false;
        port.checked = true;
    }
    network
}

fn listen_for_imds() -> Result<TcpListener> {
    let address = SocketAddrV4::new(IMDS_ADDRESS, 80);
    let refused = |source| FabricError::Listen {
        address: address.into(),
        source,
    };
    let listener = TcpListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(listener)
}
