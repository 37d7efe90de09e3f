//! Routes of a table.

use ipnet::Ipv4Net;

use super::super::network::{cidr, find, refuse};
use crate::api::shapes::common::Done;
use crate::api::shapes::route_tables::*;
use crate::api::{ApiError, Call};
use crate::cloud::net::{
    InternetGateway, NetworkInterface, Route, RouteTable, RouteTarget, Vpc, interfaces_of,
};
use crate::cloud::{Cloud, Region};

/// What CreateRoute and ReplaceRoute say alike.
struct Asked {
    table: String,
    destination: Ipv4Net,
    gateway: Option<String>,
    interface: Option<String>,
    instance: Option<String>,
    local: bool,
}

macro_rules! asked {
    ($request:ident, $local:expr) => {{
        refuse(&[
            (
                "DestinationPrefixListId",
                $request.destination_prefix_list_id.is_some(),
            ),
            (
                "DestinationIpv6CidrBlock",
                $request.destination_ipv6_cidr_block.is_some(),
            ),
            ("VpcEndpointId", $request.vpc_endpoint_id.is_some()),
            ("TransitGatewayId", $request.transit_gateway_id.is_some()),
            ("LocalGatewayId", $request.local_gateway_id.is_some()),
            ("CarrierGatewayId", $request.carrier_gateway_id.is_some()),
            ("CoreNetworkArn", $request.core_network_arn.is_some()),
            ("OdbNetworkArn", $request.odb_network_arn.is_some()),
            (
                "EgressOnlyInternetGatewayId",
                $request.egress_only_internet_gateway_id.is_some(),
            ),
            (
                "VpcPeeringConnectionId",
                $request.vpc_peering_connection_id.is_some(),
            ),
            ("NatGatewayId", $request.nat_gateway_id.is_some()),
        ])?;
        Asked {
            destination: destination($request.destination_cidr_block.as_deref())?,
            table: $request.route_table_id,
            gateway: $request.gateway_id,
            interface: $request.network_interface_id,
            instance: $request.instance_id,
            local: $local,
        }
    }};
}

fn destination(text: Option<&str>) -> Result<Ipv4Net, ApiError> {
    let text = text.ok_or_else(|| ApiError::missing("DestinationCidrBlock"))?;
    cidr("destinationCidrBlock", text)
}

fn target(region: &Region, asked: &Asked) -> Result<RouteTarget, ApiError> {
    let table: &RouteTable = find(region, &asked.table)?;
    let vpc: &Vpc = find(region, &table.vpc_id)?;
    let given = [&asked.gateway, &asked.interface, &asked.instance]
        .into_iter()
        .flatten()
        .count()
        + usize::from(asked.local);
    if given != 1 {
        return Err(ApiError::combination(
            "The request must contain exactly one of gatewayId, networkInterfaceId, instanceId",
        ));
    }
    let differ = |what: &str, id: &str| {
        ApiError::new(
            "InvalidParameterValue",
            format!(
                "route table {} and {what} {id} belong to different networks",
                asked.table
            ),
        )
    };
    if asked.local || asked.gateway.as_deref() == Some("local") {
        if asked.destination != vpc.cidr_block {
            return Err(ApiError::new(
                "InvalidParameterValue",
                "The local target is only for the VPC's own CIDR block",
            ));
        }
        return Ok(RouteTarget::Local);
    }
    if let Some(id) = &asked.gateway {
        let gateway: &InternetGateway = find(region, id)?;
        if gateway.vpc_id.as_ref() != Some(&table.vpc_id) {
            return Err(differ("network gateway", id));
        }
        if vpc.cidr_block.contains(&asked.destination) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!(
                    "The destination CIDR block {} is equal to or more specific than one of this VPC's CIDR blocks. This route can target only an interface or an instance.",
                    asked.destination
                ),
            ));
        }
        return Ok(RouteTarget::Gateway(id.clone()));
    }
    let interface: &NetworkInterface = match (&asked.interface, &asked.instance) {
        (Some(id), _) => find(region, id)?,
        (None, instance) => {
            let instance = instance.as_deref().unwrap_or_default();
            match interfaces_of(region, instance).as_slice() {
                [only] => only,
                [] => {
                    return Err(ApiError::new(
                        "InvalidInstanceID.NotFound",
                        format!("The instance ID '{instance}' does not exist"),
                    ));
                }
                _ => {
                    return Err(ApiError::new(
                        "InvalidInstanceID",
                        format!(
                            "There are multiple interfaces attached to instance '{instance}'. Please specify an interface ID for the operation instead."
                        ),
                    ));
                }
            }
        }
    };
    let id = &interface.network_interface_id;
    if interface.vpc_id != table.vpc_id {
        return Err(differ("interface", id));
    }
    if asked.destination == vpc.cidr_block {
        return Err(exists(asked.destination));
    }
    Ok(RouteTarget::Interface(id.clone()))
}

fn exists(destination: Ipv4Net) -> ApiError {
    ApiError::new(
        "RouteAlreadyExists",
        format!("The route identified by {destination} already exists."),
    )
}

fn missing(table: &str, destination: Ipv4Net) -> ApiError {
    ApiError::new(
        "InvalidRoute.NotFound",
        format!("no route with destination-cidr-block {destination} in route table {table}"),
    )
}

pub(super) fn create(
    cloud: &Cloud,
    call: &Call,
    request: CreateRouteRequest,
) -> Result<CreateRouteResult, ApiError> {
    let asked = asked!(request, false);
    cloud.change(&call.region, |region| {
        let table: &RouteTable = find(region, &asked.table)?;
        let mut routes = table.routes.iter();
        if routes.any(|route| route.destination == asked.destination) {
            return Err(exists(asked.destination));
        }
        // EC2's default quota (VPC user guide, "Amazon VPC quotas").
        if table.routes.len() >= 50 {
            return Err(ApiError::new(
                "RouteLimitExceeded",
                "The maximum number of routes per route table has been reached.",
            ));
        }
        let target = target(region, &asked)?;
        call.go()?;
        if let Some(table) = region.route_tables.edit(&asked.table) {
            table.routes.push(Route {
                destination: asked.destination,
                target,
                origin: "CreateRoute".to_owned(),
            });
        }
        Ok(CreateRouteResult { done: Some(true) })
    })
}

pub(super) fn replace(
    cloud: &Cloud,
    call: &Call,
    request: ReplaceRouteRequest,
) -> Result<Done, ApiError> {
    let asked = asked!(request, request.local_target == Some(true));
    cloud.change(&call.region, |region| {
        let table: &RouteTable = find(region, &asked.table)?;
        let mut routes = table.routes.iter();
        let at = routes
            .position(|route| route.destination == asked.destination)
            .ok_or_else(|| missing(&asked.table, asked.destination))?;
        let target = target(region, &asked)?;
        call.go()?;
        let table = region.route_tables.edit(&asked.table);
        if let Some(route) = table.and_then(|table| table.routes.get_mut(at)) {
            route.target = target;
        }
        Ok(Done::yes())
    })
}

pub(super) fn delete(
    cloud: &Cloud,
    call: &Call,
    request: DeleteRouteRequest,
) -> Result<Done, ApiError> {
    refuse(&[
        (
            "DestinationPrefixListId",
            request.destination_prefix_list_id.is_some(),
        ),
        (
            "DestinationIpv6CidrBlock",
            request.destination_ipv6_cidr_block.is_some(),
        ),
    ])?;
    let destination = destination(request.destination_cidr_block.as_deref())?;
    let id = &request.route_table_id;
    cloud.change(&call.region, |region| {
        let table: &RouteTable = find(region, id)?;
        let mut routes = table.routes.iter();
        let at = routes
            .position(|route| route.destination == destination)
            .ok_or_else(|| missing(id, destination))?;
        if table.routes[at].target == RouteTarget::Local {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("cannot remove local route {destination} in route table {id}"),
            ));
        }
        call.go()?;
        if let Some(table) = region.route_tables.edit(id) {
            table.routes.remove(at);
        }
        Ok(Done::yes())
    })
}

/// `active`, or `blackhole` when the target is gone or is no way.
pub(super) fn state(region: &Region, table: &RouteTable, route: &Route) -> &'static str {
    let alive = match &route.target {
        RouteTarget::Local => true,
        RouteTarget::Gateway(id) => {
            let gateway = region.internet_gateways.get(id);
            gateway.is_some_and(|one| one.vpc_id.as_ref() == Some(&table.vpc_id))
        }
        RouteTarget::Interface(id) => {
            let interface = region.interfaces.get(id);
            interface.is_some_and(|one| one.attachment.is_some())
        }
    };
    if alive { "active" } else { "blackhole" }
}
