//! `IpPermission`: EC2's older form of rules, several in one, and the flat form of one.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;

use super::super::network::cidr;
use super::super::security_groups::named;
use crate::api::ApiError;
use crate::api::shapes::security_groups::*;
use crate::cloud::net::{Peer, SecurityGroup, SecurityGroupRule, Traffic};
use crate::cloud::{Identity, Region};

/// What a request says of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) traffic: Traffic,
    pub(super) peer: Peer,
    pub(super) description: Option<String>,
}

/// The flat form: one rule, without a structure.
#[derive(Debug, Default)]
pub(super) struct Flat {
    pub(super) cidr_ip: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) from_port: Option<i32>,
    pub(super) to_port: Option<i32>,
    pub(super) source_name: Option<String>,
    pub(super) source_owner: Option<String>,
}

impl Flat {
    fn is_empty(&self) -> bool {
        self.cidr_ip.is_none()
            && self.protocol.is_none()
            && self.from_port.is_none()
            && self.to_port.is_none()
            && self.source_name.is_none()
    }

    /// As a permission. A group named without a protocol means all that its members send.
    fn permission(self) -> IpPermissionInput {
        let whole = self.source_name.is_some() && self.protocol.is_none();
        IpPermissionInput {
            ip_protocol: if whole {
                Some("-1".to_owned())
            } else {
                self.protocol
            },
            from_port: self.from_port,
            to_port: self.to_port,
            user_id_group_pairs: self
                .source_name
                .into_iter()
                .map(|name| UserIdGroupPairInput {
                    group_name: Some(name),
                    user_id: self.source_owner.clone(),
                    ..UserIdGroupPairInput::default()
                })
                .collect(),
            ip_ranges: self
                .cidr_ip
                .into_iter()
                .map(|cidr_ip| IpRangeInput {
                    cidr_ip: Some(cidr_ip),
                    description: None,
                })
                .collect(),
            ..IpPermissionInput::default()
        }
    }
}

/// The permissions of a request in either form.
pub(super) fn either(
    permissions: Vec<IpPermissionInput>,
    flat: Flat,
) -> Result<Vec<IpPermissionInput>, ApiError> {
    match (permissions.is_empty(), flat.is_empty()) {
        (false, true) => Ok(permissions),
        (true, false) => Ok(vec![flat.permission()]),
        (false, false) => Err(ApiError::combination(
            "The parameter ipPermissions may not be used with the parameters of a single permission",
        )),
        (true, true) => Err(ApiError::new(
            "MissingParameter",
            "Either 'ipPermissions' or 'securityGroupRuleIds' should be provided.",
        )),
    }
}

/// The single rules of permissions, for a group.
pub(super) fn expand(
    region: &Region,
    identity: &Identity,
    group: &SecurityGroup,
    permissions: &[IpPermissionInput],
) -> Result<Vec<Said>, ApiError> {
    let mut all = Vec::new();
    for permission in permissions {
        let traffic = traffic(permission)?;
        let mut add = |peer, description: &Option<String>| -> Result<(), ApiError> {
            all.push(Said {
                traffic: traffic.clone(),
                peer,
                description: checked(description.clone())?,
            });
            Ok(())
        };
        for range in &permission.ip_ranges {
            let text = range.cidr_ip.as_deref().unwrap_or_default();
            let block = cidr("cidrIp", text).map_err(|_| malformed(text))?;
            add(Peer::Ipv4(block), &range.description)?;
        }
        for range in &permission.ipv6_ranges {
            let text = range.cidr_ipv6.as_deref().unwrap_or_default();
            let block: Ipv6Net = text.parse().map_err(|_| malformed(text))?;
            add(Peer::Ipv6(block.trunc()), &range.description)?;
        }
        for pair in &permission.user_id_group_pairs {
            add(
                peer_group(region, identity, group, pair)?,
                &pair.description,
            )?;
        }
        if let Some(list) = permission.prefix_list_ids.first() {
            let id = list.prefix_list_id.as_deref().unwrap_or_default();
            return Err(ApiError::new(
                "InvalidPrefixListID.NotFound",
                format!("The prefix list ID '{id}' does not exist"),
            ));
        }
        let nobody = permission.ip_ranges.is_empty()
            && permission.ipv6_ranges.is_empty()
            && permission.user_id_group_pairs.is_empty();
        if nobody {
            return Err(ApiError::missing("CidrIp, CidrIpv6, or a source group"));
        }
    }
    Ok(all)
}

fn malformed(text: &str) -> ApiError {
    ApiError::new(
        "InvalidParameterValue",
        format!("CIDR block {text} is malformed"),
    )
}

/// A description that EC2 takes (EC2 API reference, `IpRange`).
pub(super) fn checked(description: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(text) = description.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    if text.chars().count() > 255 || !text.chars().all(fits) {
        return Err(ApiError::new(
            "InvalidParameterValue",
            "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
        ));
    }
    Ok(Some(text))
}

fn peer_group(
    region: &Region,
    identity: &Identity,
    group: &SecurityGroup,
    pair: &UserIdGroupPairInput,
) -> Result<Peer, ApiError> {
    if pair.vpc_peering_connection_id.is_some() {
        return Err(ApiError::unsupported(
            "The parameter VpcPeeringConnectionId is for something that cumulet does not have",
        ));
    }
    let peer = match (&pair.group_id, &pair.group_name) {
        (None, Some(name)) => {
            let mut groups = region.security_groups.iter();
            let own = groups.find(|one| one.vpc_id == group.vpc_id && one.group_name == *name);
            match own {
                Some(own) => own,
                None => named(region, None, Some(name))?,
            }
        }
        (id, name) => named(region, id.as_deref(), name.as_deref())?,
    };
    let foreign = pair
        .user_id
        .as_ref()
        .is_some_and(|account| *account != identity.account);
    if foreign {
        let id = pair.group_id.as_ref().or(pair.group_name.as_ref());
        return Err(ApiError::new(
            "InvalidGroup.NotFound",
            format!(
                "The security group '{}' does not exist",
                id.map_or("", String::as_str)
            ),
        ));
    }
    if peer.vpc_id != group.vpc_id {
        return Err(ApiError::new(
            "InvalidGroup.NotFound",
            "You have specified two resources that belong to different networks.",
        ));
    }
    Ok(Peer::Group(peer.group_id.clone()))
}

fn traffic(permission: &IpPermissionInput) -> Result<Traffic, ApiError> {
    let Some(text) = permission.ip_protocol.as_deref() else {
        return Err(ApiError::missing("IpProtocol"));
    };
    let (from, to) = (permission.from_port, permission.to_port);
    let wrong = |message: String| Err(ApiError::new("InvalidParameterValue", message));
    let protocol = match text.to_ascii_lowercase().as_str() {
        "tcp" | "6" => "tcp",
        "udp" | "17" => "udp",
        "icmp" | "1" => "icmp",
        "icmpv6" | "58" => "icmpv6",
        "-1" | "all" => "-1",
        other => match other.parse::<u8>() {
            Ok(number) => {
                return Ok(Traffic {
                    protocol: number.to_string(),
                    from_port: None,
                    to_port: None,
                });
            }
            Err(_) => {
                return wrong(format!(
                    "Invalid value '{text}' for IP protocol. Unknown protocol."
                ));
            }
        },
    };
    let (from_port, to_port) = match protocol {
        "-1" => (None, None),
        "tcp" | "udp" => match (from, to) {
            // All ports, as old clients say it.
            (Some(-1) | Some(0), Some(-1)) => (Some(0), Some(65535)),
            (Some(from), Some(to)) => {
                for port in [from, to] {
                    if !(0..=65535).contains(&port) {
                        return wrong(format!("TCP/UDP port ({port}) out of range"));
                    }
                }
                if from > to {
                    return wrong(format!("Invalid TCP/UDP port range ({from}:{to})"));
                }
                (Some(from), Some(to))
            }
            _ => {
                return wrong(
                    "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange."
                        .to_owned(),
                );
            }
        },
        // Type and code.
        _ => {
            let (kind, code) = (from.unwrap_or(-1), to.unwrap_or(-1));
            if !(-1..=255).contains(&kind) {
                return wrong(format!("ICMP type ({kind}) out of range"));
            }
            if !(-1..=255).contains(&code) || (kind == -1 && code != -1) {
                return wrong(format!("ICMP code ({code}) out of range"));
            }
            (Some(kind), Some(code))
        }
    };
    Ok(Traffic {
        protocol: protocol.to_owned(),
        from_port,
        to_port,
    })
}

/// Rules as EC2's older form shows them: one permission a protocol and port range.
pub(in super::super) fn permissions<'a>(
    rules: impl Iterator<Item = &'a SecurityGroupRule>,
    identity: &Identity,
) -> Vec<IpPermissionView> {
    let mut all: BTreeMap<&Traffic, IpPermissionView> = BTreeMap::new();
    for rule in rules {
        let permission = all
            .entry(&rule.traffic)
            .or_insert_with(|| IpPermissionView {
                ip_protocol: Some(rule.traffic.protocol.clone()),
                from_port: rule.traffic.from_port,
                to_port: rule.traffic.to_port,
                ..IpPermissionView::default()
            });
        add_peer(permission, &rule.peer, rule.description.clone(), identity);
    }
    all.into_values().collect()
}

fn add_peer(
    permission: &mut IpPermissionView,
    peer: &Peer,
    description: Option<String>,
    identity: &Identity,
) {
    match peer {
        Peer::Ipv4(block) => permission.ip_ranges.push(IpRangeView {
            description,
            cidr_ip: Some(block.to_string()),
        }),
        Peer::Ipv6(block) => permission.ipv6_ranges.push(Ipv6RangeView {
            description,
            cidr_ipv6: Some(block.to_string()),
        }),
        Peer::Group(id) => permission.user_id_group_pairs.push(UserIdGroupPairView {
            description,
            user_id: Some(identity.account.clone()),
            group_id: Some(id.clone()),
            ..UserIdGroupPairView::default()
        }),
    }
}

/// A rule's values of `ip-permission.ATTRIBUTE`; `None`: there is no such filter.
pub(in super::super) fn permission_values(
    region: &Region,
    identity: &Identity,
    attribute: &str,
    rule: Option<&SecurityGroupRule>,
) -> Option<Vec<String>> {
    const KNOWN: [&str; 9] = [
        "cidr",
        "from-port",
        "group-id",
        "group-name",
        "ipv6-cidr",
        "prefix-list-id",
        "protocol",
        "to-port",
        "user-id",
    ];
    if !KNOWN.contains(&attribute) {
        return None;
    }
    let value = rule.and_then(|rule| match (attribute, &rule.peer) {
        ("cidr", Peer::Ipv4(block)) => Some(block.to_string()),
        ("ipv6-cidr", Peer::Ipv6(block)) => Some(block.to_string()),
        ("group-id", Peer::Group(id)) => Some(id.clone()),
        ("group-name", Peer::Group(id)) => {
            let group = region.security_groups.get(id)?;
            Some(group.group_name.clone())
        }
        ("user-id", Peer::Group(_)) => Some(identity.account.clone()),
        ("protocol", _) => Some(rule.traffic.protocol.clone()),
        ("from-port", _) => rule.traffic.from_port.map(|port| port.to_string()),
        ("to-port", _) => rule.traffic.to_port.map(|port| port.to_string()),
        _ => None,
    });
    Some(value.into_iter().collect())
}
