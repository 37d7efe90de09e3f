//! The way to the outside.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cumulet_agent::fabric::{EnterConfig, UplinkMode, UplinkState};

use crate::cases::{closed, on_fabric};
use crate::gone::{started_by_host_side, wait_until};
use crate::guest::Guest;
use crate::outer::output_of;

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
    use std::io::Write;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.expect("accept").write_all(name.as_bytes());
        }
    });
}

fn connect(address: (Ipv4Addr, u16), patience: u64) -> std::io::Result<String> {
    let mut text = String::new();
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(address), Duration::from_secs(patience))?;
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn pasta() {
    // Bound before the process leaves, these are the host's.
    let host = host_address();
    let outside = TcpListener::bind((host, 0)).expect("bind");
    let loopback = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let (open_port, secret_port) = (
        outside.local_addr().expect("address").port(),
        loopback.local_addr().expect("address").port(),
    );
    on_fabric(
        &EnterConfig {
            uplink: UplinkMode::Pasta,
            ..EnterConfig::default()
        },
        1,
        async |fabric| {
            greet(outside, "outside");
            greet(loopback, "secret");
            assert_eq!(
                fabric.uplink_settled().await,
                UplinkState::Up(UplinkMode::Pasta)
            );
            let guest = Guest::with_address(&fabric, 0).await;
            let answer = guest.run(move || connect((host, open_port), 60)).await;
            assert_eq!(answer.expect("the outside answers"), "outside");
            // No address leads to what listens on the host's loopback.
            let gateway = output_of("ip -4 route show default dev up0");
            assert!(gateway.contains("192.0.0.1"), "{gateway}");
            for address in [
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::new(192, 0, 0, 1),
                Ipv4Addr::new(192, 0, 0, 2),
                Ipv4Addr::new(172, 31, 0, 1),
                host,
            ] {
                let answer = guest.run(move || connect((address, secret_port), 5)).await;
                assert!(
                    answer.is_err(),
                    "{address} led to the host's loopback: {answer:?}"
                );
                // Nor from inside the namespace itself.
                if !address.is_loopback() {
                    let answer =
                        tokio::task::spawn_blocking(move || connect((address, secret_port), 5))
                            .await
                            .expect("join");
                    assert!(
                        answer.is_err(),
                        "{address} led to the host's loopback: {answer:?}"
                    );
                }
            }
        },
    );
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

pub(crate) fn pasta_killed() {
    on_fabric(
        &EnterConfig {
            uplink: UplinkMode::Pasta,
            ..EnterConfig::default()
        },
        1,
        async |fabric| {
            assert_eq!(
                fabric.uplink_settled().await,
                UplinkState::Up(UplinkMode::Pasta)
            );
            let pasta = started_by_host_side();
            assert!(!pasta.is_empty());
            for pid in pasta {
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
            }
            let mut uplink = fabric.uplink();
            uplink
                .wait_for(|state| matches!(state, UplinkState::Down(_)))
                .await
                .expect("state");
            wait_until("the interface is gone", || {
                !std::path::Path::new("/proc/sys/net/ipv4/conf/up0").exists()
            });
        },
    );
}
