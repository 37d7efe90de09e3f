//! Internet gateways.

use super::network::{Wanted, dependencies, find, list};
use crate::api::actions::{Action, action};
use crate::api::filters::{maybe, one};
use crate::api::shapes::common::{Done, tag_set};
use crate::api::shapes::gateways::*;
use crate::api::{ApiError, Call, tagging};
use crate::cloud::net::{self, InternetGateway, Vpc};
use crate::cloud::{Cloud, Identity};

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action("CreateInternetGateway", create),
        action("DeleteInternetGateway", delete),
        action("AttachInternetGateway", attach),
        action("DetachInternetGateway", detach),
        action("DescribeInternetGateways", describe),
    ]
}

fn create(
    cloud: &Cloud,
    call: &Call,
    request: CreateInternetGatewayRequest,
) -> Result<CreateInternetGatewayResult, ApiError> {
    let tags = tagging::from_specifications(&request.tag_specifications, "internet-gateway")?;
    cloud.change(&call.region, |region| {
        // The quota goes with that of VPCs (VPC user guide, "Amazon VPC quotas").
        if region.internet_gateways.len() >= 5 {
            return Err(ApiError::new(
                "InternetGatewayLimitExceeded",
                "The maximum number of internet gateways has been reached.",
            ));
        }
        call.go()?;
        let gateway = InternetGateway {
            internet_gateway_id: crate::ids::new("igw"),
            vpc_id: None,
            tags,
        };
        let answer = view(&gateway, cloud.identity());
        region.internet_gateways.insert(gateway);
        Ok(CreateInternetGatewayResult {
            internet_gateway: Some(answer),
        })
    })
}

fn delete(
    cloud: &Cloud,
    call: &Call,
    request: DeleteInternetGatewayRequest,
) -> Result<Done, ApiError> {
    let id = &request.internet_gateway_id;
    cloud.change(&call.region, |region| {
        if find::<InternetGateway>(region, id)?.vpc_id.is_some() {
            return Err(dependencies("internetGateway", id));
        }
        call.go()?;
        region.internet_gateways.remove(id);
        Ok(Done::yes())
    })
}

fn attach(
    cloud: &Cloud,
    call: &Call,
    request: AttachInternetGatewayRequest,
) -> Result<Done, ApiError> {
    let id = &request.internet_gateway_id;
    cloud.change(&call.region, |region| {
        let gateway: &InternetGateway = find(region, id)?;
        find::<Vpc>(region, &request.vpc_id)?;
        if let Some(vpc) = &gateway.vpc_id {
            return Err(ApiError::new(
                "Resource.AlreadyAssociated",
                format!("resource {id} is already attached to network {vpc}"),
            ));
        }
        if region
            .internet_gateways
            .iter()
            .any(|other| other.vpc_id.as_ref() == Some(&request.vpc_id))
        {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!(
                    "Network {} already has an internet gateway attached",
                    request.vpc_id
                ),
            ));
        }
        call.go()?;
        if let Some(gateway) = region.internet_gateways.edit(id) {
            gateway.vpc_id = Some(request.vpc_id);
        }
        Ok(Done::yes())
    })
}

fn detach(
    cloud: &Cloud,
    call: &Call,
    request: DetachInternetGatewayRequest,
) -> Result<Done, ApiError> {
    let (id, vpc_id) = (&request.internet_gateway_id, &request.vpc_id);
    cloud.change(&call.region, |region| {
        let gateway: &InternetGateway = find(region, id)?;
        find::<Vpc>(region, vpc_id)?;
        if gateway.vpc_id.as_ref() != Some(vpc_id) {
            return Err(ApiError::new(
                "Gateway.NotAttached",
                format!("resource {id} is not attached to network {vpc_id}"),
            ));
        }
        let mapped = region.interfaces.iter().any(|interface| {
            interface.vpc_id == *vpc_id
                && (interface.public_ip.is_some()
                    || interface.private_ips().any(|address| {
                        net::elastic_of(region, &interface.network_interface_id, address).is_some()
                    }))
        });
        if mapped {
            return Err(ApiError::new(
                "DependencyViolation",
                format!(
                    "Network {vpc_id} has some mapped public address(es). Please unmap those public address(es) before detaching the gateway."
                ),
            ));
        }
        call.go()?;
        if let Some(gateway) = region.internet_gateways.edit(id) {
            gateway.vpc_id = None;
        }
        Ok(Done::yes())
    })
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeInternetGatewaysRequest,
) -> Result<DescribeInternetGatewaysResult, ApiError> {
    let wanted = Wanted {
        ids: &request.internet_gateway_ids,
        filters: &request.filters,
        max: request.max_results,
        token: request.next_token.as_deref(),
    };
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let page = list(
            region,
            wanted,
            |gateway: &InternetGateway, name| match name {
                "attachment.state" => maybe(gateway.vpc_id.as_ref().map(|_| "available")),
                "attachment.vpc-id" => maybe(gateway.vpc_id.as_ref()),
                "internet-gateway-id" => one(&gateway.internet_gateway_id),
                "owner-id" => one(&identity.account),
                _ => None,
            },
        )?;
        Ok(DescribeInternetGatewaysResult {
            internet_gateways: page
                .items
                .into_iter()
                .map(|gateway| view(gateway, identity))
                .collect(),
            next_token: page.next,
        })
    })?
}

fn view(gateway: &InternetGateway, identity: &Identity) -> InternetGatewayView {
    InternetGatewayView {
        attachments: gateway
            .vpc_id
            .iter()
            .map(|vpc_id| InternetGatewayAttachmentView {
                // EC2 says "available" here, not "attached".
                state: Some("available".to_owned()),
                vpc_id: Some(vpc_id.clone()),
            })
            .collect(),
        internet_gateway_id: Some(gateway.internet_gateway_id.clone()),
        owner_id: Some(identity.account.clone()),
        tags: tag_set(&gateway.tags),
    }
}
