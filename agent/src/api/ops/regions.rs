//! Regions, their zones, and the limits of the account.

use crate::api::actions::{Action, action};
use crate::api::filters::{Filters, maybe, one};
use crate::api::shapes::common::Filter;
use crate::api::wire::shapes;
use crate::api::{ApiError, Call};
use crate::cloud::table::Tags;
use crate::cloud::{Cloud, net};

/// The regions of AWS that every account has, sorted.
#[rustfmt::skip]
const REGIONS: &[&str] = &[
    "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2",
    "ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1",
    "us-east-2", "us-west-1", "us-west-2",
];

/// The regions of AWS that an account has to ask for, sorted. Here they are there without asking.
#[rustfmt::skip]
const OPTED_IN: &[&str] = &[
    "af-south-1", "ap-east-1", "ap-south-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-7",
    "ca-west-1", "eu-central-2", "eu-south-1", "eu-south-2", "il-central-1", "me-central-1", "me-south-1",
    "mx-central-1",
];

/// Whether AWS has a region of this name.
#[must_use]
pub fn exists(name: &str) -> bool {
    REGIONS.binary_search(&name).is_ok() || OPTED_IN.binary_search(&name).is_ok()
}

shapes! {
    /// Request of DescribeRegions.
    input DescribeRegionsRequest {
        /// Names.
        region_names: Vec<String> = "RegionName",
        /// Also those that the account has not asked for; here there are none.
        all_regions: Option<bool> = "AllRegions",
        /// Filters.
        filters: Vec<Filter> = "Filter",
    }
    /// Answer of DescribeRegions.
    output DescribeRegionsResult {
        /// The regions.
        regions: Vec<RegionInfo> = "regionInfo",
    }
    /// `Region`.
    output RegionInfo {
        /// Name.
        region_name: String = "regionName",
        /// Where its API is: this server, for all of them.
        endpoint: String = "regionEndpoint",
        /// `opt-in-not-required` or `opted-in`.
        opt_in_status: String = "optInStatus",
    }
    /// Request of DescribeAvailabilityZones.
    input DescribeAvailabilityZonesRequest {
        /// Names.
        zone_names: Vec<String> = "ZoneName",
        /// Ids.
        zone_ids: Vec<String> = "ZoneId",
        /// Also those that the account has not asked for; here there are none.
        all_availability_zones: Option<bool> = "AllAvailabilityZones",
        /// Filters.
        filters: Vec<Filter> = "Filter",
    }
    /// Answer of DescribeAvailabilityZones.
    output DescribeAvailabilityZonesResult {
        /// The zones.
        availability_zones: Vec<AvailabilityZone> = "availabilityZoneInfo",
    }
    /// `AvailabilityZone`.
    output AvailabilityZone {
        /// Always `opt-in-not-required`.
        opt_in_status: String = "optInStatus",
        /// News of the zone: none.
        messages: Vec<AvailabilityZoneMessage> = "messageSet",
        /// Its region.
        region_name: String = "regionName",
        /// `us-east-1a`.
        zone_name: String = "zoneName",
        /// `use1-az1`.
        zone_id: String = "zoneId",
        /// `us-east-1-zg-1`.
        group_name: String = "groupName",
        /// The region.
        network_border_group: String = "networkBorderGroup",
        /// `availability-zone`.
        zone_type: String = "zoneType",
        /// `available`.
        state: String = "zoneState",
    }
    /// `AvailabilityZoneMessage`.
    output AvailabilityZoneMessage {
        /// Text.
        message: Option<String> = "message",
    }
    /// Request of DescribeAccountAttributes.
    input DescribeAccountAttributesRequest {
        /// Names; all when there is none.
        attribute_names: Vec<String> = "AttributeName",
    }
    /// Answer of DescribeAccountAttributes.
    output DescribeAccountAttributesResult {
        /// The attributes.
        account_attributes: Vec<AccountAttribute> = "accountAttributeSet",
    }
    /// `AccountAttribute`.
    output AccountAttribute {
        /// Name.
        attribute_name: String = "attributeName",
        /// Values.
        attribute_values: Vec<AccountAttributeValue> = "attributeValueSet",
    }
    /// `AccountAttributeValue`.
    output AccountAttributeValue {
        /// Value.
        attribute_value: String = "attributeValue",
    }
}

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action("DescribeAccountAttributes", describe_account_attributes),
        action("DescribeAvailabilityZones", describe_availability_zones),
        action("DescribeRegions", describe_regions),
    ]
}

fn describe_regions(
    cloud: &Cloud,
    _call: &Call,
    request: DescribeRegionsRequest,
) -> Result<DescribeRegionsResult, ApiError> {
    let filters = Filters::new(&request.filters)?;
    if let Some(name) = request.region_names.iter().find(|name| !exists(name)) {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("Invalid region: [{name}]"),
        ));
    }
    let free = REGIONS.iter().map(|name| (*name, "opt-in-not-required"));
    let all = free.chain(OPTED_IN.iter().map(|name| (*name, "opted-in")));
    let mut regions = Vec::new();
    for (name, opt_in) in all {
        let passes = filters.pass(&Tags::new(), |filter| match filter {
            "endpoint" => one(&cloud.identity().endpoint),
            "opt-in-status" => one(opt_in),
            "region-name" => one(name),
            _ => None,
        })?;
        if passes && wanted(&request.region_names, name) {
            regions.push(RegionInfo {
                region_name: name.to_owned(),
                endpoint: cloud.identity().endpoint.clone(),
                opt_in_status: opt_in.to_owned(),
            });
        }
    }
    Ok(DescribeRegionsResult { regions })
}

fn wanted(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|wanted| wanted == name)
}

/// The zones of a region, as the account sees them.
fn zones(cloud: &Cloud, region: &str) -> Vec<AvailabilityZone> {
    let zones = cloud.identity().zones_of(region).into_iter();
    zones
        .map(|zone| AvailabilityZone {
            opt_in_status: "opt-in-not-required".to_owned(),
            messages: Vec::new(),
            region_name: region.to_owned(),
            zone_id: net::zone_id(region, &zone),
            zone_name: zone,
            group_name: format!("{region}-zg-1"),
            network_border_group: region.to_owned(),
            zone_type: "availability-zone".to_owned(),
            state: "available".to_owned(),
        })
        .collect()
}

fn describe_availability_zones(
    cloud: &Cloud,
    call: &Call,
    request: DescribeAvailabilityZonesRequest,
) -> Result<DescribeAvailabilityZonesResult, ApiError> {
    let filters = Filters::new(&request.filters)?;
    let all = zones(cloud, &call.region);
    for name in &request.zone_names {
        if all.iter().all(|zone| zone.zone_name != *name) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("Invalid availability zone: [{name}]"),
            ));
        }
    }
    for id in &request.zone_ids {
        if all.iter().all(|zone| zone.zone_id != *id) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("Invalid availability zone-id: [{id}]"),
            ));
        }
    }
    let mut availability_zones = Vec::new();
    for zone in all {
        let passes = filters.pass(&Tags::new(), |filter| match filter {
            "group-name" => one(&zone.group_name),
            "opt-in-status" => one(&zone.opt_in_status),
            "region-name" => one(&zone.region_name),
            "state" => one(&zone.state),
            "zone-id" => one(&zone.zone_id),
            "zone-name" => one(&zone.zone_name),
            "zone-type" => one(&zone.zone_type),
            "group-long-name" | "message" | "parent-zone-id" | "parent-zone-name" => {
                maybe(None::<String>)
            }
            _ => None,
        })?;
        if passes
            && wanted(&request.zone_names, &zone.zone_name)
            && wanted(&request.zone_ids, &zone.zone_id)
        {
            availability_zones.push(zone);
        }
    }
    Ok(DescribeAvailabilityZonesResult { availability_zones })
}

/// The region's default VPC.
fn default_vpc(cloud: &Cloud, call: &Call) -> Result<String, ApiError> {
    cloud.read(&call.region, |region| {
        net::default_vpc(region).map_or_else(|_| "none".to_owned(), |vpc| vpc.vpc_id.clone())
    })
}

fn describe_account_attributes(
    cloud: &Cloud,
    call: &Call,
    request: DescribeAccountAttributesRequest,
) -> Result<DescribeAccountAttributesResult, ApiError> {
    let all = [
        ("supported-platforms", "VPC".to_owned()),
        ("default-vpc", default_vpc(cloud, call)?),
        // EC2's usual limits.
        ("max-instances", "20".to_owned()),
        ("max-elastic-ips", "5".to_owned()),
        ("vpc-max-elastic-ips", "5".to_owned()),
        ("vpc-max-security-groups-per-interface", "5".to_owned()),
    ];
    for name in &request.attribute_names {
        if all.iter().all(|(known, _)| known != name) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("The account attribute '{name}' is invalid"),
            ));
        }
    }
    let shown = all
        .into_iter()
        .filter(|(name, _)| wanted(&request.attribute_names, name));
    let account_attributes = shown
        .map(|(name, value)| AccountAttribute {
            attribute_name: name.to_owned(),
            attribute_values: vec![AccountAttributeValue {
                attribute_value: value,
            }],
        })
        .collect();
    Ok(DescribeAccountAttributesResult { account_attributes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Identity;

    fn world() -> (tempfile::TempDir, Cloud, Call) {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::open(folder.path(), Identity::default()).unwrap();
        let call = Call {
            region: "eu-central-1".into(),
            account: "123456789012".into(),
            access_key: "AKIATEST".into(),
            request_id: "r".into(),
            dry_run: false,
        };
        (folder, cloud, call)
    }

    fn filter(name: &str, value: &str) -> Filter {
        Filter {
            name: Some(name.into()),
            values: vec![value.into()],
        }
    }

    #[test]
    fn the_lists_are_sorted_and_zone_ids_are_those_of_aws() {
        assert!(REGIONS.is_sorted() && OPTED_IN.is_sorted());
        for (region, prefix) in [
            ("us-east-1", "use1"),
            ("ap-northeast-3", "apne3"),
            ("ca-central-1", "cac1"),
            ("eu-north-1", "eun1"),
            ("ap-southeast-2", "apse2"),
        ] {
            assert_eq!(net::zone_prefix(region), prefix);
        }
    }

    #[test]
    fn regions_by_name_and_filter() {
        let (_folder, cloud, call) = world();
        let ask = |request| describe_regions(&cloud, &call, request);
        let all = ask(DescribeRegionsRequest::default()).unwrap().regions;
        assert_eq!(all.len(), REGIONS.len() + OPTED_IN.len());
        let us = DescribeRegionsRequest {
            filters: vec![filter("region-name", "us-*")],
            ..Default::default()
        };
        assert_eq!(ask(us).unwrap().regions.len(), 4);
        for wrong in [
            DescribeRegionsRequest {
                region_names: vec!["mars-1".into()],
                ..Default::default()
            },
            DescribeRegionsRequest {
                filters: vec![filter("colour", "red")],
                ..Default::default()
            },
        ] {
            assert_eq!(ask(wrong).unwrap_err().code, "InvalidParameterValue");
        }
    }

    #[test]
    fn zones_are_those_of_the_calls_region() {
        let (_folder, cloud, call) = world();
        let ask = |request| describe_availability_zones(&cloud, &call, request);
        let all = ask(DescribeAvailabilityZonesRequest::default()).unwrap();
        let names: Vec<_> = all
            .availability_zones
            .iter()
            .map(|z| &*z.zone_name)
            .collect();
        assert_eq!(names, ["eu-central-1a", "eu-central-1b", "eu-central-1c"]);
        let second = DescribeAvailabilityZonesRequest {
            zone_ids: vec!["euc1-az2".into()],
            filters: vec![filter("state", "available")],
            ..Default::default()
        };
        assert_eq!(
            ask(second).unwrap().availability_zones[0].zone_name,
            "eu-central-1b"
        );
        let wrong = DescribeAvailabilityZonesRequest {
            zone_names: vec!["us-east-1a".into()],
            ..Default::default()
        };
        assert_eq!(ask(wrong).unwrap_err().code, "InvalidParameterValue");
    }

    #[test]
    fn account_attributes() {
        let (_folder, cloud, call) = world();
        let ask = |names: &[&str]| {
            let request = DescribeAccountAttributesRequest {
                attribute_names: names.iter().map(ToString::to_string).collect(),
            };
            describe_account_attributes(&cloud, &call, request)
        };
        assert_eq!(ask(&[]).unwrap().account_attributes.len(), 6);
        let one = ask(&["supported-platforms"]).unwrap().account_attributes;
        assert_eq!(one[0].attribute_values[0].attribute_value, "VPC");
        assert_eq!(ask(&["x"]).unwrap_err().code, "InvalidParameterValue");
    }
}
