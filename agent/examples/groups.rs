//! How long a changed rule of a security group takes until packets meet it, with 50 running instances: `cargo xtask bench groups`.
//!
//! Makes a VPC's network of 50 ports in 5 security groups, as the router has it, in namespaces of its own; changes one
//! rule, again and again; prints the time that each change took until the kernel had it.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cumulet_agent::fabric::network::{
    Network, Options, Outside, Peer, Port, Route, Rule, Subnet, Target, Traffic,
};
use cumulet_agent::fabric::{EnterConfig, MacAddr, Shared, UplinkMode, enter, private_hostname};
use ipnet::Ipv4Net;

const PORTS: u8 = 50;
const GROUPS: u8 = 5;
const RULES: u16 = 20;
const CHANGES: u16 = 40;

fn main() -> Result<(), Box<dyn Error>> {
    let config = EnterConfig {
        uplink: UplinkMode::None,
        ..EnterConfig::default()
    };
    let entered = enter(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut times = runtime.block_on(async {
        let mut shared = Shared::start(entered).await?;
        shared.apply(vec![network(0)?]).await?;
        let mut times = Vec::new();
        for change in 1..=CHANGES {
            let network = network(change)?;
            let start = Instant::now();
            shared.apply(vec![network]).await?;
            times.push(start.elapsed());
        }
        Ok::<_, Box<dyn Error>>(times)
    })?;
    times.sort_unstable();
    let millis = |at: usize| times.get(at).map_or(0.0, Duration::as_secs_f64) * 1000.0;
    println!(
        "a rule changed, {PORTS} instances, {CHANGES} times: min {:.1} ms, median {:.1} ms, max {:.1} ms",
        millis(0),
        millis(times.len() / 2),
        millis(times.len().saturating_sub(1)),
    );
    Ok(())
}

/// The network after so many changes of one rule.
fn network(change: u16) -> Result<Network, Box<dyn Error>> {
    let anywhere: Ipv4Net = "0.0.0.0/0".parse()?;
    let name = |group: u8| format!("sg-{group}");
    let rule = |egress, traffic, peer| Rule {
        egress,
        traffic,
        peer,
    };
    let rules = |group: u8| {
        let mut rules = vec![rule(true, Traffic::All, Peer::Range(anywhere))];
        rules.extend((0..RULES).map(|number| {
            let port = 1000 + number;
            let peer = if number % 2 == 0 {
                Peer::Range(anywhere)
            } else {
                Peer::Group(name((group + 1) % GROUPS))
            };
            rule(false, Traffic::Tcp(port, port), peer)
        }));
        let port = 5000 + change;
        rules.push(rule(false, Traffic::Tcp(port, port), Peer::Range(anywhere)));
        rules
    };
    let port = |number: u8| {
        let ip = Ipv4Addr::new(10, 0, 0, 10 + number);
        Port {
            tap: format!("e{number}"),
            bridge: "s0".to_owned(),
            mac: MacAddr([2, 0, 0, 0, 0, number]),
            ip,
            more: Vec::new(),
            public: vec![(ip, Ipv4Addr::new(100, 64, 0, 10 + number))],
            hostname: private_hostname(ip),
            groups: vec![name(number % GROUPS), name((number / GROUPS) % GROUPS)],
            checked: true,
            instance: None,
            primary: true,
        }
    };
    Ok(Network {
        id: "vpc-0".to_owned(),
        cidr: "10.0.0.0/16".parse()?,
        domain: "ec2.internal".to_owned(),
        dns: true,
        hostnames: true,
        options: Options::default(),
        mtu: 9001,
        subnets: vec![Subnet {
            bridge: "s0".to_owned(),
            cidr: "10.0.0.0/24".parse()?,
            routes: vec![Route {
                destination: anywhere,
                target: Target::Outside,
            }],
        }],
        ports: (0..PORTS).map(port).collect(),
        groups: (0..GROUPS)
            .map(|group| (name(group), rules(group)))
            .collect(),
        outside: Outside::OneToOne,
    })
}
