//! MSI-X (PCI 3.0 §6.8.2): the capability's control word, the vector table, the pending bits, and
//! the delivery of a vector through a [`MsiGroup`].
//!
//! Interrupts of our devices are raised by this process, so masking is decided here, when a
//! vector is signalled, and costs no call to the host. A vector's route in the host is set when it
//! is first signalled with its present message: a guest that programs, masks and moves vectors
//! (Linux does, for each CPU affinity) costs one route per message that is really used.
//!
//! A vector whose event somebody else signals (vhost in the kernel) is the exception: its route
//! follows what the guest writes at once. While it is masked the host does not listen to its event,
//! which then keeps what comes.

use std::io;

use vmm_sys_util::eventfd::EventFd;

use crate::device::{MsiGroup, MsiMessage};

/// Bytes of a table entry.
pub const ENTRY_SIZE: u64 = 16;
/// Message control: MSI-X is on.
const CONTROL_ENABLE: u16 = 1 << 15;
/// Message control: all vectors are masked.
const CONTROL_MASK_ALL: u16 = 1 << 14;
/// Bytes of the capability behind its two-byte head.
pub const CAPABILITY_LEN: usize = 10;

/// Where a structure lies: BAR number and offset (a multiple of 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// BAR number.
    pub bar: u8,
    /// Byte offset in the BAR.
    pub offset: u32,
}

/// Body of the capability and the mask of its writable bits, for
/// [`ConfigSpace::add_capability`](super::config_space::ConfigSpace::add_capability).
#[must_use]
pub fn capability(vectors: u16, table: Place, pending: Place) -> ([u8; CAPABILITY_LEN], [u8; 2]) {
    let mut body = [0; CAPABILITY_LEN];
    body[..2].copy_from_slice(&vectors.saturating_sub(1).to_le_bytes());
    let word = |place: Place| (place.offset | u32::from(place.bar)).to_le_bytes();
    body[2..6].copy_from_slice(&word(table));
    body[6..].copy_from_slice(&word(pending));
    let mask = (CONTROL_ENABLE | CONTROL_MASK_ALL).to_le_bytes();
    (body, mask)
}

/// One table entry.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// Address, data and control as the guest wrote them, little-endian.
    bytes: [u8; 16],
    pending: bool,
    /// The message the host routes this vector by.
    routed: Option<MsiMessage>,
    /// Somebody else signals the vector's event.
    handed_over: bool,
}

impl Entry {
    fn masked(&self) -> bool {
        self.bytes[12] & 1 != 0
    }

    fn message(&self) -> MsiMessage {
        let mut address = [0; 8];
        let mut data = [0; 4];
        address.copy_from_slice(&self.bytes[..8]);
        data.copy_from_slice(&self.bytes[8..12]);
        MsiMessage {
            address: u64::from_le_bytes(address),
            data: u32::from_le_bytes(data),
        }
    }

    /// As after a reset: vector masked, no address.
    fn clear(&mut self) {
        self.bytes = [0; 16];
        self.bytes[12] = 1;
        self.pending = false;
        self.handed_over = false;
    }
}

/// The state of one function's MSI-X.
pub struct Msix {
    entries: Vec<Entry>,
    control: u16,
    group: Box<dyn MsiGroup>,
    /// Routes the host refused; only the first is logged, since the guest can cause them.
    refused: u64,
}

impl std::fmt::Debug for Msix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Msix")
            .field("entries", &self.entries)
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl Msix {
    /// MSI-X with `vectors` vectors, off, all masked. `group` has as many.
    #[must_use]
    pub fn new(group: Box<dyn MsiGroup>, vectors: u16) -> Self {
        let mut entries = vec![Entry::default(); usize::from(vectors)];
        entries.iter_mut().for_each(Entry::clear);
        Self {
            entries,
            control: 0,
            group,
            refused: 0,
        }
    }

    /// Number of vectors.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.entries.len()).unwrap_or(u16::MAX)
    }

    /// MSI-X is on, so INTx is not to be used.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.control & CONTROL_ENABLE != 0
    }

    /// The guest wrote the message control word.
    pub fn set_control(&mut self, control: u16) {
        let control = control & (CONTROL_ENABLE | CONTROL_MASK_ALL);
        if control != self.control {
            self.control = control;
            self.follow();
            self.deliver_pending();
        }
    }

    /// Reads the vector table.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..u64::MAX).zip(data) {
            *byte = self
                .locate(at)
                .map_or(0, |(entry, within)| self.entries[entry].bytes[within]);
        }
    }

    /// Writes the vector table.
    pub fn table_write(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..u64::MAX).zip(data) {
            if let Some((entry, within)) = self.locate(at) {
                // Of the control word only the mask bit is there (PCI 3.0 §6.8.2.9).
                self.entries[entry].bytes[within] = match within {
                    12 => byte & 1,
                    13.. => 0,
                    _ => *byte,
                };
            }
        }
        self.follow();
        self.deliver_pending();
    }

    /// Reads the pending bits.
    pub fn pending_read(&mut self, offset: u64, data: &mut [u8]) {
        self.collect_pending();
        for (at, byte) in (offset..u64::MAX).zip(data) {
            let first = at.saturating_mul(8);
            *byte = (0..8).fold(0, |bits, bit| {
                let vector = usize::try_from(first.saturating_add(bit)).unwrap_or(usize::MAX);
                let pending = self.entries.get(vector).is_some_and(|entry| entry.pending);
                bits | u8::from(pending) << bit
            });
        }
    }

    /// Raises a vector: now, or once it is unmasked. One that does not exist is ignored.
    pub fn signal(&mut self, vector: u16) {
        let Some(entry) = self.entries.get(usize::from(vector)) else {
            return;
        };
        let message = self.deliverable(entry);
        self.entries[usize::from(vector)].pending = message.is_none();
        if message.is_some() && self.route(vector, message).is_ok() {
            // Fails only when the counter is full: then the vector is raised already.
            let _ = self.group.event(vector).write(1);
        }
    }

    /// Lets somebody else signal the event returned, as [`Msix::signal`] would raise the vector,
    /// until [`Msix::take_back`].
    ///
    /// # Errors
    /// When there is no such vector, or the host refuses its route.
    pub fn hand_over(&mut self, vector: u16) -> io::Result<EventFd> {
        let entry = self
            .entries
            .get(usize::from(vector))
            .ok_or(io::ErrorKind::NotFound)?;
        self.route(vector, self.deliverable(entry))?;
        let event = self.group.event(vector).try_clone()?;
        self.entries[usize::from(vector)].handed_over = true;
        Ok(event)
    }

    /// Nobody else signals any vector's event any more.
    pub fn take_back(&mut self) {
        self.collect_pending();
        for entry in &mut self.entries {
            entry.handed_over = false;
        }
    }

    /// The vector's message, unless it is masked.
    fn deliverable(&self, entry: &Entry) -> Option<MsiMessage> {
        let open = self.control & (CONTROL_ENABLE | CONTROL_MASK_ALL) == CONTROL_ENABLE;
        (open && !entry.masked()).then(|| entry.message())
    }

    /// Sets the vector's route in the host, unless it is set so already.
    fn route(&mut self, vector: u16, message: Option<MsiMessage>) -> io::Result<()> {
        let entry = &mut self.entries[usize::from(vector)];
        if entry.routed == message {
            return Ok(());
        }
        let done = self.group.route(vector, message);
        match &done {
            Ok(()) => entry.routed = message,
            Err(error) => {
                if self.refused == 0 {
                    tracing::warn!(vector, ?message, %error, "the host refused an MSI-X route");
                }
                self.refused += 1;
            }
        }
        done
    }

    /// Routes vectors that were handed over by what the guest has written.
    fn follow(&mut self) {
        for vector in 0..self.vectors() {
            let entry = &self.entries[usize::from(vector)];
            if entry.handed_over {
                // A refusal is logged; the event keeps what comes.
                let _ = self.route(vector, self.deliverable(entry));
            }
        }
    }

    /// Takes over what came for vectors that were handed over and are masked.
    fn collect_pending(&mut self) {
        for vector in 0..self.vectors() {
            let entry = &self.entries[usize::from(vector)];
            if entry.handed_over
                && self.deliverable(entry).is_none()
                && self.group.event(vector).read().is_ok()
            {
                self.entries[usize::from(vector)].pending = true;
            }
        }
    }

    /// Machine reset: off, all masked, nothing pending, no route.
    pub fn reset(&mut self) {
        self.control = 0;
        for (vector, entry) in (0..).zip(&mut self.entries) {
            entry.clear();
            if entry.routed.take().is_some() {
                // Nothing raises the vector until it is routed again.
                let _ = self.group.route(vector, None);
            }
        }
    }

    fn deliver_pending(&mut self) {
        if self.control & (CONTROL_ENABLE | CONTROL_MASK_ALL) != CONTROL_ENABLE {
            return;
        }
        for vector in 0..self.vectors() {
            let entry = &self.entries[usize::from(vector)];
            if entry.pending && !entry.masked() {
                self.signal(vector);
            }
        }
    }

    fn locate(&self, offset: u64) -> Option<(usize, usize)> {
        let entry = usize::try_from(offset / ENTRY_SIZE).ok()?;
        let within = usize::try_from(offset % ENTRY_SIZE).ok()?;
        (entry < self.entries.len()).then_some((entry, within))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;
    use crate::event_loop::lock;

    /// An in-memory host: events that nobody waits for, and the routes as set.
    #[derive(Clone)]
    pub(crate) struct FakeGroup {
        events: Arc<Vec<EventFd>>,
        pub(crate) routes: Arc<Mutex<Vec<Option<MsiMessage>>>>,
        pub(crate) changes: Arc<Mutex<usize>>,
    }

    impl FakeGroup {
        pub(crate) fn new(vectors: u16) -> Self {
            Self {
                events: Arc::new(
                    (0..vectors)
                        .map(|_| EventFd::new(EFD_NONBLOCK).unwrap())
                        .collect(),
                ),
                routes: Arc::new(Mutex::new(vec![None; usize::from(vectors)])),
                changes: Arc::default(),
            }
        }

        /// How often a vector was raised since last asked.
        pub(crate) fn raised(&self, vector: u16) -> u64 {
            self.events[usize::from(vector)].read().unwrap_or(0)
        }
    }

    impl MsiGroup for FakeGroup {
        fn event(&self, vector: u16) -> &EventFd {
            &self.events[usize::from(vector)]
        }

        fn route(&self, vector: u16, message: Option<MsiMessage>) -> io::Result<()> {
            *lock(&self.changes) += 1;
            lock(&self.routes)[usize::from(vector)] = message;
            Ok(())
        }
    }

    fn program(msix: &mut Msix, vector: u64, address: u64, data: u32, masked: bool) {
        msix.table_write(vector * 16, &address.to_le_bytes());
        msix.table_write(vector * 16 + 8, &data.to_le_bytes());
        msix.table_write(vector * 16 + 12, &u32::from(masked).to_le_bytes());
    }

    #[test]
    fn delivers_and_routes_only_when_the_message_changes() {
        let host = FakeGroup::new(2);
        let mut msix = Msix::new(Box::new(host.clone()), 2);
        program(&mut msix, 1, 0xfee0_0000, 0x31, false);
        msix.set_control(CONTROL_ENABLE);
        assert_eq!(*lock(&host.changes), 0, "no route before it is used");
        msix.signal(1);
        msix.signal(1);
        assert_eq!((host.raised(1), *lock(&host.changes)), (2, 1));
        program(&mut msix, 1, 0xfee0_1000, 0x32, true);
        program(&mut msix, 1, 0xfee0_1000, 0x32, false);
        msix.signal(1);
        assert_eq!((host.raised(1), *lock(&host.changes)), (1, 2));
        let message = MsiMessage {
            address: 0xfee0_1000,
            data: 0x32,
        };
        assert_eq!(lock(&host.routes)[1], Some(message));
        msix.reset();
        assert_eq!(lock(&host.routes)[1], None);
        msix.signal(1);
        assert_eq!(host.raised(1), 0);
    }

    #[test]
    fn masked_vectors_are_pending_until_unmasked() {
        let host = FakeGroup::new(10);
        let mut msix = Msix::new(Box::new(host.clone()), 10);
        program(&mut msix, 9, 0xfee0_0000, 1, true);
        msix.set_control(CONTROL_ENABLE);
        msix.signal(9);
        msix.signal(9);
        let mut pending = [0; 2];
        msix.pending_read(0, &mut pending);
        assert_eq!((pending, host.raised(9)), ([0, 2], 0));
        // Function mask holds it back still.
        msix.set_control(CONTROL_ENABLE | CONTROL_MASK_ALL);
        program(&mut msix, 9, 0xfee0_0000, 1, false);
        assert_eq!(host.raised(9), 0);
        msix.set_control(CONTROL_ENABLE);
        msix.pending_read(0, &mut pending);
        assert_eq!((pending, host.raised(9)), ([0, 0], 1));
        msix.signal(10);
    }

    #[test]
    fn a_vector_handed_over_follows_the_guest_at_once() {
        let host = FakeGroup::new(2);
        let mut msix = Msix::new(Box::new(host.clone()), 2);
        program(&mut msix, 1, 0xfee0_0000, 0x31, false);
        msix.set_control(CONTROL_ENABLE);
        let event = msix.hand_over(1).unwrap();
        assert!(msix.hand_over(2).is_err());
        let route = || lock(&host.routes)[1].map(|message| message.data);
        assert_eq!(route(), Some(0x31));
        // Masked, by itself or with all: not listened to; what comes is pending.
        program(&mut msix, 1, 0xfee0_1000, 0x32, true);
        assert_eq!(route(), None);
        event.write(1).unwrap();
        let mut pending = [0];
        msix.pending_read(0, &mut pending);
        assert_eq!((pending, host.raised(1)), ([2], 0));
        msix.set_control(CONTROL_ENABLE | CONTROL_MASK_ALL);
        program(&mut msix, 1, 0xfee0_1000, 0x32, false);
        assert_eq!((route(), host.raised(1)), (None, 0));
        msix.set_control(CONTROL_ENABLE);
        assert_eq!((route(), host.raised(1)), (Some(0x32), 1));
        // What came while it was masked is not lost with the one who signalled.
        program(&mut msix, 1, 0xfee0_1000, 0x32, true);
        event.write(1).unwrap();
        msix.take_back();
        let changes = *lock(&host.changes);
        program(&mut msix, 1, 0xfee0_1000, 0x33, true);
        assert_eq!(*lock(&host.changes), changes, "routes are lazy again");
        program(&mut msix, 1, 0xfee0_1000, 0x33, false);
        assert_eq!((route(), host.raised(1)), (Some(0x33), 1));
    }

    #[test]
    fn table_accesses_of_any_size_and_place_are_harmless() {
        let mut msix = Msix::new(Box::new(FakeGroup::new(1)), 1);
        let mut data = [0; 8];
        for offset in [0, 3, 12, 15, 16, 4096, u64::MAX - 8] {
            msix.table_write(offset, &[0xff; 8]);
            msix.table_read(offset, &mut data);
            msix.pending_read(offset, &mut data);
        }
        msix.table_read(12, &mut data);
        assert_eq!(
            data,
            [1, 0, 0, 0, 0, 0, 0, 0],
            "control keeps its mask bit only"
        );
    }
}
