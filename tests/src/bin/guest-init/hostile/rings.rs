//! Queues that lie: a device set up by the book, then fed with descriptors no driver would write.

use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::function::{Function, Mapping, Place};
use crate::mem::Pages;
use cumulet_tests::pattern::Rng;

const PAGE: usize = 4096;
/// Descriptors in a table. It fills half a page, so that a table or ring that begins at an odd
/// place still ends within the page: what follows in guest memory is somebody else's.
const DESCRIPTORS: usize = PAGE / 32;
/// Pages of a queue: descriptors, available ring, used ring, an indirect table, data.
const QUEUE_PAGES: usize = 8;

/// Descriptor flags (virtio 1.2 §2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Offsets in the common configuration (virtio 1.2 §4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(super) const DEVICE_FEATURE: usize = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(super) const DRIVER_FEATURE: usize = 0x0c;
    pub(super) const NUM_QUEUES: usize = 0x12;
    pub(super) const STATUS: usize = 0x14;
    pub(super) const QUEUE_SELECT: usize = 0x16;
    pub(super) const QUEUE_SIZE: usize = 0x18;
    pub(super) const QUEUE_ENABLE: usize = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: usize = 0x1e;
    pub(super) const QUEUE_DESC: usize = 0x20;
    pub(super) const QUEUE_DRIVER: usize = 0x28;
    pub(super) const QUEUE_DEVICE: usize = 0x30;
}

/// What is seen of the devices over all rounds.
#[derive(Default)]
struct Seen {
    /// Rounds after which the device asked to be reset.
    needs_reset: u64,
    /// Rounds before which the device would not take the driver's features.
    refused: u64,
    /// Rounds in which the device answered at least one request.
    answered: u64,
}

/// `rounds` of set-up, garbage, doorbell for each function.
pub(super) fn run(rng: &mut Rng, rounds: u64, functions: &[Function]) -> Result<Value> {
    let mut report = serde_json::Map::new();
    for function in functions {
        let mut seen = Seen::default();
        let mut device = Device::new(function)?;
        for _ in 0..rounds {
            device.round(rng, &mut seen)?;
        }
        device.status(0);
        let key = format!("{} type {}", function.slot(), function.virtio_type());
        report.insert(
            key,
            json!({
                "needs_reset": seen.needs_reset,
                "refused": seen.refused,
                "answered": seen.answered,
            }),
        );
    }
    Ok(Value::Object(report))
}

struct Device {
    bars: Vec<(u8, Mapping)>,
    common: Place,
    notify: Place,
    memory: Memory,
}

impl Device {
    fn new(function: &Function) -> Result<Self> {
        let structure = |kind| -> Result<Place> {
            function
                .virtio_structure(kind)?
                .with_context(|| format!("{} lacks structure {kind}", function.slot()))
        };
        Ok(Self {
            bars: function.bars(),
            common: structure(1)?,
            notify: structure(2)?,
            memory: Memory::new()?,
        })
    }

    fn bar(&self, place: Place) -> Result<&Mapping> {
        self.bars
            .iter()
            .find(|(bar, _)| *bar == place.bar)
            .map(|(_, mapping)| mapping)
            .context("the structure lies in a BAR that cannot be mapped")
    }

    fn read(&self, register: usize, width: usize) -> u32 {
        self.bar(self.common)
            .map_or(0, |bar| bar.read(self.common.offset + register, width))
    }

    fn write(&self, register: usize, width: usize, value: u64) {
        if let Ok(bar) = self.bar(self.common) {
            bar.write(self.common.offset + register, width, value);
        }
    }

    fn status(&self, value: u8) {
        self.write(common::STATUS, 1, value.into());
    }

    /// One set-up with one kind of garbage.
    fn round(&mut self, rng: &mut Rng, seen: &mut Seen) -> Result<()> {
        self.status(0);
        let patience = Instant::now();
        while self.read(common::STATUS, 1) != 0 && patience.elapsed() < Duration::from_secs(1) {
            std::thread::yield_now();
        }
        self.status(1);
        self.status(3);
        for half in 0..2 {
            self.write(common::DEVICE_FEATURE_SELECT, 4, half);
            let offered = u64::from(self.read(common::DEVICE_FEATURE, 4));
            self.write(common::DRIVER_FEATURE_SELECT, 4, half);
            // All that is offered, or only VERSION_1 with a random part of the rest.
            let version_1 = half & 1;
            let some = if rng.below(3) == 0 {
                rng.next_u64() | version_1
            } else {
                u64::MAX
            };
            self.write(common::DRIVER_FEATURE, 4, offered & some);
        }
        self.status(0x0b);
        if self.read(common::STATUS, 1) & 8 == 0 {
            seen.refused += 1;
            return Ok(());
        }
        self.memory.fill(rng);
        let queues = self.read(common::NUM_QUEUES, 2).min(4);
        for queue in 0..queues {
            self.set_up_queue(rng, queue)?;
        }
        self.status(0x0f);
        self.kick(rng, queues)?;
        let status = self.read(common::STATUS, 1);
        seen.needs_reset += u64::from(status & 0x40 != 0);
        seen.answered += u64::from(self.memory.used_index() != 0);
        Ok(())
    }

    fn set_up_queue(&self, rng: &mut Rng, queue: u32) -> Result<()> {
        self.write(common::QUEUE_SELECT, 2, queue.into());
        // A device may be asked for more entries than it has, for none, for 3.
        let size = match rng.below(8) {
            0 => rng.below(0x1_0000),
            1 => 0,
            2 => 3,
            _ => DESCRIPTORS as u64,
        };
        self.write(common::QUEUE_SIZE, 2, size);
        if self.read(common::QUEUE_SIZE, 2) > u32::try_from(DESCRIPTORS)? {
            self.write(common::QUEUE_SIZE, 2, DESCRIPTORS as u64);
        }
        let parts = [
            common::QUEUE_DESC,
            common::QUEUE_DRIVER,
            common::QUEUE_DEVICE,
        ];
        for (page, register) in parts.into_iter().enumerate() {
            let address = match rng.below(16) {
                0 => nowhere(rng),
                1 => self.memory.physical(0)?,
                2 => self.memory.physical(page)? + rng.below(1024),
                _ => self.memory.physical(page)?,
            };
            self.write(register, 4, address & 0xffff_ffff);
            self.write(register + 4, 4, address >> 32);
        }
        self.write(common::QUEUE_ENABLE, 2, 1);
        Ok(())
    }

    /// Rings every doorbell some times, while another thread changes what the device is reading.
    fn kick(&self, rng: &mut Rng, queues: u32) -> Result<()> {
        let mut doorbells = Vec::new();
        for queue in 0..queues {
            self.write(common::QUEUE_SELECT, 2, queue.into());
            let off = usize::try_from(self.read(common::QUEUE_NOTIFY_OFF, 2))?;
            doorbells.push((queue, self.notify.offset + off * self.notify.multiplier));
        }
        let stop = AtomicBool::new(false);
        let mut scribbler = rng.clone();
        let (memory, stop) = (&self.memory, &stop);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    memory.scribble(&mut scribbler);
                }
            });
            for _ in 0..4 {
                for (queue, at) in &doorbells {
                    memory.advance(rng);
                    if let Ok(bar) = self.bar(self.notify) {
                        bar.write(*at, 2, (*queue).into());
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(1));
            stop.store(true, Ordering::Relaxed);
        });
        Ok(())
    }
}

/// An address without RAM: at the end of the address space, the local APIC, the PCI hole, far out.
fn nowhere(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => u64::MAX - rng.below(PAGE as u64),
        1 => 0xfee0_0000 + rng.below(PAGE as u64),
        2 => 0xd000_0000 + rng.below(1 << 28),
        _ => rng.next_u64() | 1 << 45,
    }
}

/// The pages of the rings; all queues of a device share them, which is garbage enough by itself.
struct Memory {
    pages: Pages,
    physical: Vec<u64>,
}

// SAFETY: threads only store single bytes and words by volatile accesses through `Pages::address`;
// torn values are the very purpose.
unsafe impl Sync for Memory {}

impl Memory {
    fn new() -> Result<Self> {
        let mut pages = Pages::new(QUEUE_PAGES * PAGE)?;
        pages.bytes().fill(1);
        let map = std::fs::File::open("/proc/self/pagemap")?;
        let mut physical = Vec::new();
        for page in 0..QUEUE_PAGES {
            let number = pages.address(page * PAGE).addr() / PAGE;
            let mut entry = [0; 8];
            map.read_exact_at(&mut entry, (number * 8) as u64)?;
            let entry = u64::from_le_bytes(entry);
            ensure!(entry >> 63 == 1, "a locked page is not present");
            physical.push((entry & ((1 << 55) - 1)) * PAGE as u64);
        }
        Ok(Self { pages, physical })
    }

    fn physical(&self, page: usize) -> Result<u64> {
        self.physical.get(page).copied().context("no such page")
    }

    /// An address for a descriptor: in our own pages, or where there is no RAM at all.
    fn address(&self, rng: &mut Rng) -> u64 {
        let own = usize::try_from(rng.below(QUEUE_PAGES as u64))
            .ok()
            .and_then(|page| self.physical.get(page).copied())
            .unwrap_or(0);
        match rng.below(12) {
            0..=3 => nowhere(rng),
            4 => own + rng.below(PAGE as u64),
            _ => own,
        }
    }

    /// Fills tables and rings with one theme of garbage.
    fn fill(&mut self, rng: &mut Rng) {
        let theme = rng.below(8);
        for table in [0, 3] {
            for index in 0..DESCRIPTORS {
                let descriptor = self.descriptor(rng, theme, index);
                let at = table * PAGE + index * 16;
                self.pages.bytes()[at..at + 16].copy_from_slice(&descriptor);
            }
        }
        let bytes = self.pages.bytes();
        // Available ring: flags, index, entries; the used ring starts empty.
        for index in 0..DESCRIPTORS {
            let head = match theme {
                1 => u16::try_from(rng.below(0x1_0000)).unwrap_or(0),
                _ => u16::try_from(rng.below(DESCRIPTORS as u64)).unwrap_or(0),
            };
            let at = PAGE + 4 + index * 2;
            bytes[at..at + 2].copy_from_slice(&head.to_le_bytes());
        }
        bytes[PAGE..PAGE + 4].fill(0);
        bytes[2 * PAGE..3 * PAGE].fill(0);
        // Data pages begin as virtio-blk request headers: type, reserved, sector.
        for page in 4..QUEUE_PAGES {
            let kinds = [0, 1, 4, 8, 11, 13, 16, 0xffff_ffff];
            let kind = kinds[usize::try_from(rng.below(8)).unwrap_or(0)];
            let sector = if rng.below(2) == 0 {
                rng.below(1 << 16)
            } else {
                rng.next_u64()
            };
            let at = page * PAGE;
            bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(kind));
            bytes[at + 8..at + 16].copy_from_slice(&sector.to_le_bytes());
        }
    }

    fn descriptor(&self, rng: &mut Rng, theme: u64, index: usize) -> [u8; 16] {
        let here = u16::try_from(index).unwrap_or(0);
        let any = |rng: &mut Rng| u16::try_from(rng.below(0x1_0000)).unwrap_or(0);
        let lengths = [0, 1, 15, 16, 17, 511, 512, 4096, 0x7fff_ffff, 0xffff_ffff];
        let mut address = self.address(rng);
        let mut len = lengths[usize::try_from(rng.below(10)).unwrap_or(0)];
        let (flags, next) = match theme {
            // A loop of one, and of two.
            0 => (NEXT | (any(rng) & WRITE), here ^ (any(rng) & 1)),
            // Out of the table.
            1 => (any(rng), any(rng)),
            // Indirect: tables within tables, lengths that are no multiple of 16.
            2 => {
                address = self.physical.get(3).copied().unwrap_or(0);
                (INDIRECT | (any(rng) & (NEXT | WRITE)), any(rng) & 0xff)
            }
            // Nearly right: a chain of a header, data and a status byte of our own pages.
            3 | 4 => {
                address = self.physical.get(4 + index % 4).copied().unwrap_or(0);
                len = [16, 512, 4096, 1][index % 4];
                match index % 3 {
                    0 => (NEXT, here.wrapping_add(1)),
                    1 => (NEXT | (any(rng) & WRITE), here.wrapping_add(1)),
                    _ => (WRITE, 0),
                }
            }
            // One long chain of huge buffers.
            5 => {
                len = 0xffff_ffff;
                (NEXT | WRITE, here.wrapping_add(1) & 0xff)
            }
            _ => (any(rng) & 7, any(rng) & 0xff),
        };
        // Within RAM a buffer ends with our page, unless it is so long that it must be refused.
        let page = PAGE as u64;
        if self.physical.contains(&(address / page * page)) && len < 0x4000_0000 {
            len = len.min(u32::try_from(page - address % page).unwrap_or(0));
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::to_le_bytes(len));
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        bytes
    }

    /// Moves the available index: mostly by a few, at times by more than the ring has.
    fn advance(&self, rng: &mut Rng) {
        let step = match rng.below(8) {
            0 => rng.below(0x1_0000),
            _ => rng.below(8),
        };
        let at = self.pages.address(PAGE + 2).cast::<u16>();
        // SAFETY: two aligned bytes within our pages.
        unsafe {
            let step = u16::try_from(step).unwrap_or(1);
            at.write_volatile(at.read_volatile().wrapping_add(step));
        }
    }

    /// Changes one byte of the descriptors or the available ring.
    fn scribble(&self, rng: &mut Rng) {
        let table = [0, PAGE, 3 * PAGE][usize::try_from(rng.below(3)).unwrap_or(0)];
        let offset = usize::try_from(rng.below(PAGE as u64)).unwrap_or(0);
        let byte = rng.next_u64().to_le_bytes()[0];
        // Flags, next and the high byte of the length. A random address, or some pages more than
        // ours, could be the guest's own kernel, and it must live to go on with this.
        if table == PAGE || offset % 16 >= 11 {
            // SAFETY: one byte within our pages.
            unsafe { self.pages.address(table + offset).write_volatile(byte) };
        }
    }

    fn used_index(&mut self) -> u16 {
        let bytes = self.pages.bytes();
        u16::from_le_bytes([bytes[2 * PAGE + 2], bytes[2 * PAGE + 3]])
    }
}
