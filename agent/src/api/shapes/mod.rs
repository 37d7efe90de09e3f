//! The structures of requests and answers, by EC2's names (EC2 API reference, "Data types").

pub mod common;
pub mod images;
pub mod instances;
pub mod tags;
pub mod types;
