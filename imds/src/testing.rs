//! Example views for tests (feature `testing`).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use crate::view::{Extras, InstanceView, InterfaceView, MetadataOptions, PublicKey};

impl InstanceView {
    /// A running on-demand t3.micro with everything that RunInstances gives by default plus a
    /// public address, a key pair, user data and a tag. `HttpTokens` is required, the hop limit 1.
    #[must_use]
    pub fn example() -> Self {
        let pairs = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        Self {
            instance_id: "i-0123456789abcdef0".to_owned(),
            reservation_id: "r-0123456789abcdef0".to_owned(),
            image_id: "ami-0123456789abcdef0".to_owned(),
            launch_index: 0,
            instance_type: "t3.micro".to_owned(),
            architecture: "x86_64".to_owned(),
            account_id: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            availability_zone: "us-east-1a".to_owned(),
            availability_zone_id: "use1-az1".to_owned(),
            pending_time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
            hibernation_configured: false,
            block_devices: pairs(&[("ami", "sda1"), ("root", "/dev/sda1"), ("ebs1", "sdf")]),
            interfaces: vec![InterfaceView::example()],
            user_data: Some(b"#!/bin/sh\necho hello\n".to_vec()),
            public_keys: vec![PublicKey {
                name: "my-key".to_owned(),
                openssh: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGV4YW1wbGU= my-key".to_owned(),
            }],
            tags: pairs(&[("Name", "web server 1"), ("empty", "")]),
            options: MetadataOptions {
                enabled: true,
                tokens_required: true,
                hop_limit: 1,
                instance_tags: true,
                ipv6: false,
            },
            detailed_monitoring: false,
            extras: Extras::default(),
        }
    }
}

impl InterfaceView {
    /// The primary interface of [`InstanceView::example`], 172.31.16.10 with a public address.
    #[must_use]
    pub fn example() -> Self {
        Self {
            interface_id: "eni-0123456789abcdef0".to_owned(),
            mac: "02:12:34:56:78:9a".to_owned(),
            device_number: 0,
            private_ipv4s: vec![Ipv4Addr::new(172, 31, 16, 10)],
            public_ipv4: Some(Ipv4Addr::new(203, 0, 113, 25)),
            ipv6s: Vec::new(),
            subnet_id: "subnet-0123456789abcdef0".to_owned(),
            subnet_cidr: "172.31.16.0/20".to_owned(),
            vpc_id: "vpc-0123456789abcdef0".to_owned(),
            vpc_cidrs: vec!["172.31.0.0/16".to_owned()],
            security_groups: vec![("sg-0123456789abcdef0".to_owned(), "default".to_owned())],
            subnet_ipv6_cidrs: Vec::new(),
            vpc_ipv6_cidrs: Vec::new(),
        }
    }
}
