//! Bridge, ports, addresses, routes and neighbours, by rtnetlink.

mod routes;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::RouteAttribute;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkUnspec, RouteMessageBuilder, new_connection,
};
use tokio::task::AbortHandle;

use super::config::{DNS_LINK_LOCAL, GATEWAY_MAC, IMDS_ADDRESS, MacAddr};
use super::error::{FabricError, Result};
use super::network::{Network, Outside, Subnet};
pub(super) use routes::EVERYWHERE;
use routes::{LINK_LOCAL, unreachable};

/// A tap's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plug {
    /// The tap.
    pub tap: String,
    /// The bridge that it is plugged into.
    pub bridge: String,
    /// The guest's address on it.
    pub mac: MacAddr,
    /// MTU.
    pub mtu: u16,
}

/// A connection to the kernel's routing netlink inside the namespace.
#[derive(Debug)]
pub(super) struct Links {
    handle: Handle,
    connection: AbortHandle,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Connects. Runs on the caller's tokio runtime.
    pub(super) fn connect() -> Result<Self> {
        let (connection, handle, _) =
            new_connection().map_err(FabricError::io("open a netlink socket"))?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, connection })
    }

    /// Makes links, addresses, neighbours and routes what they are to be, whatever they are.
    pub(super) async fn apply(&self, network: &Network) -> Result<()> {
        let lo = self.bring_up_lo().await?;
        for address in service_addresses(network) {
            self.add_address(lo, "lo", address, 32).await?;
        }
        // Nothing meant for the VPC or the link may wander to the host's networks.
        self.unreachable(network.cidr).await?;
        self.unreachable(LINK_LOCAL).await?;
        for name in self.bridges().await? {
            if network.subnet(&name).is_none() {
                self.remove(&name).await?;
            }
        }
        let mut bridges = HashMap::new();
        for subnet in &network.subnets {
            let index = self.bridge(subnet, network.mtu).await?;
            bridges.insert(subnet.bridge.as_str(), index);
        }
        self.neighbours(network, &bridges).await?;
        if network.outside == Outside::OneToOne {
            self.routes(network, &bridges).await?;
        }
        Ok(())
    }

    pub(super) async fn bring_up_lo(&self) -> Result<u32> {
        let lo = self.index("lo").await?;
        self.change(LinkUnspec::new_with_index(lo).up().build(), "bring up lo")
            .await?;
        Ok(lo)
    }

    /// The subnet's bridge with the gateway's address; made when it is not there.
    async fn bridge(&self, subnet: &Subnet, mtu: u16) -> Result<u32> {
        let name = &subnet.bridge;
        if let Some(index) = self.find(name).await? {
            return Ok(index);
        }
        let message = LinkBridge::new(name)
            .mcast_snooping(false)
            .address(GATEWAY_MAC.0.to_vec())
            .mtu(u32::from(mtu))
            .up()
            .build();
        self.handle
            .link()
            .add(message)
            .execute()
            .await
            .map_err(FabricError::netlink(format!("make bridge {name}")))?;
        let index = self.index(name).await?;
        self.add_address(index, name, subnet.gateway(), subnet.cidr.prefix_len())
            .await?;
        Ok(index)
    }

    /// Names of all bridges.
    async fn bridges(&self) -> Result<Vec<String>> {
        let bridges = self.named(|kind| *kind == InfoKind::Bridge).await?;
        Ok(bridges.into_keys().collect())
    }

    /// Whether a tap is open.
    pub(super) async fn has_taps(&self) -> Result<bool> {
        Ok(!self.taps().await?.is_empty())
    }

    /// The index of each open tap, by its name.
    pub(super) async fn taps(&self) -> Result<HashMap<String, u32>> {
        self.named(|kind| *kind == InfoKind::Tun).await
    }

    async fn named(&self, wanted: impl Fn(&InfoKind) -> bool) -> Result<HashMap<String, u32>> {
        let mut links = self.handle.link().get().execute();
        let mut names = HashMap::new();
        while let Some(link) = links
            .try_next()
            .await
            .map_err(FabricError::netlink("list the links"))?
        {
            let is = link.attributes.iter().any(|attribute| {
                let LinkAttribute::LinkInfo(info) = attribute else {
                    return false;
                };
                info.iter()
                    .any(|info| matches!(info, LinkInfo::Kind(kind) if wanted(kind)))
            });
            let name = link
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                });
            names.extend(name.filter(|_| is).map(|name| (name, link.header.index)));
        }
        Ok(names)
    }

    /// Removes a link, if it is there.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        let Some(index) = self.find(name).await? else {
            return Ok(());
        };
        let action = format!("remove {name}");
        let removed = self.handle.link().del(index).execute().await;
        removed.map_err(FabricError::netlink(action))
    }

    /// Plugs a tap into the bridge: isolated, nothing learnt, nothing flooded to it.
    pub(super) async fn plug(&self, plug: &Plug) -> Result<()> {
        let Plug { tap, bridge, .. } = plug;
        let controller = self.index(bridge).await?;
        let index = self.index(tap).await?;
        let message = LinkUnspec::new_with_index(index)
            .mtu(u32::from(plug.mtu))
            .controller(controller);
        self.change(message.build(), &format!("plug {tap} into {bridge}"))
            .await?;
        let message = LinkBridgePort::new(index)
            .isolated(true)
            .learning(false)
            .flood(false);
        self.change(message.build(), &format!("isolate {tap}"))
            .await?;
        self.add_forwarding(index, tap, plug.mac).await?;
        // Only now, so that there is no moment at which it is not isolated.
        let message = LinkUnspec::new_with_index(index).up();
        self.change(message.build(), &format!("bring up {tap}"))
            .await
    }

    /// The index of a link, if there is one of this name.
    pub(super) async fn find(&self, name: &str) -> Result<Option<u32>> {
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => {
                Ok(None)
            }
            Err(error) => Err(FabricError::netlink(format!("look for {name}"))(error)),
        }
    }

    /// Gives our end of a veth pair its address and makes it the way to a range.
    pub(super) async fn set_up_veth(
        &self,
        name: &str,
        (address, prefix): (Ipv4Addr, u8),
        gateway: Ipv4Addr,
        to: Ipv4Net,
    ) -> Result<()> {
        let index = self.index(name).await?;
        self.change(
            LinkUnspec::new_with_index(index).up().build(),
            &format!("bring up {name}"),
        )
        .await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .gateway(gateway)
            .output_interface(index)
            .build();
        self.add_address(index, name, address, prefix).await?;
        let added = self.handle.route().add(route).execute().await;
        added.map_err(FabricError::netlink(format!(
            "add a route to {to} by {gateway}"
        )))
    }

    /// Whether the way to everywhere leads through a link of this name.
    pub(super) async fn leads_outside(&self, name: &str) -> Result<bool> {
        let Some(index) = self.find(name).await? else {
            return Ok(false);
        };
        let mut routes = self
            .handle
            .route()
            .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
            .execute();
        while let Some(route) = routes
            .try_next()
            .await
            .map_err(FabricError::netlink("read the routes"))?
        {
            if route.header.destination_prefix_length == 0
                && route.attributes.contains(&RouteAttribute::Oif(index))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The connection, for what is not this module's.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) async fn index(&self, name: &str) -> Result<u32> {
        self.find(name).await?.ok_or_else(|| {
            FabricError::io(format!("find link {name}"))(io::ErrorKind::NotFound.into())
        })
    }

    pub(super) async fn change(&self, message: LinkMessage, action: &str) -> Result<()> {
        self.handle
            .link()
            .change(message)
            .execute()
            .await
            .map_err(FabricError::netlink(action))
    }

    pub(super) async fn add_address(
        &self,
        link: u32,
        name: &str,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<()> {
        let action = format!("add address {address}/{prefix} to {name}");
        let request = self.handle.address().add(link, IpAddr::V4(address), prefix);
        known(request.execute().await).map_err(FabricError::netlink(action))
    }

    async fn unreachable(&self, net: Ipv4Net) -> Result<()> {
        let route = unreachable(net)
            // Behind any real route to the same range: the subnet may be the whole VPC.
            .priority(u32::from(u16::MAX))
            .build();
        let action = format!("add an unreachable route to {net}");
        known(self.handle.route().add(route).execute().await).map_err(FabricError::netlink(action))
    }

    /// A fixed entry of the bridge's forwarding table.
    async fn add_forwarding(&self, tap: u32, name: &str, mac: MacAddr) -> Result<()> {
        let action = format!("add forwarding entry {mac} on {name}");
        let request = self
            .handle
            .neighbours()
            .add_bridge(tap, &mac.0)
            .flags(NeighbourFlags::Controller)
            .state(NeighbourState::Noarp);
        request
            .execute()
            .await
            .map_err(FabricError::netlink(action))
    }
}

/// What is there already need not be made.
fn known(
    result: std::result::Result<(), rtnetlink::Error>,
) -> std::result::Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EEXIST => Ok(()),
        other => other,
    }
}

/// Addresses beside the gateways' at which we answer.
fn service_addresses(network: &Network) -> [Ipv4Addr; 3] {
    [network.dns_address(), DNS_LINK_LOCAL, IMDS_ADDRESS]
}
