//! A disk through its queues, on files and on a backend that is awkward in every way.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use cumulet_images::block::{BlockBackend, Capabilities, Extent, Place};
use cumulet_images::raw::RawDisk;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::config::DiskEngine;
use crate::event_loop::lock;
use crate::virtio::Metrics;
use crate::virtio::testing::{Desc, RAM_SIZE, Ring, TestMachine};

const DISK: u64 = 4 << 20;
const HEADER: u64 = 0x1000;
const STATUS: u64 = 0x2000;
const DATA: u64 = 0x40_0000;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

struct Bench {
    machine: TestMachine,
    rings: Vec<Ring>,
    metrics: Arc<BlkMetrics>,
    /// Requests made so far; each has its own header and status byte.
    made: u64,
}

fn options(engine: DiskEngine, queues: u16) -> BlkOptions {
    BlkOptions {
        serial: "vol-0123456789abcdef".to_owned(),
        queues,
        engine,
    }
}

impl Bench {
    fn new(backend: Arc<dyn BlockBackend>, engine: DiskEngine, without: u64) -> Self {
        let blk = Blk::new(backend, &options(engine, 2)).unwrap();
        let metrics = blk.metrics();
        let mut machine = TestMachine::new(Box::new(blk));
        let rings = machine.start(without, 256);
        Self {
            machine,
            rings,
            metrics,
            made: 0,
        }
    }

    /// Makes a request available and returns where its status byte goes.
    fn add(&mut self, queue: usize, kind: u32, sector: u64, data: &[Desc]) -> u64 {
        let memory = self.machine.memory.clone();
        let header = HEADER + self.made % 64 * 16;
        let status = STATUS + self.made % 64;
        self.made += 1;
        memory.write_obj(kind, GuestAddress(header)).unwrap();
        memory.write_obj(sector, GuestAddress(header + 8)).unwrap();
        memory.write_obj(0xee_u8, GuestAddress(status)).unwrap();
        let mut chain = vec![(header, 16, false)];
        chain.extend_from_slice(data);
        chain.push((status, 1, true));
        self.rings[queue].add(&memory, &chain);
        status
    }

    fn wait(&mut self, queue: usize) -> (u16, u32) {
        let memory = self.machine.memory.clone();
        let rings = &mut self.rings;
        let mut used = None;
        self.machine.run_until("an answer", |_| {
            used = rings[queue].take_used(&memory);
            used.is_some()
        });
        used.unwrap()
    }

    /// One request, served: status and used length.
    fn request(&mut self, kind: u32, sector: u64, data: &[Desc]) -> (u8, u32) {
        let status = self.add(0, kind, sector, data);
        self.machine.kick(0);
        let (_, len) = self.wait(0);
        let memory = &self.machine.memory;
        (memory.read_obj(GuestAddress(status)).unwrap(), len)
    }

    fn put(&self, address: u64, byte: u8, len: usize) {
        let bytes = vec![byte; len];
        self.machine
            .memory
            .write_slice(&bytes, GuestAddress(address))
            .unwrap();
    }

    fn get(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.machine
            .memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }
}

fn file(bytes: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    file
}

fn raw(read_only: bool) -> Arc<dyn BlockBackend> {
    Arc::new(RawDisk::open(file(DISK).path(), read_only).unwrap())
}

#[test]
fn writes_are_read_back_cut_into_buffers_of_any_size() {
    let mut bench = Bench::new(raw(false), DiskEngine::Sync, 0);
    bench.put(DATA, 0x11, 1024);
    bench.put(DATA + 0x1000, 0x22, 512);
    let out: [Desc; 3] = [
        (DATA, 1000, false),
        (DATA + 1000, 24, false),
        (DATA + 0x1000, 512, false),
    ];
    assert_eq!(bench.request(OUT, 3, &out), (0, 1));
    // Across the border of two RAM regions.
    let middle = u64::try_from(RAM_SIZE / 2).unwrap();
    let back: [Desc; 2] = [(middle - 700, 1400, true), (DATA + 0x2000, 136, true)];
    assert_eq!(bench.request(IN, 3, &back), (0, 1537));
    let mut read = bench.get(middle - 700, 1400);
    read.extend(bench.get(DATA + 0x2000, 136));
    assert!(read[..1024].iter().all(|b| *b == 0x11));
    assert!(read[1024..].iter().all(|b| *b == 0x22));
    assert_eq!(bench.request(FLUSH, 0, &[]), (0, 1));
    let counted = bench.metrics.snapshot();
    assert_eq!(counted["write_bytes"], 1536);
    assert_eq!(counted["read_bytes"], 1536);
    assert_eq!(counted["flushes"], 1);
    assert_eq!(bench.machine.interrupts(0), 3);
}

#[test]
fn header_and_status_may_be_cut_too() {
    let mut bench = Bench::new(raw(false), DiskEngine::Sync, 0);
    let memory = bench.machine.memory.clone();
    memory.write_obj(IN, GuestAddress(HEADER)).unwrap();
    memory.write_obj(0_u64, GuestAddress(HEADER + 8)).unwrap();
    // Header in three pieces; data and status share one buffer, behind it an empty one.
    let chain = [
        (HEADER, 1, false),
        (HEADER + 1, 0, false),
        (HEADER + 1, 15, false),
        (DATA, 513, true),
        (DATA, 0, true),
    ];
    bench.put(DATA, 0xee, 513);
    bench.rings[0].add(&memory, &chain);
    bench.machine.kick(0);
    assert_eq!(bench.wait(0).1, 513);
    assert_eq!(bench.get(DATA, 513), [0; 513]);
}

#[test]
fn a_batch_goes_through_io_uring_where_there_is_one() {
    for engine in [DiskEngine::Auto, DiskEngine::Sync] {
        let mut bench = Bench::new(raw(false), engine, 0);
        for round in 0..8_u8 {
            for at in 0..40_u8 {
                let place = DATA + u64::from(at) * 4096;
                bench.put(place, round ^ at, 4096);
                bench.add(0, OUT, u64::from(at) * 8, &[(place, 4096, false)]);
            }
            bench.machine.kick(0);
            (0..40).for_each(|_| assert!(bench.wait(0).1 > 0));
            bench.put(DATA, 0xff, 40 * 4096);
            // Two ranges each, so that vectored calls are used, and both queues.
            for at in 0..40_u8 {
                let place = DATA + u64::from(at) * 4096;
                let data = [(place, 1024, true), (place + 1024, 3072, true)];
                bench.add(usize::from(at % 2), IN, u64::from(at) * 8, &data);
            }
            bench.machine.kick(0);
            bench.machine.kick(1);
            (0..20).for_each(|_| assert_eq!(bench.wait(0).1, 4097));
            (0..20).for_each(|_| assert_eq!(bench.wait(1).1, 4097));
            for at in 0..40_u8 {
                let read = bench.get(DATA + u64::from(at) * 4096, 4096);
                assert!(
                    read.iter().all(|b| *b == round ^ at),
                    "{engine:?} {round} {at}"
                );
            }
        }
        assert_eq!(bench.machine.status(), 15);
    }
}

#[test]
fn requests_outside_the_rules_are_refused() {
    let mut bench = Bench::new(raw(false), DiskEngine::Auto, 0);
    let last = DISK / 512;
    let block: [Desc; 1] = [(DATA, 512, true)];
    let source: [Desc; 1] = [(DATA, 512, false)];
    let outside: [Desc; 1] = [(0x7000_0000, 512, true)];
    let wraps: [Desc; 1] = [(u64::MAX - 100, 512, true)];
    let huge: [Desc; 1] = [(DATA, 0xffff_fe00, true)];
    let cases: [(u32, u64, &[Desc], u8); 14] = [
        (IN, last, &block, 1),
        (IN, last - 1, &[(DATA, 1024, true)], 1),
        (IN, u64::MAX, &block, 1),
        (IN, u64::MAX / 512 + 1, &block, 1),
        (IN, 0, &[(DATA, 100, true)], 1),
        (IN, 0, &outside, 1),
        (IN, 0, &wraps, 1),
        (IN, 0, &huge, 1),
        (OUT, last, &source, 1),
        (OUT, 0, &[(DATA, 511, false)], 1),
        (OUT, 0, &[(0x7000_0000, 512, false)], 1),
        (GET_ID, 0, &[(DATA, 19, true)], 1),
        (2, 0, &block, 2),
        (0xffff_ffff, 0, &[], 2),
    ];
    for (kind, sector, data, expected) in cases {
        let (status, _) = bench.request(kind, sector, data);
        assert_eq!(status, expected, "{kind} {sector} {data:x?}");
    }
    // Reads with nothing to read into succeed and do nothing.
    assert_eq!(bench.request(IN, last, &[]), (0, 1));
    assert_eq!(bench.request(IN, last - 1, &block), (0, 513));
    assert_eq!(bench.metrics.snapshot()["errors"], 14);
    assert_eq!(bench.machine.status(), 15);
}

#[test]
fn chains_that_cannot_be_answered_cost_the_device() {
    let no_status: &[Desc] = &[(HEADER, 16, false)];
    let status_outside: &[Desc] = &[(HEADER, 16, false), (0x7000_0000, 1, true)];
    let status_wraps: &[Desc] = &[(HEADER, 16, false), (u64::MAX, 2, true)];
    let backwards: &[Desc] = &[(STATUS, 1, true), (HEADER, 16, false)];
    for chain in [no_status, status_outside, status_wraps, backwards] {
        let mut bench = Bench::new(raw(false), DiskEngine::Auto, 0);
        let memory = bench.machine.memory.clone();
        bench.rings[0].add(&memory, chain);
        bench.machine.kick(0);
        bench.machine.run();
        assert_eq!(bench.machine.status(), 0x4f, "{chain:x?}");
        // A new start helps.
        bench.rings = bench.machine.start(0, 256);
        assert_eq!(bench.request(FLUSH, 0, &[]), (0, 1));
    }
}

#[test]
fn identity_and_configuration() {
    let mut bench = Bench::new(raw(false), DiskEngine::Auto, 0);
    assert_eq!(bench.request(GET_ID, 0, &[(DATA, 20, true)]), (0, 21));
    assert_eq!(bench.get(DATA, 20), b"vol-0123456789abcdef");
    let machine = &mut bench.machine;
    assert_eq!(machine.read(0xc00, 8), DISK / 512);
    assert_eq!(machine.read(0xc0c, 4), 254, "seg_max");
    assert_eq!(machine.read(0xc14, 4), 512);
    assert_eq!(machine.read(0xc22, 2), 2, "queues");
    assert_eq!(machine.read(0xc20, 1), 1, "write back");
    assert_eq!(machine.read(0xf00, 8), 0, "beyond the end");

    for (serial, queues) in [
        ("", 1),
        ("a b", 1),
        ("123456789012345678901", 1),
        ("x", 0),
        ("x", 33),
    ] {
        let options = BlkOptions {
            serial: serial.to_owned(),
            queues,
            engine: DiskEngine::Sync,
        };
        assert!(Blk::new(raw(false), &options).is_err(), "{options:?}");
    }
}

#[test]
fn read_only_disks_refuse_every_change() {
    let mut bench = Bench::new(raw(true), DiskEngine::Auto, 0);
    let features = bench.machine.features();
    assert_eq!(features >> 5 & 1, 1, "RO");
    assert_eq!(features & (1 << 9 | 1 << 13 | 1 << 14), 0);
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, true)]).0, 0);
    for kind in [OUT, DISCARD, WRITE_ZEROES] {
        assert_eq!(bench.request(kind, 0, &[(DATA, 512, false)]).0, 1);
    }
}

fn segment(bench: &Bench, at: u64, sector: u64, sectors: u32, flags: u32) {
    let memory = &bench.machine.memory;
    memory.write_obj(sector, GuestAddress(at)).unwrap();
    memory.write_obj(sectors, GuestAddress(at + 8)).unwrap();
    memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
}

#[test]
fn discard_and_write_zeroes_check_every_segment_first() {
    let mut bench = Bench::new(raw(false), DiskEngine::Auto, 0);
    bench.put(DATA, 0x77, 8192);
    assert_eq!(bench.request(OUT, 0, &[(DATA, 8192, false)]).0, 0);
    let segments = DATA + 0x10000;
    let one: [Desc; 1] = [(segments, 16, false)];
    let two: [Desc; 1] = [(segments, 32, false)];

    segment(&bench, segments, 0, 8, 0);
    segment(&bench, segments + 16, DISK / 512, 1, 0);
    assert_eq!(
        bench.request(WRITE_ZEROES, 0, &two).0,
        1,
        "second beyond the end"
    );
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, true)]).0, 0);
    assert_eq!(bench.get(DATA, 512), [0x77; 512]);

    segment(&bench, segments + 16, 10, 1, 1);
    assert_eq!(bench.request(WRITE_ZEROES, 0, &two).0, 0);
    assert_eq!(bench.request(IN, 0, &[(DATA, 8192, true)]).0, 0);
    let data = bench.get(DATA, 8192);
    assert!(data[..4096].iter().all(|b| *b == 0));
    assert!(data[4096..5120].iter().all(|b| *b == 0x77));
    assert!(data[5120..5632].iter().all(|b| *b == 0));

    segment(&bench, segments, 8, 8, 0);
    assert_eq!(bench.request(DISCARD, 0, &one).0, 0);
    assert_eq!(bench.request(IN, 8, &[(DATA, 4096, true)]).0, 0);
    assert_eq!(bench.get(DATA, 4096), [0; 4096]);

    segment(&bench, segments, 0, 8, 1);
    assert_eq!(
        bench.request(DISCARD, 0, &one).0,
        2,
        "unmap is for write-zeroes"
    );
    segment(&bench, segments, 0, 8, 2);
    assert_eq!(bench.request(WRITE_ZEROES, 0, &one).0, 2, "unknown flag");
    segment(&bench, segments, u64::MAX, 8, 0);
    assert_eq!(bench.request(DISCARD, 0, &one).0, 1);
    segment(&bench, segments, 0, u32::MAX, 0);
    assert_eq!(bench.request(DISCARD, 0, &one).0, 1);
    assert_eq!(bench.request(DISCARD, 0, &[]).0, 1, "no segment");
    assert_eq!(bench.request(DISCARD, 0, &[(segments, 15, false)]).0, 1);
    assert_eq!(
        bench.request(DISCARD, 0, &[(segments, 17 * 16, false)]).0,
        1
    );
}

/// Extents of odd sizes that alternate between a file, zeros and bytes that no file holds; counts
/// what it is told.
#[derive(Debug)]
struct Awkward {
    file: File,
    bytes: Mutex<Vec<u8>>,
    flushes: Mutex<u32>,
    completed: Mutex<u64>,
    fail_flush: bool,
}

impl Awkward {
    fn new(fail_flush: bool) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        Self {
            file,
            bytes: Mutex::new(vec![0; 1 << 20]),
            flushes: Mutex::new(0),
            completed: Mutex::new(0),
            fail_flush,
        }
    }

    /// By blocks of three sectors: file, buffered, and the second half of the disk is zeros.
    fn extent(&self, offset: u64, len: u64, write: bool) -> Extent<'_> {
        let block = 3 * 512;
        let len = len.min(block - offset % block);
        let place = if (offset / block).is_multiple_of(2) {
            Place::File {
                file: self.file.as_fd(),
                offset: offset / 2,
            }
        } else if write || offset < 1 << 19 {
            Place::Buffered
        } else {
            Place::Zeros
        };
        Extent { place, len }
    }
}

impl BlockBackend for Awkward {
    fn size(&self) -> u64 {
        1 << 20
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    fn locate_read(&self, offset: u64, len: u64) -> io::Result<Extent<'_>> {
        Ok(self.extent(offset, len, false))
    }
    fn locate_write(&self, offset: u64, len: u64) -> io::Result<Extent<'_>> {
        Ok(self.extent(offset, len, true))
    }
    fn complete_write(&self, _offset: u64, len: u64) -> io::Result<()> {
        *lock(&self.completed) += len;
        Ok(())
    }
    fn read_buffered(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&lock(&self.bytes)[at..at + buf.len()]);
        Ok(())
    }
    fn write_buffered(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        lock(&self.bytes)[at..at + buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        *lock(&self.flushes) += 1;
        if self.fail_flush {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        unreachable!("not offered")
    }
    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn requests_are_split_where_extents_end() {
    for engine in [DiskEngine::Sync, DiskEngine::Auto] {
        let backend = Arc::new(Awkward::new(false));
        let mut bench = Bench::new(backend.clone(), engine, 0);
        let len = 16 * 512_usize;
        for round in 0..20_u8 {
            let pattern: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0] ^ round).collect();
            bench
                .machine
                .memory
                .write_slice(&pattern, GuestAddress(DATA))
                .unwrap();
            let sector = u64::from(round);
            let size = u32::try_from(len).unwrap();
            // Several at once, so that the ring is used; the last writer of a range is the same.
            for _ in 0..3 {
                bench.add(
                    0,
                    OUT,
                    sector,
                    &[(DATA, 999, false), (DATA + 999, size - 999, false)],
                );
            }
            bench.machine.kick(0);
            (0..3).for_each(|_| assert!(bench.wait(0).1 > 0));
            bench.put(DATA, 0, len);
            for _ in 0..3 {
                bench.add(
                    0,
                    IN,
                    sector,
                    &[(DATA, 1, true), (DATA + 1, size - 1, true)],
                );
            }
            bench.machine.kick(0);
            (0..3).for_each(|_| assert_eq!(bench.wait(0).1, size + 1));
            assert_eq!(bench.get(DATA, len), pattern, "{engine:?} {round}");
        }
        assert_eq!(*lock(&backend.completed), 3 * 20 * 16 * 512);
        // Zeros in the second half.
        bench.put(DATA, 0xff, 4096);
        assert_eq!(
            bench
                .request(IN, 1024 + 2, &[(DATA, 512, true), (DATA + 512, 1024, true)])
                .0,
            0
        );
        let zeros = bench.get(DATA, 1536).iter().filter(|b| **b == 0).count();
        assert_eq!(zeros, 1536);
    }
}

#[test]
fn write_through_mode_flushes_before_it_answers() {
    // Neither FLUSH nor CONFIG_WCE: the driver cannot ask, so every write is made durable.
    let backend = Arc::new(Awkward::new(false));
    let mut bench = Bench::new(backend.clone(), DiskEngine::Auto, 1 << 9 | 1 << 11);
    assert_eq!(bench.request(OUT, 0, &[(DATA, 512, false)]).0, 0);
    assert_eq!(*lock(&backend.flushes), 1);

    // Switched by the driver, and back to write-back by a reset.
    let backend = Arc::new(Awkward::new(true));
    let mut bench = Bench::new(backend.clone(), DiskEngine::Auto, 0);
    assert_eq!(bench.request(OUT, 0, &[(DATA, 512, false)]).0, 0);
    bench.machine.write(0xc20, 0, 1);
    assert_eq!(
        bench.request(OUT, 0, &[(DATA, 512, false)]).0,
        1,
        "not durable"
    );
    assert_eq!(bench.request(FLUSH, 0, &[]).0, 1, "a failed flush is told");
    bench.rings = bench.machine.start(0, 256);
    assert_eq!(bench.machine.read(0xc20, 1), 1);
    assert_eq!(bench.request(OUT, 0, &[(DATA, 512, false)]).0, 0);
}

#[test]
fn a_truncated_file_is_an_error_not_a_hang() {
    let file = file(DISK);
    let backend = Arc::new(RawDisk::open(file.path(), false).unwrap());
    let mut bench = Bench::new(backend, DiskEngine::Auto, 0);
    file.as_file().set_len(1024).unwrap();
    assert_eq!(bench.request(IN, 8, &[(DATA, 512, true)]).0, 1);
    for _ in 0..3 {
        bench.add(0, IN, 0, &[(DATA, 4096, true)]);
    }
    bench.machine.kick(0);
    (0..3).for_each(|_| assert!(bench.wait(0).1 > 0));
    assert_eq!(bench.metrics.snapshot()["errors"], 4);
}

#[test]
fn a_reset_waits_for_what_is_in_flight_and_answers_nothing() {
    for _ in 0..20 {
        let backend = Arc::new(Awkward::new(false));
        let mut bench = Bench::new(backend.clone(), DiskEngine::Auto, 0);
        for at in 0..60 {
            bench.add(0, OUT, at * 6, &[(DATA, 512, false)]);
        }
        bench.machine.kick(0);
        bench.machine.run();
        bench.machine.set_status(0);
        bench.rings = bench.machine.start(0, 256);
        assert_eq!(bench.request(IN, 0, &[(DATA, 512, true)]).0, 0);
        assert_eq!(*lock(&backend.completed), 60 * 512);
    }
}

#[test]
fn offering_one_chain_again_and_again_grows_nothing() {
    let mut bench = Bench::new(raw(false), DiskEngine::Auto, 0);
    bench.add(0, IN, 0, &[(DATA, 4096, true)]);
    let memory = bench.machine.memory.clone();
    for _ in 0..100 {
        for _ in 0..200 {
            bench.rings[0].offer(&memory, 0);
        }
        bench.machine.kick(0);
        bench.machine.run();
        if bench.machine.status() != 15 {
            break;
        }
    }
    // Either all were served in time, or the driver was found out; never a growing list.
    assert!(matches!(bench.machine.status(), 15 | 0x4f));
}

#[test]
fn io_uring_is_used_for_batches_and_not_for_single_requests() {
    if ring::Ring::new().is_err() {
        println!("skipped: this host refuses io_uring");
        return;
    }
    let mut bench = Bench::new(raw(false), DiskEngine::IoUring, 0);
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, true)]).0, 0);
    assert_eq!(bench.metrics.snapshot()["direct"], 1);
    for _ in 0..32 {
        bench.add(0, IN, 0, &[(DATA, 4096, true)]);
    }
    bench.machine.kick(0);
    (0..32).for_each(|_| assert_eq!(bench.wait(0).1, 4097));
    let counted = bench.metrics.snapshot();
    assert_eq!(counted["batched"], 32);
    assert_eq!(counted["batches"], 1);
}
