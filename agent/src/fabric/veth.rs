//! The uplink for root: a veth pair, and masquerading by the host's kernel.
//!
//! It is the fastest way out and the only one that touches the host's network, so only on request.
//! All of it goes by itself: the pair with our network namespace, the rules with the process that
//! owns them (nftables' `owner` flag), which ends with the host side.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use serde::{Deserialize, Serialize};

use super::UPLINK;
use super::error::FabricError;
use super::links::Links;
use super::tools::NFT;

/// How many fabrics with a veth fit on one host.
const SLOTS: u16 = 256;
/// First address of the slots' networks: link-local, so nobody routes them.
const BASE: u32 = u32::from_be_bytes([169, 254, 200, 0]);
/// Prefix of a slot's network: two addresses.
const PREFIX: u8 = 30;
/// Name of the router's end of the pair by which the host reaches public addresses.
pub(super) const REACH: &str = "host0";
/// The address by which instances see this host: the last of the pool of public ones, which no instance gets.
pub(super) const HOST_PUBLIC: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 255);
/// Tries to see the rules in force, and the pause between two.
const LOOKS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// One of the host's places for a veth pair: its name and network. Who can make the name has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slot(u16);

impl Slot {
    fn new(number: u16) -> Self {
        Self(number % SLOTS)
    }

    /// All of them, beginning anywhere.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let first: u16 = rand::random_range(0..SLOTS);
        (0..SLOTS).map(move |number| Self::new(first + number))
    }

    /// The interface on the host, and the table of its rules.
    fn name(self) -> String {
        format!("cumulet{}", self.0)
    }

    fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(BASE + 4 * u32::from(self.0) + offset)
    }

    /// The host's address.
    pub(super) fn host(self) -> Ipv4Addr {
        self.address(1)
    }

    /// Our address.
    pub(super) fn inside(self) -> Ipv4Addr {
        self.address(2)
    }

    /// Our address with its prefix.
    pub(super) fn own(self) -> (Ipv4Addr, u8) {
        (self.inside(), PREFIX)
    }
}

/// What is said when there is no slot left.
pub(super) fn full() -> String {
    format!("all {SLOTS} places for veth pairs on this host are taken")
}

/// Why there is no veth.
#[derive(Debug)]
pub(super) enum Refused {
    /// The slot is another's.
    Taken,
    /// Something else.
    Message(String),
}

impl From<FabricError> for Refused {
    fn from(error: FabricError) -> Self {
        Self::Message(match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })
    }
}

/// Makes the pair, moves one end into the namespace and sets the rules. Runs in the host side.
/// Returns a pipe that ends when the rules do.
pub(super) fn build(slot: Slot, netns: &OwnedFd) -> Result<OwnedFd, Refused> {
    let message = |error: String| Refused::Message(error);
    let forwards = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    if forwards.trim() != "1" {
        return Err(message(
            "the host does not forward packets (net.ipv4.ip_forward is off, and it is not ours to \
             change): 'sysctl net.ipv4.ip_forward=1', or use the uplink 'pasta'"
                .to_owned(),
        ));
    }
    let runtime = runtime()?;
    runtime.block_on(pair(slot, netns, UPLINK))?;
    own_rules(slot).map_err(|error| {
        // The pair without rules leads nowhere, but its name would stay taken.
        runtime.block_on(remove(slot));
        message(error.to_string())
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Refused> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Refused::Message(error.to_string()))
}

/// Makes the pair by which this host reaches public addresses. Runs in the host side. There are no rules: the router
/// lets nobody begin a connection from the other end.
pub(super) fn reach(slot: Slot, netns: &OwnedFd) -> Result<(), Refused> {
    runtime()?.block_on(async {
        pair(slot, netns, REACH).await?;
        let (links, name) = (Links::connect()?, slot.name());
        let index = links.index(&name).await?;
        Ok(links.add_address(index, &name, HOST_PUBLIC, 32).await?)
    })
}

/// Leads the new addresses through the pair, and those that are gone no longer.
pub(super) fn lead(slot: Slot, new: &[Ipv4Addr], gone: &[Ipv4Addr]) -> Result<(), Refused> {
    runtime()?.block_on(async {
        let links = Links::connect()?;
        let index = links.index(&slot.name()).await?;
        let route = |address: &Ipv4Addr| {
            RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(*address, 32)
                .output_interface(index)
                .gateway(slot.inside())
        };
        for address in gone {
            links.forget(route(address).build()).await;
        }
        for address in new {
            let route = route(address).pref_source(HOST_PUBLIC).build();
            links.put(route, &format!("lead to {address}")).await?;
        }
        Ok(())
    })
}

async fn pair(slot: Slot, netns: &OwnedFd, inner: &str) -> Result<(), Refused> {
    let (connection, handle, _) =
        new_connection().map_err(|error| Refused::Message(error.to_string()))?;
    tokio::spawn(connection);
    let (name, peer) = (slot.name(), format!("{}p", slot.name()));
    match handle
        .link()
        .add(LinkVeth::new(&name, &peer).build())
        .execute()
        .await
    {
        Ok(()) => {}
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EEXIST => {
            return Err(Refused::Taken);
        }
        Err(error) => return Err(Refused::Message(format!("cannot make {name}: {error}"))),
    }
    if let Err(error) = join(&handle, slot, (&name, &peer), netns, inner).await {
        remove(slot).await;
        return Err(Refused::Message(format!("cannot set up {name}: {error}")));
    }
    Ok(())
}

async fn join(
    handle: &Handle,
    slot: Slot,
    (name, peer): (&str, &str),
    netns: &OwnedFd,
    inner: &str,
) -> Result<(), rtnetlink::Error> {
    let inner = LinkUnspec::new_with_index(index(handle, peer).await?)
        .setns_by_fd(netns.as_raw_fd())
        .name(inner.to_owned())
        .build();
    handle.link().change(inner).execute().await?;
    let outer = index(handle, name).await?;
    handle
        .address()
        .add(outer, IpAddr::V4(slot.host()), PREFIX)
        .execute()
        .await?;
    handle
        .link()
        .change(LinkUnspec::new_with_index(outer).up().build())
        .execute()
        .await
}

async fn index(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let link = handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_next()
        .await?;
    link.map(|link| link.header.index)
        .ok_or(rtnetlink::Error::RequestFailed)
}

/// Removes the pair, if it is there.
async fn remove(slot: Slot) {
    let Ok((connection, handle, _)) = new_connection() else {
        return;
    };
    tokio::spawn(connection);
    if let Ok(index) = index(&handle, &slot.name()).await {
        // Nothing more can be done about it here.
        let _ = handle.link().del(index).execute().await;
    }
}

/// The rules, one command line: that is how interactive nft takes them as one transaction.
fn rules(slot: Slot) -> String {
    let name = slot.name();
    let network = format!("{}/{PREFIX}", slot.address(0));
    let chain = |chain: &str, kind: &str, priority: &str| {
        format!(
            "add chain inet {name} {chain} {{ type {kind} hook {chain} priority {priority}; policy accept; }}"
        )
    };
    let rule = |chain: &str, rule: &str| format!("add rule inet {name} {chain} {rule}");
    [
        format!("add table inet {name} {{ flags owner; }}"),
        chain("postrouting", "nat", "srcnat"),
        rule("postrouting", &format!("ip saddr {network} masquerade")),
        chain("forward", "filter", "filter"),
        rule(
            "forward",
            &format!("iifname {name} ip saddr {network} accept"),
        ),
        rule(
            "forward",
            &format!("oifname {name} ct state established,related accept"),
        ),
        rule("forward", &format!("oifname {name} drop")),
        chain("input", "filter", "filter"),
        // A guest is a stranger to the host itself.
        rule(
            "input",
            &format!("iifname {name} ct state established,related accept"),
        ),
        rule("input", &format!("iifname {name} drop")),
    ]
    .join("; ")
}

/// Input pipes of the processes that own rules: they end when these are closed, with us.
static OWNERS: Mutex<Vec<ChildStdin>> = Mutex::new(Vec::new());

/// Starts an nft that owns the rules and waits until they are in force.
fn own_rules(slot: Slot) -> io::Result<OwnedFd> {
    let nft = NFT.path().map_err(io::Error::other)?;
    let (mut reader, writer) = io::pipe()?;
    let mut owner = Command::new(&nft)
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    let mut stdin = owner.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    writeln!(stdin, "{}", rules(slot))?;
    for _ in 0..LOOKS {
        let table = slot.name();
        let look = Command::new(&nft)
            .args(["list", "table", "inet", &table])
            .output()?;
        // The last rule of the list is there, so all are.
        if String::from_utf8_lossy(&look.stdout).contains("chain input") {
            OWNERS
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(stdin);
            return Ok(reader.into());
        }
        if owner.try_wait()?.is_some() {
            break;
        }
        sleep(PAUSE);
    }
    drop(stdin);
    let mut said = String::new();
    reader.read_to_string(&mut said)?;
    Err(io::Error::other(format!(
        "nft refused the host's rules: {}",
        said.trim()
    )))
}
