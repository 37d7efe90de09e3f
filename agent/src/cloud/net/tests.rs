use super::*;
use crate::cloud::{Identity, Region};

fn region() -> Region {
    let mut region = Region::new("eu-west-1");
    furnish(&mut region, &Identity::default());
    region
}

fn spec(subnet_id: &str, private_ip: Option<[u8; 4]>) -> InterfaceSpec<'_> {
    InterfaceSpec {
        subnet_id,
        groups: Vec::new(),
        private_ip: private_ip.map(Into::into),
        description: String::new(),
        tags: crate::cloud::table::Tags::new(),
    }
}

fn subnet_a(region: &Region) -> Subnet {
    default_subnet(region, Some("eu-west-1a")).unwrap().clone()
}

#[test]
fn a_new_region_has_a_default_vpc() {
    let region = region();
    let vpc = default_vpc(&region).unwrap();
    assert_eq!(vpc.cidr_block.to_string(), "172.31.0.0/16");
    let mut subnets: Vec<String> = region
        .subnets
        .iter()
        .map(|subnet| format!("{} {}", subnet.availability_zone, subnet.cidr_block))
        .collect();
    subnets.sort();
    assert_eq!(
        subnets,
        [
            "eu-west-1a 172.31.0.0/20",
            "eu-west-1b 172.31.16.0/20",
            "eu-west-1c 172.31.32.0/20"
        ]
    );
    let group = default_group(&region, &vpc.vpc_id).unwrap();
    let rules: Vec<_> = region.security_group_rules.iter().collect();
    assert_eq!(rules.len(), 2);
    let inward = rules.iter().find(|rule| !rule.egress).unwrap();
    assert_eq!(inward.peer, Peer::Group(group.group_id.clone()));
    let options = region.dhcp_options.get(&vpc.dhcp_options_id).unwrap();
    assert_eq!(options.options[0].1, ["eu-west-1.compute.internal"]);
    assert_eq!(default_options(&region), vpc.dhcp_options_id);
    let error = default_subnet(&region, Some("eu-west-1z")).unwrap_err();
    assert_eq!(error.code, "MissingInput");
}

#[test]
fn addresses_are_chosen_as_ec2_does() {
    let mut region = region();
    let subnet = subnet_a(&region);
    let identity = Identity::default();
    let mut wanted = |address| {
        create_interface(
            &mut region,
            &identity,
            spec(&subnet.subnet_id, Some(address)),
        )
        .map_err(|error| error.code)
    };
    wanted([172, 31, 0, 4]).unwrap();
    assert_eq!(
        wanted([172, 31, 0, 4]).unwrap_err(),
        "InvalidIPAddress.InUse"
    );
    for bad in [[172, 31, 0, 3], [172, 31, 15, 255], [172, 31, 16, 9]] {
        assert_eq!(wanted(bad).unwrap_err(), "InvalidParameterValue");
    }
    let id = create_interface(&mut region, &identity, spec(&subnet.subnet_id, None)).unwrap();
    let address = region.interfaces.get(&id).unwrap().private_ip;
    assert!(subnet.cidr_block.contains(&address));
    assert_eq!(free_addresses(&region, &subnet), 4096 - 5 - 2);
}

#[test]
fn a_full_subnet_is_told() {
    let mut region = region();
    let vpc_id = default_vpc(&region).unwrap().vpc_id.clone();
    let small = new_subnet(
        &vpc_id,
        "172.31.200.0/28".parse().unwrap(),
        "eu-west-1a".into(),
    );
    let id = small.subnet_id.clone();
    region.subnets.insert(small);
    let identity = Identity::default();
    for _ in 0..11 {
        create_interface(&mut region, &identity, spec(&id, None)).unwrap();
    }
    let error = create_interface(&mut region, &identity, spec(&id, None)).unwrap_err();
    assert_eq!(error.code, "InsufficientFreeAddressesInSubnet");
}

#[test]
fn interfaces_are_attached_once_and_released_at_termination() {
    let mut region = region();
    let subnet = subnet_a(&region);
    let identity = Identity::default();
    let mut make = || create_interface(&mut region, &identity, spec(&subnet.subnet_id, None));
    let (goes, stays) = (make().unwrap(), make().unwrap());
    attach_interface(&mut region, &goes, "i-1", 0, true).unwrap();
    let code = |result: Result<(), crate::api::ApiError>| result.unwrap_err().code;
    let twice = attach_interface(&mut region, &goes, "i-2", 0, true);
    assert_eq!(code(twice), "InvalidNetworkInterface.InUse");
    let place = attach_interface(&mut region, &stays, "i-1", 0, true);
    assert_eq!(code(place), "InvalidParameterValue");
    attach_interface(&mut region, &stays, "i-1", 1, false).unwrap();
    assert_eq!(interfaces_of(&region, "i-1").len(), 2);
    assign_public(&mut region, &goes, None).unwrap();
    assert!(public_address_of(&region, &goes).is_some());
    release_interfaces(&mut region, "i-1");
    assert!(region.interfaces.get(&goes).is_none());
    assert!(region.interfaces.get(&stays).unwrap().attachment.is_none());
}

#[test]
fn public_addresses_follow_the_subnet_or_the_wish() {
    let mut region = region();
    let subnet = subnet_a(&region);
    let identity = Identity::default();
    let id = create_interface(&mut region, &identity, spec(&subnet.subnet_id, None)).unwrap();
    assign_public(&mut region, &id, None).unwrap();
    let first = public_address_of(&region, &id).unwrap();
    assert_eq!(first.octets()[0], 100);
    release_public(&mut region, &id);
    assert_eq!(public_address_of(&region, &id), None);
    // What was decided once holds, whatever the subnet says later.
    let edited = region.subnets.edit(&subnet.subnet_id).unwrap();
    edited.map_public_ip_on_launch = false;
    assign_public(&mut region, &id, None).unwrap();
    assert!(public_address_of(&region, &id).is_some());
    for (wanted, has) in [(None, false), (Some(true), true), (Some(false), false)] {
        let spec = spec(&subnet.subnet_id, None);
        let id = create_interface(&mut region, &identity, spec).unwrap();
        assign_public(&mut region, &id, wanted).unwrap();
        assert_eq!(public_address_of(&region, &id).is_some(), has, "{wanted:?}");
        release_public(&mut region, &id);
        assign_public(&mut region, &id, None).unwrap();
        assert_eq!(public_address_of(&region, &id).is_some(), has, "{wanted:?}");
    }
}

#[test]
fn groups_are_found_and_limited() {
    let region = region();
    let vpc_id = &default_vpc(&region).unwrap().vpc_id;
    let default = &default_group(&region, vpc_id).unwrap().group_id;
    let resolve = |ids: &[&str], names: &[&str]| {
        let owned = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        resolve_groups(&region, vpc_id, &owned(ids), &owned(names)).map_err(|error| error.code)
    };
    assert_eq!(resolve(&[], &[]), Ok(vec![default.clone()]));
    assert_eq!(resolve(&[default], &["default"]), Ok(vec![default.clone()]));
    let code = |text: &str| Err(text.to_owned());
    assert_eq!(resolve(&[], &["x"]), code("InvalidGroup.NotFound"));
    assert_eq!(resolve(&["x"], &[]), code("InvalidGroupId.Malformed"));
    assert_eq!(
        resolve(&["sg-12345678"], &[]),
        code("InvalidGroup.NotFound")
    );
}

#[test]
fn names_and_zone_ids() {
    assert_eq!(zone_id("us-east-1", "us-east-1a"), "use1-az1");
    assert_eq!(zone_id("ap-southeast-2", "ap-southeast-2c"), "apse2-az3");
    let address = [10, 0, 0, 5].into();
    assert_eq!(
        private_dns_name("us-east-1", address),
        "ip-10-0-0-5.ec2.internal"
    );
    assert_eq!(
        public_dns_name("eu-west-1", address),
        "ec2-10-0-0-5.eu-west-1.compute.amazonaws.com"
    );
}

#[test]
fn an_interface_has_at_most_five_groups_of_its_vpc() {
    let mut region = region();
    let own = default_vpc(&region).unwrap().vpc_id.clone();
    let other = add_vpc(
        &mut region,
        new_vpc("10.0.0.0/16".parse().unwrap(), "default"),
    );
    let mut add = |vpc_id: &str, name: &str| {
        let group = SecurityGroup {
            group_id: crate::ids::new("sg"),
            group_name: name.to_owned(),
            description: String::new(),
            vpc_id: vpc_id.to_owned(),
            tags: crate::cloud::table::Tags::new(),
        };
        let id = group.group_id.clone();
        region.security_groups.insert(group);
        id
    };
    let all: Vec<String> = (0..6).map(|at| add(&own, &format!("g{at}"))).collect();
    let foreign = add(&other, "foreign");
    let resolve = |ids: &[String]| resolve_groups(&region, &own, ids, &[]);
    assert_eq!(resolve(&all[..5]).unwrap().len(), 5);
    let code = "SecurityGroupsPerInterfaceLimitExceeded";
    assert_eq!(resolve(&all).unwrap_err().code, code);
    assert_eq!(resolve(&[foreign]).unwrap_err().code, "InvalidParameter");
}
