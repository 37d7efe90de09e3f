//! The structures of requests and answers, by EC2's names (EC2 API reference, "Data types").

pub mod acls;
pub mod addresses;
pub mod common;
pub mod dhcp_options;
pub mod gateways;
pub mod images;
pub mod instances;
pub mod interfaces;
pub mod route_tables;
pub mod security_groups;
pub mod subnets;
pub mod tags;
pub mod types;
pub mod vpcs;
