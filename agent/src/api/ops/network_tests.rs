//! The actions on networks, by the wire: form fields in, documents out.

use crate::api::actions::Actions;
use crate::api::wire::Node;
use crate::api::{ApiError, Call};
use crate::cloud::net::{attach_interface, release_interfaces};
use crate::cloud::{Cloud, Identity};

/// A cloud to talk to.
pub(super) struct Talk {
    _folder: tempfile::TempDir,
    pub(super) cloud: Cloud,
    actions: Actions,
}

impl Talk {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::open(folder.path(), Identity::default()).unwrap();
        Self {
            _folder: folder,
            cloud,
            actions: Actions::all(),
        }
    }

    /// Does `"CreateVpc CidrBlock=10.0.0.0/16"`; the answer document.
    pub(super) fn say(&self, text: &str) -> Result<String, ApiError> {
        self.call(text, false)
    }

    fn call(&self, text: &str, dry_run: bool) -> Result<String, ApiError> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap();
        let fields = words.map(|word| {
            let (key, value) = word.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        });
        let call = Call {
            region: "us-east-1".into(),
            account: "123456789012".into(),
            access_key: "AKIA".into(),
            request_id: "r".into(),
            dry_run,
        };
        let node = Node::tree(fields).unwrap();
        self.actions.serve(&self.cloud, &call, name, &node)
    }

    /// Does it; the text of one element of the answer.
    pub(super) fn get(&self, text: &str, element: &str) -> String {
        part(&self.say(text).unwrap(), element)
    }

    /// Does it; the error's code.
    pub(super) fn no(&self, text: &str) -> String {
        self.say(text).unwrap_err().code
    }

    fn region<R>(&self, look: impl FnOnce(&crate::cloud::Region) -> R) -> R {
        self.cloud.read("us-east-1", look).unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut crate::cloud::Region)) {
        let change = |region: &mut crate::cloud::Region| {
            change(region);
            Ok(())
        };
        self.cloud.change("us-east-1", change).unwrap();
    }
}

/// The text of the first element of this name.
pub(super) fn part(document: &str, element: &str) -> String {
    let open = format!("<{element}>");
    let from = document
        .find(&open)
        .unwrap_or_else(|| panic!("no {element} in {document}"));
    let rest = &document[from + open.len()..];
    rest[..rest.find(&format!("</{element}>")).unwrap()].to_owned()
}

fn vpc(talk: &Talk) -> String {
    talk.get("CreateVpc CidrBlock=10.0.0.0/16", "vpcId")
}

fn subnet(talk: &Talk, vpc: &str) -> String {
    talk.get(
        &format!("CreateSubnet VpcId={vpc} CidrBlock=10.0.1.0/24"),
        "subnetId",
    )
}

#[test]
fn vpcs_have_a_size_a_limit_and_attributes() {
    let talk = Talk::new();
    let no = |block: &str| talk.no(&format!("CreateVpc CidrBlock={block}"));
    assert_eq!(no("10.0.0.0/8"), "InvalidVpc.Range");
    assert_eq!(no("10.0.0.0/29"), "InvalidVpc.Range");
    assert_eq!(no("10.0.0.0"), "InvalidParameterValue");
    let pool = "10.0.0.0/16 Ipv4IpamPoolId=ipam-pool-1";
    assert_eq!(no(pool), "UnsupportedOperation");
    let dry = talk.call("CreateVpc CidrBlock=10.0.0.0/16", true);
    assert_eq!(dry.unwrap_err().code, "DryRunOperation");
    let id = talk.get("CreateVpc CidrBlock=10.0.5.1/16", "vpcId");
    let shown = talk.say(&format!("DescribeVpcs VpcId.1={id}")).unwrap();
    assert_eq!(part(&shown, "cidrBlock"), "10.0.0.0/16");
    for _ in 0..3 {
        vpc(&talk);
    }
    assert_eq!(no("10.0.0.0/16"), "VpcLimitExceeded");
    talk.say(&format!(
        "ModifyVpcAttribute VpcId={id} EnableDnsHostnames.Value=true"
    ))
    .unwrap();
    let attribute = format!("DescribeVpcAttribute VpcId={id} Attribute=enableDnsHostnames");
    assert_eq!(talk.get(&attribute, "value"), "true");
    assert_eq!(
        talk.no("DeleteVpc VpcId=vpc-12345678"),
        "InvalidVpcID.NotFound"
    );
    assert_eq!(talk.no("DeleteVpc VpcId=x"), "InvalidVpcId.Malformed");
    assert_eq!(talk.no("CreateDefaultVpc"), "DefaultVpcAlreadyExists");
    let filtered = "DescribeVpcs Filter.1.Name=is-default Filter.1.Value.1=true";
    assert_eq!(talk.get(filtered, "cidrBlock"), "172.31.0.0/16");
}

#[test]
fn a_vpc_is_deleted_when_nothing_is_in_it() {
    let talk = Talk::new();
    let vpc = vpc(&talk);
    let delete = format!("DeleteVpc VpcId={vpc}");
    let blocked = |made: &str, element: &str, undo: &str| {
        let id = talk.get(made, element);
        assert_eq!(talk.no(&delete), "DependencyViolation", "{made}");
        talk.say(&format!("{undo}={id}")).unwrap();
    };
    blocked(
        &format!("CreateSubnet VpcId={vpc} CidrBlock=10.0.1.0/24"),
        "subnetId",
        "DeleteSubnet SubnetId",
    );
    blocked(
        &format!("CreateRouteTable VpcId={vpc}"),
        "routeTableId",
        "DeleteRouteTable RouteTableId",
    );
    blocked(
        &format!("CreateSecurityGroup GroupName=a GroupDescription=a VpcId={vpc}"),
        "groupId",
        "DeleteSecurityGroup GroupId",
    );
    let gateway = talk.get("CreateInternetGateway", "internetGatewayId");
    let both = format!("InternetGatewayId={gateway} VpcId={vpc}");
    talk.say(&format!("AttachInternetGateway {both}")).unwrap();
    assert_eq!(
        talk.no(&format!("AttachInternetGateway {both}")),
        "Resource.AlreadyAssociated"
    );
    assert_eq!(talk.no(&delete), "DependencyViolation");
    let drop = format!("DeleteInternetGateway InternetGatewayId={gateway}");
    assert_eq!(talk.no(&drop), "DependencyViolation");
    talk.say(&format!("DetachInternetGateway {both}")).unwrap();
    assert_eq!(
        talk.no(&format!("DetachInternetGateway {both}")),
        "Gateway.NotAttached"
    );
    talk.say(&drop).unwrap();
    talk.say(&delete).unwrap();
    let left = talk.region(|region| {
        region.security_groups.len() + region.route_tables.len() + region.network_acls.len()
    });
    // The default VPC's.
    assert_eq!(left, 3);
    assert_eq!(talk.region(|region| region.security_group_rules.len()), 2);
}

#[test]
fn subnets_lie_in_their_vpc_and_beside_each_other() {
    let talk = Talk::new();
    let vpc = vpc(&talk);
    let id = subnet(&talk, &vpc);
    let no = |rest: &str| talk.no(&format!("CreateSubnet VpcId={vpc} {rest}"));
    assert_eq!(no("CidrBlock=10.1.0.0/24"), "InvalidSubnet.Range");
    assert_eq!(no("CidrBlock=10.0.2.0/29"), "InvalidSubnet.Range");
    assert_eq!(no("CidrBlock=10.0.0.0/20"), "InvalidSubnet.Conflict");
    assert_eq!(no("CidrBlock=10.0.1.128/25"), "InvalidSubnet.Conflict");
    let elsewhere = "CidrBlock=10.0.2.0/24 AvailabilityZone=us-east-1z";
    assert_eq!(no(elsewhere), "InvalidParameterValue");
    let shown = talk
        .say(&format!("DescribeSubnets SubnetId.1={id}"))
        .unwrap();
    assert_eq!(part(&shown, "availableIpAddressCount"), "251");
    assert_eq!(part(&shown, "availabilityZoneId"), "use1-az1");
    let eni = talk.get(
        &format!("CreateNetworkInterface SubnetId={id}"),
        "networkInterfaceId",
    );
    let delete = format!("DeleteSubnet SubnetId={id}");
    assert_eq!(talk.no(&delete), "DependencyViolation");
    talk.say(&format!("DeleteNetworkInterface NetworkInterfaceId={eni}"))
        .unwrap();
    talk.say(&delete).unwrap();
    assert_eq!(talk.no(&delete), "InvalidSubnetID.NotFound");
}

#[test]
fn routes_and_associations() {
    let talk = Talk::new();
    let vpc = vpc(&talk);
    let subnet = subnet(&talk, &vpc);
    let table = talk.get(&format!("CreateRouteTable VpcId={vpc}"), "routeTableId");
    let gateway = talk.get("CreateInternetGateway", "internetGatewayId");
    let route = format!(
        "CreateRoute RouteTableId={table} DestinationCidrBlock=0.0.0.0/0 GatewayId={gateway}"
    );
    assert_eq!(talk.no(&route), "InvalidParameterValue");
    let both = format!("InternetGatewayId={gateway} VpcId={vpc}");
    talk.say(&format!("AttachInternetGateway {both}")).unwrap();
    talk.say(&route).unwrap();
    assert_eq!(talk.no(&route), "RouteAlreadyExists");
    let associate = format!("AssociateRouteTable RouteTableId={table} SubnetId={subnet}");
    let association = talk.get(&associate, "associationId");
    assert_eq!(talk.no(&associate), "Resource.AlreadyAssociated");
    let delete = format!("DeleteRouteTable RouteTableId={table}");
    assert_eq!(talk.no(&delete), "DependencyViolation");
    talk.say(&format!("DetachInternetGateway {both}")).unwrap();
    let shown = talk
        .say(&format!("DescribeRouteTables RouteTableId.1={table}"))
        .unwrap();
    assert!(shown.contains("<state>blackhole</state>"), "{shown}");
    talk.say(&format!(
        "DisassociateRouteTable AssociationId={association}"
    ))
    .unwrap();
    let local = format!("DeleteRoute RouteTableId={table} DestinationCidrBlock=10.0.0.0/16");
    assert_eq!(talk.no(&local), "InvalidParameterValue");
    let other = format!("DeleteRoute RouteTableId={table} DestinationCidrBlock=10.9.0.0/16");
    assert_eq!(talk.no(&other), "InvalidRoute.NotFound");
    // The main table is replaced, and the old one can go.
    let main = format!(
        "DescribeRouteTables Filter.1.Name=vpc-id Filter.1.Value.1={vpc} Filter.2.Name=association.main Filter.2.Value.1=true"
    );
    let old = talk.say(&main).unwrap();
    let (id, association) = (
        part(&old, "routeTableId"),
        part(&old, "routeTableAssociationId"),
    );
    assert_eq!(
        talk.no(&format!(
            "DisassociateRouteTable AssociationId={association}"
        )),
        "InvalidParameterValue"
    );
    talk.say(&format!(
        "ReplaceRouteTableAssociation AssociationId={association} RouteTableId={table}"
    ))
    .unwrap();
    talk.say(&format!("DeleteRouteTable RouteTableId={id}"))
        .unwrap();
    assert_eq!(talk.get(&main, "routeTableId"), table);
}

#[test]
fn dhcp_options_in_use_stay() {
    let talk = Talk::new();
    let vpc = vpc(&talk);
    let made = "CreateDhcpOptions DhcpConfiguration.1.Key=domain-name DhcpConfiguration.1.Value.1=example.org";
    let id = talk.get(made, "dhcpOptionsId");
    talk.say(&format!(
        "AssociateDhcpOptions DhcpOptionsId={id} VpcId={vpc}"
    ))
    .unwrap();
    let delete = format!("DeleteDhcpOptions DhcpOptionsId={id}");
    assert_eq!(talk.no(&delete), "DependencyViolation");
    talk.say(&format!(
        "AssociateDhcpOptions DhcpOptionsId=default VpcId={vpc}"
    ))
    .unwrap();
    talk.say(&delete).unwrap();
    assert_eq!(talk.no(&delete), "InvalidDhcpOptionID.NotFound");
    let colour = "CreateDhcpOptions DhcpConfiguration.1.Key=colour DhcpConfiguration.1.Value.1=red";
    assert_eq!(talk.no(colour), "InvalidParameterValue");
}

/// An interface in the default VPC, attached to an instance.
fn attached(talk: &Talk, instance: &str) -> String {
    let subnet = talk.region(|region| {
        let subnet = crate::cloud::net::default_subnet(region, None).unwrap();
        subnet.subnet_id.clone()
    });
    let eni = talk.get(
        &format!("CreateNetworkInterface SubnetId={subnet}"),
        "networkInterfaceId",
    );
    talk.change(|region| attach_interface(region, &eni, instance, 0, true).unwrap());
    eni
}

#[test]
fn elastic_addresses_move_and_are_limited() {
    let talk = Talk::new();
    let (first, second) = (attached(&talk, "i-1"), attached(&talk, "i-2"));
    let id = talk.get("AllocateAddress Domain=vpc", "allocationId");
    let to = |instance: &str, more: &str| {
        format!("AssociateAddress AllocationId={id} InstanceId={instance} {more}")
    };
    let association = talk.get(&to("i-1", ""), "associationId");
    // The same again is the same.
    assert_eq!(talk.get(&to("i-1", ""), "associationId"), association);
    let stay = "AllowReassociation=false";
    assert_eq!(talk.no(&to("i-2", stay)), "Resource.AlreadyAssociated");
    assert_eq!(talk.no(&to("i-3", "")), "InvalidInstanceID.NotFound");
    let release = format!("ReleaseAddress AllocationId={id}");
    assert_eq!(talk.no(&release), "InvalidIPAddress.InUse");
    talk.say(&to("i-2", "")).unwrap();
    let shown = talk.say(&format!("DescribeAddresses AllocationId.1={id}"));
    let shown = shown.unwrap();
    assert_eq!(part(&shown, "instanceId"), "i-2");
    let public = part(&shown, "publicIp");
    let of = |eni: &str| talk.region(|region| crate::cloud::net::public_address_of(region, eni));
    assert_eq!(of(&first), None);
    assert_eq!(of(&second).unwrap().to_string(), public);
    let eni = talk.say(&format!(
        "DescribeNetworkInterfaces Filter.1.Name=association.public-ip Filter.1.Value.1={public}"
    ));
    assert_eq!(part(&eni.unwrap(), "networkInterfaceId"), second);
    // Its gateway cannot be taken away meanwhile.
    let gateway = talk.say("DescribeInternetGateways").unwrap();
    let (gateway, vpc) = (part(&gateway, "internetGatewayId"), part(&gateway, "vpcId"));
    assert_eq!(
        talk.no(&format!(
            "DetachInternetGateway InternetGatewayId={gateway} VpcId={vpc}"
        )),
        "DependencyViolation"
    );
    // At termination the address stays allocated, and free.
    talk.change(|region| release_interfaces(region, "i-2"));
    talk.say(&release).unwrap();
    assert_eq!(talk.no(&release), "InvalidAllocationID.NotFound");
    for _ in 0..5 {
        talk.say("AllocateAddress").unwrap();
    }
    assert_eq!(talk.no("AllocateAddress"), "AddressLimitExceeded");
}

#[test]
fn interfaces_in_use_stay_and_have_attributes() {
    let talk = Talk::new();
    let eni = attached(&talk, "i-1");
    let delete = format!("DeleteNetworkInterface NetworkInterfaceId={eni}");
    assert_eq!(talk.no(&delete), "InvalidParameterValue");
    let shown = talk.say("DescribeNetworkInterfaces").unwrap();
    let attachment = part(&shown, "attachmentId");
    assert_eq!(
        talk.no(&format!("DetachNetworkInterface AttachmentId={attachment}")),
        "OperationNotPermitted"
    );
    let subnet = part(&shown, "subnetId");
    let other = talk.get(
        &format!("CreateNetworkInterface SubnetId={subnet} SecondaryPrivateIpAddressCount=2"),
        "networkInterfaceId",
    );
    let attach =
        format!("AttachNetworkInterface NetworkInterfaceId={other} InstanceId=i-1 DeviceIndex=1");
    let attachment = talk.get(&attach, "attachmentId");
    assert_eq!(talk.no(&attach), "InvalidNetworkInterface.InUse");
    let modify = format!("ModifyNetworkInterfaceAttribute NetworkInterfaceId={other}");
    talk.say(&format!("{modify} SourceDestCheck.Value=false"))
        .unwrap();
    talk.say(&format!(
        "{modify} Attachment.AttachmentId={attachment} Attachment.DeleteOnTermination=true"
    ))
    .unwrap();
    assert_eq!(
        talk.no(&format!("{modify} SecurityGroupId.1=sg-12345678")),
        "InvalidGroup.NotFound"
    );
    let attribute = format!(
        "DescribeNetworkInterfaceAttribute NetworkInterfaceId={other} Attribute=sourceDestCheck"
    );
    assert_eq!(talk.get(&attribute, "value"), "false");
    let assign = format!(
        "AssignPrivateIpAddresses NetworkInterfaceId={other} SecondaryPrivateIpAddressCount=1"
    );
    let address = talk.get(&assign, "privateIpAddress");
    let take = format!(
        "UnassignPrivateIpAddresses NetworkInterfaceId={other} PrivateIpAddress.1={address}"
    );
    talk.say(&take).unwrap();
    assert_eq!(talk.no(&take), "InvalidParameterValue");
    talk.say(&format!("DetachNetworkInterface AttachmentId={attachment}"))
        .unwrap();
    assert_eq!(
        talk.no(&format!("DetachNetworkInterface AttachmentId={attachment}")),
        "InvalidAttachmentID.NotFound"
    );
}

#[test]
fn the_default_acl_lets_everything_pass() {
    let talk = Talk::new();
    let shown = talk.say("DescribeNetworkAcls").unwrap();
    assert_eq!(part(&shown, "default"), "true");
    assert_eq!(shown.matches("<subnetId>").count(), 3);
    assert_eq!(shown.matches("<ruleAction>allow").count(), 2);
}
