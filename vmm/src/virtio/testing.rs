//! A machine without KVM for tests: RAM, an event loop run by hand, interrupts that are counted,
//! and a driver that works a device through its transport as a guest does.

use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::transport::{Host, VirtioPci};
use super::{FailureSink, Ram, VirtioDevice};
use crate::device::{IntxLine, MsiGroup, PciDevice, PciHost};
use crate::event_loop::{EventHandler, EventLoop, EventLoopHandle, lock};
use crate::pci::msix::tests::FakeGroup;

/// RAM of the test machine.
pub(crate) const RAM_SIZE: usize = 16 << 20;

/// An INTx line that remembers its level.
#[derive(Clone, Default)]
pub(crate) struct FakeLine(pub(crate) Arc<Mutex<bool>>);

impl IntxLine for FakeLine {
    fn set(&self, asserted: bool) -> io::Result<()> {
        *lock(&self.0) = asserted;
        Ok(())
    }
}

/// The host side of one function.
#[derive(Clone)]
pub(crate) struct FakeHost {
    pub(crate) group: FakeGroup,
    pub(crate) line: FakeLine,
    pub(crate) doorbells: Arc<Mutex<Vec<u64>>>,
    pub(crate) failures: Arc<Mutex<Vec<String>>>,
}

impl PciHost for FakeHost {
    fn msi(&self, _vectors: u16) -> io::Result<Box<dyn MsiGroup>> {
        Ok(Box::new(self.group.clone()))
    }

    fn intx(&self, _slot: u8) -> io::Result<Box<dyn IntxLine>> {
        Ok(Box::new(self.line.clone()))
    }

    fn add_doorbell(&self, address: u64, _event: &EventFd) -> io::Result<()> {
        lock(&self.doorbells).push(address);
        Ok(())
    }

    fn remove_doorbell(&self, address: u64, _event: &EventFd) -> io::Result<()> {
        let mut doorbells = lock(&self.doorbells);
        let at = doorbells.iter().position(|known| *known == address);
        doorbells.remove(at.expect("only known doorbells are removed"));
        Ok(())
    }
}

impl FailureSink for FakeHost {
    fn device_failed(&self, _device: &str, reason: &str) {
        lock(&self.failures).push(reason.to_owned());
    }
}

struct Stop(EventLoopHandle, EventFd);

impl EventHandler for Stop {
    fn ready(&mut self, _source: u64, _events: vmm_sys_util::epoll::EventSet) {
        let _ = self.1.read();
        self.0.stop();
    }
}

/// A transport with a driver's view of it.
pub(crate) struct TestMachine {
    pub(crate) host: FakeHost,
    pub(crate) memory: Ram,
    pub(crate) pci: VirtioPci,
    events: EventLoop,
}

/// BAR offsets, as the capabilities say.
const NOTIFY: u64 = 0x1000;
const MSIX_TABLE: u64 = 0x2000;

impl TestMachine {
    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> Self {
        let vectors = u16::try_from(device.queue_sizes().len() + 1).unwrap();
        let host = FakeHost {
            group: FakeGroup::new(vectors),
            line: FakeLine::default(),
            doorbells: Arc::default(),
            failures: Arc::default(),
        };
        // Two regions, so that buffers can cross from one to the other.
        let half = RAM_SIZE / 2;
        let memory = Ram::from_ranges(&[
            (GuestAddress(0), half),
            (GuestAddress(u64::try_from(half).unwrap()), half),
        ])
        .unwrap();
        let events = EventLoop::new().unwrap();
        let pci = VirtioPci::new(
            "test0",
            3,
            device,
            Host {
                memory: memory.clone(),
                pci: Arc::new(host.clone()),
                events: events.handle(),
                failures: Arc::new(host.clone()),
            },
        )
        .unwrap();
        Self {
            host,
            memory,
            pci,
            events,
        }
    }

    pub(crate) fn read(&mut self, offset: u64, len: usize) -> u64 {
        let mut data = [0; 8];
        self.pci.bar_read(0, offset, &mut data[..len]);
        u64::from_le_bytes(data)
    }

    pub(crate) fn write(&mut self, offset: u64, value: u64, len: usize) {
        self.pci.bar_write(0, offset, &value.to_le_bytes()[..len]);
    }

    pub(crate) fn status(&mut self) -> u64 {
        self.read(0x14, 1)
    }

    pub(crate) fn set_status(&mut self, status: u64) {
        self.write(0x14, status, 1);
    }

    /// Turns on memory decoding at `bar`, bus mastering and, if asked, MSI-X with every vector
    /// programmed.
    pub(crate) fn enable_pci(&mut self, bar: u32, msix: bool) {
        self.pci.config_write(0x10, &bar.to_le_bytes());
        self.pci.config_write(0x04, &6_u16.to_le_bytes());
        if msix {
            // The MSI-X capability is the first.
            self.pci.config_write(0x42, &0x8000_u16.to_le_bytes());
            let queues = self.read(0x12, 2);
            for vector in 0..=queues {
                self.write(MSIX_TABLE + vector * 16, 0xfee0_0000, 8);
                self.write(MSIX_TABLE + vector * 16 + 8, 0x40 + vector, 4);
                self.write(MSIX_TABLE + vector * 16 + 12, 0, 4);
            }
        }
    }

    /// Offered features.
    pub(crate) fn features(&mut self) -> u64 {
        let mut features = 0;
        for select in 0..2 {
            self.write(0x00, select, 4);
            features |= self.read(0x04, 4) << (32 * select);
        }
        features
    }

    /// Up to FEATURES_OK; says whether the device agreed.
    pub(crate) fn negotiate(&mut self, features: u64) -> bool {
        self.set_status(0);
        self.set_status(1);
        self.set_status(3);
        for select in 0..2 {
            self.write(0x08, select, 4);
            self.write(0x0c, features >> (32 * select) & 0xffff_ffff, 4);
        }
        self.set_status(11);
        self.status() & 8 != 0
    }

    /// Programs and enables a queue of `size` entries.
    pub(crate) fn enable_queue(&mut self, index: u64, size: u16) -> Ring {
        let ring = Ring::at(0x10_0000 * (index + 1), size);
        self.write(0x16, index, 2);
        self.write(0x18, size.into(), 2);
        for (register, address) in [(0x20, ring.desc), (0x28, ring.avail), (0x30, ring.used)] {
            self.write(register, address & 0xffff_ffff, 4);
            self.write(register + 4, address >> 32, 4);
        }
        self.memory
            .write_slice(&vec![0; 0x10000], GuestAddress(ring.desc))
            .unwrap();
        self.write(0x1c, 1, 2);
        ring
    }

    /// Brings the device up with all features but `without`, and all queues.
    pub(crate) fn start(&mut self, without: u64, size: u16) -> Vec<Ring> {
        self.enable_pci(0xe000_0000, true);
        let features = self.features() & !without;
        assert!(self.negotiate(features), "features {features:#x} refused");
        let queues = self.read(0x12, 2);
        self.write(0x10, 0, 2);
        for queue in 0..queues {
            self.write(0x16, queue, 2);
            self.write(0x1a, queue + 1, 2);
        }
        let rings = (0..queues).map(|q| self.enable_queue(q, size)).collect();
        self.set_status(15);
        assert_eq!(
            self.status(),
            15,
            "failures: {:?}",
            lock(&self.host.failures)
        );
        rings
    }

    /// Notifies a queue.
    pub(crate) fn kick(&mut self, queue: u64) {
        self.write(NOTIFY + queue * 4, queue, 2);
    }

    /// Runs the event loop until everything that is ready now has been handled once.
    pub(crate) fn run(&mut self) {
        let event = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
        event.write(1).unwrap();
        let handle = self.events.handle();
        let watched = event.try_clone().unwrap();
        let stop = Arc::new(Mutex::new(Stop(handle.clone(), event)));
        let set = vmm_sys_util::epoll::EventSet::IN;
        let token = handle.add(&watched, set, stop, 0).unwrap();
        self.events.run().unwrap();
        handle.remove(token);
    }

    /// Runs the event loop until `done` says so; gives up after a generous while.
    pub(crate) fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..2000 {
            if done(self) {
                return;
            }
            self.run();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let failures = lock(&self.host.failures).clone();
        panic!("{what} did not happen; failures so far: {failures:?}");
    }

    /// Interrupts of a queue since last asked.
    pub(crate) fn interrupts(&self, queue: u16) -> u64 {
        self.host.group.raised(queue + 1)
    }
}

/// A descriptor: address, length, device writes.
pub(crate) type Desc = (u64, u32, bool);

/// The driver's side of a queue.
pub(crate) struct Ring {
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    pub(crate) size: u16,
    next_desc: u16,
    next_avail: u16,
    next_used: u16,
}

impl Ring {
    fn at(address: u64, size: u16) -> Self {
        Self {
            desc: address,
            avail: address + 0x8000,
            used: address + 0xc000,
            size,
            next_desc: 0,
            next_avail: 0,
            next_used: 0,
        }
    }

    pub(crate) fn write_desc(&self, memory: &Ram, index: u16, desc: (u64, u32, u16, u16)) {
        let at = GuestAddress(self.desc + u64::from(index) * 16);
        memory.write_obj(desc.0, at).unwrap();
        memory.write_obj(desc.1, GuestAddress(at.0 + 8)).unwrap();
        memory.write_obj(desc.2, GuestAddress(at.0 + 12)).unwrap();
        memory.write_obj(desc.3, GuestAddress(at.0 + 14)).unwrap();
    }

    /// Puts `head` into the available ring.
    pub(crate) fn offer(&mut self, memory: &Ram, head: u16) {
        let slot = u64::from(self.next_avail % self.size);
        memory
            .write_obj(head, GuestAddress(self.avail + 4 + slot * 2))
            .unwrap();
        self.next_avail = self.next_avail.wrapping_add(1);
        memory
            .write_obj(self.next_avail, GuestAddress(self.avail + 2))
            .unwrap();
    }

    /// Makes a chain available; descriptors are used round robin, so at most a queue's worth may
    /// be outstanding. Returns the head.
    pub(crate) fn add(&mut self, memory: &Ram, chain: &[Desc]) -> u16 {
        let head = self.next_desc % self.size;
        for (at, (address, len, write)) in chain.iter().enumerate() {
            let index = self.next_desc % self.size;
            self.next_desc = self.next_desc.wrapping_add(1);
            let last = at + 1 == chain.len();
            let flags = u16::from(!last) | u16::from(*write) << 1;
            let next = self.next_desc % self.size;
            self.write_desc(memory, index, (*address, *len, flags, next));
        }
        self.offer(memory, head);
        head
    }

    /// The next used element: head and length.
    pub(crate) fn take_used(&mut self, memory: &Ram) -> Option<(u16, u32)> {
        let index: u16 = memory.read_obj(GuestAddress(self.used + 2)).unwrap();
        if index == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.size);
        let at = self.used + 4 + slot * 8;
        let id: u32 = memory.read_obj(GuestAddress(at)).unwrap();
        let len: u32 = memory.read_obj(GuestAddress(at + 4)).unwrap();
        self.next_used = self.next_used.wrapping_add(1);
        // EVENT_IDX: interrupt for the next one.
        let event = GuestAddress(self.avail + 4 + u64::from(self.size) * 2);
        memory.write_obj(self.next_used, event).unwrap();
        Some((u16::try_from(id).unwrap(), len))
    }

    /// Whether something was used that has not been taken.
    pub(crate) fn has_used(&self, memory: &Ram) -> bool {
        let index: u16 = memory.read_obj(GuestAddress(self.used + 2)).unwrap();
        index != self.next_used
    }
}
