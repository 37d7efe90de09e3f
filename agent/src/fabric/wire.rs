//! The wire between a VPC's network and the one that all VPCs share: the place of the internet gateway.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::config::MacAddr;
use super::error::{FabricError, Result};
use super::links::Links;
use super::vpc::inside;
use super::{UPLINK, sysctl};

/// The shared network's end: the next hop of packets that leave a VPC. Both ends' addresses are the same on every wire,
/// and nobody routes them.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 1);
/// The VPC's end.
const VPC: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 2);
const GATEWAY_MAC: MacAddr = MacAddr([0x0a, 0xff, 0xa9, 0xfe, 0x40, 1]);
const VPC_MAC: MacAddr = MacAddr([0x0a, 0xff, 0xa9, 0xfe, 0x40, 2]);

/// The next hop of packets that leave a VPC.
pub(super) fn gateway() -> Ipv4Addr {
    GATEWAY
}

/// Makes the wire of a VPC: `name` in the namespace of `links`, the uplink in the VPC's.
pub(super) async fn lay(links: &Links, name: &str, net: &OwnedFd, mtu: u16) -> Result<()> {
    let peer = format!("p{}", name.get(1..).unwrap_or(name));
    // One of a router that was killed half-way.
    links.remove(name).await?;
    let handle = links.handle();
    let made = handle.link().add(LinkVeth::new(name, &peer).build());
    made.execute()
        .await
        .map_err(FabricError::netlink(format!("make {name}")))?;
    let inner = LinkUnspec::new_with_index(links.index(&peer).await?)
        .setns_by_fd(net.as_raw_fd())
        .name(UPLINK)
        .build();
    links
        .change(inner, &format!("move {peer} into its VPC"))
        .await?;
    sysctl::wire(name)?;
    end(links, name, (GATEWAY, GATEWAY_MAC), (VPC, VPC_MAC), mtu).await?;
    let inner = inside(net, Links::connect)?;
    end(&inner, UPLINK, (VPC, VPC_MAC), (GATEWAY, GATEWAY_MAC), mtu).await
}

/// Sets up one end. Neighbours are fixed: as all wires have the same addresses, ARP could be answered by the wrong one.
async fn end(
    links: &Links,
    name: &str,
    own: (Ipv4Addr, MacAddr),
    other: (Ipv4Addr, MacAddr),
    mtu: u16,
) -> Result<()> {
    let index = links.index(name).await?;
    let message = LinkUnspec::new_with_index(index)
        .address(own.1.0.to_vec())
        .mtu(u32::from(mtu))
        .up();
    links
        .change(message.build(), &format!("set up {name}"))
        .await?;
    links.add_address(index, name, own.0, 32).await?;
    links.fix_neighbour(index, other.0, other.1).await
}

/// Leads packets for a public address to the wire of its VPC.
pub(super) async fn lead(links: &Links, public: Ipv4Addr, name: &str) -> Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(public, 32)
        .output_interface(links.index(name).await?)
        .gateway(VPC)
        .onlink()
        .build();
    links.put(route, &format!("lead {public} to {name}")).await
}

/// Leads packets for a public address nowhere.
pub(super) async fn unlead(links: &Links, public: Ipv4Addr) {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(public, 32)
        .build();
    links.forget(route).await;
}
