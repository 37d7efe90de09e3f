//! The entropy device as the transport sees it.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::RngMetrics;
use super::handler::RngHandler;
use crate::event_loop::{EventLoopHandle, Token};
use crate::virtio::chain::GuestFault;
use crate::virtio::queue::KICK;
use crate::virtio::{Activation, DeviceKind, VirtioDevice, device_id};

/// Entries of the one queue.
const QUEUE_SIZE: u16 = 64;

/// An entropy device.
#[derive(Default)]
pub struct Rng {
    metrics: Arc<RngMetrics>,
    running: Option<(EventLoopHandle, Token, Arc<Mutex<RngHandler>>)>,
}

impl Rng {
    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<RngMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl VirtioDevice for Rng {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: device_id(VIRTIO_ID_RNG),
            class: 0x00_ff_00,
        }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let queue = activation.queues.into_iter().next().flatten();
        let queue = queue.ok_or_else(|| io::Error::other(GuestFault::MissingQueue))?;
        // Stays open: the handler keeps the queue until `stop` has taken it from the loop.
        let kick = queue.kick().as_raw_fd();
        let handler = Arc::new(Mutex::new(RngHandler::new(
            queue,
            activation.memory,
            activation.link,
            Arc::clone(&self.metrics),
        )));
        let token = activation.events.add(&kick, KICK, handler.clone(), 0)?;
        self.running = Some((activation.events, token, handler));
        Ok(())
    }

    fn stop(&mut self) {
        if let Some((events, token, handler)) = self.running.take() {
            events.remove(token);
            // Waits for a request being served on the loop's thread.
            drop(crate::event_loop::lock(&handler));
        }
    }
}
