//! The network that all VPCs share: where public addresses live and the way to the outside begins.
//!
//! ```text
//!  the host's network      the router's network namespace      a namespace for each VPC
//! ┌──────────────────┐     ┌─────────────────────────────┐     ┌──────────────────────────────────────────┐
//! │ pasta ═══════════╪═════╪═ up0 ─ NAT ─ routes ─ v… ══╪═════╪═ up0 ─ 1:1 NAT ─ routes ┬ s… (bridge) ─ e… │
//! └──────────────────┘     └─────────────────────────────┘     └─────────────────────────┴ s… (bridge) ─ e… │
//! ```
//!
//! VPCs may use the same private ranges, as on EC2: each has a namespace, and only public addresses are known here.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::enter::{Entered, Namespaces};
use super::error::Result;
use super::host::HostSide;
use super::links::Links;
use super::network::Network;
use super::probe::{Answers, Pace};
use super::uplink::{self, UplinkState};
use super::veth::{self, REACH, Slot};
use super::vpc::{self, Vpc};
use super::{UPLINK, conntrack, rules, sysctl, wire};

/// All VPCs' networks. Dropping it ends their servers; the namespaces go with the last process in them.
#[derive(Debug)]
pub struct Shared {
    host: Arc<HostSide>,
    links: Links,
    uplink: watch::Receiver<UplinkState>,
    vpcs: HashMap<String, Vpc>,
    adopted: HashMap<String, OwnedFd>,
    public: BTreeMap<Ipv4Addr, Holder>,
    /// The host's own way to public addresses, when we are root.
    reach: Option<Slot>,
    pace: Pace,
    _tasks: JoinSet<()>,
}

/// Who has a public address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    /// The VPC's wire.
    wire: String,
    /// The private address in it.
    private: Ipv4Addr,
}

impl Shared {
    /// Builds the shared network inside.
    ///
    /// # Errors
    /// What the kernel or `nft` refused.
    pub async fn start(entered: Entered) -> Result<Self> {
        sysctl::prepare()?;
        rules::apply(&ruleset())?;
        let links = Links::connect()?;
        links.bring_up_lo().await?;
        let host = Arc::new(entered.host);
        let reach = if entered.namespaces.root {
            reach(&host, &links, &entered.namespaces).await
        } else {
            None
        };
        let mut tasks = JoinSet::new();
        let uplink = uplink::spawn(&mut tasks, &host, entered.namespaces, entered.uplink);
        Ok(Self {
            host,
            links,
            uplink,
            vpcs: HashMap::new(),
            adopted: HashMap::new(),
            public: BTreeMap::new(),
            reach,
            pace: Pace::default(),
            _tasks: tasks,
        })
    }

    /// How often the guests of VPCs that are made from now on are asked whether they answer.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Takes over the namespace of a VPC that a router before us made. The next [`Shared::apply`] makes it work again.
    pub fn adopt(&mut self, id: String, net: OwnedFd) {
        self.adopted.insert(id, net);
    }

    /// Makes the VPCs' networks these and no others.
    ///
    /// # Errors
    /// The first that failed; the others are as they are to be, and it may be tried again.
    pub async fn apply(&mut self, networks: Vec<Network>) -> Result<()> {
        let gone: Vec<String> = self
            .vpcs
            .keys()
            .filter(|id| networks.iter().all(|network| network.id != **id))
            .cloned()
            .collect();
        for id in gone {
            self.vpcs.remove(&id);
            self.links.remove(&wire_name(&id)).await?;
        }
        let mut public = BTreeMap::new();
        let mut failed = None;
        for network in networks {
            let id = network.id.clone();
            let name = wire_name(&id);
            let pairs: Vec<_> = network.public_pairs().collect();
            let done = match self.vpcs.get_mut(&id) {
                Some(vpc) => vpc.apply(network).await,
                None => self.make(network).await,
            };
            match done {
                Ok(()) => public.extend(pairs.into_iter().map(|(private, public)| {
                    let wire = name.clone();
                    (public, Holder { wire, private })
                })),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        for (ip, holder) in &public {
            if self.public.get(ip).map(|before| &before.wire) != Some(&holder.wire) {
                wire::lead(&self.links, *ip, &holder.wire).await?;
            }
        }
        let new = public.keys().filter(|ip| !self.public.contains_key(ip));
        let new: Vec<Ipv4Addr> = new.copied().collect();
        let gone = self.public.keys().filter(|ip| !public.contains_key(ip));
        let gone: Vec<Ipv4Addr> = gone.copied().collect();
        for ip in &gone {
            wire::unlead(&self.links, *ip).await;
        }
        self.end_moved(&public);
        if let Some(slot) = self.reach
            && !(new.is_empty() && gone.is_empty())
            && let Err(error) = self.host.lead(slot, new, gone)
        {
            tracing::warn!(%error, "this host does not reach all public addresses");
        }
        self.public = public;
        failed.map_or(Ok(()), Err)
    }

    /// Ends the connections of public addresses that are another's now, or nobody's.
    fn end_moved(&self, now: &BTreeMap<Ipv4Addr, Holder>) {
        let before = self.public.iter();
        let moved: Vec<Ipv4Addr> = before
            .filter(|(ip, holder)| now.get(ip) != Some(holder))
            .map(|(ip, _)| *ip)
            .collect();
        if moved.is_empty() {
            return;
        }
        if let Err(error) = conntrack::end(|flow| moved.iter().any(|ip| flow.has(*ip))) {
            tracing::warn!(%error, "connections of addresses that moved go on");
        }
    }

    async fn make(&mut self, network: Network) -> Result<()> {
        let id = network.id.clone();
        let net = match self.adopted.remove(&id) {
            Some(net) => net,
            None => new_namespace()?,
        };
        vpc::prepare(&net, &network)?;
        wire::lay(&self.links, &wire_name(&id), &net, network.mtu).await?;
        let host = Arc::clone(&self.host);
        let mut vpc = Vpc::start(net, network, host, self.uplink.clone()).await?;
        vpc.watch(self.pace)?;
        self.vpcs.insert(id, vpc);
        Ok(())
    }

    /// The sockets that listen at `169.254.169.254:80` in VPCs and were not taken yet, with the VPCs' ids.
    pub fn take_imds_listeners(&mut self) -> Vec<(String, TcpListener)> {
        let vpcs = self.vpcs.iter_mut();
        vpcs.filter_map(|(id, vpc)| Some((id.clone(), vpc.take_imds_listener()?)))
            .collect()
    }

    /// Does this as long as the VPC has a network.
    pub fn serve(&mut self, id: &str, what: impl Future<Output = ()> + Send + 'static) {
        if let Some(vpc) = self.vpcs.get_mut(id) {
            vpc.serve(what);
        }
    }

    /// The descriptor of a VPC's network namespace.
    #[must_use]
    pub fn namespace(&self, id: &str) -> Option<RawFd> {
        Some(self.vpcs.get(id)?.namespace().as_raw_fd())
    }

    /// What is known of the instances' answers to ARP, by instance.
    #[must_use]
    pub fn answers(&self) -> BTreeMap<String, Answers> {
        self.vpcs.values().flat_map(Vpc::answers).collect()
    }

    /// How it stands with the way to the outside.
    #[must_use]
    pub fn uplink(&self) -> UplinkState {
        self.uplink.borrow().clone()
    }

    /// Whether an interface of a VM is plugged in anywhere.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn in_use(&self) -> Result<bool> {
        for vpc in self.vpcs.values() {
            if vpc.links().has_taps().await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Gives the host itself a way to public addresses.
async fn reach(host: &HostSide, links: &Links, namespaces: &Namespaces) -> Option<Slot> {
    let taken = Slot::all().find_map(|slot| match host.reach(slot, namespaces.net.as_fd()) {
        Ok(true) => Some(Ok(slot)),
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    });
    let set_up = match taken {
        Some(Ok(slot)) => {
            let to = Ipv4Net::from(veth::HOST_PUBLIC);
            let done = links.set_up_veth(REACH, slot.own(), slot.host(), to);
            done.await.map(|()| slot)
        }
        Some(Err(error)) => Err(error),
        None => Err(super::FabricError::HostProcess {
            message: veth::full(),
        }),
    };
    set_up
        .inspect_err(|error| tracing::warn!(%error, "this host does not reach public addresses"))
        .ok()
}

/// Name of a VPC's wire.
fn wire_name(id: &str) -> String {
    super::network::link_name('v', id)
}

/// A fresh network namespace, which lives as long as its descriptor or a process in it.
fn new_namespace() -> Result<OwnedFd> {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)?;
        std::fs::File::open("/proc/thread-self/ns/net")
    });
    match made.join() {
        Ok(Ok(net)) => Ok(net.into()),
        Ok(Err(error)) => Err(super::enter::namespace("network", error)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Between VPCs and to the outside; nobody begins a connection from there.
fn ruleset() -> String {
    format!(
        r#"table inet cumulet {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ct state invalid drop
        oifname "{REACH}" drop
        iifname "v*" accept
        iifname "{REACH}" oifname "v*" accept
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{UPLINK}" masquerade
    }}
}}
"#
    )
}
