//! Bridge, ports, addresses, routes and neighbours, by rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::{RouteAttribute, RouteType};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkUnspec, RouteMessageBuilder, new_connection,
};
use tokio::task::AbortHandle;

use super::config::{DNS_LINK_LOCAL, FabricConfig, GATEWAY_MAC, IMDS_ADDRESS, MacAddr, PortConfig};
use super::error::{FabricError, Result};
use super::{BRIDGE, UPLINK};

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

    /// The loopback and the bridge with all the addresses that we answer at.
    pub(super) async fn build_bridge(&self, config: &FabricConfig) -> Result<u32> {
        let lo = self.index("lo").await?;
        self.change(LinkUnspec::new_with_index(lo).up().build(), "bring up lo")
            .await?;
        let message = LinkBridge::new(BRIDGE)
            .mcast_snooping(false)
            .address(GATEWAY_MAC.0.to_vec())
            .mtu(u32::from(config.mtu))
            .up()
            .build();
        let action = format!("make bridge {BRIDGE}");
        self.handle
            .link()
            .add(message)
            .execute()
            .await
            .map_err(FabricError::netlink(action))?;
        let bridge = self.index(BRIDGE).await?;
        self.add_address(bridge, BRIDGE, config.gateway(), config.subnet.prefix_len())
            .await?;
        for address in service_addresses(config) {
            self.add_address(bridge, BRIDGE, address, 32).await?;
        }
        // Nothing meant for the VPC or the link may wander to the host's networks.
        self.unreachable(config.vpc).await?;
        self.unreachable(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16))
            .await?;
        for port in &config.ports {
            self.add_neighbour(bridge, port).await?;
        }
        Ok(bridge)
    }

    /// Plugs a tap into the bridge: isolated, nothing learnt, nothing flooded to it.
    pub(super) async fn plug(
        &self,
        bridge: u32,
        tap: &str,
        port: &PortConfig,
        mtu: u16,
    ) -> Result<()> {
        let index = self.index(tap).await?;
        let message = LinkUnspec::new_with_index(index)
            .mtu(u32::from(mtu))
            .controller(bridge);
        self.change(message.build(), &format!("plug {tap} into {BRIDGE}"))
            .await?;
        let message = LinkBridgePort::new(index)
            .isolated(true)
            .learning(false)
            .flood(false);
        self.change(message.build(), &format!("isolate {tap}"))
            .await?;
        self.add_forwarding(index, tap, port.mac).await?;
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

    /// Gives the uplink its address and makes it the way to everywhere.
    pub(super) async fn set_up_uplink(
        &self,
        address: Ipv4Addr,
        prefix: u8,
        gateway: Ipv4Addr,
    ) -> Result<()> {
        let index = self.index(UPLINK).await?;
        self.change(
            LinkUnspec::new_with_index(index).up().build(),
            "bring up the uplink",
        )
        .await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .build();
        self.add_address(index, UPLINK, address, prefix).await?;
        let added = self.handle.route().add(route).execute().await;
        added.map_err(FabricError::netlink(format!(
            "add a default route by {gateway}"
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

    async fn index(&self, name: &str) -> Result<u32> {
        self.find(name).await?.ok_or_else(|| {
            FabricError::io(format!("find link {name}"))(io::ErrorKind::NotFound.into())
        })
    }

    async fn change(&self, message: LinkMessage, action: &str) -> Result<()> {
        self.handle
            .link()
            .change(message)
            .execute()
            .await
            .map_err(FabricError::netlink(action))
    }

    async fn add_address(
        &self,
        link: u32,
        name: &str,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<()> {
        let action = format!("add address {address}/{prefix} to {name}");
        let request = self.handle.address().add(link, IpAddr::V4(address), prefix);
        request
            .execute()
            .await
            .map_err(FabricError::netlink(action))
    }

    async fn unreachable(&self, net: Ipv4Net) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .kind(RouteType::Unreachable)
            // Behind any real route to the same range: the subnet may be the whole VPC.
            .priority(u32::from(u16::MAX))
            .build();
        let action = format!("add an unreachable route to {net}");
        self.handle
            .route()
            .add(route)
            .execute()
            .await
            .map_err(FabricError::netlink(action))
    }

    /// A fixed ARP entry: no guest can claim another's address, and DHCP answers find a guest
    /// that has no address yet.
    async fn add_neighbour(&self, bridge: u32, port: &PortConfig) -> Result<()> {
        let action = format!("add neighbour {}", port.ip);
        let request = self
            .handle
            .neighbours()
            .add(bridge, IpAddr::V4(port.ip))
            .link_layer_address(&port.mac.0)
            .state(NeighbourState::Permanent);
        request
            .execute()
            .await
            .map_err(FabricError::netlink(action))
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

/// Addresses beside the gateway's at which the bridge answers.
pub(super) fn service_addresses(config: &FabricConfig) -> Vec<Ipv4Addr> {
    let mut addresses = dns_addresses(config);
    addresses.push(IMDS_ADDRESS);
    addresses
}

/// Addresses of the DNS server: base + 2 of the VPC and of the subnet, and the link-local one.
pub(super) fn dns_addresses(config: &FabricConfig) -> Vec<Ipv4Addr> {
    let subnet = Ipv4Addr::from(u32::from(config.subnet.network()) + 2);
    let mut addresses = vec![config.dns(), subnet, DNS_LINK_LOCAL];
    addresses.dedup();
    addresses
}
