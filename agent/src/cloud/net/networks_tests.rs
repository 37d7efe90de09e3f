//! From API calls to networks.

use std::sync::Arc;

use super::*;
use crate::api::actions::Actions;
use crate::api::ops::testing::fields;
use crate::api::wire::Node;
use crate::api::{ApiError, Call};
use crate::cloud::{Cloud, Identity};
use crate::engine::{BUILTIN, Engine, Simulated};
use crate::state::Home;

const REGION: &str = "eu-west-1";

struct World {
    cloud: Arc<Cloud>,
    actions: Actions,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path())).unwrap();
        let cloud = Cloud::open(folder.path(), Identity::default()).unwrap();
        let cloud = Arc::new(cloud.with_home(home));
        // It connects backend and cloud; nothing runs, so instances stay pending.
        drop(Engine::new(Arc::clone(&cloud), Arc::new(Simulated)).unwrap());
        Self {
            cloud,
            actions: Actions::all(),
            _folder: folder,
        }
    }

    fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<String, ApiError> {
        let all = parameters.iter();
        let node = Node::tree(all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).unwrap();
        let call = Call {
            region: REGION.to_owned(),
            account: "123456789012".to_owned(),
            access_key: "AKIA".to_owned(),
            request_id: "r".to_owned(),
            dry_run: false,
        };
        self.actions.serve(&self.cloud, &call, action, &node)
    }

    /// The first of these elements in the answer to a request that is to work.
    fn made(&self, action: &str, parameters: &[(&str, &str)], element: &str) -> String {
        let answer = self
            .call(action, parameters)
            .unwrap_or_else(|error| panic!("{action}: {error}"));
        fields(&answer, element)
            .into_iter()
            .next()
            .unwrap_or_default()
    }

    fn run(&self, more: &[(&str, &str)]) -> String {
        let mut all = vec![
            ("ImageId", BUILTIN[0].0),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("InstanceType", "t3.micro"),
        ];
        all.extend(more);
        self.made("RunInstances", &all, "instanceId")
    }

    fn networks(&self) -> Vec<Network> {
        self.cloud.read(REGION, networks).unwrap()
    }
}

#[test]
fn there_is_no_network_without_an_instance() {
    let world = World::new();
    assert_eq!(world.networks(), []);
    let id = world.run(&[]);
    assert_eq!(world.networks().len(), 1);
    // It is over as soon as its machine is.
    let ended = world.cloud.change(REGION, |region| {
        region.instances.edit(&id).unwrap().state = State::Stopped;
        Ok(())
    });
    ended.unwrap();
    assert_eq!(world.networks(), []);
}

#[test]
fn the_default_vpc_is_as_ec2s() {
    let world = World::new();
    let id = world.run(&[]);
    let networks = world.networks();
    let [network] = &networks[..] else {
        panic!("{networks:?}")
    };
    assert_eq!(network.cidr.to_string(), "172.31.0.0/16");
    assert_eq!(network.domain, "eu-west-1.compute.internal");
    assert_eq!(
        network.options.domain.as_deref(),
        Some("eu-west-1.compute.internal")
    );
    assert_eq!(network.options.dns, [Ipv4Addr::new(172, 31, 0, 2)]);
    assert!(network.dns && network.outside == Outside::OneToOne);
    assert_eq!(network.subnets.len(), 3);
    for subnet in &network.subnets {
        let out = Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            target: Target::Outside,
        };
        assert_eq!(subnet.routes, [out]);
    }
    let [port] = &network.ports[..] else {
        panic!("{network:?}")
    };
    assert_eq!(port.instance.as_ref(), Some(&id));
    assert_eq!(port.public.len(), 1);
    assert_eq!(port.public[0].0, port.ip);
    assert_eq!(port.hostname, private_hostname(port.ip));
    assert!(port.checked && network.subnet(&port.bridge).is_some());
    // The default group: members among each other, and everything out.
    let group = &port.groups[0];
    let mut rules = network.groups[group].clone();
    rules.sort_by_key(|rule| rule.egress);
    let inward = Rule {
        egress: false,
        traffic: fabric::Traffic::All,
        peer: fabric::Peer::Group(group.clone()),
    };
    let outward = Rule {
        egress: true,
        traffic: fabric::Traffic::All,
        peer: fabric::Peer::Range("0.0.0.0/0".parse().unwrap()),
    };
    assert_eq!(rules, [inward, outward]);
}

#[test]
fn rules_routes_addresses_and_options_follow_the_records() {
    let world = World::new();
    let vpc = world.made("CreateVpc", &[("CidrBlock", "10.1.0.0/16")], "vpcId");
    let subnet = world.made(
        "CreateSubnet",
        &[("VpcId", &vpc), ("CidrBlock", "10.1.2.0/24")],
        "subnetId",
    );
    let group = world.made(
        "CreateSecurityGroup",
        &[
            ("GroupName", "g"),
            ("GroupDescription", "g"),
            ("VpcId", &vpc),
        ],
        "groupId",
    );
    let permit = |protocol: &str, from: &str, to: &str| {
        let permission = [
            ("GroupId", group.as_str()),
            ("IpPermissions.1.IpProtocol", protocol),
            ("IpPermissions.1.FromPort", from),
            ("IpPermissions.1.ToPort", to),
            ("IpPermissions.1.IpRanges.1.CidrIp", "10.0.0.0/8"),
        ];
        world
            .call("AuthorizeSecurityGroupIngress", &permission)
            .unwrap();
    };
    permit("tcp", "22", "23");
    permit("icmp", "8", "-1");
    let options = world.made(
        "CreateDhcpOptions",
        &[
            ("DhcpConfiguration.1.Key", "domain-name"),
            ("DhcpConfiguration.1.Value.1", "example.org"),
            ("DhcpConfiguration.2.Key", "domain-name-servers"),
            ("DhcpConfiguration.2.Value.1", "10.1.2.9"),
            ("DhcpConfiguration.2.Value.2", "AmazonProvidedDNS"),
        ],
        "dhcpOptionsId",
    );
    let associate = [("DhcpOptionsId", options.as_str()), ("VpcId", &vpc)];
    world.call("AssociateDhcpOptions", &associate).unwrap();
    let id = world.run(&[("SubnetId", &subnet), ("SecurityGroupId.1", &group)]);
    let eni = world.made(
        "DescribeNetworkInterfaces",
        &[
            ("Filter.1.Name", "attachment.instance-id"),
            ("Filter.1.Value.1", &id),
        ],
        "networkInterfaceId",
    );
    let network = |world: &World| world.networks().into_iter().next().unwrap();
    let before = network(&world);
    assert_eq!(before.options.domain.as_deref(), Some("example.org"));
    let servers = [Ipv4Addr::new(10, 1, 2, 9), Ipv4Addr::new(10, 1, 0, 2)];
    assert_eq!(before.options.dns, servers);
    assert_eq!(before.subnets[0].routes, []);
    let inward: Vec<_> = before.groups[&group]
        .iter()
        .filter(|rule| !rule.egress)
        .collect();
    assert_eq!(inward.len(), 2);
    for traffic in [
        fabric::Traffic::Tcp(22, 23),
        fabric::Traffic::Icmp(Some(8), None),
    ] {
        let rule = inward.iter().find(|rule| rule.traffic == traffic).unwrap();
        assert_eq!(
            rule.peer,
            fabric::Peer::Range("10.0.0.0/8".parse().unwrap())
        );
    }
    // An Elastic IP counts when there is a gateway for it.
    let elastic = world.made("AllocateAddress", &[("Domain", "vpc")], "allocationId");
    let gateway = world.made("CreateInternetGateway", &[], "internetGatewayId");
    let attach = [("InternetGatewayId", gateway.as_str()), ("VpcId", &vpc)];
    world.call("AttachInternetGateway", &attach).unwrap();
    let associate = [
        ("AllocationId", elastic.as_str()),
        ("NetworkInterfaceId", &eni),
    ];
    world.call("AssociateAddress", &associate).unwrap();
    let filter = [
        ("Filter.1.Name", "vpc-id"),
        ("Filter.1.Value.1", vpc.as_str()),
    ];
    let table = world.made("DescribeRouteTables", &filter, "routeTableId");
    let route = |destination: &str, target: (&str, &str)| {
        let fields = [
            ("RouteTableId", table.as_str()),
            ("DestinationCidrBlock", destination),
            target,
        ];
        world.call("CreateRoute", &fields).unwrap();
    };
    route("0.0.0.0/0", ("GatewayId", &gateway));
    route("192.168.0.0/16", ("NetworkInterfaceId", &eni));
    let modify = [
        ("NetworkInterfaceId", eni.as_str()),
        ("SourceDestCheck.Value", "false"),
    ];
    world
        .call("ModifyNetworkInterfaceAttribute", &modify)
        .unwrap();
    let after = network(&world);
    let ip = after.ports[0].ip;
    assert_eq!(after.ports[0].public.len(), 1);
    assert!(!after.ports[0].checked);
    let targets: Vec<_> = after.subnets[0]
        .routes
        .iter()
        .map(|route| route.target)
        .collect();
    assert!(targets.contains(&Target::Outside), "{targets:?}");
    assert!(targets.contains(&Target::Port(ip)), "{targets:?}");
}
