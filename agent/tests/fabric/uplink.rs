//! The way to the outside.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cumulet_agent::fabric::{EnterConfig, UplinkMode, UplinkState};

use crate::cases::{closed, on_fabric};
use crate::gone::{started_by_host_side, wait_until};
use crate::guest::Guest;
use crate::outer::{HOST, WORLD, is_played, output_of, sh};

/// The address with which the host reaches the world.
fn host_address() -> Ipv4Addr {
    let route = output_of("ip -4 route get 203.0.113.1");
    let words: Vec<&str> = route.split_whitespace().collect();
    let source = words
        .iter()
        .position(|word| *word == "src")
        .expect("the host needs a default route for this test");
    words[source + 1].parse().expect("an address")
}

/// Accepts and greets, counting.
fn greet(listener: TcpListener, name: &'static str) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.expect("accept").write_all(name.as_bytes());
        }
    });
}

/// Bytes of a stream that is longer than any buffer on its way.
const LARGE: usize = 4 << 20;

/// Bytes of which no two pages are the same.
fn numbers() -> impl Iterator<Item = u8> {
    (0u64..).flat_map(u64::to_be_bytes)
}

/// Reads what is served there, to its end or as far as it comes.
fn fetch(address: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = TcpStream::connect(address).expect("connect");
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).expect("a time-out");
    if let Err(error) = stream.read_to_end(&mut bytes) {
        eprintln!("after {} bytes: {error}", bytes.len());
    }
    bytes
}

fn connect(address: (Ipv4Addr, u16), patience: u64) -> std::io::Result<String> {
    let mut text = String::new();
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(address), Duration::from_secs(patience))?;
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn pasta() {
    outside_but_not_loopback(UplinkMode::Pasta);
}

pub(crate) fn slirp() {
    outside_but_not_loopback(UplinkMode::Slirp4netns);
}

fn outside_but_not_loopback(mode: UplinkMode) {
    // Bound before the process leaves, these are the host's.
    let host = host_address();
    let outside = TcpListener::bind((host, 0)).expect("bind");
    let loopback = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let large = TcpListener::bind((host, 0)).expect("bind");
    let (open_port, secret_port) = (port_of(&outside), port_of(&loopback));
    let large_port = port_of(&large);
    let config = EnterConfig {
        uplink: mode,
        ..EnterConfig::default()
    };
    on_fabric(&config, 1, async |fabric| {
        greet(outside, "outside");
        greet(loopback, "secret");
        std::thread::spawn(move || {
            let (mut stream, _) = large.accept().expect("accept");
            let bytes: Vec<u8> = numbers().take(LARGE).collect();
            stream.write_all(&bytes).expect("write");
        });
        assert_eq!(fabric.uplink_settled().await, UplinkState::Up(mode));
        let guest = Guest::with_address(&fabric, 0).await;
        let answer = guest.run(move || connect((host, open_port), 60)).await;
        assert_eq!(answer.expect("the outside answers"), "outside");
        let large = guest.run(move || fetch((host, large_port))).await;
        let at = large
            .iter()
            .zip(numbers())
            .position(|(got, sent)| *got != sent);
        assert_eq!(
            (large.len(), at),
            (LARGE, None),
            "length and first wrong byte"
        );
        if is_played() {
            // The world sees the host's address.
            let answer = guest.run(|| connect((*WORLD.ip(), WORLD.port()), 60)).await;
            assert_eq!(answer.expect("the world answers"), HOST);
        }
        // No address leads to what listens on the host's loopback: not the gateways, not the
        // uplink's own, not the host's.
        let mut addresses = vec![Ipv4Addr::new(172, 31, 0, 1), host];
        addresses.extend([1, 2, 3, 100].map(|last| Ipv4Addr::new(192, 0, 0, last)));
        // Nor from inside the namespace itself.
        let inside = addresses.clone();
        let inside = tokio::task::spawn_blocking(move || reached(inside, secret_port));
        addresses.push(Ipv4Addr::LOCALHOST);
        let guests = guest.run(move || reached(addresses, secret_port)).await;
        let both = [guests, inside.await.expect("join")].concat();
        assert!(both.is_empty(), "led to the host's loopback: {both:?}");
    });
}

/// Which of these addresses answer on this port; all are asked at once.
fn reached(addresses: Vec<Ipv4Addr>, port: u16) -> Vec<(Ipv4Addr, String)> {
    let asked: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            (
                address,
                std::thread::spawn(move || connect((address, port), 5)),
            )
        })
        .collect();
    asked
        .into_iter()
        .filter_map(|(address, asked)| Some((address, asked.join().expect("join").ok()?)))
        .collect()
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("address").port()
}

pub(crate) fn veth_without_forwarding() {
    sh("sysctl -qw net.ipv4.ip_forward=0");
    let config = EnterConfig {
        uplink: UplinkMode::Veth,
        ..EnterConfig::default()
    };
    on_fabric(&config, 1, async |fabric| {
        let state = fabric.uplink_settled().await;
        let UplinkState::Down(why) = state else {
            panic!("{state:?}")
        };
        assert!(why.contains("sysctl net.ipv4.ip_forward=1"), "{why}");
    });
}

pub(crate) fn veth() {
    sh("sysctl -qw net.ipv4.ip_forward=1");
    let host = host_address();
    let service = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
    let port = port_of(&service);
    let config = EnterConfig {
        uplink: UplinkMode::Veth,
        ..EnterConfig::default()
    };
    on_fabric(&config, 1, async |fabric| {
        greet(service, "host");
        assert_eq!(
            fabric.uplink_settled().await,
            UplinkState::Up(UplinkMode::Veth)
        );
        let guest = Guest::with_address(&fabric, 0).await;
        let answer = guest.run(|| connect((*WORLD.ip(), WORLD.port()), 60)).await;
        assert_eq!(answer.expect("the world answers"), HOST);
        let route = output_of("ip -4 route show default dev up0");
        let gateway = route
            .split_whitespace()
            .nth(2)
            .expect("a gateway")
            .parse()
            .expect("an address");
        let addresses = vec![host, gateway, Ipv4Addr::new(172, 31, 0, 1)];
        let answers = guest.run(move || reached(addresses, port)).await;
        assert!(
            answers.is_empty(),
            "the host's service answered: {answers:?}"
        );
    });
}

pub(crate) fn none() {
    on_fabric(&closed(), 1, async |fabric| {
        assert_eq!(fabric.uplink_settled().await, UplinkState::Off);
        let guest = Guest::with_address(&fabric, 0).await;
        let ping = guest
            .run(|| output_of("busybox ping -c1 -W20 172.31.0.1"))
            .await;
        assert!(ping.contains("1 packets received"), "{ping}");
    });
}

/// A host without any network, a laptop in a train.
pub(crate) fn offline() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("unshare");
    let config = EnterConfig {
        uplink: UplinkMode::Pasta,
        ..EnterConfig::default()
    };
    on_fabric(&config, 1, async |fabric| {
        // Newer versions of pasta start even so.
        if let UplinkState::Down(why) = fabric.uplink_settled().await {
            assert!(why.contains("routable interface"), "{why}");
        }
        let guest = Guest::with_address(&fabric, 0).await;
        let ping = guest
            .run(|| output_of("busybox ping -c1 -W20 172.31.0.1"))
            .await;
        assert!(ping.contains("1 packets received"), "{ping}");
    });
}

pub(crate) fn pasta_killed() {
    let host = host_address();
    let outside = TcpListener::bind((host, 0)).expect("bind");
    let port = port_of(&outside);
    let config = EnterConfig {
        uplink: UplinkMode::Pasta,
        ..EnterConfig::default()
    };
    on_fabric(&config, 1, async |fabric| {
        greet(outside, "outside");
        let up = UplinkState::Up(UplinkMode::Pasta);
        assert_eq!(fabric.uplink_settled().await, up);
        let guest = Guest::with_address(&fabric, 0).await;
        let mut uplink = fabric.uplink();
        for round in 0..2 {
            let answer = guest.run(move || connect((host, port), 60)).await;
            assert_eq!(answer.expect("the outside answers"), "outside", "{round}");
            let pasta = started_by_host_side();
            assert!(!pasta.is_empty());
            for pid in &pasta {
                nix::sys::signal::kill(*pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
            }
            uplink
                .wait_for(|state| matches!(state, UplinkState::Down(_)))
                .await
                .expect("its end is noticed");
            uplink
                .wait_for(|state| *state == up)
                .await
                .expect("it is up again");
            wait_until("another is there", || {
                let now = started_by_host_side();
                !now.is_empty() && now.iter().all(|pid| !pasta.contains(pid))
            });
        }
        let answer = guest.run(move || connect((host, port), 60)).await;
        assert_eq!(answer.expect("the outside answers again"), "outside");
    });
}
