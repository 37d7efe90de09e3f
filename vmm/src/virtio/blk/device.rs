//! A disk as the transport sees it.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cumulet_images::block::BlockBackend;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use vmm_sys_util::epoll::EventSet;

use super::BlkMetrics;
use super::config;
use super::handler::{BlkHandler, Disk, RING_SOURCE, SERIAL_LEN};
use super::ring::Ring;
use crate::config::DiskEngine;
use crate::event_loop::{EventLoopHandle, SharedHandler, Token, lock};
use crate::virtio::chain::GuestFault;
use crate::virtio::queue::KICK;
use crate::virtio::{
    Activation, DeviceKind, VirtioDevice, device_id, has_feature, read_config_bytes,
};

/// Most request queues of one disk.
const MAX_QUEUES: u16 = 32;

/// How a disk is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlkOptions {
    /// What GET_ID answers: up to 20 ASCII bytes.
    pub serial: String,
    /// Request queues, 1 to 32.
    pub queues: u16,
    /// How requests reach the host.
    pub engine: DiskEngine,
}

/// Why a disk cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum BlkError {
    /// The guest would see another serial than was asked for.
    #[error("disk serial {0:?} is not one of up to {SERIAL_LEN} printable ASCII characters")]
    Serial(String),
    /// Too few or too many.
    #[error("a disk has 1 to {MAX_QUEUES} queues, not {0}")]
    Queues(u16),
    /// `io_uring` was demanded.
    #[error("io_uring is not available here; use engine \"auto\" or \"sync\"")]
    IoUring(#[source] io::Error),
}

struct Running {
    events: EventLoopHandle,
    tokens: Vec<Token>,
    handler: Arc<Mutex<BlkHandler>>,
}

/// A disk.
pub struct Blk {
    disk: Disk,
    queues: u16,
    /// Kept here while the device is not active.
    ring: Option<Ring>,
    running: Option<Running>,
}

impl Blk {
    /// Offers `backend` as a disk.
    ///
    /// # Errors
    /// [`BlkError`].
    pub fn new(backend: Arc<dyn BlockBackend>, options: &BlkOptions) -> Result<Self, BlkError> {
        let text = options.serial.as_bytes();
        let printable = text.iter().all(u8::is_ascii_graphic);
        if text.is_empty() || text.len() > SERIAL_LEN || !printable {
            return Err(BlkError::Serial(options.serial.clone()));
        }
        if !(1..=MAX_QUEUES).contains(&options.queues) {
            return Err(BlkError::Queues(options.queues));
        }
        let ring = match (options.engine, Ring::new) {
            (DiskEngine::Sync, _) => None,
            (DiskEngine::IoUring, new) => Some(new().map_err(BlkError::IoUring)?),
            (DiskEngine::Auto, new) => new()
                .inspect_err(|error| {
                    tracing::info!(
                        disk = options.serial,
                        %error,
                        "io_uring is refused here; plain reads and writes are used"
                    );
                })
                .ok(),
        };
        let mut serial = [0; SERIAL_LEN];
        serial[..text.len()].copy_from_slice(text);
        Ok(Self {
            disk: Disk {
                backend,
                serial,
                metrics: Arc::default(),
                writeback: Arc::new(AtomicBool::new(true)),
            },
            queues: options.queues,
            ring,
            running: None,
        })
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<BlkMetrics> {
        Arc::clone(&self.disk.metrics)
    }
}

impl VirtioDevice for Blk {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: device_id(VIRTIO_ID_BLOCK),
            class: 0x01_00_00,
        }
    }

    fn features(&self) -> u64 {
        config::features(&*self.disk.backend)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![config::QUEUE_SIZE; usize::from(self.queues)]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let writeback = self.disk.writeback.load(Ordering::Acquire);
        let structure = config::structure(self.disk.backend.size(), self.queues, writeback);
        read_config_bytes(&structure, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if offset == config::WRITEBACK
            && let [mode] = data
            && has_feature(self.features(), VIRTIO_BLK_F_CONFIG_WCE)
        {
            self.disk.writeback.store(*mode != 0, Ordering::Release);
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let kicks: Vec<_> = (0..)
            .zip(&activation.queues)
            // Stay open: the handler keeps the queues until `stop` has taken them from the loop.
            .filter_map(|(index, queue)| Some((index, queue.as_ref()?.kick().as_raw_fd())))
            .collect();
        if kicks.is_empty() {
            return Err(io::Error::other(GuestFault::MissingQueue));
        }
        // A driver that cannot flush gets writes that need none (virtio 1.2 §5.2.6.2).
        let can_flush = [VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_CONFIG_WCE]
            .iter()
            .any(|bit| has_feature(activation.features, *bit));
        if !can_flush {
            self.disk.writeback.store(false, Ordering::Release);
        }
        let ring = self.ring.take();
        let ring_fd = ring.as_ref().map(AsRawFd::as_raw_fd);
        let handler = Arc::new(Mutex::new(BlkHandler::new(
            self.disk.clone(),
            activation.queues,
            activation.memory,
            activation.link,
            ring,
        )));
        let shared: SharedHandler = handler.clone();
        let running = self.running.insert(Running {
            events: activation.events,
            tokens: Vec::new(),
            handler,
        });
        let kicks = kicks.into_iter().map(|(source, fd)| (source, fd, KICK));
        let ring = ring_fd.map(|fd| (RING_SOURCE, fd, EventSet::IN));
        for (source, fd, events) in kicks.chain(ring) {
            let token = running
                .events
                .add(&fd, events, Arc::clone(&shared), source)?;
            running.tokens.push(token);
        }
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            for token in running.tokens {
                running.events.remove(token);
            }
            self.ring = lock(&running.handler).stop();
        }
        self.disk.writeback.store(true, Ordering::Release);
    }
}
