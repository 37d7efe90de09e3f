//! DHCP, the metadata address, and what all cases share.

use std::future::Future;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use cumulet_agent::fabric::{EnterConfig, Entered, Fabric, IMDS_ADDRESS, UplinkMode, enter};
use tokio::io::AsyncWriteExt;

use crate::guest::{Guest, config, ip};
use crate::outer::output_of;

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);

/// Enters, starts a fabric with so many ports and runs the test on it.
pub(crate) fn on_fabric<F: Future<Output = ()>>(
    enter_config: &EnterConfig,
    ports: u8,
    test: impl FnOnce(Fabric) -> F,
) {
    inside(enter_config, async |entered| {
        let fabric = Fabric::start(entered, config(ports)).await.expect("start");
        test(fabric).await;
    });
}

/// Enters and runs the test on a runtime inside.
pub(crate) fn inside<F: Future<Output = ()>>(
    enter_config: &EnterConfig,
    test: impl FnOnce(Entered) -> F,
) {
    let entered = enter(enter_config).expect("enter");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(test(entered));
    runtime.shutdown_background();
}

/// No uplink, nothing published.
pub(crate) fn closed() -> EnterConfig {
    EnterConfig {
        uplink: UplinkMode::None,
        ..EnterConfig::default()
    }
}

/// Serves every connection with its peer's address, as a stand-in for the metadata server.
pub(crate) fn serve_peers(listener: tokio::net::TcpListener) {
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let _ = stream.write_all(peer.ip().to_string().as_bytes()).await;
        }
    });
}

/// What a server says until it closes.
pub(crate) fn read_from(address: SocketAddrV4) -> std::io::Result<String> {
    let mut text = String::new();
    TcpStream::connect_timeout(&SocketAddr::V4(address), std::time::Duration::from_secs(30))?
        .read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn dhcp() {
    on_fabric(&closed(), 2, async |fabric| {
        // The second guest wants its answer by broadcast, as some firmware does.
        for (n, broadcast) in [(1, ""), (0, "-B")] {
            let guest = Guest::boot(&fabric, n).await;
            // busybox's own client; -O asks for more than its default options.
            let client = format!(
                "script=$(mktemp); printf '#!/bin/sh\\nenv\\n' > $script; chmod +x $script; \
                 busybox udhcpc -i eth0 {broadcast} -f -q -n -t 20 -O search -O mtu \
                 -O staticroutes -s $script; rm $script"
            );
            let lease = guest.run(move || output_of(&client)).await;
            let expected = [
                format!("ip={}", ip(n)),
                format!("hostname=ip-172-31-0-{}", 10 + n),
                "router=172.31.0.1".into(),
                "dns=172.31.0.2".into(),
                "subnet=255.255.240.0".into(),
                "domain=ec2.internal".into(),
                "search=ec2.internal".into(),
                "mtu=9001".into(),
                "lease=3600".into(),
                "serverid=172.31.0.1".into(),
                "staticroutes=0.0.0.0/0 172.31.0.1".into(),
            ];
            for line in expected {
                assert!(
                    lease.lines().any(|have| have == line),
                    "no '{line}' in:\n{lease}"
                );
            }
        }
    });
}

pub(crate) fn imds() {
    on_fabric(&closed(), 2, async |fabric| {
        serve_peers(fabric.take_imds_listener().expect("the first time"));
        assert!(fabric.take_imds_listener().is_none());
        for n in 0..2 {
            let guest = Guest::with_address(&fabric, n).await;
            let metadata = SocketAddrV4::new(IMDS_ADDRESS, 80);
            let by_gateway = guest.run(move || read_from(metadata)).await;
            assert_eq!(by_gateway.expect("by the gateway"), ip(n).to_string());
            let on_link = guest.run(move || {
                crate::outer::sh("ip route add 169.254.169.254 dev eth0");
                read_from(metadata)
            });
            assert_eq!(on_link.await.expect("on the link"), ip(n).to_string());
            // Each address has its own budget of packets to link-local services.
            let budgets = output_of("nft list set inet cumulet link_local_budget");
            assert!(
                budgets.contains(&format!("{} limit rate", ip(n))),
                "{budgets}"
            );
        }
    });
}
