//! What a new region and a new VPC have (VPC user guide, "Default VPC components").

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{
    DhcpOptions, InternetGateway, NetworkAcl, Peer, Route, RouteAssociation, RouteTable,
    RouteTarget, SecurityGroup, SecurityGroupRule, Subnet, Traffic, Vpc, names,
};
use crate::cloud::table::Tags;
use crate::cloud::{Identity, Region};
use crate::ids;

/// Addresses of every region's default VPC.
const DEFAULT_VPC: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 31, 0, 0), 16);
/// Size of its subnets.
const DEFAULT_SUBNET_PREFIX: u8 = 20;
/// `0.0.0.0/0`.
pub const ANYWHERE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// Makes what every new region has: the default DHCP options and the default VPC.
pub fn furnish(region: &mut Region, identity: &Identity) {
    let options = DhcpOptions {
        dhcp_options_id: ids::new("dopt"),
        options: vec![
            (
                "domain-name".to_owned(),
                vec![names::private_domain(&region.name)],
            ),
            (
                "domain-name-servers".to_owned(),
                vec!["AmazonProvidedDNS".to_owned()],
            ),
        ],
        tags: Tags::new(),
    };
    let id = options.dhcp_options_id.clone();
    region.dhcp_options.insert(options);
    furnish_default_vpc(region, identity, &id);
}

/// Makes the default VPC with a subnet per zone and an internet gateway; its id.
pub fn furnish_default_vpc(region: &mut Region, identity: &Identity, options: &str) -> String {
    let vpc_id = add_vpc(
        region,
        Vpc {
            is_default: true,
            enable_dns_hostnames: true,
            ..new_vpc(DEFAULT_VPC, options)
        },
    );
    let gateway = InternetGateway {
        internet_gateway_id: ids::new("igw"),
        vpc_id: Some(vpc_id.clone()),
        tags: Tags::new(),
    };
    let main = super::main_table(region, &vpc_id).map(|table| table.route_table_id.clone());
    if let Some(table) = main.and_then(|id| region.route_tables.edit(&id)) {
        table.routes.push(Route {
            destination: ANYWHERE,
            target: RouteTarget::Gateway(gateway.internet_gateway_id.clone()),
            origin: "CreateRoute".to_owned(),
        });
    }
    region.internet_gateways.insert(gateway);
    // 172.31.0.0/20, 172.31.16.0/20, …: there are sixteen.
    let blocks = DEFAULT_VPC.subnets(DEFAULT_SUBNET_PREFIX);
    let zones = identity.zones_of(&region.name);
    for (zone, block) in zones.into_iter().zip(blocks.into_iter().flatten()) {
        region.subnets.insert(Subnet {
            default_for_az: true,
            map_public_ip_on_launch: true,
            ..new_subnet(&vpc_id, block, zone)
        });
    }
    vpc_id
}

/// A VPC as EC2 makes them, not yet in the region.
#[must_use]
pub fn new_vpc(cidr_block: Ipv4Net, options: &str) -> Vpc {
    Vpc {
        vpc_id: ids::new("vpc"),
        cidr_block,
        cidr_association_id: ids::new("vpc-cidr-assoc"),
        instance_tenancy: "default".to_owned(),
        is_default: false,
        dhcp_options_id: options.to_owned(),
        enable_dns_support: true,
        enable_dns_hostnames: false,
        enable_network_address_usage_metrics: false,
        tags: Tags::new(),
    }
}

/// A subnet as EC2 makes them, not yet in the region.
#[must_use]
pub fn new_subnet(vpc_id: &str, cidr_block: Ipv4Net, availability_zone: String) -> Subnet {
    Subnet {
        subnet_id: ids::new("subnet"),
        vpc_id: vpc_id.to_owned(),
        cidr_block,
        availability_zone,
        default_for_az: false,
        map_public_ip_on_launch: false,
        hostname_type: "ip-name".to_owned(),
        resource_name_dns_a_record: false,
        acl_association_id: ids::new("aclassoc"),
        tags: Tags::new(),
    }
}

/// A route table with the local route, not yet in the region.
#[must_use]
pub fn new_table(vpc: &Vpc) -> RouteTable {
    RouteTable {
        route_table_id: ids::new("rtb"),
        vpc_id: vpc.vpc_id.clone(),
        routes: vec![Route {
            destination: vpc.cidr_block,
            target: RouteTarget::Local,
            origin: "CreateRouteTable".to_owned(),
        }],
        associations: Vec::new(),
        stamp: None,
        tags: Tags::new(),
    }
}

/// Adds a VPC with what every VPC has: main route table, default security group, default network ACL; its id.
pub fn add_vpc(region: &mut Region, vpc: Vpc) -> String {
    let vpc_id = vpc.vpc_id.clone();
    let mut table = new_table(&vpc);
    table.associations.push(RouteAssociation {
        association_id: ids::new("rtbassoc"),
        subnet_id: None,
    });
    let group = SecurityGroup {
        group_id: ids::new("sg"),
        group_name: "default".to_owned(),
        description: "default VPC security group".to_owned(),
        vpc_id: vpc_id.clone(),
        tags: Tags::new(),
    };
    let members = SecurityGroupRule {
        egress: false,
        peer: Peer::Group(group.group_id.clone()),
        ..all_out(&group.group_id)
    };
    region.security_group_rules.insert(members);
    region.security_group_rules.insert(all_out(&group.group_id));
    region.security_groups.insert(group);
    region.network_acls.insert(NetworkAcl {
        network_acl_id: ids::new("acl"),
        vpc_id: vpc_id.clone(),
        tags: Tags::new(),
    });
    region.route_tables.insert(table);
    region.vpcs.insert(vpc);
    vpc_id
}

/// The rule that every new group has: everything may go out.
#[must_use]
pub fn all_out(group_id: &str) -> SecurityGroupRule {
    SecurityGroupRule {
        rule_id: ids::new("sgr"),
        group_id: group_id.to_owned(),
        egress: true,
        traffic: Traffic {
            protocol: "-1".to_owned(),
            from_port: None,
            to_port: None,
        },
        peer: Peer::Ipv4(ANYWHERE),
        description: None,
        tags: Tags::new(),
    }
}

/// The DHCP options of new VPCs: those that are like what the region began with. EC2 calls them the region's default.
#[must_use]
pub fn default_options(region: &Region) -> String {
    let domain = names::private_domain(&region.name);
    let like = |options: &&DhcpOptions| {
        options.options.iter().all(|(key, values)| {
            let expected = match key.as_str() {
                "domain-name" => domain.as_str(),
                "domain-name-servers" => "AmazonProvidedDNS",
                _ => return false,
            };
            *values == [expected]
        })
    };
    let found = region.dhcp_options.iter().find(like);
    found.map_or_else(
        || "default".to_owned(),
        |options| options.dhcp_options_id.clone(),
    )
}
