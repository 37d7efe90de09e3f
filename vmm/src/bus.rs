//! The I/O port space: which device answers which port.

use std::sync::{Arc, Mutex};

use crate::device::BusDevice;
use crate::event_loop::lock;

/// A device as the bus holds it. The owner keeps a clone to reach its own state.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

struct Entry {
    name: &'static str,
    start: u16,
    length: u16,
    device: SharedDevice,
}

/// Ports by range. Built once, then read by all vCPU threads without a lock; each device has its
/// own, held only while it handles an access.
#[derive(Default)]
pub struct PortBus {
    entries: Vec<Entry>,
}

impl PortBus {
    /// Adds `length` ports from `start`. Of overlapping ranges the one added first answers the
    /// accesses that fit into it.
    pub fn add(&mut self, name: &'static str, start: u16, length: u16, device: SharedDevice) {
        self.entries.push(Entry {
            name,
            start,
            length,
            device,
        });
    }

    fn find(&self, port: u16, length: usize) -> Option<(&Entry, u64)> {
        self.entries.iter().find_map(|entry| {
            let offset = port.checked_sub(entry.start)?;
            let end = usize::from(offset) + length;
            (end <= usize::from(entry.length)).then_some((entry, u64::from(offset)))
        })
    }

    /// Name of the device at `port`, for traces.
    #[must_use]
    pub fn name(&self, port: u16) -> Option<&'static str> {
        self.find(port, 1).map(|(entry, _)| entry.name)
    }

    /// A guest IN of 1, 2 or 4 bytes; ones where nothing answers.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        match self.find(port, data.len()) {
            Some((entry, offset)) => lock(&entry.device).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A guest OUT of 1, 2 or 4 bytes.
    pub fn write(&self, port: u16, data: &[u8]) {
        if let Some((entry, offset)) = self.find(port, data.len()) {
            lock(&entry.device).write(offset, data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Constant(u8);

    impl BusDevice for Constant {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + u8::try_from(offset).unwrap());
        }

        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    #[test]
    fn narrow_ranges_win_only_where_the_access_fits() {
        let mut bus = PortBus::default();
        bus.add("reset", 0xcf9, 1, Arc::new(Mutex::new(Constant(1))));
        bus.add("pci", 0xcf8, 8, Arc::new(Mutex::new(Constant(10))));
        let read = |port, length| {
            let mut data = vec![0; length];
            bus.read(port, &mut data);
            data
        };
        assert_eq!(read(0xcf9, 1), [1]);
        assert_eq!(read(0xcf8, 4), [10; 4]);
        assert_eq!(read(0xcf9, 2), [11; 2]);
        assert_eq!(read(0xcff, 2), [0xff; 2]);
        assert_eq!(read(0xcf7, 1), [0xff]);
        assert_eq!(bus.name(0xcf9), Some("reset"));
        bus.write(0xcf9, &[7]);
        assert_eq!(read(0xcf9, 1), [7]);
    }
}
