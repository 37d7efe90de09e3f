//! The transport as a driver sees it, with the entropy device behind it.

use vm_memory::{Bytes, GuestAddress};

use crate::device::PciDevice;
use crate::event_loop::lock;
use crate::virtio::rng::Rng;
use crate::virtio::testing::TestMachine;

const VERSION_1: u64 = 1 << 32;

fn machine() -> TestMachine {
    TestMachine::new(Box::<Rng>::default())
}

fn config(machine: &mut TestMachine, offset: u8, len: usize) -> u32 {
    let mut data = [0; 4];
    machine.pci.config_read(offset, &mut data[..len]);
    u32::from_le_bytes(data)
}

#[test]
fn capabilities_lead_to_the_structures() {
    let mut machine = machine();
    assert_eq!(config(&mut machine, 0, 4), 0x1044_1af4);
    let mut found = Vec::new();
    let mut at = u8::try_from(config(&mut machine, 0x34, 1)).unwrap();
    while at != 0 {
        let id = config(&mut machine, at, 1);
        let kind = config(&mut machine, at + 3, 1);
        let offset = config(&mut machine, at + 8, 4);
        found.push(if id == 9 { (kind, offset) } else { (id, 0) });
        at = u8::try_from(config(&mut machine, at + 1, 1)).unwrap();
    }
    let expected = [
        (0x11, 0),
        (1, 0),
        (3, 0x800),
        (4, 0xc00),
        (2, 0x1000),
        (5, 0),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_driver_follows_the_steps_and_gets_served() {
    let mut machine = machine();
    let mut rings = machine.start(0, 16);
    assert_eq!(lock(&machine.host.doorbells)[..], [0xe000_1000]);
    let memory = machine.memory.clone();
    rings[0].add(&memory, &[(0x5000, 64, true)]);
    machine.kick(0);
    machine.run();
    assert_eq!(rings[0].take_used(&memory), Some((0, 64)));
    assert_eq!(machine.interrupts(0), 1);
    // The doorbell follows the BAR, and is gone with memory decoding and with the reset.
    machine
        .pci
        .config_write(0x10, &0xf000_0000_u32.to_le_bytes());
    assert_eq!(lock(&machine.host.doorbells)[..], [0xf000_1000]);
    machine.pci.config_write(4, &4_u16.to_le_bytes());
    assert!(lock(&machine.host.doorbells).is_empty());
    machine.pci.config_write(4, &6_u16.to_le_bytes());
    assert_eq!(lock(&machine.host.doorbells).len(), 1);
    machine.set_status(0);
    assert_eq!(machine.status(), 0);
    assert!(lock(&machine.host.doorbells).is_empty());
}

#[test]
fn a_reset_device_works_again_and_forgets_old_notifications() {
    let mut machine = machine();
    let memory = machine.memory.clone();
    for _ in 0..3 {
        let mut rings = machine.start(0, 16);
        rings[0].add(&memory, &[(0x5000, 64, true)]);
        machine.kick(0);
        machine.set_status(0);
        machine.run();
        assert_eq!(rings[0].take_used(&memory), None, "served after the reset");
        let mut rings = machine.start(0, 8);
        machine.run();
        rings[0].add(&memory, &[(0x5000, 64, true)]);
        machine.kick(0);
        machine.run();
        assert_eq!(rings[0].take_used(&memory), Some((0, 64)));
        machine.pci.reset();
        assert_eq!(machine.status(), 0);
        assert!(lock(&machine.host.group.routes).iter().all(Option::is_none));
    }
}

#[test]
fn features_must_be_offered_and_modern() {
    let mut machine = machine();
    machine.enable_pci(0xe000_0000, true);
    let offered = machine.features();
    assert_eq!(offered, VERSION_1 | 1 << 28 | 1 << 29);
    assert!(machine.negotiate(VERSION_1));
    assert!(!machine.negotiate(0), "legacy driver");
    assert!(!machine.negotiate(offered | 1), "never offered");
    // Agreed features stay.
    assert!(machine.negotiate(VERSION_1));
    machine.write(0x08, 0, 4);
    machine.write(0x0c, 0xffff_ffff, 4);
    assert_eq!(machine.read(0x0c, 4), 0);
}

#[test]
fn drivers_that_break_the_rules_lose_the_device() {
    // Starting before the features are agreed.
    let mut machine = machine();
    machine.enable_pci(0xe000_0000, true);
    machine.set_status(1);
    machine.set_status(7);
    assert_eq!(machine.status() & 0x40, 0x40);
    machine.set_status(11);
    assert_eq!(machine.status() & 8, 0, "only a reset helps");

    // Queues outside RAM or misaligned.
    for (register, value) in [(0x20, 0x7f00_0000), (0x28, 0x10_8001), (0x30, 0), (0x34, 1)] {
        machine.negotiate(VERSION_1);
        machine.write(0x18, 16, 2);
        for (register, address) in [(0x20, 0x10_0000), (0x28, 0x10_8000), (0x30, 0x10_c000)] {
            machine.write(register, address, 4);
        }
        machine.write(register, value, 4);
        machine.write(0x1c, 1, 2);
        assert_eq!(machine.read(0x1c, 2), 0, "register {register:#x}");
        assert_eq!(machine.status() & 0x40, 0x40);
    }
    // Sizes that are none are not taken.
    machine.negotiate(VERSION_1);
    for size in [0, 3, 128, 0xffff] {
        machine.write(0x18, size, 2);
        assert_eq!(machine.read(0x18, 2), 64);
    }
    // A required queue left out.
    machine.set_status(15);
    assert_eq!(machine.status() & 0x40, 0x40);
    let failures = lock(&machine.host.failures).clone();
    assert!(failures[0].contains("before the features"), "{failures:?}");
    assert!(failures[1].contains("not in RAM"), "{failures:?}");
    assert!(failures.last().unwrap().contains("required queue"));
}

#[test]
fn a_fault_while_running_raises_the_configuration_interrupt() {
    let mut machine = machine();
    let mut rings = machine.start(0, 16);
    let memory = machine.memory.clone();
    // A descriptor that points to itself.
    rings[0].write_desc(&memory, 0, (0x5000, 16, 3, 0));
    rings[0].offer(&memory, 0);
    machine.kick(0);
    machine.run();
    assert_eq!(machine.status(), 0x4f);
    assert_eq!(machine.host.group.raised(0), 1);
    assert_eq!(machine.read(0x15, 1), 1, "the generation moved");
    assert_eq!(rings[0].take_used(&memory), None);
    machine.kick(0);
    machine.run();
    assert_eq!(lock(&machine.host.failures).len(), 1);
    let mut rings = machine.start(0, 16);
    rings[0].add(&memory, &[(0x5000, 16, true)]);
    machine.kick(0);
    machine.run();
    assert!(rings[0].take_used(&memory).is_some());
}

#[test]
fn intx_is_used_until_msix_is_on() {
    let mut machine = machine();
    let mut rings = machine.start(0, 16);
    let memory = machine.memory.clone();
    machine.pci.config_write(0x42, &0_u16.to_le_bytes());
    let request = |machine: &mut TestMachine, ring: &mut crate::virtio::testing::Ring| {
        ring.add(&memory, &[(0x5000, 16, true)]);
        machine.kick(0);
        machine.run();
        assert!(ring.take_used(&memory).is_some());
    };
    request(&mut machine, &mut rings[0]);
    assert!(*lock(&machine.host.line.0));
    assert_eq!(config(&mut machine, 6, 1) & 8, 8);
    assert_eq!(machine.read(0x800, 1), 1, "ISR says: queue");
    assert!(!*lock(&machine.host.line.0));
    assert_eq!(machine.read(0x800, 1), 0);
    // Interrupt disable in the command register.
    machine.pci.config_write(4, &0x406_u16.to_le_bytes());
    request(&mut machine, &mut rings[0]);
    assert!(!*lock(&machine.host.line.0));
    machine.pci.config_write(4, &0x006_u16.to_le_bytes());
    assert!(*lock(&machine.host.line.0));
    // Turning MSI-X on releases the line.
    machine.pci.config_write(0x42, &0x8000_u16.to_le_bytes());
    assert!(!*lock(&machine.host.line.0));
    assert_eq!(machine.interrupts(0), 0);
}

#[test]
fn without_bus_mastering_memory_is_left_alone() {
    let mut machine = machine();
    let mut rings = machine.start(0, 16);
    let memory = machine.memory.clone();
    machine.pci.config_write(4, &2_u16.to_le_bytes());
    rings[0].add(&memory, &[(0x5000, 16, true)]);
    machine.kick(0);
    machine.run();
    assert_eq!(rings[0].take_used(&memory), None);
    machine.pci.config_write(4, &6_u16.to_le_bytes());
    machine.run();
    assert_eq!(rings[0].take_used(&memory), Some((0, 16)));
}

#[test]
fn interrupts_come_only_when_the_driver_wants_them() {
    for event_idx in [true, false] {
        let mut machine = machine();
        let without = if event_idx { 0 } else { 1 << 29 };
        let mut rings = machine.start(without, 16);
        let memory = machine.memory.clone();
        // Not wanted: used_event far away, or the flag.
        let (quiet, loud) = if event_idx {
            (
                (rings[0].avail + 4 + 32, 9_u16),
                (rings[0].avail + 4 + 32, 1),
            )
        } else {
            ((rings[0].avail, 1), (rings[0].avail, 0))
        };
        memory.write_obj(quiet.1, GuestAddress(quiet.0)).unwrap();
        rings[0].add(&memory, &[(0x5000, 16, true)]);
        machine.kick(0);
        machine.run();
        assert!(rings[0].has_used(&memory));
        assert_eq!(machine.interrupts(0), 0, "event_idx {event_idx}");
        memory.write_obj(loud.1, GuestAddress(loud.0)).unwrap();
        rings[0].add(&memory, &[(0x5000, 16, true)]);
        machine.kick(0);
        machine.run();
        assert_eq!(machine.interrupts(0), 1, "event_idx {event_idx}");
    }
}

#[test]
fn registers_can_be_reached_through_configuration_space() {
    let mut machine = machine();
    let access = 0x40 + 12 + 16 * 3 + 20;
    assert_eq!(config(&mut machine, access, 1), 9);
    assert_eq!(config(&mut machine, access + 3, 1), 5);
    let mut set = |offset: u32, len: u32| {
        machine.pci.config_write(access + 8, &offset.to_le_bytes());
        machine.pci.config_write(access + 12, &len.to_le_bytes());
    };
    set(0x14, 1);
    machine.pci.config_write(access + 16, &[3]);
    assert_eq!(machine.status(), 3);
    assert_eq!(config(&mut machine, access + 16, 1), 3);
    for (offset, len) in [(0x4000_u32, 4_u32), (1, 4), (0x14, 3), (u32::MAX, 4)] {
        machine.pci.config_write(access + 8, &offset.to_le_bytes());
        machine.pci.config_write(access + 12, &len.to_le_bytes());
        machine.pci.config_write(access + 16, &[0; 4]);
        config(&mut machine, access + 16, 4);
    }
    machine.pci.config_write(access + 4, &[1]);
    machine.pci.config_write(access + 16, &[0; 4]);
    assert_eq!(machine.status(), 3);
}
