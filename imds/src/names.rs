//! DNS names that EC2 derives from addresses and regions.
//!
//! Public because the fabric's DNS server has to answer the same names.

use std::net::Ipv4Addr;

/// `ip-172-31-16-10.ec2.internal` (us-east-1) or `ip-….REGION.compute.internal`.
#[must_use]
pub fn private_dns_name(address: Ipv4Addr, region: &str) -> String {
    format!("ip-{}.{}", dashed(address), private_domain(region))
}

/// The domain of private names in `region`; what DHCP gives as domain name.
#[must_use]
pub fn private_domain(region: &str) -> String {
    match region {
        "us-east-1" => "ec2.internal".to_owned(),
        _ => format!("{region}.compute.internal"),
    }
}

/// `ec2-203-0-113-25.compute-1.amazonaws.com` (us-east-1) or
/// `ec2-….REGION.compute.amazonaws.com`.
#[must_use]
pub fn public_dns_name(address: Ipv4Addr, region: &str) -> String {
    let zone = match region {
        "us-east-1" => "compute-1".to_owned(),
        _ => format!("{region}.compute"),
    };
    format!("ec2-{}.{zone}.{}", dashed(address), services_domain(region))
}

/// The domain of AWS's endpoints in `region` (`services/domain`).
#[must_use]
pub fn services_domain(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    }
}

/// The partition of `region` (`services/partition`), as in ARNs.
#[must_use]
pub fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_on_ec2() {
        let private = Ipv4Addr::new(172, 31, 28, 231);
        assert_eq!(
            private_dns_name(private, "us-east-1"),
            "ip-172-31-28-231.ec2.internal"
        );
        assert_eq!(
            private_dns_name(private, "us-west-2"),
            "ip-172-31-28-231.us-west-2.compute.internal"
        );
        let public = Ipv4Addr::new(203, 0, 113, 25);
        assert_eq!(
            public_dns_name(public, "us-east-1"),
            "ec2-203-0-113-25.compute-1.amazonaws.com"
        );
        assert_eq!(
            public_dns_name(public, "cn-north-1"),
            "ec2-203-0-113-25.cn-north-1.compute.amazonaws.com.cn"
        );
        assert_eq!(partition("us-gov-west-1"), "aws-us-gov");
        assert_eq!(partition("cn-north-1"), "aws-cn");
        assert_eq!(partition("eu-central-1"), "aws");
    }
}
