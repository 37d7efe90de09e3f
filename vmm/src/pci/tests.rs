//! The bus seen from its ports and from memory.

use proptest::prelude::*;

use super::bridge::HostBridge;
use super::config_space::{BarKind, COMMAND_MEMORY, ConfigSpace, Identity};
use super::*;

/// A function with a 32-bit and a 64-bit BAR whose bytes can be written.
struct Memory {
    config: ConfigSpace,
    bytes: Vec<u8>,
}

impl PciDevice for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn config_read(&mut self, offset: u8, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u8, data: &[u8]) {
        self.config.write(offset, data);
    }

    fn bars(&self) -> Vec<BarRange> {
        self.config.decoded_bars()
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        assert!(bar == 0 || bar == 2);
        let offset = usize::try_from(offset).unwrap();
        data.copy_from_slice(&self.bytes[offset..offset + data.len()]);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        assert!(bar == 0 || bar == 2);
        let offset = usize::try_from(offset).unwrap();
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    fn reset(&mut self) {
        self.config.reset();
        self.bytes.fill(0);
    }
}

fn root() -> PciRoot {
    let root = PciRoot::new();
    root.add(0, 0, Box::new(HostBridge::new())).unwrap();
    let mut config = ConfigSpace::new(&Identity {
        vendor: 0x1234,
        device: 0x5678,
        subsystem_vendor: 0,
        subsystem: 0,
        class: 0xff_00_00,
        revision: 0,
    });
    config.add_bar(0, 0x1000, BarKind::Memory32).unwrap();
    config.add_bar(2, 0x1000, BarKind::Memory64).unwrap();
    let bytes = vec![0; 0x1000];
    root.add(2, 0, Box::new(Memory { config, bytes })).unwrap();
    root
}

fn select(root: &PciRoot, slot: u32, function: u32, register: u32) {
    let address = ENABLE | slot << 11 | function << 8 | register;
    root.port_write(0, &address.to_le_bytes());
}

fn read(root: &PciRoot, slot: u32, function: u32, register: u32) -> u32 {
    select(root, slot, function, register);
    let mut data = [0; 4];
    root.port_read(4, &mut data);
    u32::from_le_bytes(data)
}

fn write(root: &PciRoot, slot: u32, register: u32, value: u32) {
    select(root, slot, 0, register);
    root.port_write(4, &value.to_le_bytes());
}

#[test]
fn enumeration_finds_the_functions_and_ones_elsewhere() {
    let root = root();
    assert_eq!(read(&root, 0, 0, 0), 0x1237_8086);
    assert_eq!(read(&root, 2, 0, 0), 0x5678_1234);
    assert_eq!(read(&root, 1, 0, 0), u32::MAX);
    assert_eq!(read(&root, 2, 1, 0), u32::MAX);
    assert_eq!(read(&root, 31, 7, 0xfc), u32::MAX);
    // Another bus, an extended register (AMD's way), and access not enabled.
    for address in [ENABLE | 1 << 16, ENABLE | 1 << 24, 0] {
        root.port_write(0, &u32::to_le_bytes(address));
        let mut data = [0; 4];
        root.port_read(4, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}

#[test]
fn ports_take_every_width_and_the_address_reads_back() {
    let root = root();
    root.port_write(0, &0x8000_0003_u32.to_le_bytes());
    let mut dword = [0; 4];
    root.port_read(0, &mut dword);
    assert_eq!(u32::from_le_bytes(dword), 0x8000_0000);
    // Linux's probe writes one byte here, which must not change the address.
    root.port_write(3, &[1]);
    root.port_read(0, &mut dword);
    assert_eq!(u32::from_le_bytes(dword), 0x8000_0000);

    let mut word = [0; 2];
    root.port_read(6, &mut word);
    assert_eq!(u16::from_le_bytes(word), 0x1237);
    let mut byte = [0; 1];
    root.port_read(5, &mut byte);
    assert_eq!(byte, [0x80]);
    root.port_read(7, &mut word);
    assert_eq!(word, [0xff; 2], "crosses the dword");
    select(&root, 0, 0, 0x58);
    root.port_write(5, &[0x5a]);
    assert_eq!(read(&root, 0, 0, 0x58), 0x5a00);
}

#[test]
fn bars_answer_where_the_guest_puts_them() {
    let root = root();
    root.assign_bars(
        Window::new(0xe000_0800, 0xe000_4000),
        Some(Window::new(0x1_0000_0000, 0x2_0000_0000)),
    )
    .unwrap();
    assert_eq!(read(&root, 2, 0, 0x10), 0xe000_1000);
    assert_eq!(read(&root, 2, 0, 0x18), 0xc);
    assert_eq!(read(&root, 2, 0, 0x1c), 1);
    let mut data = [0; 4];
    assert!(!root.mmio_read(0xe000_1000, &mut data), "decoding is off");
    write(&root, 2, 0x04, u32::from(COMMAND_MEMORY));
    assert!(root.mmio_write(0xe000_1010, &[1, 2, 3, 4]));
    assert!(root.mmio_read(0x1_0000_0010, &mut data));
    assert_eq!(data, [1, 2, 3, 4]);
    assert_eq!(
        root.describe(0xe000_1010),
        Some(("memory".to_owned(), 0, 0x10))
    );
    assert!(!root.mmio_read(0xe000_1ffe, &mut data), "crosses the end");
    assert_eq!(data, [0xff; 4]);

    write(&root, 2, 0x10, 0xf000_0000);
    assert!(!root.mmio_read(0xe000_1010, &mut data));
    assert!(root.mmio_read(0xf000_0010, &mut data));
    root.reset();
    assert!(!root.mmio_read(0xf000_0010, &mut data));
    assert_eq!(read(&root, 2, 0, 0x10), 0);
}

#[test]
fn full_windows_and_taken_slots_are_errors() {
    let root = root();
    let error = root
        .assign_bars(Window::new(0xe000_0000, 0xe000_1000), None)
        .unwrap_err();
    assert!(error.to_string().contains("BAR 2"), "{error}");
    let again = root.add(2, 0, Box::new(HostBridge::new()));
    assert_eq!(
        again,
        Err(PciError::Slot {
            slot: 2,
            function: 0
        })
    );
    let beyond = root.add(3, 8, Box::new(HostBridge::new()));
    assert!(beyond.is_err());
    assert!(root.add(32, 0, Box::new(HostBridge::new())).is_err());
}

proptest! {
    #[test]
    fn random_port_and_memory_accesses_are_harmless(
        accesses in prop::collection::vec(
            (any::<bool>(), 0_u64..10, 0_usize..5, any::<[u8; 8]>(), any::<u64>()), 0..200)
    ) {
        let root = root();
        for (port, offset, len, bytes, address) in accesses {
            if port {
                // Mostly name a function that is there.
                if offset == 9 {
                    select(&root, u32::from(bytes[0] & 3), u32::from(bytes[1] & 3), u32::from(bytes[2]));
                }
                root.port_write(offset, &bytes[..len]);
                root.port_read(offset, &mut { bytes }[..len]);
            } else {
                root.mmio_write(address, &bytes[..len]);
                root.mmio_read(address, &mut { bytes }[..len]);
            }
        }
        root.reset();
        prop_assert_eq!(read(&root, 0, 0, 0), 0x1237_8086);
    }
}
