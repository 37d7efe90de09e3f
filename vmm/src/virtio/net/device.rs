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
use super::kernel::KernelPath;
use super::{Mac, NetBackend, NetMetrics, Offloads, VhostNet};
use crate::event_loop::{EventLoopHandle, SharedHandler, Token, lock};
use crate::virtio::chain::GuestFault;
use crate::virtio::queue::KICK;
use crate::virtio::{
    Activation, DeviceKind, VirtQueue, VirtioDevice, device_id, feature_set, has_feature,
    read_config_bytes,
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

/// An interface in use. Its handler stops before it is taken from the event loop.
struct Running {
    events: EventLoopHandle,
    tokens: Vec<Token>,
    path: Path,
}

/// Who serves the queues.
enum Path {
    /// This process.
    Own(Arc<Mutex<NetHandler>>),
    /// vhost-net; and what this process needs to do it itself.
    Kernel(Arc<Mutex<KernelPath>>, Parts, Mode),
}

/// A network interface.
pub struct Net {
    backend: Arc<dyn NetBackend>,
    options: NetOptions,
    metrics: Arc<NetMetrics>,
    vhost: Option<Arc<dyn VhostNet>>,
    /// vhost refused a driver's queues once: told once, since a guest can cause it.
    refused: bool,
    running: Option<Running>,
    paused: bool,
}

impl Net {
    /// Offers `backend` as an interface.
    #[must_use]
    pub fn new(backend: Arc<dyn NetBackend>, options: NetOptions) -> Self {
        Self {
            backend,
            options,
            metrics: Arc::default(),
            vhost: None,
            refused: false,
            running: None,
            paused: false,
        }
    }

    /// Lets `vhost` serve the queues of every driver that it can serve.
    #[must_use]
    pub fn with_vhost(mut self, vhost: Arc<dyn VhostNet>) -> Self {
        self.vhost = Some(vhost);
        self
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<NetMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Gives the queues to vhost. Gives them back if there is none, or it cannot serve this driver.
    fn serve_in_kernel(
        &mut self,
        queues: Vec<VirtQueue>,
        parts: &Parts,
        mode: Mode,
        features: u64,
    ) -> io::Result<Option<Vec<VirtQueue>>> {
        // vhost leaves the tap's flags in the header, which a driver without GUEST_CSUM must not see.
        let Some(vhost) = self.vhost.as_ref().filter(|_| mode.checksum) else {
            return Ok(Some(queues));
        };
        let mut path = KernelPath::new(Arc::clone(vhost), queues, parts.clone())?;
        match path.begin(features, self.paused) {
            Ok(true) => {}
            Ok(false) => return path.take_queues().map(Some),
            Err(error) => {
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::warn!(device = parts.link.name(), %error, "vhost-net refuses the queues");
                }
                return path.take_queues().map(Some);
            }
        }
        let error = path.error().as_raw_fd();
        let path = Arc::new(Mutex::new(path));
        let running = self.running.insert(Running {
            events: parts.events.clone(),
            tokens: Vec::new(),
            path: Path::Kernel(Arc::clone(&path), parts.clone(), mode),
        });
        let token = parts.events.add(&error, EventSet::IN, path, 0)?;
        running.tokens.push(token);
        Ok(None)
    }

    /// Serves the queues on the event loop.
    fn serve_here(&mut self, queues: Vec<VirtQueue>, parts: Parts, mode: Mode) -> io::Result<()> {
        let mut queues = queues.into_iter();
        let (Some(receive), Some(transmit)) = (queues.next(), queues.next()) else {
            return Err(io::Error::other(GuestFault::MissingQueue));
        };
        // These stay open: the handler keeps the queues until `stop` has taken them from the loop.
        let kicks = [
            (receive.kick().as_raw_fd(), RECEIVE),
            (transmit.kick().as_raw_fd(), TRANSMIT),
        ];
        let events = parts.events.clone();
        let handler = Arc::new(Mutex::new(NetHandler::new(receive, transmit, parts, mode)));
        let shared: SharedHandler = handler.clone();
        let running = self.running.insert(Running {
            events: events.clone(),
            tokens: Vec::new(),
            path: Path::Own(Arc::clone(&handler)),
        });
        for (fd, source) in kicks {
            let token = events.add(&fd, KICK, Arc::clone(&shared), source)?;
            running.tokens.push(token);
        }
        // Held while the tap is added, so that no frame comes before the handler knows its token.
        let mut handler = lock(&handler);
        let tap = events.add(&*self.backend, EventSet::IN, shared, TAP)?;
        handler.set_tap(tap);
        handler.set_paused(self.paused);
        Ok(())
    }

    /// Takes the queues from vhost for good and goes on with them here.
    fn leave_kernel(&mut self) -> io::Result<()> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        running.forget_tokens();
        if let Path::Kernel(path, parts, mode) = running.path {
            let queues = lock(&path).take_queues()?;
            self.serve_here(queues, parts, mode)?;
        }
        Ok(())
    }
}

impl Running {
    fn forget_tokens(&self) {
        for token in &self.tokens {
            self.events.remove(*token);
        }
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
        let queues: Vec<_> = activation.queues.into_iter().flatten().collect();
        if queues.len() != 2 {
            return Err(io::Error::other(GuestFault::MissingQueue));
        }
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
        let parts = Parts {
            backend: Arc::clone(&self.backend),
            memory: activation.memory,
            link: activation.link,
            events: activation.events,
            metrics: Arc::clone(&self.metrics),
        };
        match self.serve_in_kernel(queues, &parts, mode, activation.features)? {
            Some(queues) => self.serve_here(queues, parts, mode),
            None => Ok(()),
        }
    }

    fn function_changed(&mut self) {
        let Some(Running {
            path: Path::Kernel(path, parts, _),
            ..
        }) = &self.running
        else {
            return;
        };
        let fits = {
            let mut path = lock(path);
            path.follow();
            path.fits()
        };
        if !fits {
            let link = Arc::clone(&parts.link);
            if let Err(error) = self.leave_kernel() {
                link.fail(&error.to_string());
            }
        }
    }

    fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        match self.running.as_ref().map(|running| &running.path) {
            Some(Path::Own(handler)) => lock(handler).set_paused(paused),
            Some(Path::Kernel(path, ..)) => lock(path).set_paused(paused),
            None => {}
        }
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.forget_tokens();
            match &running.path {
                Path::Own(handler) => lock(handler).stop(),
                Path::Kernel(path, ..) => lock(path).end(),
            }
            // The next driver starts without; an error only means it gets what it must cope with.
            let _ = self.backend.set_offloads(Offloads::default());
        }
    }
}
