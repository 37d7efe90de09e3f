//! VPCs on real packets: routing, security groups, public addresses, the source/destination check.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use cumulet_agent::fabric::network::{
    Network, Options, Outside, Peer, Port, Route, Rule, Subnet, Target, Traffic,
};
use cumulet_agent::fabric::{MacAddr, Shared, private_hostname};
use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns};

use crate::cases::{closed, inside};
use crate::guest::{Guest, make_tap};
use crate::outer::sh;

/// How long a connection that nobody refuses is tried.
const PATIENCE: Duration = Duration::from_secs(4);

/// Enters, starts the shared network and runs the test on it.
pub(crate) fn on_shared<F: Future<Output = ()>>(test: impl FnOnce(Shared) -> F) {
    inside(&closed(), async |entered| {
        let shared = Shared::start(entered).await.expect("start");
        test(shared).await;
    });
}

fn net(text: &str) -> Ipv4Net {
    text.parse().expect("a range")
}

pub(crate) fn address(subnet: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, subnet, host)
}

pub(crate) fn public(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 0, last)
}

fn bridge(vpc: char, subnet: u8) -> String {
    format!("s{vpc}{subnet}")
}

/// A port of a subnet in this VPC.
pub(crate) fn port(vpc: char, subnet: u8, host: u8, group: &str) -> Port {
    Port {
        tap: format!("e{vpc}{subnet}x{host}"),
        bridge: bridge(vpc, subnet),
        mac: MacAddr([2, 0, 0, u8::from(vpc == 'b'), subnet, host]),
        ip: address(subnet, host),
        more: Vec::new(),
        public: Vec::new(),
        hostname: private_hostname(address(subnet, host)),
        groups: vec![group.to_owned()],
        checked: true,
        instance: None,
        primary: true,
    }
}

pub(crate) fn rule(egress: bool, traffic: Traffic, peer: Peer) -> Rule {
    Rule {
        egress,
        traffic,
        peer,
    }
}

pub(crate) fn anywhere() -> Peer {
    Peer::Range(net("0.0.0.0/0"))
}

fn all_out() -> Rule {
    rule(true, Traffic::All, anywhere())
}

/// 10.0.0.0/16 with the subnets 10.0.0.0/24, which leads outside, and 10.0.1.0/24, which does not. Group `web` takes
/// port 80 from everybody, group `db` port 5432 from `web`.
pub(crate) fn network(vpc: char, ports: Vec<Port>) -> Network {
    let subnet = |number: u8, routes| Subnet {
        bridge: bridge(vpc, number),
        cidr: net(&format!("10.0.{number}.0/24")),
        routes,
    };
    let out = Route {
        destination: net("0.0.0.0/0"),
        target: Target::Outside,
    };
    let web = vec![all_out(), rule(false, Traffic::Tcp(80, 80), anywhere())];
    let from_web = Peer::Group("web".to_owned());
    let db = vec![all_out(), rule(false, Traffic::Tcp(5432, 5432), from_web)];
    Network {
        id: format!("vpc-{vpc}"),
        cidr: net("10.0.0.0/16"),
        domain: "ec2.internal".to_owned(),
        dns: true,
        hostnames: true,
        options: Options::default(),
        mtu: 9001,
        subnets: vec![subnet(0, vec![out]), subnet(1, Vec::new())],
        ports,
        groups: [("web".to_owned(), web), ("db".to_owned(), db)].into(),
        outside: Outside::OneToOne,
    }
}

/// A guest on a port that the network has.
pub(crate) async fn boot(shared: &Shared, network: &Network, ip: Ipv4Addr) -> Guest {
    let port = network
        .ports
        .iter()
        .find(|port| port.ip == ip)
        .expect("a port")
        .clone();
    let fd = shared.namespace(&network.id).expect("a namespace");
    let namespace = File::open(format!("/proc/self/fd/{fd}")).expect("open it");
    let [_, _, subnet, _] = ip.octets();
    let mac = port.mac;
    let guest = Guest::on_cable(plug(namespace.into(), &port), mac);
    let prepared = guest.run(move || {
        sh(&format!(
            "ip addr add {ip}/24 dev eth0; ip route add default via 10.0.{subnet}.1"
        ));
    });
    prepared.await;
    guest
}

/// Makes the tap of a port and plugs it in, as a supervisor does.
pub(crate) fn plug(namespace: OwnedFd, port: &Port) -> OwnedFd {
    let (tap, bridge, mac) = (port.tap.clone(), port.bridge.clone(), port.mac);
    let made = thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("enter the VPC");
        let fd = make_tap(&tap);
        sh(&format!(
            "ip link set {tap} mtu 9001 master {bridge}; \
             bridge link set dev {tap} isolated on learning off flood off; \
             bridge fdb add {mac} dev {tap} master static; ip link set {tap} up"
        ));
        assert!(fd.as_raw_fd() > 0);
        fd
    });
    made.join().expect("plug")
}

/// Serves its clients' addresses and then what they send, back to them.
pub(crate) async fn serve(guest: &Guest, ip: Ipv4Addr, port: u16) {
    let listening = guest.run(move || {
        let listener = TcpListener::bind((ip, port)).expect("listen");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accept");
                thread::spawn(move || {
                    let peer = stream.peer_addr().expect("a peer").ip();
                    writeln!(stream, "{peer}").expect("greet");
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
    });
    listening.await;
}

/// A connection and the greeting, or how it failed.
pub(crate) async fn ask(
    guest: &Guest,
    to: Ipv4Addr,
    port: u16,
) -> Result<(TcpStream, String), ErrorKind> {
    let asked = guest.run(move || {
        let address = SocketAddr::V4(SocketAddrV4::new(to, port));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let greeting = read_line(&mut stream);
        Ok((stream, greeting))
    });
    asked.await.map_err(|error: std::io::Error| error.kind())
}

pub(crate) fn read_line(stream: &mut TcpStream) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && byte != *b"\n" {
        line.push(char::from(byte[0]));
    }
    line
}

pub(crate) async fn greeting(guest: &Guest, to: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
    ask(guest, to, port).await.map(|(_, greeting)| greeting)
}

pub(crate) const SILENCE: Result<String, ErrorKind> = Err(ErrorKind::TimedOut);

pub(crate) fn security_groups() {
    on_shared(async |mut shared| {
        let ports = vec![
            port('a', 0, 10, "web"),
            port('a', 0, 11, "db"),
            port('a', 1, 10, "db"),
        ];
        let network = network('a', ports);
        shared.apply(vec![network.clone()]).await.expect("apply");
        let [web, db, far] = [address(0, 10), address(0, 11), address(1, 10)];
        let web_guest = boot(&shared, &network, web).await;
        let db_guest = boot(&shared, &network, db).await;
        let far_guest = boot(&shared, &network, far).await;
        serve(&web_guest, web, 80).await;
        serve(&web_guest, web, 81).await;
        serve(&db_guest, db, 5432).await;
        serve(&far_guest, far, 5432).await;
        // In the subnet and across subnets, seen with the own address.
        assert_eq!(greeting(&web_guest, db, 5432).await, Ok(web.to_string()));
        assert_eq!(greeting(&web_guest, far, 5432).await, Ok(web.to_string()));
        assert_eq!(greeting(&far_guest, web, 80).await, Ok(far.to_string()));
        // A port that no rule names, and a member of another group than the rule's.
        assert_eq!(greeting(&db_guest, web, 81).await, SILENCE);
        assert_eq!(greeting(&far_guest, db, 5432).await, SILENCE);
        // Membership counts at once.
        let mut joined = network.clone();
        joined.ports[2].groups.push("web".to_owned());
        shared.apply(vec![joined]).await.expect("apply");
        assert_eq!(greeting(&far_guest, db, 5432).await, Ok(far.to_string()));
        // So does what may go out.
        let mut quiet = network.clone();
        let narrow = rule(true, Traffic::Tcp(5432, 5432), Peer::Group("db".to_owned()));
        if let Some(rules) = quiet.groups.get_mut("web") {
            rules[0] = narrow;
        }
        quiet.ports[2].groups = vec!["web".to_owned()];
        shared.apply(vec![quiet]).await.expect("apply");
        assert_eq!(greeting(&web_guest, db, 5432).await, Ok(web.to_string()));
        assert_eq!(greeting(&web_guest, far, 80).await, SILENCE);
        // Ping is a rule of its own; the gateway answers everybody.
        let ping = |to: Ipv4Addr| {
            web_guest.run(move || {
                let mut ping = std::process::Command::new("busybox");
                let to = to.to_string();
                let status = ping.args(["ping", "-c", "1", "-W", "4", &to]).output();
                status.expect("ping").status.success()
            })
        };
        assert!(ping(address(0, 1)).await);
        assert!(!ping(db).await);
        let mut pinged = network.clone();
        if let Some(rules) = pinged.groups.get_mut("db") {
            rules.push(rule(false, Traffic::Icmp(Some(8), None), anywhere()));
        }
        shared.apply(vec![pinged]).await.expect("apply");
        assert!(ping(db).await);
    });
}

pub(crate) fn revoked() {
    on_shared(async |mut shared| {
        let ports = vec![port('a', 0, 10, "web"), port('a', 0, 11, "db")];
        let network = network('a', ports);
        shared.apply(vec![network.clone()]).await.expect("apply");
        let [web, db] = [address(0, 10), address(0, 11)];
        let web_guest = boot(&shared, &network, web).await;
        let db_guest = boot(&shared, &network, db).await;
        serve(&web_guest, web, 80).await;
        let (mut established, _) = ask(&db_guest, web, 80).await.expect("allowed");
        let mut closed = network.clone();
        if let Some(rules) = closed.groups.get_mut("web") {
            rules.retain(|rule| rule.egress);
        }
        shared.apply(vec![closed]).await.expect("apply");
        assert_eq!(greeting(&db_guest, web, 80).await, SILENCE);
        // As on EC2, what is established lives on.
        established.write_all(b"x").expect("write");
        let mut echo = [0];
        established.read_exact(&mut echo).expect("the echo");
        assert_eq!(echo, *b"x");
        shared.apply(vec![network]).await.expect("apply");
        assert_eq!(greeting(&db_guest, web, 80).await, Ok(db.to_string()));
    });
}

pub(crate) fn public_addresses() {
    on_shared(async |mut shared| {
        let with_public = |mut port: Port, last: u8| {
            port.public = vec![(port.ip, public(last))];
            port
        };
        let a = network(
            'a',
            vec![
                with_public(port('a', 0, 10, "web"), 10),
                port('a', 0, 12, "web"),
                with_public(port('a', 1, 10, "web"), 11),
            ],
        );
        // The same private address in another VPC.
        let b = network('b', vec![with_public(port('b', 0, 10, "web"), 20)]);
        shared
            .apply(vec![a.clone(), b.clone()])
            .await
            .expect("apply");
        let [one, plain, inner] = [address(0, 10), address(0, 12), address(1, 10)];
        let a_guest = boot(&shared, &a, one).await;
        let plain_guest = boot(&shared, &a, plain).await;
        let inner_guest = boot(&shared, &a, inner).await;
        let b_guest = boot(&shared, &b, one).await;
        serve(&a_guest, one, 80).await;
        serve(&b_guest, one, 80).await;
        serve(&inner_guest, inner, 80).await;
        // Each sees the other's public address.
        assert_eq!(
            greeting(&a_guest, public(20), 80).await,
            Ok(public(10).to_string())
        );
        assert_eq!(
            greeting(&b_guest, public(10), 80).await,
            Ok(public(20).to_string())
        );
        // A port that the group does not name.
        assert_eq!(greeting(&b_guest, public(10), 81).await, SILENCE);
        // Its own VPC's public addresses lead out and back in.
        assert_eq!(
            greeting(&a_guest, public(10), 80).await,
            Ok(public(10).to_string())
        );
        // Without a public address, or without a route, there is no way out, nor in.
        assert_eq!(greeting(&plain_guest, public(20), 80).await, SILENCE);
        assert!(greeting(&inner_guest, public(20), 80).await.is_err());
        assert!(greeting(&b_guest, public(11), 80).await.is_err());
        // Private addresses do not lead from VPC to VPC: the plain one is not there.
        assert!(greeting(&b_guest, plain, 80).await.is_err());
        // An address moves.
        let (mut a2, mut b2) = (a.clone(), b.clone());
        a2.ports[0].public.clear();
        b2.ports[0].public = vec![(one, public(10))];
        a2.ports[1].public = vec![(plain, public(20))];
        shared.apply(vec![a2, b2]).await.expect("apply");
        assert_eq!(
            greeting(&plain_guest, public(10), 80).await,
            Ok(public(20).to_string())
        );
        // A VPC that is gone leaves nothing.
        shared.apply(vec![b]).await.expect("apply");
        let links = crate::outer::output_of("ip -o link");
        assert!(!links.contains("va"), "{links}");
    });
}

pub(crate) fn from_the_host() {
    let host = File::open("/proc/self/ns/net").expect("the host's network");
    let before = crate::outer::output_of("ip -o addr; ip route");
    on_shared(async |mut shared| {
        let mut web = port('a', 0, 10, "web");
        web.public = vec![(web.ip, public(10))];
        let a = network('a', vec![web]);
        shared.apply(vec![a.clone()]).await.expect("apply");
        let guest = boot(&shared, &a, address(0, 10)).await;
        serve(&guest, address(0, 10), 80).await;
        let on_host = |job: Box<dyn FnOnce() -> Result<String, ErrorKind> + Send>| {
            let host = host.try_clone().expect("copy");
            let done = thread::spawn(move || {
                setns(&host, CloneFlags::CLONE_NEWNET).expect("back to the host");
                job()
            });
            done.join().expect("no panic")
        };
        let from_host = |port: u16| {
            on_host(Box::new(move || {
                let to = SocketAddr::V4(SocketAddrV4::new(public(10), port));
                let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|e| e.kind())?;
                Ok(read_line(&mut stream))
            }))
        };
        let seen = from_host(80).expect("the host gets through");
        assert_eq!(seen, "100.127.255.255");
        assert_eq!(from_host(81), SILENCE);
        // Nobody gets from there to the host.
        let listening = on_host(Box::new(|| {
            let listener = TcpListener::bind("0.0.0.0:7070").expect("listen");
            thread::spawn(move || listener.incoming().map(drop).for_each(drop));
            Ok(String::new())
        }));
        listening.expect("listening");
        let host_address = Ipv4Addr::new(100, 127, 255, 255);
        assert!(greeting(&guest, host_address, 7070).await.is_err());
        // Addresses that are gone are not led anywhere.
        let mut none = a.clone();
        none.ports[0].public.clear();
        shared.apply(vec![none]).await.expect("apply");
        let routes = on_host(Box::new(|| Ok(crate::outer::output_of("ip route"))));
        let routes = routes.expect("routes");
        assert!(!routes.contains("100.64."), "{routes}");
    });
    assert!(!before.contains("100.64."), "{before}");
}

pub(crate) fn routed_through_an_instance() {
    on_shared(async |mut shared| {
        let mut a = network(
            'a',
            vec![
                port('a', 0, 10, "web"),
                port('a', 0, 20, "router"),
                port('a', 1, 10, "web"),
            ],
        );
        let everything = vec![all_out(), rule(false, Traffic::All, anywhere())];
        a.groups.insert("router".to_owned(), everything);
        // The instance answers for a range that is none of the VPC's.
        let far = Ipv4Addr::new(192, 0, 2, 1);
        for subnet in &mut a.subnets {
            subnet.routes.push(Route {
                destination: net("192.0.2.0/24"),
                target: Target::Port(address(0, 20)),
            });
        }
        shared.apply(vec![a.clone()]).await.expect("apply");
        let guest = boot(&shared, &a, address(0, 10)).await;
        let other = boot(&shared, &a, address(1, 10)).await;
        let router = boot(&shared, &a, address(0, 20)).await;
        router.run(|| sh("ip addr add 192.0.2.1/32 dev lo")).await;
        serve(&router, far, 80).await;
        // With the check the router may not answer in another's name.
        assert_eq!(greeting(&guest, far, 80).await, SILENCE);
        a.ports[1].checked = false;
        shared.apply(vec![a.clone()]).await.expect("apply");
        assert_eq!(
            greeting(&guest, far, 80).await,
            Ok(address(0, 10).to_string())
        );
        assert_eq!(
            greeting(&other, far, 80).await,
            Ok(address(1, 10).to_string())
        );
        // Not for the metadata service, which tells instances by their addresses.
        let forged = router.run(move || {
            sh("ip addr add 10.0.0.10/32 dev lo");
            let socket = std::net::UdpSocket::bind(("10.0.0.10", 0)).expect("bind");
            socket.set_read_timeout(Some(PATIENCE)).expect("time limit");
            // A question to the DNS server in another's name.
            let question =
                b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x0dinstance-data\x03ec2\x08internal\0\0\x01\0\x01";
            let _ = socket.send_to(question, ("169.254.169.253", 53));
            socket.recv(&mut [0; 512]).is_ok()
        });
        assert!(!forged.await);
    });
}

pub(crate) fn adopted() {
    on_shared(async |mut shared| {
        let ports = vec![port('a', 0, 10, "web"), port('a', 0, 11, "db")];
        let a = network('a', ports);
        shared.apply(vec![a.clone()]).await.expect("apply");
        let [web, db] = [address(0, 10), address(0, 11)];
        let web_guest = boot(&shared, &a, web).await;
        let db_guest = boot(&shared, &a, db).await;
        serve(&web_guest, web, 80).await;
        let (mut established, _) = ask(&db_guest, web, 80).await.expect("allowed");
        let fd = shared.namespace("vpc-a").expect("a namespace");
        let kept = File::open(format!("/proc/self/fd/{fd}")).expect("open it");
        // Its owner is gone, the namespace is not; the next owner takes it over with a change.
        shared.apply(Vec::new()).await.expect("apply");
        established.write_all(b"x").expect("write");
        let mut echo = [0];
        established.read_exact(&mut echo).expect("the echo");
        shared.adopt("vpc-a".to_owned(), kept.into());
        let mut changed = a.clone();
        changed.subnets.pop();
        changed.ports.push(port('a', 0, 12, "db"));
        shared.apply(vec![changed.clone()]).await.expect("apply");
        let new = boot(&shared, &changed, address(0, 12)).await;
        assert_eq!(
            greeting(&new, web, 80).await,
            Ok(address(0, 12).to_string())
        );
        established.write_all(b"y").expect("write");
        established.read_exact(&mut echo).expect("the echo");
        assert_eq!(echo, *b"y");
        assert!(shared.in_use().await.expect("look"));
    });
}
