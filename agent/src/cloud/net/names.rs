//! Names that EC2 derives from addresses and regions.

use std::net::Ipv4Addr;

/// `ip-172-31-0-5.ec2.internal` (VPC user guide, "DNS attributes for your VPC").
#[must_use]
pub fn private_dns_name(region: &str, address: Ipv4Addr) -> String {
    format!("ip-{}.{}", dashed(address), private_domain(region))
}

/// `ec2-100-64-0-5.compute-1.amazonaws.com`.
#[must_use]
pub fn public_dns_name(region: &str, address: Ipv4Addr) -> String {
    let zone = match region {
        "us-east-1" => "compute-1".to_owned(),
        other => format!("{other}.compute"),
    };
    format!("ec2-{}.{zone}.amazonaws.com", dashed(address))
}

/// Domain of private names: `ec2.internal` in us-east-1.
#[must_use]
pub fn private_domain(region: &str) -> String {
    match region {
        "us-east-1" => "ec2.internal".to_owned(),
        other => format!("{other}.compute.internal"),
    }
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

/// `use1-az1` for zone `us-east-1a`: zone a is az1 in every region here.
#[must_use]
pub fn zone_id(region: &str, zone: &str) -> String {
    let mut short = String::new();
    for (at, part) in region.split('-').enumerate() {
        match part {
            // "us", "eu", "ap", …
            first if at == 0 => short.push_str(first),
            "northeast" => short.push_str("ne"),
            "northwest" => short.push_str("nw"),
            "southeast" => short.push_str("se"),
            "southwest" => short.push_str("sw"),
            part if part.bytes().all(|byte| byte.is_ascii_digit()) => short.push_str(part),
            part => short.extend(part.chars().next()),
        }
    }
    let letter = zone.bytes().last().unwrap_or(b'a');
    let number = letter.saturating_sub(b'a') + 1;
    format!("{short}-az{number}")
}
