//! An interface as the transport sees it.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
    VIRTIO_NET_S_LINK_UP,
};
use vmm_sys_util::epoll::EventSet;

use super::handler::{Mode, NetHandler, Parts, RECEIVE, TAP, TRANSMIT};
use super::{Mac, NetBackend, NetMetrics, Offloads};
use crate::event_loop::{EventLoopHandle, SharedHandler, Token, lock};
use crate::virtio::chain::GuestFault;
use crate::virtio::queue::KICK;
use crate::virtio::{
    Activation, DeviceKind, VirtioDevice, device_id, feature_set, has_feature, read_config_bytes,
};

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;

/// How an interface is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetOptions {
    /// Its address.
    pub mac: Mac,
    /// MTU that the driver shall use; its own default if not given.
    pub mtu: Option<u16>,
}

struct Running {
    events: EventLoopHandle,
    kicks: Vec<Token>,
    handler: Arc<Mutex<NetHandler>>,
}

/// A network interface.
pub struct Net {
    backend: Arc<dyn NetBackend>,
    options: NetOptions,
    metrics: Arc<NetMetrics>,
    running: Option<Running>,
}

impl Net {
    /// Offers `backend` as an interface.
    #[must_use]
    pub fn new(backend: Arc<dyn NetBackend>, options: NetOptions) -> Self {
        Self {
            backend,
            options,
            metrics: Arc::default(),
            running: None,
        }
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<NetMetrics> {
        Arc::clone(&self.metrics)
    }
}

/// Each feature here needs the other (virtio 1.2 §5.1.3.1).
const NEEDS: [(u32, &[u32]); 6] = [
    (VIRTIO_NET_F_GUEST_TSO4, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_GUEST_TSO6, &[VIRTIO_NET_F_GUEST_CSUM]),
    (
        VIRTIO_NET_F_GUEST_ECN,
        &[VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6],
    ),
    (VIRTIO_NET_F_HOST_TSO4, &[VIRTIO_NET_F_CSUM]),
    (VIRTIO_NET_F_HOST_TSO6, &[VIRTIO_NET_F_CSUM]),
    (
        VIRTIO_NET_F_HOST_ECN,
        &[VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6],
    ),
];

impl VirtioDevice for Net {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: device_id(VIRTIO_ID_NET),
            class: 0x02_00_00,
        }
    }

    fn features(&self) -> u64 {
        let mtu = if self.options.mtu.is_some() {
            feature_set(&[VIRTIO_NET_F_MTU])
        } else {
            0
        };
        mtu | feature_set(&[
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_MAC,
            VIRTIO_NET_F_GUEST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_GUEST_ECN,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_HOST_TSO6,
            VIRTIO_NET_F_HOST_ECN,
            VIRTIO_NET_F_MRG_RXBUF,
            VIRTIO_NET_F_STATUS,
        ])
    }

    fn accepts(&self, features: u64) -> bool {
        NEEDS.iter().all(|(feature, needed)| {
            !has_feature(features, *feature) || needed.iter().any(|bit| has_feature(features, *bit))
        })
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_net_config (virtio 1.2 §5.1.4) up to the MTU.
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.options.mac.bytes());
        config[6] = VIRTIO_NET_S_LINK_UP.to_le_bytes()[0];
        // One pair of queues.
        config[8] = 1;
        config[10..].copy_from_slice(&self.options.mtu.unwrap_or(0).to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut queues = activation.queues.into_iter().flatten();
        let (Some(receive), Some(transmit)) = (queues.next(), queues.next()) else {
            return Err(io::Error::other(GuestFault::MissingQueue));
        };
        let has = |bit| has_feature(activation.features, bit);
        self.backend.set_offloads(Offloads {
            checksum: has(VIRTIO_NET_F_GUEST_CSUM),
            tso4: has(VIRTIO_NET_F_GUEST_TSO4),
            tso6: has(VIRTIO_NET_F_GUEST_TSO6),
            ecn: has(VIRTIO_NET_F_GUEST_ECN),
        })?;
        let mode = Mode {
            mergeable: has(VIRTIO_NET_F_MRG_RXBUF),
            checksum: has(VIRTIO_NET_F_GUEST_CSUM),
        };
        // These stay open: the handler keeps the queues until `stop` has taken them from the loop.
        let kicks = [
            (receive.kick().as_raw_fd(), RECEIVE),
            (transmit.kick().as_raw_fd(), TRANSMIT),
        ];
        let parts = Parts {
            backend: Arc::clone(&self.backend),
            memory: activation.memory,
            link: activation.link,
            events: activation.events.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let handler = Arc::new(Mutex::new(NetHandler::new(receive, transmit, parts, mode)));
        let shared: SharedHandler = handler.clone();
        let running = self.running.insert(Running {
            events: activation.events,
            kicks: Vec::new(),
            handler,
        });
        let events = &running.events;
        for (fd, source) in kicks {
            let token = events.add(&fd, KICK, Arc::clone(&shared), source)?;
            running.kicks.push(token);
        }
        // Held while the tap is added, so that no frame comes before the handler knows its token.
        let mut handler = lock(&running.handler);
        let tap = events.add(&*self.backend, EventSet::IN, shared, TAP)?;
        handler.set_tap(tap);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            for token in running.kicks {
                running.events.remove(token);
            }
            lock(&running.handler).stop();
            // The next driver starts without; an error only means it gets what it must cope with.
            let _ = self.backend.set_offloads(Offloads::default());
        }
    }
}
