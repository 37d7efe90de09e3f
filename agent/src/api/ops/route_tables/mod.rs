//! Route tables: the tables themselves and what uses them.

mod routes;

use super::network::{Wanted, dependencies, find, list, refuse, truth};
use crate::api::actions::{Action, action};
use crate::api::filters::{Values, one};
use crate::api::shapes::common::{Done, tag_set};
use crate::api::shapes::route_tables::*;
use crate::api::tokens::{Stamp, repeated};
use crate::api::{ApiError, Call, tagging};
use crate::cloud::net::{self, Route, RouteAssociation, RouteTable, RouteTarget, Subnet, Vpc};
use crate::cloud::{Cloud, Identity, Region};

/// EC2's default quota in a VPC (VPC user guide, "Amazon VPC quotas").
const MOST: usize = 200;

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action("CreateRouteTable", create),
        action("DeleteRouteTable", delete),
        action("DescribeRouteTables", describe),
        action("CreateRoute", routes::create),
        action("ReplaceRoute", routes::replace),
        action("DeleteRoute", routes::delete),
        action("AssociateRouteTable", associate),
        action("DisassociateRouteTable", disassociate),
        action("ReplaceRouteTableAssociation", replace_association),
    ]
}

fn create(
    cloud: &Cloud,
    call: &Call,
    request: CreateRouteTableRequest,
) -> Result<CreateRouteTableResult, ApiError> {
    let tags = tagging::from_specifications(&request.tag_specifications, "route-table")?;
    let stamp = Stamp::of(&request, request.client_token.as_ref())?;
    let token = request.client_token;
    let identity = cloud.identity();
    cloud.change(&call.region, |region| {
        let vpc: &Vpc = find(region, &request.vpc_id)?;
        if let Some(made) = repeated(&region.route_tables, stamp.as_ref())? {
            return Ok(CreateRouteTableResult {
                route_table: Some(view(region, made, identity)),
                client_token: token,
            });
        }
        if region
            .route_tables
            .iter()
            .filter(|one| one.vpc_id == vpc.vpc_id)
            .count()
            >= MOST
        {
            return Err(ApiError::new(
                "RouteTableLimitExceeded",
                "The maximum number of route tables has been reached.",
            ));
        }
        call.go()?;
        let table = RouteTable {
            tags,
            stamp,
            ..net::new_table(vpc)
        };
        let answer = view(region, &table, identity);
        region.route_tables.insert(table);
        Ok(CreateRouteTableResult {
            route_table: Some(answer),
            client_token: token,
        })
    })
}

fn delete(cloud: &Cloud, call: &Call, request: DeleteRouteTableRequest) -> Result<Done, ApiError> {
    let id = &request.route_table_id;
    cloud.change(&call.region, |region| {
        if !find::<RouteTable>(region, id)?.associations.is_empty() {
            return Err(dependencies("routeTable", id));
        }
        call.go()?;
        region.route_tables.remove(id);
        Ok(Done::yes())
    })
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeRouteTablesRequest,
) -> Result<DescribeRouteTablesResult, ApiError> {
    let wanted = Wanted {
        ids: &request.route_table_ids,
        filters: &request.filters,
        max: request.max_results,
        token: request.next_token.as_deref(),
    };
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let values = |table: &RouteTable, name: &str| filter(region, table, identity, name);
        let page = list(region, wanted, values)?;
        Ok(DescribeRouteTablesResult {
            route_tables: page
                .items
                .into_iter()
                .map(|table| view(region, table, identity))
                .collect(),
            next_token: page.next,
        })
    })?
}

fn filter(region: &Region, table: &RouteTable, identity: &Identity, name: &str) -> Values {
    let routes = |value: &dyn Fn(&Route) -> Option<String>| {
        Some(table.routes.iter().filter_map(value).collect())
    };
    let associations = |value: &dyn Fn(&RouteAssociation) -> Option<String>| {
        Some(table.associations.iter().filter_map(value).collect())
    };
    match name {
        "association.gateway-id" => Some(Vec::new()),
        "association.main" => {
            if table.associations.is_empty() {
                return Some(Vec::new());
            }
            truth(table.is_main())
        }
        "association.route-table-association-id" => {
            associations(&|one| Some(one.association_id.clone()))
        }
        "association.route-table-id" => associations(&|_| Some(table.route_table_id.clone())),
        "association.subnet-id" => associations(&|one| one.subnet_id.clone()),
        "owner-id" => one(&identity.account),
        "route-table-id" => one(&table.route_table_id),
        "route.destination-cidr-block" => routes(&|route| Some(route.destination.to_string())),
        "route.gateway-id" => routes(&|route| match &route.target {
            RouteTarget::Local => Some("local".to_owned()),
            RouteTarget::Gateway(id) => Some(id.clone()),
            RouteTarget::Interface(_) => None,
        }),
        "route.instance-id" => routes(&|route| instance(region, route)),
        "route.origin" => routes(&|route| Some(route.origin.clone())),
        "route.state" => routes(&|route| Some(routes::state(region, table, route).to_owned())),
        "vpc-id" => one(&table.vpc_id),
        "route.destination-ipv6-cidr-block"
        | "route.destination-prefix-list-id"
        | "route.egress-only-internet-gateway-id"
        | "route.nat-gateway-id"
        | "route.transit-gateway-id"
        | "route.vpc-peering-connection-id" => Some(Vec::new()),
        _ => None,
    }
}

/// The instance that a route goes to.
fn instance(region: &Region, route: &Route) -> Option<String> {
    let RouteTarget::Interface(id) = &route.target else {
        return None;
    };
    let attachment = region.interfaces.get(id)?.attachment.as_ref()?;
    Some(attachment.instance_id.clone())
}

fn associated() -> Option<RouteTableAssociationStateView> {
    Some(RouteTableAssociationStateView {
        state: Some("associated".to_owned()),
    })
}

fn view(region: &Region, table: &RouteTable, identity: &Identity) -> RouteTableView {
    RouteTableView {
        associations: table
            .associations
            .iter()
            .map(|one| RouteTableAssociationView {
                main: Some(one.subnet_id.is_none()),
                route_table_association_id: Some(one.association_id.clone()),
                route_table_id: Some(table.route_table_id.clone()),
                subnet_id: one.subnet_id.clone(),
                association_state: associated(),
                ..RouteTableAssociationView::default()
            })
            .collect(),
        propagating_vgws: Vec::new(),
        route_table_id: Some(table.route_table_id.clone()),
        routes: table
            .routes
            .iter()
            .map(|route| {
                let instance = instance(region, route);
                RouteView {
                    destination_cidr_block: Some(route.destination.to_string()),
                    gateway_id: match &route.target {
                        RouteTarget::Local => Some("local".to_owned()),
                        RouteTarget::Gateway(id) => Some(id.clone()),
                        RouteTarget::Interface(_) => None,
                    },
                    instance_owner_id: instance.as_ref().map(|_| identity.account.clone()),
                    instance_id: instance,
                    network_interface_id: match &route.target {
                        RouteTarget::Interface(id) => Some(id.clone()),
                        _ => None,
                    },
                    origin: Some(route.origin.clone()),
                    state: Some(routes::state(region, table, route).to_owned()),
                }
            })
            .collect(),
        tags: tag_set(&table.tags),
        vpc_id: Some(table.vpc_id.clone()),
        owner_id: Some(identity.account.clone()),
    }
}

fn associate(
    cloud: &Cloud,
    call: &Call,
    request: AssociateRouteTableRequest,
) -> Result<AssociateRouteTableResult, ApiError> {
    refuse(&[
        ("GatewayId", request.gateway_id.is_some()),
        ("PublicIpv4Pool", request.public_ipv4_pool.is_some()),
    ])?;
    let Some(subnet_id) = request.subnet_id else {
        return Err(ApiError::missing("SubnetId"));
    };
    let id = &request.route_table_id;
    cloud.change(&call.region, |region| {
        let table: &RouteTable = find(region, id)?;
        let subnet: &Subnet = find(region, &subnet_id)?;
        same_network(table, &subnet.vpc_id, &format!("subnet {subnet_id}"))?;
        let of = |one: &RouteAssociation| one.subnet_id.as_ref() == Some(&subnet_id);
        if region.route_tables.iter().any(|table| table.associations.iter().any(of)) {
            return Err(ApiError::new(
                "Resource.AlreadyAssociated",
                format!(
                    "the specified association for route table {id} conflicts with an existing association"
                ),
            ));
        }
        call.go()?;
        let association_id = crate::ids::new("rtbassoc");
        if let Some(table) = region.route_tables.edit(id) {
            table.associations.push(RouteAssociation {
                association_id: association_id.clone(),
                subnet_id: Some(subnet_id),
            });
        }
        Ok(AssociateRouteTableResult {
            association_id: Some(association_id),
            association_state: associated(),
        })
    })
}

fn same_network(table: &RouteTable, vpc_id: &str, other: &str) -> Result<(), ApiError> {
    if table.vpc_id == vpc_id {
        return Ok(());
    }
    Err(ApiError::new(
        "InvalidParameterValue",
        format!(
            "route table {} and {other} belong to different networks",
            table.route_table_id
        ),
    ))
}

/// The association with this id and the table that has it.
fn association<'a>(
    region: &'a Region,
    id: &str,
) -> Result<(&'a RouteTable, &'a RouteAssociation), ApiError> {
    region
        .route_tables
        .iter()
        .flat_map(|table| table.associations.iter().map(move |one| (table, one)))
        .find(|(_, one)| one.association_id == id)
        .ok_or_else(|| {
            ApiError::new(
                "InvalidAssociationID.NotFound",
                format!("The association ID '{id}' does not exist"),
            )
        })
}

fn disassociate(
    cloud: &Cloud,
    call: &Call,
    request: DisassociateRouteTableRequest,
) -> Result<Done, ApiError> {
    let id = &request.association_id;
    cloud.change(&call.region, |region| {
        let (table, found) = association(region, id)?;
        if found.subnet_id.is_none() {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("cannot disassociate the main route table association {id}"),
            ));
        }
        let table = table.route_table_id.clone();
        call.go()?;
        if let Some(table) = region.route_tables.edit(&table) {
            table.associations.retain(|one| one.association_id != *id);
        }
        Ok(Done::yes())
    })
}

fn replace_association(
    cloud: &Cloud,
    call: &Call,
    request: ReplaceRouteTableAssociationRequest,
) -> Result<ReplaceRouteTableAssociationResult, ApiError> {
    let id = &request.association_id;
    cloud.change(&call.region, |region| {
        let (old, found) = association(region, id)?;
        let new: &RouteTable = find(region, &request.route_table_id)?;
        same_network(
            new,
            &old.vpc_id,
            &format!("route table {}", old.route_table_id),
        )?;
        let subnet_id = found.subnet_id.clone();
        let old = old.route_table_id.clone();
        call.go()?;
        if let Some(old) = region.route_tables.edit(&old) {
            old.associations.retain(|one| one.association_id != *id);
        }
        let association_id = crate::ids::new("rtbassoc");
        if let Some(new) = region.route_tables.edit(&request.route_table_id) {
            new.associations.push(RouteAssociation {
                association_id: association_id.clone(),
                subnet_id,
            });
        }
        Ok(ReplaceRouteTableAssociationResult {
            new_association_id: Some(association_id),
            association_state: associated(),
        })
    })
}
