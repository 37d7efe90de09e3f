//! Failed devices on their way to the main thread.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::event_loop::lock;
use crate::virtio::FailureSink;

/// Reports kept at most: a guest can break and reset a device as often as it likes.
const KEPT: usize = 64;

/// A device that was taken from the guest, and why.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) device: String,
    pub(super) reason: String,
}

/// Collects failures from any thread.
pub(super) struct Failures {
    list: Mutex<VecDeque<Failure>>,
    event: EventFd,
}

impl Failures {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            list: Mutex::default(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Becomes readable when a device fails.
    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Failures since the last call.
    pub(super) fn take(&self) -> VecDeque<Failure> {
        let _: io::Result<u64> = self.event.read();
        std::mem::take(&mut *lock(&self.list))
    }
}

impl FailureSink for Failures {
    fn device_failed(&self, device: &str, reason: &str) {
        let mut list = lock(&self.list);
        if list.len() < KEPT {
            list.push_back(Failure {
                device: device.to_owned(),
                reason: reason.to_owned(),
            });
        }
        let _: io::Result<()> = self.event.write(1);
    }
}
