//! The actions, one module a kind of resource. Each module lists its actions; all lists come together here.

pub mod acls;
pub mod addresses;
pub mod dhcp_options;
pub mod gateways;
pub mod images;
mod instances;
pub mod interfaces;
pub mod key_pairs;
mod network;
#[cfg(test)]
mod network_tests;
pub mod regions;
pub mod route_tables;
pub mod security_group_rules;
pub mod security_groups;
pub mod subnets;
pub mod tags;
#[cfg(test)]
pub(crate) mod testing;
pub mod types;
mod volumes;
pub mod vpcs;

use super::actions::Action;

/// Every action that is served.
pub(super) fn actions() -> Vec<Action> {
    let mut all = Vec::new();
    all.extend(acls::actions());
    all.extend(addresses::actions());
    all.extend(dhcp_options::actions());
    all.extend(gateways::actions());
    all.extend(images::actions());
    all.extend(instances::actions());
    all.extend(interfaces::actions());
    all.extend(key_pairs::actions());
    all.extend(regions::actions());
    all.extend(route_tables::actions());
    all.extend(security_group_rules::actions());
    all.extend(security_groups::actions());
    all.extend(subnets::actions());
    all.extend(tags::actions());
    all.extend(types::actions());
    all.extend(volumes::actions());
    all.extend(vpcs::actions());
    all
}

/// Actions of EC2 (API version 2016-11-15), sorted: those that are not served answer `UnsupportedOperation`.
pub(super) const KNOWN_TO_EC2: &[&str] = &include!("known.rs");
