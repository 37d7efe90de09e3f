//! DHCP options.

use super::network::{Wanted, dependencies, find, list};
use crate::api::actions::{Action, action};
use crate::api::filters::{Values, one};
use crate::api::shapes::common::{AttributeValue, Done, tag_set};
use crate::api::shapes::dhcp_options::*;
use crate::api::{ApiError, Call, tagging};
use crate::cloud::net::{DhcpOptions, Vpc};
use crate::cloud::{Cloud, Identity};

/// What EC2 takes (VPC user guide, "DHCP option sets").
const KEYS: [&str; 6] = [
    "domain-name",
    "domain-name-servers",
    "ipv6-address-preferred-lease-time",
    "netbios-name-servers",
    "netbios-node-type",
    "ntp-servers",
];

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action("CreateDhcpOptions", create),
        action("DeleteDhcpOptions", delete),
        action("AssociateDhcpOptions", associate),
        action("DescribeDhcpOptions", describe),
    ]
}

fn options(given: Vec<NewDhcpConfigurationInput>) -> Result<Vec<(String, Vec<String>)>, ApiError> {
    if given.is_empty() {
        return Err(ApiError::missing("DhcpConfiguration"));
    }
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for one in given {
        let key = one
            .key
            .ok_or_else(|| ApiError::missing("DhcpConfiguration.Key"))?;
        if !KEYS.contains(&key.as_str()) {
            return Err(ApiError::value("optionName", &key, "Unknown DHCP option"));
        }
        if one.values.is_empty() {
            return Err(ApiError::missing("DhcpConfiguration.Value"));
        }
        if all.iter().any(|(other, _)| *other == key) {
            return Err(ApiError::value(
                "optionName",
                &key,
                "The option is given twice",
            ));
        }
        for value in &one.values {
            let fits = match key.as_str() {
                "domain-name-servers" if value == "AmazonProvidedDNS" => true,
                "domain-name-servers" | "netbios-name-servers" | "ntp-servers" => {
                    value.parse::<std::net::IpAddr>().is_ok()
                }
                "netbios-node-type" => matches!(value.as_str(), "1" | "2" | "4" | "8"),
                "ipv6-address-preferred-lease-time" => value.parse::<u32>().is_ok(),
                _ => !value.is_empty(),
            };
            if !fits {
                return Err(ApiError::value(&key, value, "The option has no such value"));
            }
        }
        // AmazonProvidedDNS counts as one of the four.
        if one.values.len() > 4 {
            return Err(ApiError::value(
                &key,
                &one.values.join(","),
                "At most four values",
            ));
        }
        all.push((key, one.values));
    }
    Ok(all)
}

fn create(
    cloud: &Cloud,
    call: &Call,
    request: CreateDhcpOptionsRequest,
) -> Result<CreateDhcpOptionsResult, ApiError> {
    let options = options(request.dhcp_configurations)?;
    let tags = tagging::from_specifications(&request.tag_specifications, "dhcp-options")?;
    cloud.change(&call.region, |region| {
        call.go()?;
        let set = DhcpOptions {
            dhcp_options_id: crate::ids::new("dopt"),
            options,
            tags,
        };
        let answer = view(&set, cloud.identity());
        region.dhcp_options.insert(set);
        Ok(CreateDhcpOptionsResult {
            dhcp_options: Some(answer),
        })
    })
}

fn delete(cloud: &Cloud, call: &Call, request: DeleteDhcpOptionsRequest) -> Result<Done, ApiError> {
    let id = &request.dhcp_options_id;
    cloud.change(&call.region, |region| {
        find::<DhcpOptions>(region, id)?;
        if region.vpcs.iter().any(|vpc| vpc.dhcp_options_id == *id) {
            return Err(dependencies("dhcpOptions", id));
        }
        call.go()?;
        region.dhcp_options.remove(id);
        Ok(Done::yes())
    })
}

fn associate(
    cloud: &Cloud,
    call: &Call,
    request: AssociateDhcpOptionsRequest,
) -> Result<Done, ApiError> {
    cloud.change(&call.region, |region| {
        // "default" is none at all.
        if request.dhcp_options_id != "default" {
            find::<DhcpOptions>(region, &request.dhcp_options_id)?;
        }
        find::<Vpc>(region, &request.vpc_id)?;
        call.go()?;
        if let Some(vpc) = region.vpcs.edit(&request.vpc_id) {
            vpc.dhcp_options_id = request.dhcp_options_id;
        }
        Ok(Done::yes())
    })
}

fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeDhcpOptionsRequest,
) -> Result<DescribeDhcpOptionsResult, ApiError> {
    let wanted = Wanted {
        ids: &request.dhcp_options_ids,
        filters: &request.filters,
        max: request.max_results,
        token: request.next_token.as_deref(),
    };
    let identity = cloud.identity();
    cloud.read(&call.region, |region| {
        let page = list(region, wanted, |set, name| filter(set, identity, name))?;
        Ok(DescribeDhcpOptionsResult {
            dhcp_options: page
                .items
                .into_iter()
                .map(|set| view(set, identity))
                .collect(),
            next_token: page.next,
        })
    })?
}

fn filter(set: &DhcpOptions, identity: &Identity, name: &str) -> Values {
    match name {
        "dhcp-options-id" => one(&set.dhcp_options_id),
        "key" => Some(set.options.iter().map(|(key, _)| key.clone()).collect()),
        "value" => {
            let values = set.options.iter().flat_map(|(_, values)| values);
            Some(values.cloned().collect())
        }
        "owner-id" => one(&identity.account),
        _ => None,
    }
}

fn view(set: &DhcpOptions, identity: &Identity) -> DhcpOptionsView {
    DhcpOptionsView {
        owner_id: Some(identity.account.clone()),
        tags: tag_set(&set.tags),
        dhcp_options_id: Some(set.dhcp_options_id.clone()),
        dhcp_configurations: set
            .options
            .iter()
            .map(|(key, values)| DhcpConfigurationView {
                key: Some(key.clone()),
                values: values
                    .iter()
                    .map(|value| AttributeValue {
                        value: Some(value.clone()),
                    })
                    .collect(),
            })
            .collect(),
    }
}
