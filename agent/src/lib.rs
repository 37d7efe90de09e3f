//! EC2 on this host: instance life cycle, fabric and command line.

pub mod fabric;
