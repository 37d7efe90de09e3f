//! Neighbours and routes of a network: what is there is compared with what is to be.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};

use super::super::error::{FabricError, Result};
use super::super::network::{Network, Subnet, Target};
use super::super::{UPLINK, wire};
use super::{Links, known};
use crate::fabric::config::MacAddr;

/// 169.254.0.0/16 is never routed.
pub(super) const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
/// Everywhere.
pub(in crate::fabric) const EVERYWHERE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
/// A subnet's routing table has this number plus the index of its bridge.
const TABLES: u32 = 1000;
/// Where in the list of rules ours are.
const PRIORITY: u32 = 1000;

/// A route that refuses.
pub(super) fn unreachable(net: Ipv4Net) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(net.network(), net.prefix_len())
        .kind(RouteType::Unreachable)
}

impl Links {
    /// Fixed ARP entries: no guest can claim another's address, and DHCP answers find a guest
    /// that has no address yet.
    pub(super) async fn neighbours(
        &self,
        network: &Network,
        bridges: &HashMap<&str, u32>,
    ) -> Result<()> {
        let mut wanted: HashSet<(u32, Ipv4Addr, MacAddr)> = HashSet::new();
        for port in &network.ports {
            if let Some(bridge) = bridges.get(port.bridge.as_str()) {
                wanted.extend(port.ips().map(|ip| (*bridge, ip, port.mac)));
            }
        }
        let mut found = self
            .handle
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Inet)
            .execute();
        let mut old = Vec::new();
        while let Some(entry) = found
            .try_next()
            .await
            .map_err(FabricError::netlink("read the neighbours"))?
        {
            if let Some(key) = fixed(&entry)
                && !wanted.remove(&key)
                && bridges.values().any(|index| *index == key.0)
            {
                old.push(entry);
            }
        }
        for entry in old {
            let deleted = self.handle.neighbours().del(entry).execute().await;
            deleted.map_err(FabricError::netlink("remove a neighbour"))?;
        }
        for (bridge, ip, mac) in wanted {
            self.fix_neighbour(bridge, ip, mac).await?;
        }
        Ok(())
    }

    /// A fixed ARP entry.
    pub(in crate::fabric) async fn fix_neighbour(
        &self,
        link: u32,
        ip: Ipv4Addr,
        mac: MacAddr,
    ) -> Result<()> {
        let neighbours = self.handle.neighbours();
        let fixed = neighbours
            .add(link, IpAddr::V4(ip))
            .link_layer_address(&mac.0)
            .state(NeighbourState::Permanent)
            .replace();
        let added = fixed.execute().await;
        added.map_err(FabricError::netlink(format!("add neighbour {ip}")))
    }

    /// Each subnet's routing table, which packets from its bridge use.
    pub(super) async fn routes(
        &self,
        network: &Network,
        bridges: &HashMap<&str, u32>,
    ) -> Result<()> {
        let uplink = self.index(UPLINK).await?;
        // What comes from outside, and what this host itself sends.
        let back = self.to_outside(uplink, EVERYWHERE).build();
        self.put(back, "add the way out").await?;
        self.forget_tables(bridges).await?;
        let mut present = self.tables().await?;
        for subnet in &network.subnets {
            let Some(bridge) = bridges.get(subnet.bridge.as_str()) else {
                continue;
            };
            let table = TABLES + bridge;
            let routes = self.of_subnet(network, subnet, bridges, uplink);
            let mut gone = present.remove(&table).unwrap_or_default();
            for (destination, route) in routes {
                gone.retain(|old| destination_of(old) != destination);
                let action = format!("add a route to {destination}");
                self.put(route.table_id(table).build(), &action).await?;
            }
            for old in gone {
                let deleted = self.handle.route().del(old).execute().await;
                deleted.map_err(FabricError::netlink("remove a route"))?;
            }
            self.use_table(&subnet.bridge, table).await?;
        }
        Ok(())
    }

    /// Routes of one subnet; a destination each.
    fn of_subnet(
        &self,
        network: &Network,
        subnet: &Subnet,
        bridges: &HashMap<&str, u32>,
        uplink: u32,
    ) -> Vec<(Ipv4Net, RouteMessageBuilder<Ipv4Addr>)> {
        let mut routes = vec![
            (EVERYWHERE, unreachable(EVERYWHERE)),
            (LINK_LOCAL, unreachable(LINK_LOCAL)),
            (network.cidr, unreachable(network.cidr)),
        ];
        let mut put = |destination: Ipv4Net, route| {
            routes.retain(|(other, _)| *other != destination);
            routes.push((destination, route));
        };
        for other in &network.subnets {
            if let Some(index) = bridges.get(other.bridge.as_str()) {
                put(other.cidr, on_link(*index, other.cidr));
            }
        }
        for route in &subnet.routes {
            let destination = route.destination.trunc();
            let way = match route.target {
                Target::Outside => self.to_outside(uplink, destination),
                Target::Port(address) => {
                    let port = network.ports.iter().find(|port| port.ip == address);
                    match port.and_then(|port| bridges.get(port.bridge.as_str())) {
                        Some(index) => RouteMessageBuilder::<Ipv4Addr>::new()
                            .destination_prefix(destination.network(), destination.prefix_len())
                            .output_interface(*index)
                            .gateway(address)
                            .onlink(),
                        None => unreachable(destination),
                    }
                }
                Target::Nowhere => unreachable(destination),
            };
            put(destination, way);
        }
        routes
    }

    fn to_outside(&self, uplink: u32, to: Ipv4Net) -> RouteMessageBuilder<Ipv4Addr> {
        RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .output_interface(uplink)
            .gateway(wire::gateway())
            .onlink()
    }

    pub(in crate::fabric) async fn put(&self, route: RouteMessage, action: &str) -> Result<()> {
        let put = self.handle.route().add(route).replace().execute().await;
        put.map_err(FabricError::netlink(action))
    }

    /// Removes a route, which may have gone with its link just now.
    pub(in crate::fabric) async fn forget(&self, route: RouteMessage) {
        let _ = self.handle.route().del(route).execute().await;
    }

    /// The routes of our tables, by table.
    async fn tables(&self) -> Result<HashMap<u32, Vec<RouteMessage>>> {
        let mut routes = self
            .handle
            .route()
            .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
            .execute();
        let mut tables: HashMap<u32, Vec<RouteMessage>> = HashMap::new();
        while let Some(route) = routes
            .try_next()
            .await
            .map_err(FabricError::netlink("read the routes"))?
        {
            let table = route
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Table(table) => Some(*table),
                    _ => None,
                });
            if let Some(table) = table.filter(|table| *table >= TABLES) {
                tables.entry(table).or_default().push(route);
            }
        }
        Ok(tables)
    }

    /// Makes packets from a bridge use its table.
    async fn use_table(&self, bridge: &str, table: u32) -> Result<()> {
        let rule = self
            .handle
            .rule()
            .add()
            .v4()
            .input_interface(bridge)
            .table_id(table)
            .priority(PRIORITY)
            .action(RuleAction::ToTable);
        known(rule.execute().await)
            .map_err(FabricError::netlink(format!("give {bridge} its routes")))
    }

    /// Removes the tables of bridges that are no more, with their rules.
    async fn forget_tables(&self, bridges: &HashMap<&str, u32>) -> Result<()> {
        let kept = |table: u32| bridges.values().any(|index| TABLES + index == table);
        let mut rules = self.handle.rule().get(IpVersion::V4).execute();
        let mut old = Vec::new();
        while let Some(rule) = rules
            .try_next()
            .await
            .map_err(FabricError::netlink("read the routing rules"))?
        {
            if table_of(&rule).is_some_and(|table| table >= TABLES && !kept(table)) {
                old.push(rule);
            }
        }
        for rule in old {
            let deleted = self.handle.rule().del(rule).execute().await;
            deleted.map_err(FabricError::netlink("remove a routing rule"))?;
        }
        for (table, routes) in self.tables().await? {
            if kept(table) {
                continue;
            }
            for route in routes {
                self.forget(route).await;
            }
        }
        Ok(())
    }
}

/// A route to what is on a link.
fn on_link(index: u32, to: Ipv4Net) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.network(), to.prefix_len())
        .output_interface(index)
        .scope(RouteScope::Link)
}

fn destination_of(route: &RouteMessage) -> Ipv4Net {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        });
    let prefix = route.header.destination_prefix_length;
    Ipv4Net::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), prefix).unwrap_or(EVERYWHERE)
}

fn table_of(rule: &RuleMessage) -> Option<u32> {
    rule.attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        })
}

/// A neighbour that we have put there: its link, address and MAC address.
fn fixed(entry: &NeighbourMessage) -> Option<(u32, Ipv4Addr, MacAddr)> {
    if entry.header.state != NeighbourState::Permanent {
        return None;
    }
    let mut ip = None;
    let mut mac = None;
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(*address),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr);
            }
            _ => {}
        }
    }
    Some((entry.header.ifindex, ip?, mac?))
}
