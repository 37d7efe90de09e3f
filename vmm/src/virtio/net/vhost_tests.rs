//! An interface that gives its queues away; an object that writes down what it is told stands for
//! vhost-net.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::tests::Wire;
use super::*;
use crate::device::PciDevice as _;
use crate::event_loop::lock;
use crate::virtio::Metrics;
use crate::virtio::queue::Rings;
use crate::virtio::testing::{Ring, TestMachine};

const BUFFERS: u64 = 0x40_0000;
const FRAME: (u64, u32, bool) = (BUFFERS, 1526, false);
const GUEST_CSUM: u64 = 1 << 1;
/// VERSION_1, EVENT_IDX, INDIRECT_DESC, MRG_RXBUF.
const QUEUE_FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 15;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Features(u64),
    Ring(u16, u64),
    Attach(u16),
    Detach(u16),
}

#[derive(Default)]
struct FakeVhost {
    told: Mutex<Vec<Told>>,
    /// Call and error of each queue.
    events: Mutex<Vec<(EventFd, EventFd)>>,
    /// How far it got with every queue.
    next: Mutex<u16>,
    /// Attaching fails from now on.
    broken: Mutex<bool>,
}

impl FakeVhost {
    fn tell(&self, told: Told) {
        lock(&self.told).push(told);
    }

    /// What it was told since last asked.
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut lock(&self.told))
    }
}

impl VhostNet for FakeVhost {
    fn set_features(&self, features: u64) -> io::Result<()> {
        self.tell(Told::Features(features));
        Ok(())
    }

    fn set_ring(&self, index: u16, rings: &Rings, events: &RingEvents<'_>) -> io::Result<()> {
        self.tell(Told::Ring(index, rings.descriptors));
        assert_eq!((rings.size, rings.next), (256, 0));
        let mut all = lock(&self.events);
        all.truncate(index.into());
        all.push((events.call.try_clone()?, events.error.try_clone()?));
        Ok(())
    }

    fn attach(&self, index: u16, _tap: RawFd) -> io::Result<()> {
        if index == 1 && *lock(&self.broken) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.tell(Told::Attach(index));
        Ok(())
    }

    fn detach(&self, index: u16) -> io::Result<()> {
        self.tell(Told::Detach(index));
        Ok(())
    }

    fn next_available(&self, _index: u16) -> io::Result<u16> {
        Ok(*lock(&self.next))
    }
}

const ATTACHED: [Told; 2] = [Told::Attach(0), Told::Attach(1)];
const DETACHED: [Told; 2] = [Told::Detach(0), Told::Detach(1)];

struct Bench {
    machine: TestMachine,
    vhost: Arc<FakeVhost>,
    metrics: Arc<NetMetrics>,
    host: UnixDatagram,
}

impl Bench {
    fn new() -> Self {
        let (wire, host) = Wire::pair();
        let vhost = Arc::new(FakeVhost::default());
        let options = NetOptions {
            mac: "02:00:00:00:00:07".parse().unwrap(),
            mtu: None,
        };
        let net = Net::new(wire, options).with_vhost(vhost.clone());
        Self {
            metrics: net.metrics(),
            machine: TestMachine::new(Box::new(net)),
            vhost,
            host,
        }
    }

    /// A driver with all features; vhost has its queues then.
    fn started() -> (Self, Vec<Ring>) {
        let mut bench = Self::new();
        let rings = bench.machine.start(0, 256);
        assert_eq!(bench.vhost.told().last(), Some(&Told::Attach(1)));
        (bench, rings)
    }

    fn by_vhost(&self) -> bool {
        self.metrics.snapshot()["vhost"] == 1
    }

    /// Whether this process sends what the driver makes available.
    fn sends(&mut self, rings: &mut [Ring]) -> bool {
        let memory = self.machine.memory.clone();
        rings[1].add(&memory, &[FRAME]);
        self.machine.kick(1);
        self.machine.run();
        self.host.recv(&mut [0; 2000]).is_ok()
    }
}

#[test]
fn vhost_serves_the_queues_from_driver_ok_to_reset() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        let mut rings = bench.machine.start(0, 256);
        let mut expected = vec![
            Told::Features(QUEUE_FEATURES),
            Told::Ring(0, rings[0].desc),
            Told::Ring(1, rings[1].desc),
        ];
        expected.extend(ATTACHED);
        assert_eq!(bench.vhost.told(), expected);
        assert!(bench.by_vhost());
        assert!(!bench.sends(&mut rings), "both serve the queue");
        // Its interrupts are the queues', without this process.
        let routed = [1, 2].map(|vector| lock(&bench.machine.host.group.routes)[vector].is_some());
        assert_eq!(routed, [true; 2]);
        lock(&bench.vhost.events)[1].0.write(1).unwrap();
        assert_eq!(
            (bench.machine.interrupts(0), bench.machine.interrupts(1)),
            (0, 1)
        );
        bench.machine.set_status(0);
        assert_eq!(bench.vhost.told(), DETACHED);
        assert!(!bench.by_vhost());
    }
}

#[test]
fn memory_is_left_alone_while_the_machine_is_paused_or_bus_mastering_off() {
    let (mut bench, _) = Bench::started();
    bench.machine.pci.set_paused(true);
    assert_eq!(bench.vhost.told(), DETACHED);
    bench.machine.pci.config_write(4, &2_u16.to_le_bytes());
    bench.machine.pci.set_paused(false);
    assert_eq!(bench.vhost.told(), [], "bus mastering is still off");
    bench.machine.pci.config_write(4, &6_u16.to_le_bytes());
    assert_eq!(bench.vhost.told(), ATTACHED);
    bench.machine.pci.config_write(4, &2_u16.to_le_bytes());
    assert_eq!(bench.vhost.told(), DETACHED);
    assert!(bench.by_vhost());
    bench.machine.set_status(0);
    assert_eq!(bench.vhost.told(), []);
}

#[test]
fn a_broken_rule_costs_the_device_until_it_is_reset() {
    let (mut bench, _) = Bench::started();
    lock(&bench.vhost.events)[1].1.write(1).unwrap();
    bench.machine.run();
    assert_eq!(bench.machine.status(), 0x4f);
    assert_eq!(bench.vhost.told(), DETACHED);
    // Nothing but a reset brings it back.
    bench.machine.pci.set_paused(true);
    bench.machine.pci.set_paused(false);
    bench.machine.pci.config_write(4, &2_u16.to_le_bytes());
    bench.machine.pci.config_write(4, &6_u16.to_le_bytes());
    assert_eq!(bench.vhost.told(), []);
    bench.machine.start(0, 256);
    assert_eq!(bench.vhost.told()[3..], ATTACHED);
}

#[test]
fn drivers_that_vhost_cannot_serve_are_served_here() {
    // No checksum offload, and so none of what needs it.
    let mut bench = Bench::new();
    let mut rings = bench
        .machine
        .start(GUEST_CSUM | 1 << 7 | 1 << 8 | 1 << 9, 256);
    assert!(bench.sends(&mut rings));
    assert!(!bench.by_vhost());
    // No MSI-X; a queue without a vector.
    for msix in [false, true] {
        let mut bench = Bench::new();
        bench.machine.enable_pci(0xe000_0000, msix);
        let features = bench.machine.features();
        assert!(bench.machine.negotiate(features));
        bench.machine.write(0x16, 0, 2);
        bench.machine.write(0x1a, 1, 2);
        let mut rings: Vec<_> = (0..2)
            .map(|queue| bench.machine.enable_queue(queue, 256))
            .collect();
        bench.machine.set_status(15);
        assert!(bench.sends(&mut rings), "MSI-X {msix}");
        assert_eq!(bench.vhost.told(), [], "MSI-X {msix}");
    }
    // Or the host refuses.
    let mut bench = Bench::new();
    *lock(&bench.vhost.broken) = true;
    let mut rings = bench.machine.start(0, 256);
    assert_eq!(
        bench.vhost.told()[3..],
        [&ATTACHED[..1], &DETACHED].concat()
    );
    assert!(bench.sends(&mut rings));
}

#[test]
fn a_driver_that_changes_its_vectors_is_served_here_from_where_vhost_was() {
    let vector = |bench: &mut Bench| {
        bench.machine.write(0x16, 1, 2);
        bench.machine.write(0x1a, 0, 2);
    };
    let no_msix = |bench: &mut Bench| {
        bench.machine.pci.config_write(0x42, &0_u16.to_le_bytes());
    };
    for change in [vector, no_msix] {
        let (mut bench, mut rings) = Bench::started();
        let memory = bench.machine.memory.clone();
        assert!(!bench.sends(&mut rings));
        // What the kernel does with the first chain of each queue.
        rings[0].add(&memory, &[(BUFFERS, 70000, true)]);
        for ring in &rings {
            memory
                .write_obj(1_u16, GuestAddress(ring.used + 2))
                .unwrap();
        }
        *lock(&bench.vhost.next) = 1;
        change(&mut bench);
        assert_eq!(bench.vhost.told(), DETACHED);
        assert!(!bench.by_vhost());
        assert!(bench.sends(&mut rings));
        for ring in &mut rings {
            assert_eq!(ring.take_used(&memory), Some((0, 0)));
        }
        assert_eq!(rings[1].take_used(&memory), Some((1, 0)));
        rings[0].add(&memory, &[(BUFFERS, 70000, true)]);
        bench.machine.kick(0);
        bench.host.send(&[0; 100]).unwrap();
        bench.machine.run();
        assert_eq!(rings[0].take_used(&memory), Some((1, 100)));
        assert_eq!(bench.machine.status(), 15);
        // The next driver has vhost again.
        bench.machine.start(0, 256);
        assert!(bench.by_vhost());
    }
}
