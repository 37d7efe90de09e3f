//! What the server knows by itself: the VPC's private names and their reverse.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use ipnet::{IpNet, Ipv4Net};

use super::super::config::{IMDS_ADDRESS, PUBLIC_POOL, private_hostname};
use super::super::network::{Network, Subnet};

/// Time to live of our records in seconds.
const TTL: u32 = 60;
/// Largest datagram that we say we can take (DNS flag day 2020).
const MAX_PAYLOAD: u16 = 1232;
/// Bytes of a DNS header (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// What to do with a query.
#[derive(Debug)]
pub(super) enum Decision {
    /// Send this.
    Answer(Vec<u8>),
    /// Ask the host's resolvers; if that cannot be done, send one of these.
    Forward {
        /// "No such name", when there are no resolvers.
        no_such_name: Vec<u8>,
        /// "Try later", when they do not answer.
        failure: Vec<u8>,
    },
    /// Say nothing: not a query.
    Ignore,
}

/// The private names of a VPC.
#[derive(Debug)]
pub(super) struct Zone {
    domain: Name,
    vpc: Ipv4Net,
    names: HashMap<Name, Ipv4Addr>,
    addresses: HashMap<Ipv4Addr, Name>,
    /// Private addresses, by the public ones that mean them in here.
    public: HashMap<Ipv4Addr, Ipv4Addr>,
}

impl Zone {
    pub(super) fn new(network: &Network) -> Self {
        // What is no DNS name cannot be asked for.
        let name = |label: &str| {
            Name::from_ascii(format!("{label}.{}.", network.domain))
                .unwrap_or_default()
                .to_lowercase()
        };
        let domain = Name::from_ascii(format!("{}.", network.domain))
            .unwrap_or_default()
            .to_lowercase();
        let gateways = network.subnets.iter().map(Subnet::gateway);
        let own = gateways
            .chain([network.dns_address()])
            .map(|ip| (ip, name(&private_hostname(ip))));
        let more = network.ports.iter().flat_map(|port| &port.more);
        let more = more.map(|ip| (*ip, name(&private_hostname(*ip))));
        let addresses: HashMap<_, _> = network
            .ports
            .iter()
            .map(|port| (port.ip, name(&port.hostname)))
            .chain(more)
            .chain(own)
            .collect();
        let mut names: HashMap<_, _> = addresses
            .iter()
            .map(|(ip, name)| (name.clone(), *ip))
            .collect();
        names.insert(name("instance-data"), IMDS_ADDRESS);
        let public = network.public_pairs().filter(|_| network.hostnames);
        let public = public.map(|(private, public)| (public, private));
        Self {
            domain,
            vpc: network.cidr,
            names,
            addresses,
            public: public.collect(),
        }
    }

    /// Decides on a query's bytes, which a guest has chosen.
    pub(super) fn decide(&self, bytes: &[u8]) -> Decision {
        let Ok(query) = Message::from_vec(bytes) else {
            return match bytes {
                // A query (QR = 0) that cannot be read.
                [high, low, flags, ..] if bytes.len() >= HEADER && flags & 0x80 == 0 => {
                    let id = u16::from_be_bytes([*high, *low]);
                    reply(&Message::error_msg(
                        id,
                        OpCode::Query,
                        ResponseCode::FormErr,
                    ))
                }
                _ => Decision::Ignore,
            };
        };
        if query.metadata.message_type != MessageType::Query {
            return Decision::Ignore;
        }
        let refuse = |code| {
            let mut answer = answer_to(&query);
            answer.metadata.response_code = code;
            reply(&answer)
        };
        if query.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let [question] = &query.queries[..] else {
            return refuse(ResponseCode::FormErr);
        };
        if question.query_class() != DNSClass::IN
            || matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR)
        {
            return refuse(ResponseCode::Refused);
        }
        if let Some(answer) = self.answer(&query, question) {
            return reply(&answer);
        }
        let encode = |code| {
            let mut answer = answer_to(&query);
            answer.metadata.response_code = code;
            answer.to_vec()
        };
        match (
            encode(ResponseCode::NXDomain),
            encode(ResponseCode::ServFail),
        ) {
            (Ok(no_such_name), Ok(failure)) => Decision::Forward {
                no_such_name,
                failure,
            },
            _ => Decision::Ignore,
        }
    }

    /// The answer, if the name is ours to answer.
    fn answer(&self, query: &Message, question: &Query) -> Option<Message> {
        let name = question.name().to_lowercase();
        let record = if self.domain.zone_of(&name) {
            if name == self.domain {
                Known::NoData
            } else {
                match self.names.get(&name) {
                    Some(ip) if question.query_type() == RecordType::A => {
                        Known::Data(RData::A(A(*ip)))
                    }
                    Some(_) => Known::NoData,
                    None => Known::Nothing,
                }
            }
        } else if let Ok(IpNet::V4(net)) = name.parse_arpa_name() {
            if !self.vpc.contains(&net) && !is_link_local(net) {
                return None;
            }
            let known = (net.prefix_len() == 32)
                .then(|| self.addresses.get(&net.addr()))
                .flatten();
            match known {
                Some(name) if question.query_type() == RecordType::PTR => {
                    Known::Data(RData::PTR(PTR(name.clone())))
                }
                Some(_) => Known::NoData,
                // A shorter name of the tree may have names below it.
                None if net.prefix_len() < 32 => Known::NoData,
                None => Known::Nothing,
            }
        } else if let Some(public) = public_address(&name) {
            // Inside of its VPC the private one, so that packets need not go out and back (VPC user guide, "DNS
            // attributes for your VPC").
            let address = self.public.get(&public).copied().unwrap_or(public);
            match question.query_type() {
                RecordType::A => Known::Data(RData::A(A(address))),
                _ => Known::NoData,
            }
        } else if name.num_labels() <= 1 && !name.is_root() {
            // Nobody outside knows a name without a dot.
            Known::Nothing
        } else {
            return None;
        };
        let mut answer = answer_to(query);
        answer.metadata.authoritative = true;
        match record {
            Known::Data(data) => {
                // As asked, letter case included (draft-vixie-dnsext-dns0x20).
                answer.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
            }
            Known::NoData => {
                answer.add_authority(self.authority());
            }
            Known::Nothing => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.add_authority(self.authority());
            }
        }
        Some(answer)
    }

    /// Says for how long "no" may be remembered (RFC 2308).
    fn authority(&self) -> Record {
        let seconds = 60;
        let soa = SOA::new(
            self.domain.clone(),
            self.domain.clone(),
            1,
            seconds,
            seconds,
            seconds,
            TTL,
        );
        Record::from_rdata(self.domain.clone(), TTL, RData::SOA(soa))
    }
}

enum Known {
    Data(RData),
    NoData,
    Nothing,
}

/// The address in a public name: `ec2-100-64-0-5.compute-1.amazonaws.com` of us-east-1,
/// `ec2-100-64-0-5.eu-west-1.compute.amazonaws.com` of others. Those of Amazon's own addresses are the world's to answer.
fn public_address(name: &Name) -> Option<Ipv4Addr> {
    let text = name.to_ascii();
    let labels: Vec<&str> = text.trim_end_matches('.').split('.').collect();
    let ([host, "compute-1", "amazonaws", "com"] | [host, _, "compute", "amazonaws", "com"]) =
        labels.as_slice()
    else {
        return None;
    };
    let address = host.strip_prefix("ec2-")?.replace('-', ".").parse().ok()?;
    PUBLIC_POOL.contains(&address).then_some(address)
}

fn is_link_local(net: Ipv4Net) -> bool {
    matches!(IpAddr::V4(net.network()), IpAddr::V4(ip) if ip.is_link_local())
}

fn answer_to(query: &Message) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_queries(query.queries.iter().take(1).cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_PAYLOAD);
        answer.set_edns(edns);
    }
    answer
}

fn reply(answer: &Message) -> Decision {
    answer.to_vec().map_or(Decision::Ignore, Decision::Answer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::config::{FabricConfig, MacAddr, PortConfig};
    use super::*;

    fn zone() -> Zone {
        let ip = Ipv4Addr::new(172, 31, 0, 10);
        let port = PortConfig {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            ip,
            hostname: private_hostname(ip),
        };
        let config = FabricConfig {
            ports: vec![port],
            ..FabricConfig::default()
        };
        Zone::new(&config.network())
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(77, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn ask(message: &Message) -> Decision {
        zone().decide(&message.to_vec().unwrap())
    }

    fn answered(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let Decision::Answer(bytes) = ask(&query(name, kind)) else {
            panic!("{name}: not answered here")
        };
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((answer.metadata.id, answer.queries.len()), (77, 1));
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        (
            answer.metadata.response_code,
            answer
                .answers
                .iter()
                .map(|record| record.data.to_string())
                .collect(),
        )
    }

    #[test]
    fn private_names_and_their_reverse() {
        use ResponseCode::{NXDomain, NoError};
        for (name, kind, code, data) in [
            (
                "ip-172-31-0-10.ec2.internal.",
                RecordType::A,
                NoError,
                Some("172.31.0.10"),
            ),
            (
                "IP-172-31-0-10.EC2.Internal.",
                RecordType::A,
                NoError,
                Some("172.31.0.10"),
            ),
            (
                "ip-172-31-0-10.ec2.internal.",
                RecordType::AAAA,
                NoError,
                None,
            ),
            (
                "ip-172-31-0-11.ec2.internal.",
                RecordType::A,
                NXDomain,
                None,
            ),
            ("a.b.ec2.internal.", RecordType::A, NXDomain, None),
            ("ec2.internal.", RecordType::A, NoError, None),
            (
                "instance-data.ec2.internal.",
                RecordType::A,
                NoError,
                Some("169.254.169.254"),
            ),
            (
                "10.0.31.172.in-addr.arpa.",
                RecordType::PTR,
                NoError,
                Some("ip-172-31-0-10.ec2.internal."),
            ),
            (
                "2.0.31.172.in-addr.arpa.",
                RecordType::PTR,
                NoError,
                Some("ip-172-31-0-2.ec2.internal."),
            ),
            ("11.0.31.172.in-addr.arpa.", RecordType::PTR, NXDomain, None),
            (
                "254.169.254.169.in-addr.arpa.",
                RecordType::PTR,
                NXDomain,
                None,
            ),
            ("ip-172-31-0-10.", RecordType::A, NXDomain, None),
        ] {
            let expected = (code, data.map(str::to_owned).into_iter().collect());
            assert_eq!(answered(name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn public_names_mean_private_addresses_inside_of_their_vpc() {
        let private = Ipv4Addr::new(172, 31, 0, 10);
        let asked = |hostnames: bool, name: &str, kind| {
            let mut network = FabricConfig {
                ports: vec![PortConfig {
                    mac: MacAddr([2, 0, 0, 0, 0, 1]),
                    ip: private,
                    hostname: private_hostname(private),
                }],
                ..FabricConfig::default()
            }
            .network();
            network.hostnames = hostnames;
            network.ports[0].public = vec![(private, Ipv4Addr::new(100, 64, 0, 5))];
            let bytes = query(name, kind).to_vec().unwrap();
            match Zone::new(&network).decide(&bytes) {
                Decision::Answer(bytes) => {
                    let answer = Message::from_vec(&bytes).unwrap();
                    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
                    let data = answer.answers.iter().map(|record| record.data.to_string());
                    Some(data.collect::<Vec<_>>())
                }
                _ => None,
            }
        };
        let one = |address: &str| Some(vec![address.to_owned()]);
        let own = "ec2-100-64-0-5.compute-1.amazonaws.com.";
        assert_eq!(asked(true, own, RecordType::A), one("172.31.0.10"));
        assert_eq!(asked(true, own, RecordType::AAAA), Some(Vec::new()));
        assert_eq!(asked(false, own, RecordType::A), one("100.64.0.5"));
        let case = "EC2-100-64-0-5.EU-west-1.compute.amazonaws.com.";
        assert_eq!(asked(true, case, RecordType::A), one("172.31.0.10"));
        // Another VPC's.
        let other = "ec2-100-65-0-9.us-east-2.compute.amazonaws.com.";
        assert_eq!(asked(true, other, RecordType::A), one("100.65.0.9"));
        // Amazon's own, and what only looks like one.
        for name in [
            "ec2-54-1-2-3.compute-1.amazonaws.com.",
            "ec2-100-64-0.compute-1.amazonaws.com.",
            "ec2-100-64-0-5.compute-2.amazonaws.com.",
            "ec2-100-64-0-5.amazonaws.com.",
            "x.ec2-100-64-0-5.compute-1.amazonaws.com.",
            "100-64-0-5.compute-1.amazonaws.com.",
        ] {
            assert_eq!(asked(true, name, RecordType::A), None, "{name}");
        }
    }

    #[test]
    fn the_rest_is_forwarded_with_answers_in_reserve() {
        for name in [
            "debian.org.",
            "8.8.8.8.in-addr.arpa.",
            "xec2.internal.",
            ".",
        ] {
            let Decision::Forward {
                no_such_name,
                failure,
            } = ask(&query(name, RecordType::A))
            else {
                panic!("{name} is not ours");
            };
            let codes = [no_such_name, failure]
                .map(|bytes| Message::from_vec(&bytes).unwrap().metadata.response_code);
            assert_eq!(codes, [ResponseCode::NXDomain, ResponseCode::ServFail]);
        }
    }

    #[test]
    fn what_is_no_plain_query_is_refused_or_ignored() {
        let code = |decision| match decision {
            Decision::Answer(bytes) => {
                Some(Message::from_vec(&bytes).unwrap().metadata.response_code)
            }
            _ => None,
        };
        let mut two = query("a.b.", RecordType::A);
        two.add_query(Query::query(Name::root(), RecordType::A));
        assert_eq!(code(ask(&two)), Some(ResponseCode::FormErr));
        assert_eq!(
            code(ask(&query("a.b.", RecordType::AXFR))),
            Some(ResponseCode::Refused)
        );
        let update = Message::new(1, MessageType::Query, OpCode::Update);
        assert_eq!(code(ask(&update)), Some(ResponseCode::NotImp));
        assert!(matches!(
            ask(&query("a.b.", RecordType::A).into_response()),
            Decision::Ignore
        ));
        assert!(matches!(zone().decide(&[0; 5]), Decision::Ignore));
        let mut broken = query("a.b.", RecordType::A).to_vec().unwrap();
        broken.truncate(14);
        assert_eq!(code(zone().decide(&broken)), Some(ResponseCode::FormErr));
    }

    #[test]
    fn edns_is_answered_with_edns() {
        let mut message = query("ip-172-31-0-10.ec2.internal.", RecordType::A);
        message.set_edns(Edns::new());
        let Decision::Answer(bytes) = ask(&message) else {
            panic!("ours")
        };
        assert_eq!(
            Message::from_vec(&bytes)
                .unwrap()
                .edns
                .unwrap()
                .max_payload(),
            MAX_PAYLOAD
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = zone().decide(&bytes);
        }

        #[test]
        fn any_damage_is_survived(at in 0usize..60, value: u8, cut in 0usize..60) {
            let mut bytes = query("10.0.31.172.in-addr.arpa.", RecordType::PTR).to_vec().unwrap();
            let length = bytes.len();
            bytes[at % length] = value;
            bytes.truncate(length - cut % length);
            let _ = zone().decide(&bytes);
        }
    }
}
