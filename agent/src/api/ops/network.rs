//! What the actions on networks have in common: ids and their errors, and how resources are listed.

use ipnet::Ipv4Net;

use crate::api::ApiError;
use crate::api::filters::{Filters, Values};
use crate::api::paging::{Page, page};
use crate::api::shapes::common::Filter;
use crate::cloud::Region;
use crate::cloud::net::{
    Address, DhcpOptions, InternetGateway, NetworkAcl, NetworkInterface, RouteTable, SecurityGroup,
    SecurityGroupRule, Subnet, Vpc,
};
use crate::cloud::table::{Resource, Table};

/// A kind of resource as EC2 names it in errors (EC2 API reference, "Error codes").
pub(super) trait Named: Resource {
    /// What its ids begin with.
    const PREFIX: &'static str;
    /// Code for an id that nothing has.
    const NOT_FOUND: &'static str;
    /// Code for what is no id.
    const MALFORMED: &'static str;
    /// What comes before the id in the message.
    const TITLE: &'static str;

    fn table(region: &Region) -> &Table<Self>;
}

macro_rules! named {
    ($($type:ident: $prefix:literal, $not_found:literal, $malformed:literal, $title:literal, $table:ident;)*) => {$(
        impl Named for $type {
            const PREFIX: &'static str = $prefix;
            const NOT_FOUND: &'static str = $not_found;
            const MALFORMED: &'static str = $malformed;
            const TITLE: &'static str = $title;

            fn table(region: &Region) -> &Table<Self> {
                &region.$table
            }
        }
    )*};
}

named! {
    Vpc: "vpc", "InvalidVpcID.NotFound", "InvalidVpcId.Malformed", "vpc ID", vpcs;
    Subnet: "subnet", "InvalidSubnetID.NotFound", "InvalidSubnetID.Malformed", "subnet ID", subnets;
    InternetGateway: "igw", "InvalidInternetGatewayID.NotFound", "InvalidInternetGatewayId.Malformed", "internetGateway ID", internet_gateways;
    RouteTable: "rtb", "InvalidRouteTableID.NotFound", "InvalidRouteTableId.Malformed", "routeTable ID", route_tables;
    SecurityGroup: "sg", "InvalidGroup.NotFound", "InvalidGroupId.Malformed", "security group", security_groups;
    SecurityGroupRule: "sgr", "InvalidSecurityGroupRuleId.NotFound", "InvalidSecurityGroupRuleId.Malformed", "security group rule ID", security_group_rules;
    DhcpOptions: "dopt", "InvalidDhcpOptionID.NotFound", "InvalidDhcpOptionsId.Malformed", "dhcpOption ID", dhcp_options;
    NetworkInterface: "eni", "InvalidNetworkInterfaceID.NotFound", "InvalidNetworkInterfaceId.Malformed", "networkInterface ID", interfaces;
    Address: "eipalloc", "InvalidAllocationID.NotFound", "InvalidAllocationID.Malformed", "allocation ID", addresses;
    NetworkAcl: "acl", "InvalidNetworkAclID.NotFound", "InvalidNetworkAclId.Malformed", "networkAcl ID", network_acls;
}

/// What a request names, if anything: EC2 takes an empty text for none, and Packer sends everything that it has not been told so.
pub(super) fn given(text: Option<&String>) -> Option<&String> {
    text.filter(|text| !text.is_empty())
}

/// The resource with this id.
pub(super) fn find<'a, T: Named>(region: &'a Region, id: &str) -> Result<&'a T, ApiError> {
    if !crate::ids::is(T::PREFIX, id) {
        return Err(ApiError::new(
            T::MALFORMED,
            format!("Invalid id: \"{id}\" (expecting \"{}-...\")", T::PREFIX),
        ));
    }
    T::table(region).get(id).ok_or_else(|| {
        ApiError::new(
            T::NOT_FOUND,
            format!("The {} '{id}' does not exist", T::TITLE),
        )
    })
}

/// Which resources a request lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) ids: &'a [String],
    pub(super) filters: &'a [Filter],
    pub(super) max: Option<i32>,
    pub(super) token: Option<&'a str>,
}

/// The resources that a request lists, by id.
pub(super) fn list<'a, T: Named + Default>(
    region: &'a Region,
    wanted: Wanted<'_>,
    values: impl Fn(&T, &str) -> Values,
) -> Result<Page<&'a T>, ApiError> {
    if !wanted.ids.is_empty() && wanted.max.is_some() {
        return Err(ApiError::combination(
            "The parameter MaxResults cannot be used with a list of ids in the same request",
        ));
    }
    for id in wanted.ids {
        find::<T>(region, id)?;
    }
    let filters = Filters::new(wanted.filters)?;
    filters.check(|name| values(&T::default(), name))?;
    let mut items = Vec::new();
    for item in T::table(region).iter() {
        let asked = wanted.ids.is_empty() || wanted.ids.iter().any(|id| id == item.id());
        if filters.pass(item.tags(), |name| values(item, name))? && asked {
            items.push(item);
        }
    }
    page(
        items,
        |item| item.id().to_owned(),
        (wanted.max, wanted.token),
        5..=1000,
    )
}

/// Something cannot be deleted because others need it.
pub(super) fn dependencies(what: &str, id: &str) -> ApiError {
    ApiError::new(
        "DependencyViolation",
        format!("The {what} '{id}' has dependencies and cannot be deleted."),
    )
}

/// Refuses the parameters that are there and that this program cannot serve.
pub(super) fn refuse(parameters: &[(&str, bool)]) -> Result<(), ApiError> {
    match parameters.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(ApiError::unsupported(&format!(
            "The parameter {name} is for something that cumulet does not have"
        ))),
        None => Ok(()),
    }
}

/// A network in CIDR form, with the host's bits cleared as EC2 does.
pub(super) fn cidr(parameter: &str, text: &str) -> Result<Ipv4Net, ApiError> {
    let net: Ipv4Net = text
        .parse()
        .map_err(|_| ApiError::value(parameter, text, "This is not a valid CIDR block."))?;
    Ok(net.trunc())
}

/// An IPv4 address.
pub(super) fn address(parameter: &str, text: &str) -> Result<std::net::Ipv4Addr, ApiError> {
    text.parse()
        .map_err(|_| ApiError::value(parameter, text, "This is not a valid IPv4 address."))
}

/// `true` or `false` for filters.
pub(super) fn truth(value: bool) -> Values {
    crate::api::filters::one(if value { "true" } else { "false" })
}
