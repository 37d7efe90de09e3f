//! The instance status check: whether guests answer ARP.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use cumulet_agent::fabric::network::Port;
use cumulet_agent::fabric::{Answers, MacAddr, Pace, Reachability, Shared};
use tokio::time::{Instant, sleep};

use crate::frames::{ETHER_ARP, arp, ethernet, inject};
use crate::guest::Guest;
use crate::outer::sh;
use crate::vpc::{address, network, on_shared, plug, port};

/// Often enough for a test.
const PACE: Pace = Pace {
    starting: Duration::from_millis(50),
    passed: Duration::from_millis(100),
    failing: Duration::from_millis(50),
    patience: Duration::from_secs(1),
    misses: 3,
};

fn named(mut port: Port, instance: &str) -> Port {
    port.instance = Some(instance.to_owned());
    port
}

/// What is known of an instance as soon as it is what is waited for.
async fn until(
    shared: &Shared,
    instance: &str,
    wanted: impl Fn(Option<Answers>) -> bool,
) -> Option<Answers> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let known = shared.answers().get(instance).copied();
        if wanted(known) {
            return known;
        }
        assert!(Instant::now() < deadline, "{instance} stays {known:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn until_state(shared: &Shared, instance: &str, state: Reachability) -> Option<Answers> {
    until(shared, instance, |known| {
        known.is_some_and(|known| known.state == state)
    })
    .await
}

fn namespace(shared: &Shared) -> OwnedFd {
    let fd = shared.namespace("vpc-a").expect("a namespace");
    let file = File::open(format!("/proc/self/fd/{fd}")).expect("open it");
    file.into()
}

pub(crate) fn answers() {
    on_shared(async |shared| {
        let mut shared = shared.with_pace(PACE);
        // No rule lets anything in, and the check is not a packet that rules are about.
        let (one, two) = (port('a', 0, 10, "none"), port('a', 0, 11, "none"));
        let mut a = network('a', vec![named(one, "i-1"), named(two, "i-2")]);
        a.groups.insert("none".to_owned(), Vec::new());
        shared.apply(vec![a.clone()]).await.expect("apply");
        assert_eq!(shared.answers().len(), 0, "nothing is plugged in");

        // Plugged in, and its guest has no address yet.
        let guest = Guest::on_cable(plug(namespace(&shared), &a.ports[0]), a.ports[0].mac);
        let booting = until_state(&shared, "i-1", Reachability::Initializing).await;
        guest.run(|| sh("ip addr add 10.0.0.10/24 dev eth0")).await;
        let passed = until_state(&shared, "i-1", Reachability::Passed).await;
        assert_eq!(passed.map(|one| one.tap), booting.map(|one| one.tap));

        // Nobody answers for another: neither with its address nor with its address and MAC address.
        let cable = plug(namespace(&shared), &a.ports[1]);
        until_state(&shared, "i-2", Reachability::Initializing).await;
        let gateway = (MacAddr([0x0a, 0xff, 0xc0, 0xa8, 0x00, 0x01]), address(0, 1));
        guest.run(|| sh("ip addr del 10.0.0.10/24 dev eth0")).await;
        let forged = |mac: MacAddr, ip: Ipv4Addr| {
            let answer = arp(2, (mac, ip), gateway);
            inject(
                &cable,
                &ethernet(a.ports[1].mac, gateway.0, ETHER_ARP, &answer),
            );
        };
        let failed = |known: Option<Answers>| {
            forged(a.ports[0].mac, a.ports[0].ip);
            forged(a.ports[1].mac, a.ports[0].ip);
            known.is_some_and(|known| matches!(known.state, Reachability::Failed { .. }))
        };
        until(&shared, "i-1", failed).await;
        // Its own answer counts.
        until(&shared, "i-2", |known| {
            forged(a.ports[1].mac, a.ports[1].ip);
            known.is_some_and(|known| known.state == Reachability::Passed)
        })
        .await;

        // It recovers.
        guest.run(|| sh("ip addr add 10.0.0.10/24 dev eth0")).await;
        until_state(&shared, "i-1", Reachability::Passed).await;

        // Stopped and started: it begins anew.
        drop(cable);
        until(&shared, "i-2", |known| {
            known.is_none_or(|known| known.state != Reachability::Passed)
        })
        .await;
        let mut without = a.clone();
        without.ports.pop();
        shared.apply(vec![without]).await.expect("apply");
        until(&shared, "i-2", |known| known.is_none()).await;
        shared.apply(vec![a.clone()]).await.expect("apply");
        let _cable = plug(namespace(&shared), &a.ports[1]);
        until_state(&shared, "i-2", Reachability::Initializing).await;
    });
}
