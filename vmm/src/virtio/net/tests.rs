//! An interface through its queues; a pair of datagram sockets stands for the tap.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::device::PciDevice as _;
use crate::event_loop::lock;
use crate::virtio::Metrics;
use crate::virtio::testing::{Ring, TestMachine};

const RX: usize = 0;
const TX: usize = 1;
const BUFFERS: u64 = 0x40_0000;
const MRG_RXBUF: u64 = 1 << 15;

pub(super) struct Wire {
    socket: UnixDatagram,
    offloads: Mutex<Vec<Offloads>>,
}

impl Wire {
    /// A wire, and its other end.
    pub(super) fn pair() -> (Arc<Self>, UnixDatagram) {
        let (socket, host) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        host.set_nonblocking(true).unwrap();
        let wire = Self {
            socket,
            offloads: Mutex::default(),
        };
        (Arc::new(wire), host)
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl NetBackend for Wire {
    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        lock(&self.offloads).push(offloads);
        Ok(())
    }
}

struct Bench {
    machine: TestMachine,
    rings: Vec<Ring>,
    metrics: Arc<NetMetrics>,
    wire: Arc<Wire>,
    /// The other end of the wire.
    host: UnixDatagram,
}

impl Bench {
    fn new(without: u64) -> Self {
        let (wire, host) = Wire::pair();
        let net = Net::new(
            wire.clone(),
            NetOptions {
                mac: "02:00:00:00:00:07".parse().unwrap(),
                mtu: Some(9001),
            },
        );
        let metrics = net.metrics();
        let mut machine = TestMachine::new(Box::new(net));
        let rings = machine.start(without, 256);
        Self {
            machine,
            rings,
            metrics,
            wire,
            host,
        }
    }

    /// Posts `count` receive buffers of `len` bytes, one behind the other.
    fn post(&mut self, count: u64, len: u32) {
        let memory = self.machine.memory.clone();
        for at in 0..count {
            let address = BUFFERS + at * u64::from(len);
            self.rings[RX].add(&memory, &[(address, len, true)]);
        }
        self.machine.kick(0);
    }

    fn frame(len: usize, seed: u8) -> Vec<u8> {
        let mut frame: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0] ^ seed).collect();
        frame[..HEADER].fill(0);
        frame[0] = 2;
        frame
    }

    fn used(&mut self, queue: usize) -> Option<(u16, u32)> {
        let memory = self.machine.memory.clone();
        self.rings[queue].take_used(&memory)
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.machine
            .memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    fn metric(&self, name: &str) -> u64 {
        self.metrics.snapshot()[name].as_u64().unwrap()
    }
}

#[test]
fn frames_go_out_as_they_are() {
    let mut bench = Bench::new(0);
    let memory = bench.machine.memory.clone();
    let frame = Bench::frame(1514 + HEADER, 1);
    memory.write_slice(&frame, GuestAddress(BUFFERS)).unwrap();
    // Header and data apart, and all in one.
    bench.rings[TX].add(
        &memory,
        &[(BUFFERS, 12, false), (BUFFERS + 12, 1514, false)],
    );
    bench.rings[TX].add(&memory, &[(BUFFERS, 1526, false)]);
    bench.machine.kick(1);
    bench.machine.run();
    let mut got = [0; 2000];
    for _ in 0..2 {
        assert_eq!(bench.host.recv(&mut got).unwrap(), frame.len());
        assert_eq!(got[..frame.len()], frame);
        assert_eq!(bench.used(TX).unwrap().1, 0);
    }
    assert_eq!(bench.metric("tx_bytes"), 2 * 1526);

    // No frames: nothing behind the header, nothing at all, and more than a frame can be.
    bench.rings[TX].add(&memory, &[(BUFFERS, 12, false)]);
    bench.rings[TX].add(&memory, &[(BUFFERS, 60, true)]);
    bench.rings[TX].add(&memory, &[(BUFFERS, 70000, false)]);
    bench.machine.kick(1);
    bench.machine.run();
    assert!(bench.host.recv(&mut got).is_err());
    assert_eq!(bench.metric("tx_dropped"), 3);
    assert_eq!(bench.machine.status(), 15);

    bench.rings[TX].add(&memory, &[(0x7000_0000, 1526, false)]);
    bench.machine.kick(1);
    bench.machine.run();
    assert_eq!(bench.machine.status(), 0x4f);
}

#[test]
fn the_guest_hears_of_large_frames_while_more_are_sent() {
    const EVENT_IDX: u64 = 1 << 29;
    for (len, interrupts) in [(40_000, 3), (1526, 1)] {
        let mut bench = Bench::new(EVENT_IDX);
        let memory = bench.machine.memory.clone();
        for _ in 0..3 {
            bench.rings[TX].add(&memory, &[(BUFFERS, len, false)]);
        }
        bench.machine.kick(1);
        bench.machine.run();
        assert_eq!(bench.metric("tx_frames"), 3);
        assert_eq!(bench.machine.interrupts(1), interrupts, "{len} bytes");
    }
}

#[test]
fn frames_are_spread_over_mergeable_buffers() {
    // Few buffers: read aside and copied. Many: read straight into them.
    for posted in [10, 100] {
        let mut bench = Bench::new(0);
        bench.post(posted, 1500);
        let frame = Bench::frame(5000, 3);
        bench.host.send(&frame).unwrap();
        bench.host.send(&Bench::frame(60, 4)).unwrap();
        bench.machine.run();
        let lens = [1500, 1500, 1500, 500, 60];
        for (head, len) in (0..).zip(lens) {
            assert_eq!(bench.used(RX), Some((head, len)), "{posted} posted");
        }
        assert_eq!(bench.used(RX), None);
        let mut expected = frame.clone();
        expected[10] = 4;
        assert_eq!(bench.bytes(BUFFERS, 5000), expected);
        assert_eq!(bench.bytes(BUFFERS + 4 * 1500 + 10, 2), [1, 0]);
        assert_eq!(bench.machine.interrupts(0), 1);
        assert_eq!(bench.metric("rx_frames"), 2);
        // Around the ring's end, many times.
        for round in 0..200_u8 {
            bench.post(4, 1500);
            bench.host.send(&Bench::frame(5500, round)).unwrap();
            bench.machine.run();
            let total: u32 = std::iter::from_fn(|| bench.used(RX))
                .map(|used| used.1)
                .sum();
            assert_eq!(total, 5500, "round {round}");
        }
    }
}

#[test]
fn without_mergeable_buffers_a_frame_has_one_chain() {
    let mut bench = Bench::new(MRG_RXBUF);
    bench.post(3, 1526);
    bench.host.send(&Bench::frame(1526, 1)).unwrap();
    bench.host.send(&Bench::frame(1527, 2)).unwrap();
    bench.host.send(&Bench::frame(100, 3)).unwrap();
    bench.machine.run();
    assert_eq!(bench.used(RX), Some((0, 1526)));
    assert_eq!(bench.used(RX), Some((1, 100)));
    assert_eq!(bench.metric("rx_dropped"), 1);
    // Large ones are read into directly.
    let mut bench = Bench::new(MRG_RXBUF);
    bench.post(2, 68000);
    bench.host.send(&Bench::frame(60000, 1)).unwrap();
    bench.machine.run();
    assert_eq!(bench.used(RX), Some((0, 60000)));
    assert_eq!(bench.bytes(BUFFERS + 10, 2), [1, 0]);
}

#[test]
fn frames_wait_for_buffers_without_spinning() {
    let mut bench = Bench::new(0);
    bench.host.send(&Bench::frame(4000, 1)).unwrap();
    for _ in 0..10 {
        bench.machine.run();
    }
    assert_eq!(bench.metric("rx_starved"), 1, "asked again and again");
    // Too few still.
    bench.post(2, 1500);
    for _ in 0..10 {
        bench.machine.run();
    }
    assert_eq!(bench.metric("rx_starved"), 2);
    assert_eq!(bench.used(RX), None);
    bench.post(2, 1500);
    bench.machine.run();
    for len in [1500, 1500, 1000] {
        assert_eq!(bench.used(RX).unwrap().1, len);
    }
    // And on from there, with what is left of the buffers.
    bench.host.send(&Bench::frame(900, 2)).unwrap();
    bench.machine.run();
    assert_eq!(bench.used(RX).unwrap().1, 900);
}

#[test]
fn frames_wait_for_room_in_the_tap_without_spinning() {
    let mut bench = Bench::new(0);
    let memory = bench.machine.memory.clone();
    let total = 250;
    for _ in 0..total {
        bench.rings[TX].add(&memory, &[(BUFFERS, 10000, false)]);
    }
    bench.machine.kick(1);
    for _ in 0..10 {
        bench.machine.run();
    }
    assert_eq!(bench.metric("tx_blocked"), 1);
    assert!(bench.metric("tx_frames") < total);
    let mut got = vec![0; 20000];
    let mut frames = 0;
    let mut used = 0;
    for _ in 0..1000 {
        while bench.host.recv(&mut got).is_ok() {
            frames += 1;
        }
        bench.machine.run();
        used += std::iter::from_fn(|| bench.used(TX)).count();
    }
    while bench.host.recv(&mut got).is_ok() {
        frames += 1;
    }
    assert_eq!((frames, used), (total, 250));
    assert_eq!(bench.machine.status(), 15);
}

#[test]
fn offloads_follow_the_features() {
    let mut bench = Bench::new(0);
    let all = Offloads {
        checksum: true,
        tso4: true,
        tso6: true,
        ecn: true,
    };
    assert_eq!(lock(&bench.wire.offloads)[..], [all]);
    bench.machine.set_status(0);
    assert_eq!(lock(&bench.wire.offloads)[1..], [Offloads::default()]);
    // GUEST_CSUM and what depends on it left out: frames come without flags.
    let mut bench = Bench::new(1 << 1 | 1 << 7 | 1 << 8 | 1 << 9);
    assert_eq!(lock(&bench.wire.offloads)[..], [Offloads::default()]);
    bench.post(1, 1500);
    bench.host.send(&Bench::frame(100, 1)).unwrap();
    bench.machine.run();
    assert_eq!(bench.used(RX), Some((0, 100)));
    assert_eq!(bench.bytes(BUFFERS, 1), [0]);
    // Segmentation without checksums makes no sense.
    let offered = bench.machine.features();
    for (missing, agreed) in [(1 << 1, false), (1, false), (1 << 7, true), (3 << 7, false)] {
        assert_eq!(
            bench.machine.negotiate(offered & !missing),
            agreed,
            "{missing:#x}"
        );
    }
}

#[test]
fn identity() {
    let mut bench = Bench::new(0);
    assert_eq!(bench.machine.read(0xc00, 6), 0x0700_0000_0002);
    assert_eq!(bench.machine.read(0xc06, 2), 1, "link is up");
    assert_eq!(bench.machine.read(0xc0a, 2), 9001);
}

#[test]
fn a_tap_that_goes_away_stops_the_traffic_and_nothing_else() {
    let mut bench = Bench::new(0);
    bench.post(10, 1500);
    let (_, other) = UnixDatagram::pair().unwrap();
    bench.host = other;
    for _ in 0..5 {
        bench.machine.run();
    }
    let memory = bench.machine.memory.clone();
    bench.rings[TX].add(&memory, &[(BUFFERS, 1526, false)]);
    bench.machine.kick(1);
    bench.machine.run();
    assert_eq!(bench.used(TX).unwrap().1, 0);
    assert_eq!(bench.metric("tx_dropped"), 1);
    assert_eq!(bench.machine.status(), 15);
}

#[test]
fn buffers_outside_memory_and_endless_ones_cost_the_device() {
    let mut bench = Bench::new(0);
    let memory = bench.machine.memory.clone();
    bench.rings[RX].add(&memory, &[(0x7000_0000, 1500, true)]);
    bench.machine.kick(0);
    bench.host.send(&Bench::frame(100, 1)).unwrap();
    bench.machine.run();
    assert_eq!(bench.machine.status(), 0x4f);
    bench.machine.run();

    // The same empty buffer, posted for ever.
    bench.rings = bench.machine.start(0, 256);
    bench.rings[RX].add(&memory, &[(BUFFERS, 0, true)]);
    for _ in 0..50 {
        for _ in 0..200 {
            bench.rings[RX].offer(&memory, 0);
        }
        bench.machine.kick(0);
        bench.machine.run();
    }
    assert_eq!(bench.machine.status(), 0x4f);
    bench.rings = bench.machine.start(0, 256);
    bench.post(10, 1500);
    bench.host.send(&Bench::frame(100, 1)).unwrap();
    bench.machine.run();
    assert!(bench.used(RX).is_some());
}

#[test]
fn a_paused_machine_receives_and_sends_nothing() {
    let mut bench = Bench::new(0);
    let memory = bench.machine.memory.clone();
    bench.post(100, 1500);
    bench.machine.run();
    bench.machine.pci.set_paused(true);
    bench.host.send(&Bench::frame(100, 1)).unwrap();
    bench.rings[TX].add(&memory, &[(BUFFERS, 1526, false)]);
    bench.machine.kick(1);
    for _ in 0..10 {
        bench.machine.run();
    }
    assert_eq!((bench.used(RX), bench.used(TX)), (None, None));
    bench.machine.pci.set_paused(false);
    bench.machine.run();
    assert_eq!(bench.used(RX), Some((0, 100)));
    assert_eq!(bench.used(TX), Some((0, 0)));
}
