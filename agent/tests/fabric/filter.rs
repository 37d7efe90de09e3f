//! What the filter and the bridge let through, frame by frame.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use cumulet_agent::fabric::{FabricError, IMDS_ADDRESS, MacAddr};

use crate::cases::{GATEWAY, closed, on_fabric, read_from, serve_peers};
use crate::frames::{
    BROADCAST, Capture, ETHER_ARP, ETHER_IPV4, ETHER_IPV6, arp, ethernet, inject, udp, waiting,
};
use crate::guest::{Guest, ip, mac};

pub(crate) fn forged_frames() {
    on_fabric(&closed(), 2, async |fabric| {
        let port = fabric.open_tap(ip(0)).await.expect("tap");
        let _other = fabric.open_tap(ip(1)).await.expect("tap");
        let mut capture = Capture::on("vpc0");
        let gateway_mac = MacAddr([0x0a, 0xff, 0xc0, 0xa8, 0, 1]);
        let (me, stranger) = (mac(0), MacAddr([2, 9, 9, 9, 9, 9]));
        let to_dns = |from: Ipv4Addr, mark: u8| {
            udp(
                (from, 5000),
                (Ipv4Addr::new(172, 31, 0, 2), 53),
                0,
                &[mark; 32],
            )
        };
        let dhcp = |chaddr: MacAddr, from: Ipv4Addr, fragment: u16| {
            let mut message = vec![0; 28];
            message.extend(chaddr.0);
            message.resize(300, 0);
            udp((from, 68), (Ipv4Addr::BROADCAST, 67), fragment, &message)
        };
        let nobody = Ipv4Addr::UNSPECIFIED;
        let vlan = [&[0, 5][..], &ETHER_IPV4.to_be_bytes(), &to_dns(ip(0), 1)].concat();
        let split = udp((nobody, 68), (Ipv4Addr::BROADCAST, 67), 0x2000, &[0; 24]);
        let forged = [
            (
                "source MAC",
                ethernet(stranger, gateway_mac, ETHER_IPV4, &to_dns(ip(0), 1)),
            ),
            (
                "neighbour's MAC",
                ethernet(mac(1), gateway_mac, ETHER_IPV4, &to_dns(ip(1), 1)),
            ),
            (
                "neighbour's address",
                ethernet(me, gateway_mac, ETHER_IPV4, &to_dns(ip(1), 1)),
            ),
            (
                "foreign address",
                ethernet(
                    me,
                    gateway_mac,
                    ETHER_IPV4,
                    &to_dns(Ipv4Addr::new(8, 8, 8, 8), 1),
                ),
            ),
            (
                "no address, not DHCP",
                ethernet(me, gateway_mac, ETHER_IPV4, &to_dns(nobody, 1)),
            ),
            (
                "ARP for the gateway",
                ethernet(
                    me,
                    BROADCAST,
                    ETHER_ARP,
                    &arp(2, (me, GATEWAY), (BROADCAST, GATEWAY)),
                ),
            ),
            (
                "ARP with another MAC inside",
                ethernet(
                    me,
                    BROADCAST,
                    ETHER_ARP,
                    &arp(1, (stranger, ip(0)), (BROADCAST, GATEWAY)),
                ),
            ),
            (
                "ARP answer from nobody",
                ethernet(
                    me,
                    BROADCAST,
                    ETHER_ARP,
                    &arp(2, (me, nobody), (BROADCAST, GATEWAY)),
                ),
            ),
            ("VLAN tag", ethernet(me, gateway_mac, 0x8100, &vlan)),
            (
                "two VLAN tags",
                ethernet(
                    me,
                    gateway_mac,
                    0x88a8,
                    &[&[0, 6, 0x81, 0][..], &vlan].concat(),
                ),
            ),
            ("IPv6", ethernet(me, gateway_mac, ETHER_IPV6, &[0x60; 40])),
            (
                "spanning tree",
                ethernet(
                    me,
                    MacAddr([1, 0x80, 0xc2, 0, 0, 0]),
                    0x0026,
                    &[0x42, 0x42, 3, 0, 0],
                ),
            ),
            (
                "DHCP for another",
                ethernet(me, BROADCAST, ETHER_IPV4, &dhcp(mac(1), nobody, 0)),
            ),
            (
                "DHCP for another from own address",
                ethernet(me, BROADCAST, ETHER_IPV4, &dhcp(mac(1), ip(0), 0)),
            ),
            (
                "DHCP cut before its chaddr",
                ethernet(me, BROADCAST, ETHER_IPV4, &split),
            ),
            ("runt", me.0.to_vec()),
        ];
        let honest = [
            ethernet(
                me,
                BROADCAST,
                ETHER_ARP,
                &arp(1, (me, ip(0)), (BROADCAST, GATEWAY)),
            ),
            ethernet(
                me,
                BROADCAST,
                ETHER_ARP,
                &arp(1, (me, nobody), (BROADCAST, ip(0))),
            ),
            ethernet(me, BROADCAST, ETHER_IPV4, &dhcp(me, nobody, 0)),
            ethernet(me, gateway_mac, ETHER_IPV4, &dhcp(me, ip(0), 0)),
        ];
        let last = ethernet(me, gateway_mac, ETHER_IPV4, &to_dns(ip(0), 99));
        for (_, frame) in &forged {
            // The tap itself refuses what is too short for Ethernet.
            if frame.len() >= 60 {
                inject(&port, frame);
            }
        }
        for frame in &honest {
            inject(&port, frame);
        }
        inject(&port, &last);
        // Ours among them are what the bridge itself sends.
        let from_guest = |frame: &Vec<u8>| frame[6..12] != gateway_mac.0;
        let seen = capture.until(|frame| *frame == last[..]);
        let seen: Vec<_> = seen.into_iter().filter(from_guest).collect();
        for (name, frame) in &forged {
            assert!(!seen.contains(frame), "got through: {name}");
        }
        assert_eq!(seen, honest, "exactly the honest frames");
    });
}

pub(crate) fn isolation() {
    on_fabric(&closed(), 2, async |fabric| {
        // Broadcasts and unknown destinations of one port never reach the other.
        let (port, other) = (
            fabric.open_tap(ip(0)).await.expect("tap"),
            fabric.open_tap(ip(1)).await.expect("tap"),
        );
        let mut capture = Capture::on("vpc0");
        let hello = |mark: u8, to: Ipv4Addr| udp((ip(0), 5000), (to, 5001), 0, &[mark; 32]);
        let unknown = MacAddr([2, 9, 9, 9, 9, 9]);
        for frame in [
            ethernet(
                mac(0),
                BROADCAST,
                ETHER_IPV4,
                &hello(1, Ipv4Addr::BROADCAST),
            ),
            ethernet(
                mac(0),
                MacAddr([1, 0, 0x5e, 0, 0, 0xfb]),
                ETHER_IPV4,
                &hello(2, Ipv4Addr::new(224, 0, 0, 251)),
            ),
            ethernet(mac(0), mac(1), ETHER_IPV4, &hello(3, ip(1))),
            ethernet(mac(0), unknown, ETHER_IPV4, &hello(4, ip(1))),
            // Routed, so that the filter decides, which lets nothing pass from guest to guest yet.
            ethernet(
                mac(0),
                MacAddr([0x0a, 0xff, 0xc0, 0xa8, 0, 1]),
                ETHER_IPV4,
                &hello(5, ip(1)),
            ),
            ethernet(
                mac(0),
                BROADCAST,
                ETHER_ARP,
                &arp(1, (mac(0), ip(0)), (BROADCAST, ip(1))),
            ),
        ] {
            inject(&port, &frame);
        }
        let last = ethernet(
            mac(0),
            BROADCAST,
            ETHER_IPV4,
            &hello(99, Ipv4Addr::BROADCAST),
        );
        inject(&port, &last);
        capture.until(|frame| *frame == last[..]);
        // The bridge handles frames in order, so now all have been decided.
        let leaked: Vec<_> = waiting(&other)
            .into_iter()
            .filter(|frame| frame[6..12] == mac(0).0)
            .collect();
        assert!(leaked.is_empty(), "reached the other port: {leaked:02x?}");
        drop((port, other));

        serve_peers(fabric.take_imds_listener().expect("listener"));
        let guests = [
            Guest::with_address(&fabric, 0).await,
            Guest::with_address(&fabric, 1).await,
        ];
        // A guest that takes its neighbour's address is not heard any more.
        let stolen = guests[0].run(|| {
            crate::outer::sh(&format!("ip addr flush dev eth0; ip addr add {}/20 dev eth0; ip route add default via 172.31.0.1", ip(1)));
            let metadata = SocketAddr::new(IMDS_ADDRESS.into(), 80);
            TcpStream::connect_timeout(&metadata, Duration::from_secs(4)).is_err()
        });
        assert!(stolen.await, "metadata was served to a stolen address");
        let metadata = SocketAddrV4::new(IMDS_ADDRESS, 80);
        assert_eq!(
            guests[1]
                .run(move || read_from(metadata))
                .await
                .expect("still served"),
            ip(1).to_string()
        );
    });
}

pub(crate) fn arp_answers() {
    on_fabric(&closed(), 2, async |fabric| {
        let port = fabric.open_tap(ip(0)).await.expect("tap");
        let nobody = Ipv4Addr::UNSPECIFIED;
        let ask = |sender: Ipv4Addr, target: Ipv4Addr| {
            ethernet(
                mac(0),
                BROADCAST,
                ETHER_ARP,
                &arp(1, (mac(0), sender), (MacAddr([0; 6]), target)),
            )
        };
        let answered = [
            GATEWAY,
            Ipv4Addr::new(172, 31, 0, 2),
            IMDS_ADDRESS,
            Ipv4Addr::new(169, 254, 169, 253),
            ip(1),
        ];
        // Asked again as a guest would: on a busy host the bridge sends nothing for a moment after its first port came.
        let mut have = BTreeSet::new();
        while have.len() < answered.len() {
            // A duplicate-address probe for its own address must stay unanswered, or a guest would
            // refuse its lease.
            inject(&port, &ask(nobody, ip(0)));
            inject(&port, &ask(ip(0), ip(0)));
            for address in answered {
                inject(&port, &ask(ip(0), address));
            }
            let is_reply = |frame: &[u8]| frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
            have.extend(
                waiting(&port)
                    .into_iter()
                    .filter(|frame| is_reply(frame))
                    .map(|frame| Ipv4Addr::new(frame[28], frame[29], frame[30], frame[31])),
            );
            // The process's own alarm ends a test that waits in vain.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(have, BTreeSet::from(answered));
    });
}

pub(crate) fn reopen_tap() {
    on_fabric(&closed(), 1, async |fabric| {
        for _ in 0..3 {
            let tap = fabric.open_tap(ip(0)).await.expect("open");
            let busy = fabric.open_tap(ip(0)).await.expect_err("open twice");
            assert!(matches!(busy, FabricError::Tap { .. }), "{busy:?}");
            let ask = ethernet(
                mac(0),
                BROADCAST,
                ETHER_ARP,
                &arp(1, (mac(0), ip(0)), (BROADCAST, GATEWAY)),
            );
            let mut capture = Capture::on("vpc0");
            inject(&tap, &ask);
            capture.until(|frame| *frame == ask[..]);
        }
        assert!(fabric.open_tap(ip(1)).await.is_err(), "no such port");
    });
}
