//! Monitoring, metadata options, CPU credits.

use super::{check_ids, check_known, edit, view};
use crate::api::filters::{Filters, one};
use crate::api::paging::page;
use crate::api::shapes::common::Filter;
use crate::api::shapes::instances::{
    InstanceIds, InstanceMonitoring, MetadataOptionsInput, MetadataOptionsOutput, MonitoringChanges,
};
use crate::api::wire::shapes;
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;
use crate::state::record::MetadataOptions;
use crate::types;

shapes! {
    /// Request of ModifyInstanceMetadataOptions.
    input ModifyMetadataRequest {
        /// Id.
        instance_id: String = "InstanceId",
        /// `required` or `optional`.
        http_tokens: Option<String> = "HttpTokens",
        /// 1 to 64.
        http_put_response_hop_limit: Option<i32> = "HttpPutResponseHopLimit",
        /// `enabled` or `disabled`.
        http_endpoint: Option<String> = "HttpEndpoint",
        /// `enabled` or `disabled`.
        http_protocol_ipv6: Option<String> = "HttpProtocolIpv6",
        /// `enabled` or `disabled`.
        instance_metadata_tags: Option<String> = "InstanceMetadataTags",
    }
    /// Answer of ModifyInstanceMetadataOptions.
    output ModifyMetadataResult {
        /// Id.
        instance_id: String = "instanceId",
        /// As they are now.
        options: MetadataOptionsOutput = "instanceMetadataOptions",
    }
    /// Request of DescribeInstanceCreditSpecifications.
    input DescribeCreditsRequest {
        /// Ids.
        instance_ids: Vec<String> = "InstanceId",
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Page size.
        max_results: Option<i32> = "MaxResults",
        /// Page.
        next_token: Option<String> = "NextToken",
    }
    /// Answer of DescribeInstanceCreditSpecifications.
    output DescribeCreditsResult {
        /// One for each burstable instance.
        specifications: Vec<Credits> = "instanceCreditSpecificationSet",
        /// Next page.
        next_token: Option<String> = "nextToken",
    }
    /// `InstanceCreditSpecification`.
    output Credits {
        /// Id.
        instance_id: String = "instanceId",
        /// `standard` or `unlimited`.
        cpu_credits: String = "cpuCredits",
    }
    /// `InstanceCreditSpecificationRequest`.
    input CreditsInput {
        /// Id.
        instance_id: String = "InstanceId",
        /// `standard` or `unlimited`.
        cpu_credits: Option<String> = "CpuCredits",
    }
    /// Request of ModifyInstanceCreditSpecification.
    input ModifyCreditsRequest {
        /// Idempotency; the action is idempotent by itself.
        client_token: Option<String> = "ClientToken",
        /// What to change.
        specifications: Vec<CreditsInput> = "InstanceCreditSpecification",
    }
    /// Answer of ModifyInstanceCreditSpecification.
    output ModifyCreditsResult {
        /// Those that were changed.
        successful: Vec<CreditsChanged> = "successfulInstanceCreditSpecificationSet",
        /// Those that were not.
        unsuccessful: Vec<CreditsUnchanged> = "unsuccessfulInstanceCreditSpecificationSet",
    }
    /// `SuccessfulInstanceCreditSpecificationItem`.
    output CreditsChanged {
        /// Id.
        instance_id: String = "instanceId",
    }
    /// `UnsuccessfulInstanceCreditSpecificationItem`.
    output CreditsUnchanged {
        /// Id.
        instance_id: String = "instanceId",
        /// Why.
        error: CreditsError = "error",
    }
    /// `UnsuccessfulInstanceCreditSpecificationItemError`.
    output CreditsError {
        /// Code.
        code: String = "code",
        /// In words.
        message: String = "message",
    }
}

pub(super) fn monitor_instances(
    cloud: &Cloud,
    call: &Call,
    request: InstanceIds,
) -> Result<MonitoringChanges, ApiError> {
    monitoring(cloud, call, &request.instance_ids, true)
}

pub(super) fn unmonitor_instances(
    cloud: &Cloud,
    call: &Call,
    request: InstanceIds,
) -> Result<MonitoringChanges, ApiError> {
    monitoring(cloud, call, &request.instance_ids, false)
}

fn monitoring(
    cloud: &Cloud,
    call: &Call,
    ids: &[String],
    yes: bool,
) -> Result<MonitoringChanges, ApiError> {
    cloud.change(&call.region, |region| {
        check_ids(region, ids)?;
        for id in ids {
            edit(region, id)?.monitoring = yes;
        }
        call.go()?;
        let instances = ids.iter().map(|id| InstanceMonitoring {
            instance_id: id.clone(),
            monitoring: view::monitoring(yes),
        });
        Ok(MonitoringChanges {
            instances: instances.collect(),
        })
    })
}

/// Reads `enabled` or `disabled`.
fn switch(parameter: &str, value: &str) -> Result<bool, ApiError> {
    match value {
        "enabled" => Ok(true),
        "disabled" => Ok(false),
        _ => Err(ApiError::value(parameter, value, "use enabled or disabled")),
    }
}

/// Applies what a request says of the metadata service to what is.
pub(super) fn apply_metadata(
    options: &mut MetadataOptions,
    wanted: &MetadataOptionsInput,
    at: &str,
) -> Result<(), ApiError> {
    if let Some(tokens) = &wanted.http_tokens {
        options.tokens_required = match tokens.as_str() {
            "required" => true,
            "optional" => false,
            other => {
                return Err(ApiError::value(
                    &format!("{at}HttpTokens"),
                    other,
                    "use required or optional",
                ));
            }
        };
    }
    if let Some(limit) = wanted.http_put_response_hop_limit {
        options.hop_limit = u8::try_from(limit)
            .ok()
            .filter(|limit| (1..=64).contains(limit))
            .ok_or_else(|| {
                ApiError::value(
                    &format!("{at}HttpPutResponseHopLimit"),
                    &limit.to_string(),
                    "use 1 to 64",
                )
            })?;
    }
    if let Some(endpoint) = &wanted.http_endpoint {
        options.enabled = switch(&format!("{at}HttpEndpoint"), endpoint)?;
    }
    if let Some(tags) = &wanted.instance_metadata_tags {
        options.instance_tags = switch(&format!("{at}InstanceMetadataTags"), tags)?;
    }
    let ipv6 = wanted.http_protocol_ipv6.as_deref();
    if ipv6.is_some_and(|value| value != "disabled") {
        return Err(ApiError::unsupported(
            "cumulet's VPCs have no IPv6 yet: leave HttpProtocolIpv6 disabled",
        ));
    }
    Ok(())
}

pub(super) fn modify_instance_metadata_options(
    cloud: &Cloud,
    call: &Call,
    request: ModifyMetadataRequest,
) -> Result<ModifyMetadataResult, ApiError> {
    let wanted = MetadataOptionsInput {
        http_tokens: request.http_tokens,
        http_put_response_hop_limit: request.http_put_response_hop_limit,
        http_endpoint: request.http_endpoint,
        http_protocol_ipv6: request.http_protocol_ipv6,
        instance_metadata_tags: request.instance_metadata_tags,
    };
    let id = request.instance_id;
    let options = cloud.change(&call.region, |region| {
        let instance = edit(region, &id)?;
        apply_metadata(&mut instance.metadata, &wanted, "")?;
        if !instance.is_alive() {
            return Err(super::wrong_state(&id, "modified"));
        }
        let options = view::metadata(&instance.metadata);
        call.go()?;
        Ok(options)
    })?;
    Ok(ModifyMetadataResult {
        instance_id: id,
        options,
    })
}

pub(super) fn describe_instance_credit_specifications(
    cloud: &Cloud,
    call: &Call,
    request: DescribeCreditsRequest,
) -> Result<DescribeCreditsResult, ApiError> {
    let filters = Filters::new(&request.filters)?;
    let values = |id: &str, name: &str| match name {
        "instance-id" => one(id),
        _ => None,
    };
    filters.check(|name| values("", name))?;
    cloud.read(&call.region, |region| {
        check_known(region, &request.instance_ids)?;
        let mut found = Vec::new();
        for instance in region.instances.iter() {
            let named = request.instance_ids.contains(&instance.instance_id);
            let Some(credits) = &instance.cpu_credits else {
                if named {
                    return Err(ApiError::new(
                        "InvalidInstanceID",
                        format!(
                            "The instance '{}' is not of a burstable performance type",
                            instance.instance_id
                        ),
                    ));
                }
                continue;
            };
            if !request.instance_ids.is_empty() && !named {
                continue;
            }
            let id = &instance.instance_id;
            let passes = filters.pass(&instance.tags, |name| values(id, name))?;
            // As on EC2, without ids only those that are not `standard` are told.
            if passes && (named || credits == "unlimited") {
                found.push(Credits {
                    instance_id: instance.instance_id.clone(),
                    cpu_credits: credits.clone(),
                });
            }
        }
        let paging = (request.max_results, request.next_token.as_deref());
        let page = page(found, |c| c.instance_id.clone(), paging, 5..=1000)?;
        Ok(DescribeCreditsResult {
            specifications: page.items,
            next_token: page.next,
        })
    })?
}

pub(super) fn modify_instance_credit_specification(
    cloud: &Cloud,
    call: &Call,
    request: ModifyCreditsRequest,
) -> Result<ModifyCreditsResult, ApiError> {
    if request.specifications.is_empty() {
        return Err(ApiError::missing("InstanceCreditSpecification"));
    }
    for wanted in &request.specifications {
        credits(wanted.cpu_credits.as_deref().unwrap_or_default())?;
    }
    cloud.change(&call.region, |region| {
        let mut result = ModifyCreditsResult::default();
        for wanted in &request.specifications {
            let id = wanted.instance_id.clone();
            let refused = match edit(region, &id) {
                Err(error) => Some(("InvalidInstanceID.NotFound", error.message)),
                Ok(instance) if instance.cpu_credits.is_none() => Some((
                    "InstanceCreditSpecification.NotSupported",
                    format!("The instance '{id}' is not of a burstable performance type"),
                )),
                Ok(instance) if !instance.is_alive() => Some((
                    "IncorrectInstanceState",
                    format!("The instance '{id}' is not in a valid state"),
                )),
                Ok(instance) => {
                    instance.cpu_credits.clone_from(&wanted.cpu_credits);
                    None
                }
            };
            match refused {
                None => result.successful.push(CreditsChanged { instance_id: id }),
                Some((code, message)) => result.unsuccessful.push(CreditsUnchanged {
                    instance_id: id,
                    error: CreditsError {
                        code: code.to_owned(),
                        message,
                    },
                }),
            }
        }
        call.go()?;
        Ok(result)
    })
}

/// Checks `standard` or `unlimited`.
pub(super) fn credits(value: &str) -> Result<(), ApiError> {
    match value {
        "standard" | "unlimited" => Ok(()),
        _ => Err(ApiError::value(
            "CpuCredits",
            value,
            "use standard or unlimited",
        )),
    }
}

/// What an instance of this type has unless told: EC2's defaults are `standard` for t2 and `unlimited` for later families.
pub(super) fn default_credits(kind: &types::InstanceType) -> Option<String> {
    let unlimited = types::details(&kind.name)?.unlimited?;
    let credits = if unlimited { "unlimited" } else { "standard" };
    Some(credits.to_owned())
}
