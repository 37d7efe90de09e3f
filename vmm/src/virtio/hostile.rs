//! Hostile guests, generated: random chains, random rings, random register writes, against every
//! device through its transport. The device may be lost to the guest; nothing else may happen.
//!
//! Each property runs a fixed number of cases; `CUMULET_SOAK=1` runs very many more.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use cumulet_images::raw::RawDisk;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::VirtioDevice;
use super::blk::{Blk, BlkOptions};
use super::net::{Net, NetBackend, NetOptions, Offloads};
use super::rng::Rng;
use super::testing::{RAM_SIZE, Ring, TestMachine};
use crate::config::DiskEngine;
use crate::device::PciDevice;

/// Memory no descriptor names: it must not change.
const CANARY: u64 = 15 << 20;
const CANARY_LEN: usize = 1 << 20;

/// Entries of the hostile driver's queues.
const SIZE: u16 = 16;

/// Buffers lie at multiples of this, so that descriptors often name the same ones.
const SLOT: u64 = 0x1000;

fn cases(normal: u32) -> ProptestConfig {
    let soak = std::env::var_os("CUMULET_SOAK").is_some();
    ProptestConfig {
        cases: if soak { normal * 1000 } else { normal },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Disk(DiskEngine),
    Interface { mergeable: bool },
    Entropy,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Disk(DiskEngine::Auto)),
        Just(Kind::Disk(DiskEngine::Sync)),
        Just(Kind::Interface { mergeable: true }),
        Just(Kind::Interface { mergeable: false }),
        Just(Kind::Entropy),
    ]
}

struct Wire(UnixDatagram);

impl std::os::fd::AsRawFd for Wire {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl NetBackend for Wire {
    fn set_offloads(&self, _offloads: Offloads) -> std::io::Result<()> {
        Ok(())
    }
}

/// A machine with one device, and the far end of its wire if it has one.
struct Victim {
    machine: TestMachine,
    far: Option<UnixDatagram>,
    /// Features not to take.
    without: u64,
}

impl Victim {
    fn new(kind: Kind) -> Self {
        let mut far = None;
        let mut without = 0;
        let device: Box<dyn VirtioDevice> = match kind {
            Kind::Disk(engine) => {
                let file = tempfile::NamedTempFile::new().unwrap();
                file.as_file().set_len(1 << 20).unwrap();
                let options = BlkOptions {
                    serial: "victim".to_owned(),
                    queues: 2,
                    engine,
                };
                let disk = RawDisk::open(file.path(), false).unwrap();
                Box::new(Blk::new(Arc::new(disk), &options).unwrap())
            }
            Kind::Interface { mergeable } => {
                let (near, other) = UnixDatagram::pair().unwrap();
                near.set_nonblocking(true).unwrap();
                other.set_nonblocking(true).unwrap();
                far = Some(other);
                without = u64::from(!mergeable) << 15;
                let options = NetOptions {
                    mac: "02:00:00:00:00:01".parse().unwrap(),
                    mtu: None,
                };
                Box::new(Net::new(Arc::new(Wire(near)), options))
            }
            Kind::Entropy => Box::<Rng>::default(),
        };
        let machine = TestMachine::new(device);
        let canary = vec![0xca; CANARY_LEN];
        machine
            .memory
            .write_slice(&canary, GuestAddress(CANARY))
            .unwrap();
        Self {
            machine,
            far,
            without,
        }
    }

    fn start(&mut self) -> Vec<Ring> {
        self.machine.start(self.without, SIZE)
    }

    /// The world goes on: frames come in and are taken, the event loop runs.
    fn run(&mut self) {
        if let Some(far) = &self.far {
            for len in [12, 60, 1526, 9000] {
                let _ = far.send(&vec![0; len]);
            }
            let mut frame = [0; 70000];
            while far.recv(&mut frame).is_ok() {}
        }
        self.machine.run();
        self.machine.run();
    }

    /// Memory nobody named is as it was, and after a reset the device serves an honest driver.
    fn check(&mut self, kind: Kind) {
        let mut canary = vec![0; CANARY_LEN];
        self.machine
            .memory
            .read_slice(&mut canary, GuestAddress(CANARY))
            .unwrap();
        assert!(canary.iter().all(|byte| *byte == 0xca), "stray write");

        self.machine.pci.reset();
        self.run();
        let memory = self.machine.memory.clone();
        let mut rings = self.start();
        let queue = match kind {
            Kind::Entropy => {
                rings[0].add(&memory, &[(0x1000, 64, true)]);
                0
            }
            Kind::Disk(_) => {
                memory.write_obj(0_u64, GuestAddress(0x1000)).unwrap();
                memory.write_obj(1_u64, GuestAddress(0x1008)).unwrap();
                let read = [(0x1000, 16, false), (0x2000, 512, true), (0x3000, 1, true)];
                rings[1].add(&memory, &read);
                1
            }
            Kind::Interface { .. } => {
                memory.write_slice(&[0; 60], GuestAddress(0x1000)).unwrap();
                rings[1].add(&memory, &[(0x1000, 60, false)]);
                1
            }
        };
        self.machine.kick(queue);
        let ring = &mut rings[usize::try_from(queue).unwrap()];
        self.machine
            .run_until("service after a reset", |_| ring.has_used(&memory));
        assert_eq!(self.machine.status(), 15);
    }
}

type RawDesc = (u64, u32, u16, u16);

fn address() -> impl Strategy<Value = u64> {
    let ram = u64::try_from(RAM_SIZE).unwrap();
    prop_oneof![
        8 => (1_u64..64).prop_map(|slot| slot * SLOT),
        2 => 0_u64..CANARY - (1 << 20),
        // Around the border of the two RAM regions, and in the rings themselves.
        1 => (0_u64..0x400).prop_map(move |at| ram / 2 - 0x200 + at),
        1 => (0_u64..0x20_0000).prop_map(|at| 0x10_0000 + at),
        1 => (0_u64..0x1000).prop_map(move |at| ram + at),
        1 => any::<u64>(),
    ]
}

/// Lengths that, from any address in RAM before the canary, stay before it, or leave RAM for good.
fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => Just(16_u32),
        4 => Just(1_u32),
        4 => (0_u32..64).prop_map(|sectors| sectors * 512),
        4 => 0_u32..2000,
        1 => Just(0_u32),
        1 => Just(1 << 20),
        1 => u32::MAX - 0x10000..=u32::MAX,
        1 => (0_u32..70).prop_map(|entries| entries * 16),
    ]
}

fn descriptor() -> impl Strategy<Value = RawDesc> {
    let flags = prop_oneof![
        3 => Just(0_u16), 6 => Just(1), 3 => Just(2), 4 => Just(3),
        1 => Just(4), 1 => any::<u16>(),
    ];
    let next = prop_oneof![8 => 0..SIZE, 1 => any::<u16>()];
    (address(), length(), flags, next)
}

/// What one attack writes: descriptors, heads offered, how far the index jumps, block headers.
#[derive(Debug, Clone)]
struct Attack {
    queue: usize,
    descriptors: Vec<RawDesc>,
    /// In RAM at slots, for indirect descriptors to name.
    table: Vec<RawDesc>,
    heads: Vec<u16>,
    jump: Option<u16>,
    headers: Vec<(u64, u32, u64)>,
}

fn attack() -> impl Strategy<Value = Attack> {
    let header = (
        1_u64..64,
        0_u32..15,
        prop_oneof![8 => 0_u64..2050, 1 => any::<u64>()],
    );
    (
        0_usize..2,
        prop::collection::vec(descriptor(), usize::from(SIZE)),
        prop::collection::vec(descriptor(), 0..40),
        prop::collection::vec(prop_oneof![8 => 0..SIZE, 1 => any::<u16>()], 0..20),
        prop::option::weighted(0.1, any::<u16>()),
        prop::collection::vec(header, 0..8),
    )
        .prop_map(|(queue, descriptors, table, heads, jump, headers)| Attack {
            queue,
            descriptors,
            table,
            heads,
            jump,
            headers,
        })
}

fn strike(victim: &mut Victim, rings: &mut [Ring], attack: &Attack) {
    let memory = victim.machine.memory.clone();
    let queue = attack.queue.min(rings.len() - 1);
    let ring = &mut rings[queue];
    for (slot, kind, sector) in &attack.headers {
        let at = GuestAddress(slot * SLOT);
        memory.write_obj(*kind, at).unwrap();
        memory.write_obj(*sector, GuestAddress(at.0 + 8)).unwrap();
    }
    for (at, (address, len, flags, next)) in (0_u64..).zip(&attack.table) {
        let at = 5 * SLOT + at * 16;
        memory.write_obj(*address, GuestAddress(at)).unwrap();
        memory.write_obj(*len, GuestAddress(at + 8)).unwrap();
        memory.write_obj(*flags, GuestAddress(at + 12)).unwrap();
        memory.write_obj(*next, GuestAddress(at + 14)).unwrap();
    }
    for (index, descriptor) in (0..).zip(&attack.descriptors) {
        ring.write_desc(&memory, index, *descriptor);
    }
    for head in &attack.heads {
        ring.offer(&memory, *head);
    }
    if let Some(jump) = attack.jump {
        memory
            .write_obj(jump, GuestAddress(ring.avail + 2))
            .unwrap();
    }
    victim.machine.kick(u64::try_from(queue).unwrap());
    victim.run();
}

/// One access of a guest that has gone mad.
#[derive(Debug, Clone)]
enum Access {
    Write(u64, usize, u64),
    Read(u64, usize),
    ConfigWrite(u8, usize, u32),
    ConfigRead(u8, usize),
    Strike(Attack),
    Run,
}

fn access() -> impl Strategy<Value = Access> {
    let offset = || {
        prop_oneof![
            6 => 0_u64..0x40,
            1 => (0_u64..0x10).prop_map(|at| 0x800 + at),
            1 => (0_u64..0x400).prop_map(|at| 0xc00 + at),
            2 => (0_u64..0x20).prop_map(|at| 0x1000 + at),
            3 => (0_u64..0x60).prop_map(|at| 0x2000 + at),
            1 => 0_u64..0x4000,
        ]
    };
    let width = || prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)];
    let value = prop_oneof![
        4 => 0_u64..17,
        2 => address(),
        1 => any::<u64>(),
    ];
    let config = || {
        let offset = prop_oneof![2 => 0_u8..64, 1 => any::<u8>()];
        (offset, width()).prop_map(|(offset, width)| {
            let width = width.min(4);
            let within = usize::from(offset % 4);
            (offset, width.min(4 - within))
        })
    };
    prop_oneof![
        10 => (offset(), width(), value).prop_map(|(o, w, v)| Access::Write(o.min(0x4000 - 8), w, v)),
        3 => (offset(), width()).prop_map(|(o, w)| Access::Read(o.min(0x4000 - 8), w)),
        3 => (config(), any::<u32>()).prop_map(|((o, w), v)| Access::ConfigWrite(o, w, v)),
        1 => config().prop_map(|(o, w)| Access::ConfigRead(o, w)),
        1 => attack().prop_map(Access::Strike),
        1 => Just(Access::Run),
    ]
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn random_chains_cost_at_most_the_device(
        kind in kind(),
        attacks in prop::collection::vec(attack(), 1..6),
    ) {
        let mut victim = Victim::new(kind);
        let mut rings = victim.start();
        for attack in &attacks {
            strike(&mut victim, &mut rings, attack);
            let status = victim.machine.status();
            prop_assert!(status == 15 || status == 0x4f, "status {status:#x}");
            if status != 15 {
                rings = victim.start();
            }
        }
        victim.check(kind);
    }

    #[test]
    fn random_accesses_cost_at_most_the_device(
        kind in kind(),
        started in any::<bool>(),
        accesses in prop::collection::vec(access(), 1..150),
    ) {
        let mut victim = Victim::new(kind);
        let mut rings = if started { victim.start() } else { Vec::new() };
        for access in &accesses {
            match access {
                Access::Write(offset, len, value) => victim.machine.write(*offset, *value, *len),
                Access::Read(offset, len) => drop(victim.machine.read(*offset, *len).to_string()),
                Access::ConfigWrite(offset, len, value) => {
                    victim.machine.pci.config_write(*offset, &value.to_le_bytes()[..*len]);
                }
                Access::ConfigRead(offset, len) => {
                    victim.machine.pci.config_read(*offset, &mut [0; 4][..*len]);
                }
                Access::Strike(attack) if !rings.is_empty() => {
                    strike(&mut victim, &mut rings, attack);
                }
                Access::Strike(_) | Access::Run => victim.run(),
            }
        }
        victim.check(kind);
    }
}
