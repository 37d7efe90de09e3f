//! From records to what the packets meet: the networks of the VPCs that have running instances.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::{
    NetworkInterface, Peer, RouteTarget, SecurityGroupRule, Traffic, Vpc, private_domain,
    public_address_at, route_table_of,
};
use crate::cloud::Region;
use crate::fabric::network::{
    self as fabric, Network, Options, Outside, Port, Route, Rule, Subnet, Target, bridge_name,
    tap_name,
};
use crate::fabric::{VPC_MTU, private_hostname};
use crate::state::record::State;

/// The networks of a region's VPCs in which an instance has a machine or is about to get one.
#[must_use]
pub fn networks(region: &Region) -> Vec<Network> {
    let mut by_vpc: BTreeMap<&str, Vec<&NetworkInterface>> = BTreeMap::new();
    for eni in region.interfaces.iter() {
        let instance = eni
            .attachment
            .as_ref()
            .and_then(|attachment| region.instances.get(&attachment.instance_id));
        let off = |state| matches!(state, State::Stopped | State::Terminated);
        if instance.is_some_and(|instance| !off(instance.state)) {
            by_vpc.entry(&eni.vpc_id).or_default().push(eni);
        }
    }
    let made = by_vpc.into_iter().filter_map(|(vpc_id, mut enis)| {
        // Always in the same order, so that what has not changed is seen to be the same.
        enis.sort_by_key(|eni| eni.private_ip);
        Some(network(region, region.vpcs.get(vpc_id)?, &enis))
    });
    made.collect()
}

fn network(region: &Region, vpc: &Vpc, enis: &[&NetworkInterface]) -> Network {
    let gateway = region
        .internet_gateways
        .iter()
        .find(|gateway| gateway.vpc_id.as_deref() == Some(&vpc.vpc_id))
        .map(|gateway| gateway.internet_gateway_id.as_str());
    let mut subnets: Vec<&super::Subnet> = region
        .subnets
        .iter()
        .filter(|subnet| subnet.vpc_id == vpc.vpc_id)
        .collect();
    subnets.sort_by_key(|subnet| subnet.cidr_block);
    let groups: BTreeSet<&str> = enis
        .iter()
        .flat_map(|eni| eni.groups.iter().map(String::as_str))
        .collect();
    Network {
        id: vpc.vpc_id.clone(),
        cidr: vpc.cidr_block,
        domain: private_domain(&region.name),
        dns: vpc.enable_dns_support,
        hostnames: vpc.enable_dns_hostnames,
        options: options(region, vpc),
        mtu: VPC_MTU,
        subnets: subnets
            .iter()
            .map(|subnet| Subnet {
                bridge: bridge_name(&subnet.subnet_id),
                cidr: subnet.cidr_block,
                routes: routes(region, subnet, enis, gateway),
            })
            .collect(),
        ports: enis
            .iter()
            .map(|eni| port(region, eni, gateway.is_some()))
            .collect(),
        groups: groups
            .into_iter()
            .map(|id| (id.to_owned(), rules(region, id)))
            .collect(),
        outside: Outside::OneToOne,
    }
}

fn port(region: &Region, eni: &NetworkInterface, public: bool) -> Port {
    let instance = eni.attachment.as_ref().map(|one| one.instance_id.clone());
    let by_name = region
        .subnets
        .get(&eni.subnet_id)
        .is_some_and(|subnet| subnet.hostname_type == "resource-name");
    Port {
        tap: tap_name(&eni.network_interface_id),
        bridge: bridge_name(&eni.subnet_id),
        // The API makes and takes no other than good ones.
        mac: eni.mac.parse().unwrap_or_default(),
        ip: eni.private_ip,
        more: eni.secondary_ips.clone(),
        public: if public {
            let pairs = eni
                .private_ips()
                .filter_map(|ip| Some((ip, public_address_at(region, eni, ip)?)));
            pairs.collect()
        } else {
            Vec::new()
        },
        hostname: instance
            .clone()
            .filter(|_| by_name)
            .unwrap_or_else(|| private_hostname(eni.private_ip)),
        groups: eni.groups.clone(),
        checked: eni.source_dest_check,
        instance,
        primary: eni
            .attachment
            .as_ref()
            .is_some_and(|one| one.device_index == 0),
    }
}

fn routes(
    region: &Region,
    subnet: &super::Subnet,
    enis: &[&NetworkInterface],
    gateway: Option<&str>,
) -> Vec<Route> {
    let Some(table) = route_table_of(region, subnet) else {
        return Vec::new();
    };
    let target = |target: &RouteTarget| match target {
        RouteTarget::Local => None,
        RouteTarget::Gateway(id) if Some(id.as_str()) == gateway => Some(Target::Outside),
        RouteTarget::Gateway(_) => Some(Target::Nowhere),
        RouteTarget::Interface(id) => {
            let eni = enis.iter().find(|eni| eni.network_interface_id == *id);
            Some(eni.map_or(Target::Nowhere, |eni| Target::Port(eni.private_ip)))
        }
    };
    let routes = table.routes.iter().filter_map(|route| {
        Some(Route {
            destination: route.destination,
            target: target(&route.target)?,
        })
    });
    routes.collect()
}

fn options(region: &Region, vpc: &Vpc) -> Options {
    let mut options = Options::default();
    let Some(set) = region.dhcp_options.get(&vpc.dhcp_options_id) else {
        return options;
    };
    let own = Ipv4Addr::from(u32::from(vpc.cidr_block.network()).saturating_add(2));
    let addresses = |values: &[String]| -> Vec<Ipv4Addr> {
        let parsed = values.iter().filter_map(|value| match value.as_str() {
            // Nobody answers there.
            "AmazonProvidedDNS" if !vpc.enable_dns_support => None,
            "AmazonProvidedDNS" => Some(own),
            other => other.parse().ok(),
        });
        parsed.collect()
    };
    for (key, values) in &set.options {
        match key.as_str() {
            "domain-name" => options.domain = values.first().cloned(),
            "domain-name-servers" => options.dns = addresses(values),
            "ntp-servers" => options.ntp = addresses(values),
            "netbios-name-servers" => options.netbios = addresses(values),
            "netbios-node-type" => {
                options.netbios_node = values.first().and_then(|value| value.parse().ok());
            }
            _ => {}
        }
    }
    options
}

/// The rules of a group, without those for IPv6, which the VPC does not have.
fn rules(region: &Region, group: &str) -> Vec<Rule> {
    let mut rules: Vec<&SecurityGroupRule> = region
        .security_group_rules
        .iter()
        .filter(|rule| rule.group_id == group)
        .collect();
    rules.sort_by(|one, two| one.rule_id.cmp(&two.rule_id));
    let made = rules.into_iter().filter_map(|rule| {
        Some(Rule {
            egress: rule.egress,
            traffic: traffic(&rule.traffic)?,
            peer: match &rule.peer {
                Peer::Ipv4(net) => fabric::Peer::Range(*net),
                Peer::Ipv6(_) => return None,
                Peer::Group(id) => fabric::Peer::Group(id.clone()),
            },
        })
    });
    made.collect()
}

fn traffic(traffic: &Traffic) -> Option<fabric::Traffic> {
    let port = |port: Option<i32>, otherwise| match port {
        Some(port) => u16::try_from(port).unwrap_or(otherwise),
        None => otherwise,
    };
    let (first, last) = (port(traffic.from_port, 0), port(traffic.to_port, u16::MAX));
    let byte = |value: Option<i32>| value.and_then(|value| u8::try_from(value).ok());
    Some(match traffic.protocol.as_str() {
        "-1" => fabric::Traffic::All,
        "tcp" | "6" => fabric::Traffic::Tcp(first, last),
        "udp" | "17" => fabric::Traffic::Udp(first, last),
        "icmp" | "1" => fabric::Traffic::Icmp(byte(traffic.from_port), byte(traffic.to_port)),
        "icmpv6" | "58" => return None,
        other => fabric::Traffic::Protocol(other.parse().ok()?),
    })
}

#[cfg(test)]
#[path = "networks_tests.rs"]
mod tests;
