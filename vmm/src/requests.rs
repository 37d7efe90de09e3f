//! What happens inside the guest (or to a vCPU) that concerns the whole machine.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::event_loop::lock;

/// Something that ends the current life of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Start anew.
    Reset,
    /// ACPI S5.
    PowerOff,
    /// A vCPU met a fault while it delivered a double fault. A PC resets then; kernels also do it
    /// on purpose to reboot.
    TripleFault {
        /// Which vCPU.
        vcpu: u8,
        /// Its registers.
        registers: String,
    },
    /// KVM cannot run a vCPU any more.
    VcpuFailed {
        /// Which vCPU.
        vcpu: u8,
        /// What KVM said.
        message: String,
        /// Its registers.
        registers: String,
    },
}

/// Carries a request from the vCPU that made it to the main thread. Cheap to clone.
///
/// The vCPU looks at [`Requests::pending`] after every exit and parks, so that no instruction runs
/// behind the one that reset the machine.
#[derive(Debug, Clone)]
pub struct Requests {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pending: AtomicBool,
    request: Mutex<Option<Request>>,
    event: EventFd,
}

impl Requests {
    /// No request yet.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                pending: AtomicBool::new(false),
                request: Mutex::new(None),
                event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            }),
        })
    }

    /// Asks; the first request wins until it is taken.
    pub fn raise(&self, request: Request) {
        lock(&self.shared.request).get_or_insert(request);
        self.shared.pending.store(true, Ordering::Release);
        // Cannot block for less than 2^64 - 1 calls.
        let _: io::Result<()> = self.shared.event.write(1);
    }

    /// Whether a request waits.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.shared.pending.load(Ordering::Acquire)
    }

    /// The request, taken out. vCPUs may run again.
    #[must_use]
    pub fn take(&self) -> Option<Request> {
        let _: io::Result<u64> = self.shared.event.read();
        let request = lock(&self.shared.request).take();
        self.shared.pending.store(false, Ordering::Release);
        request
    }

    /// Becomes readable when a request comes.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.shared.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_wins_until_taken() {
        let requests = Requests::new().unwrap();
        assert!(!requests.pending());
        requests.raise(Request::PowerOff);
        requests.raise(Request::Reset);
        assert!(requests.pending());
        assert_eq!(requests.take(), Some(Request::PowerOff));
        assert_eq!(requests.take(), None);
        assert!(!requests.pending());
    }
}
