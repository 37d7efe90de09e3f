//! What is said on the router's socket: JSON lines, one reply a request.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::fabric::network::Network;
use crate::fabric::{Answers, UplinkState};

/// Name of the router's socket in the state folder.
pub(super) const SOCKET: &str = "router.sock";

/// What both ends must have in common. The number goes up with every change of the messages below and of what they
/// carry; the program's version counts, too, since what it does with the same messages may be another thing.
pub(super) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), ", messages 1");

/// A request line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Request {
    /// The first one: who asks.
    Hello {
        /// [`VERSION`] of the other end.
        version: String,
    },
    /// Make the VPCs' networks these, and read again what the metadata service says of their instances.
    Apply {
        /// All of them.
        networks: Vec<Network>,
    },
    /// Where a VPC's network is.
    Find {
        /// `vpc-…`.
        network: String,
    },
    /// Whether guests reach the outside.
    Uplink,
    /// Which guests answer ARP.
    Answers,
}

/// A reply line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(super) enum Reply {
    /// Who answers.
    Hello {
        /// [`VERSION`] of the router.
        version: String,
    },
    /// Done.
    Done,
    /// The network is in this namespace.
    Found {
        /// The router's process.
        pid: u32,
        /// Its descriptor of the network namespace.
        net: RawFd,
    },
    /// How it stands with the way to the outside.
    Uplink {
        /// As the fabric tells it.
        state: UplinkState,
    },
    /// Which guests answer ARP.
    Answers {
        /// By instance; those that are plugged in.
        answers: BTreeMap<String, Answers>,
    },
    /// It cannot be done.
    Refused {
        /// Why.
        error: Error,
    },
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;
    use crate::fabric::network::{
        Options, Outside, Peer, Port, Route, Rule, Subnet, Target, Traffic,
    };
    use crate::fabric::{MacAddr, Reachability};

    #[test]
    fn what_is_said_changes_with_the_version_only() {
        let ip = Ipv4Addr::new(10, 0, 0, 10);
        let network = Network {
            id: "vpc-1".to_owned(),
            cidr: "10.0.0.0/16".parse().unwrap(),
            domain: "ec2.internal".to_owned(),
            dns: true,
            hostnames: true,
            options: Options::default(),
            mtu: 9001,
            subnets: vec![Subnet {
                bridge: "s1".to_owned(),
                cidr: "10.0.0.0/24".parse().unwrap(),
                routes: vec![Route {
                    destination: "0.0.0.0/0".parse().unwrap(),
                    target: Target::Port(ip),
                }],
            }],
            ports: vec![Port {
                tap: "e1".to_owned(),
                bridge: "s1".to_owned(),
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                ip,
                more: Vec::new(),
                public: vec![(ip, Ipv4Addr::new(100, 64, 0, 1))],
                hostname: "ip-10-0-0-10".to_owned(),
                groups: vec!["sg-1".to_owned()],
                checked: true,
                instance: Some("i-1".to_owned()),
                primary: true,
            }],
            groups: BTreeMap::from([(
                "sg-1".to_owned(),
                vec![Rule {
                    egress: false,
                    traffic: Traffic::Tcp(22, 22),
                    peer: Peer::Group("sg-1".to_owned()),
                }],
            )]),
            outside: Outside::OneToOne,
        };
        let networks = vec![network];
        let said = serde_json::to_value(Request::Apply { networks }).unwrap();
        let answers = Answers {
            tap: 7,
            state: Reachability::Passed,
        };
        let answers = BTreeMap::from([("i-1".to_owned(), answers)]);
        let answered = serde_json::to_value(Reply::Answers { answers }).unwrap();
        let why = "the messages have changed: raise the number in VERSION, and change this test";
        assert!(VERSION.ends_with(", messages 1"), "{why}");
        let network = json!({
            "id": "vpc-1", "cidr": "10.0.0.0/16", "domain": "ec2.internal", "dns": true, "hostnames": true, "mtu": 9001,
            "options": {"domain": null, "dns": [], "ntp": [], "netbios": [], "netbios_node": null},
            "subnets": [{"bridge": "s1", "cidr": "10.0.0.0/24", "routes": [
                {"destination": "0.0.0.0/0", "target": {"Port": "10.0.0.10"}},
            ]}],
            "ports": [{
                "tap": "e1", "bridge": "s1", "mac": [2, 0, 0, 0, 0, 1], "ip": "10.0.0.10", "more": [],
                "public": [["10.0.0.10", "100.64.0.1"]], "hostname": "ip-10-0-0-10", "groups": ["sg-1"],
                "checked": true, "instance": "i-1", "primary": true,
            }],
            "groups": {"sg-1": [{"egress": false, "traffic": {"Tcp": [22, 22]}, "peer": {"Group": "sg-1"}}]},
            "outside": "OneToOne",
        });
        assert_eq!(said, json!({"op": "apply", "networks": [network]}), "{why}");
        let answers = json!({"i-1": {"tap": 7, "state": "Passed"}});
        assert_eq!(
            answered,
            json!({"reply": "answers", "answers": answers}),
            "{why}"
        );
    }
}
