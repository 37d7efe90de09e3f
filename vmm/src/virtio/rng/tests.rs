//! The entropy device through its queue.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::Rng;
use crate::virtio::Metrics;
use crate::virtio::testing::{RAM_SIZE, TestMachine};

#[test]
fn fills_what_it_may_write_and_only_that() {
    let device = Rng::default();
    let metrics = device.metrics();
    let mut machine = TestMachine::new(Box::new(device));
    let mut rings = machine.start(0, 16);
    let memory = machine.memory.clone();
    let middle = u64::try_from(RAM_SIZE / 2).unwrap();
    let chains: [(&[_], u32); 6] = [
        (&[(0x5000, 100, true), (0x6000, 28, true)], 128),
        // Across the border of two memory regions.
        (&[(middle - 10, 20, true)], 20),
        // More than is given at once.
        (&[(0x20_0000, 1 << 20, true)], 65536),
        // Nothing to write to; outside RAM; empty.
        (&[(0x5000, 100, false)], 0),
        (&[(0x7000_0000, 100, true)], 0),
        (&[(0x5000, 0, true)], 0),
    ];
    for (chain, expected) in chains {
        rings[0].add(&memory, chain);
        machine.kick(0);
        machine.run();
        assert_eq!(
            rings[0].take_used(&memory).unwrap().1,
            expected,
            "{chain:x?}"
        );
    }
    let mut data = [0_u8; 128];
    memory
        .read_slice(&mut data[..100], GuestAddress(0x5000))
        .unwrap();
    memory
        .read_slice(&mut data[100..], GuestAddress(0x6000))
        .unwrap();
    assert!(data.iter().filter(|byte| **byte == 0).count() < 16);
    assert_eq!(metrics.errors.load(Ordering::Relaxed), 3);
    assert_eq!(metrics.snapshot()["requests"], 6);
    assert_eq!(machine.status(), 15);
}

#[test]
fn a_full_queue_is_served_with_one_interrupt() {
    let mut machine = TestMachine::new(Box::<Rng>::default());
    let mut rings = machine.start(0, 64);
    let memory = machine.memory.clone();
    for _ in 0..64 {
        rings[0].add(&memory, &[(0x5000, 8, true)]);
    }
    machine.kick(0);
    let mut interrupts = 0;
    machine.run_until("the interrupt", |machine| {
        interrupts += machine.interrupts(0);
        interrupts > 0
    });
    assert_eq!(interrupts, 1);
    let used = std::iter::from_fn(|| rings[0].take_used(&memory)).count();
    assert_eq!(used, 64);
}
