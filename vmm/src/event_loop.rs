//! One thread that waits for many file descriptors: queue notifications, taps, `io_uring`
//! completions, standard input, control connections and timers (as timerfds).
//!
//! [`EventLoop::run`] runs on the thread that calls it. [`EventLoopHandle`] adds and removes
//! sources from any thread, also from within a handler.
//!
//! Waiting is level-triggered: a handler that does not drain its source is called again. In steady
//! state nothing is allocated: an event costs a table look-up and the handler's own lock.
//!
//! Lock order: the table's lock is never held while a handler runs, so a handler may use the
//! handle freely. A handler's own lock is held while it runs.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Events taken from the kernel in one go.
const BATCH: usize = 32;

/// The token data of the loop's own wake-up event; slots never reach this value.
const WAKE: u64 = u64::MAX;

/// Locks a mutex whether or not another thread panicked while it held it: the VMM's data stays
/// consistent between calls, and the release build ends the process on a panic anyway.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gets called when a source it was registered for is ready.
pub trait EventHandler: Send {
    /// `source` is the number given to [`EventLoopHandle::add`]; `events` says what happened.
    ///
    /// The handler drains the source, or removes it, or is called again at once.
    fn ready(&mut self, source: u64, events: EventSet);
}

/// A handler as the loop holds it. The owner keeps a clone to reach its own state.
pub type SharedHandler = Arc<Mutex<dyn EventHandler>>;

/// Names one registration. A token is never reused, so a stale one is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    fn new(index: usize, generation: u32) -> Option<Self> {
        let index = u32::try_from(index).ok()?;
        Some(Self(u64::from(generation) << 32 | u64::from(index)))
    }

    fn index(self) -> usize {
        usize::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX)
    }
}

struct Source {
    fd: RawFd,
    number: u64,
    handler: SharedHandler,
}

#[derive(Default)]
struct Slot {
    /// Counts the slot's users, so that an event for an earlier one is not given to a later one.
    generation: u32,
    source: Option<Source>,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

impl Table {
    fn get(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(token.index())?;
        (Token::new(token.index(), slot.generation) == Some(token)).then_some(slot)
    }
}

struct Shared {
    epoll: Epoll,
    wake: EventFd,
    stop: AtomicBool,
    table: Mutex<Table>,
}

/// The loop. See the module's text.
pub struct EventLoop {
    shared: Arc<Shared>,
}

/// Adds and removes sources; cheap to clone, usable from every thread.
#[derive(Clone)]
pub struct EventLoopHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for EventLoopHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventLoopHandle")
    }
}

impl EventLoop {
    /// Makes a loop with no source.
    ///
    /// # Errors
    /// When the kernel has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        epoll.ctl(
            ControlOperation::Add,
            wake.as_raw_fd(),
            EpollEvent::new(EventSet::IN, WAKE),
        )?;
        Ok(Self {
            shared: Arc::new(Shared {
                epoll,
                wake,
                stop: AtomicBool::new(false),
                table: Mutex::default(),
            }),
        })
    }

    /// The way to add and remove sources.
    #[must_use]
    pub fn handle(&self) -> EventLoopHandle {
        EventLoopHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Calls handlers until [`EventLoopHandle::stop`].
    ///
    /// # Errors
    /// When `epoll_wait` fails for another reason than a signal.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); BATCH];
        while !self.shared.stop.load(Ordering::Acquire) {
            let ready = match self.shared.epoll.wait(-1, &mut events) {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in events.iter().take(ready) {
                self.dispatch(event);
            }
        }
        self.shared.stop.store(false, Ordering::Release);
        Ok(())
    }

    fn dispatch(&self, event: &EpollEvent) {
        if event.data() == WAKE {
            // Counts wake-ups; its value does not matter and it cannot block.
            let _ = self.shared.wake.read();
            return;
        }
        let found = lock(&self.shared.table)
            .get(Token(event.data()))
            .and_then(|slot| slot.source.as_ref())
            .map(|source| (source.number, Arc::clone(&source.handler)));
        if let Some((number, handler)) = found {
            lock(&handler).ready(number, event.event_set());
        }
    }
}

impl EventLoopHandle {
    /// Watches `fd` for `events` and calls `handler` with `source` when they happen.
    ///
    /// The caller keeps `fd` open until it has called [`EventLoopHandle::remove`]. One handler may
    /// serve many sources.
    ///
    /// # Errors
    /// When the kernel cannot watch the descriptor (a regular file, for one) or it is watched
    /// already.
    pub fn add(
        &self,
        fd: &(impl AsRawFd + ?Sized),
        events: EventSet,
        handler: SharedHandler,
        source: u64,
    ) -> io::Result<Token> {
        let mut table = lock(&self.shared.table);
        let index = table.free.pop().unwrap_or_else(|| {
            table.slots.push(Slot::default());
            table.slots.len() - 1
        });
        let fd = fd.as_raw_fd();
        let added = Token::new(index, table.slots[index].generation)
            .ok_or_else(|| io::Error::other("too many event sources"))
            .and_then(|token| {
                let event = EpollEvent::new(events, token.0);
                self.shared.epoll.ctl(ControlOperation::Add, fd, event)?;
                Ok(token)
            });
        match added {
            Ok(_) => {
                table.slots[index].source = Some(Source {
                    fd,
                    number: source,
                    handler,
                });
            }
            Err(_) => table.free.push(index),
        }
        added
    }

    /// Changes what a source is watched for. An empty set silences it (errors and hang-ups are
    /// reported still).
    ///
    /// # Errors
    /// `NotFound` for a removed source; whatever the kernel says.
    pub fn modify(&self, token: Token, events: EventSet) -> io::Result<()> {
        let mut table = lock(&self.shared.table);
        let source = table
            .get(token)
            .and_then(|slot| slot.source.as_ref())
            .ok_or(io::ErrorKind::NotFound)?;
        let event = EpollEvent::new(events, token.0);
        self.shared
            .epoll
            .ctl(ControlOperation::Modify, source.fd, event)
    }

    /// Stops watching. An event that is already on its way is dropped; a handler that runs at this
    /// moment on the loop's thread finishes its call. Does nothing for a removed source.
    pub fn remove(&self, token: Token) {
        let mut table = lock(&self.shared.table);
        let Some(slot) = table.get(token) else {
            return;
        };
        let Some(source) = slot.source.take() else {
            return;
        };
        slot.generation = slot.generation.wrapping_add(1);
        // Fails only if the descriptor was closed before, which removes it too.
        let _ = self.shared.epoll.ctl(
            ControlOperation::Delete,
            source.fd,
            EpollEvent::new(EventSet::empty(), 0),
        );
        table.free.push(token.index());
        drop(table);
        // The handler may be dropped here, outside the lock, since its drop may use the handle.
        drop(source);
    }

    /// Makes [`EventLoop::run`] return after the handlers of the current batch.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        // Cannot block for less than 2^64 - 1 calls.
        let _ = self.shared.wake.write(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter {
        event: EventFd,
        handle: EventLoopHandle,
        seen: Vec<u64>,
        remove: Option<Token>,
        stop_after: usize,
    }

    impl EventHandler for Counter {
        fn ready(&mut self, source: u64, events: EventSet) {
            assert!(events.contains(EventSet::IN));
            self.seen.push(source);
            if let Some(token) = self.remove {
                self.handle.remove(token);
            } else {
                self.event.read().unwrap();
                self.event.write(1).unwrap();
            }
            if self.seen.len() >= self.stop_after {
                self.handle.stop();
            }
        }
    }

    fn counter(events: &EventLoop, stop_after: usize) -> Arc<Mutex<Counter>> {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        event.write(1).unwrap();
        Arc::new(Mutex::new(Counter {
            event,
            handle: events.handle(),
            seen: Vec::new(),
            remove: None,
            stop_after,
        }))
    }

    #[test]
    fn calls_the_handler_with_its_source_number_until_stopped() {
        let mut events = EventLoop::new().unwrap();
        let handler = counter(&events, 3);
        let fd = lock(&handler).event.try_clone().unwrap();
        events
            .handle()
            .add(&fd, EventSet::IN, handler.clone(), 42)
            .unwrap();
        events.run().unwrap();
        assert_eq!(lock(&handler).seen, [42, 42, 42]);
    }

    #[test]
    fn a_handler_removes_another_source_of_the_same_batch() {
        let mut events = EventLoop::new().unwrap();
        let handle = events.handle();
        // Both are ready at once; whichever runs first removes the other and stops.
        let (a, b) = (counter(&events, 1), counter(&events, 1));
        let fds = [&a, &b].map(|c| lock(c).event.try_clone().unwrap());
        let token_a = handle.add(&fds[0], EventSet::IN, a.clone(), 1).unwrap();
        let token_b = handle.add(&fds[1], EventSet::IN, b.clone(), 2).unwrap();
        lock(&a).remove = Some(token_b);
        lock(&b).remove = Some(token_a);
        events.run().unwrap();
        assert_eq!(lock(&a).seen.len() + lock(&b).seen.len(), 1);
    }

    #[test]
    fn a_stale_token_does_not_touch_the_next_user_of_its_slot() {
        let mut events = EventLoop::new().unwrap();
        let handle = events.handle();
        let first = counter(&events, 1);
        let fd = lock(&first).event.try_clone().unwrap();
        let stale = handle.add(&fd, EventSet::IN, first.clone(), 1).unwrap();
        handle.remove(stale);
        let second = counter(&events, 1);
        let fd = lock(&second).event.try_clone().unwrap();
        let live = handle.add(&fd, EventSet::IN, second.clone(), 2).unwrap();
        assert_eq!(stale.index(), live.index());
        handle.remove(stale);
        assert_eq!(
            handle.modify(stale, EventSet::IN).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        events.run().unwrap();
        assert_eq!(lock(&second).seen, [2]);
        assert!(lock(&first).seen.is_empty());
    }

    #[test]
    fn modify_silences_a_source() {
        let mut events = EventLoop::new().unwrap();
        let handle = events.handle();
        let (quiet, loud) = (counter(&events, 1), counter(&events, 2));
        let fds = [&quiet, &loud].map(|c| lock(c).event.try_clone().unwrap());
        let token = handle.add(&fds[0], EventSet::IN, quiet.clone(), 1).unwrap();
        handle.modify(token, EventSet::empty()).unwrap();
        handle.add(&fds[1], EventSet::IN, loud, 2).unwrap();
        events.run().unwrap();
        assert!(lock(&quiet).seen.is_empty());
    }

    #[test]
    fn stop_wakes_a_sleeping_loop_and_refused_descriptors_are_reported() {
        let mut events = EventLoop::new().unwrap();
        let handle = events.handle();
        let handler = counter(&events, 1);
        let file = tempfile::tempfile().unwrap();
        assert!(handle.add(&file, EventSet::IN, handler, 1).is_err());
        let stopper = std::thread::spawn(move || handle.stop());
        events.run().unwrap();
        stopper.join().unwrap();
    }
}
