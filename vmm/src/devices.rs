//! Which PCI functions the machine has, and in which slots.
//!
//! ```text
//! 0:0.0 host bridge   0:1.x kept free for the companion that firmware looks for
//! 0:2.0 … disks in order (the root disk first), then interfaces in order, then rng
//! ```

use std::io;
use std::sync::Arc;

use cumulet_images::block::BlockBackend;

use crate::config::{DiskConfig, NetConfig, VmConfig};
use crate::pci::bridge::HostBridge;
use crate::pci::{PciError, PciRoot};
use crate::resources::Interface;
use crate::virtio::blk::{Blk, BlkError, BlkOptions};
use crate::virtio::net::{Mac, MacError, Net, NetOptions};
use crate::virtio::rng::Rng;
use crate::virtio::transport::{Host, TransportError, VirtioPci};
use crate::virtio::{Metrics, VirtioDevice};

/// First PCI slot behind the bridges; the root disk is always there, since firmware boots from the
/// lowest slot.
const FIRST_SLOT: u8 = 2;
/// Queues of a disk when the configuration does not say: one a vCPU up to this.
const DEFAULT_QUEUES: u16 = 4;

/// Counters by device name.
pub type DeviceMetrics = Vec<(String, Arc<dyn Metrics>)>;

/// Why a device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The bus refuses it.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// Its transport.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A disk.
    #[error("disks[{index}]")]
    Disk {
        /// Its index.
        index: usize,
        /// Why not.
        #[source]
        source: BlkError,
    },
    /// An interface.
    #[error("nets[{index}].mac")]
    Net {
        /// Its index.
        index: usize,
        /// Why not.
        #[source]
        source: MacError,
    },
    /// vhost-net refuses guest RAM.
    #[error("nets[{index}].vhost: vhost-net does not take guest RAM")]
    Vhost {
        /// Its index.
        index: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Plugs in all devices of `config` and returns their counters. `disks` and `nets` are opened and
/// in the order of the configuration; `host` gives each device what it is plugged into.
///
/// # Errors
/// See [`DeviceError`].
pub fn plug(
    pci: &PciRoot,
    config: &VmConfig,
    disks: Vec<Arc<dyn BlockBackend>>,
    nets: Vec<Interface>,
    host: impl Fn() -> Host,
) -> Result<DeviceMetrics, DeviceError> {
    pci.add(0, 0, Box::new(HostBridge::new()))?;
    let mut metrics = DeviceMetrics::new();
    let mut slot = FIRST_SLOT;
    let mut plug = |name: String, device: Box<dyn VirtioDevice>, counters: Arc<dyn Metrics>| {
        pci.add(
            slot,
            0,
            Box::new(VirtioPci::new(&name, slot, device, host())?),
        )?;
        metrics.push((name, counters));
        slot += 1;
        Ok::<_, DeviceError>(())
    };
    for (index, (disk, backend)) in config.disks.iter().zip(disks).enumerate() {
        let blk = disk_device(disk, config.vcpus, backend)
            .map_err(|source| DeviceError::Disk { index, source })?;
        let counters = blk.metrics();
        plug(format!("blk{index}"), Box::new(blk), counters)?;
    }
    for (index, (net, interface)) in config.nets.iter().zip(nets).enumerate() {
        let options = net_options(net).map_err(|source| DeviceError::Net { index, source })?;
        let mut net = Net::new(interface.tap, options);
        if let Some(vhost) = interface.vhost {
            let vhost = vhost
                .set_up(&host().memory)
                .map_err(|source| DeviceError::Vhost { index, source })?;
            net = net.with_vhost(Arc::new(vhost));
        }
        let counters = net.metrics();
        plug(format!("net{index}"), Box::new(net), counters)?;
    }
    if config.rng {
        let rng = Rng::default();
        let counters = rng.metrics();
        plug("rng0".to_owned(), Box::new(rng), counters)?;
    }
    Ok(metrics)
}

fn disk_device(
    disk: &DiskConfig,
    vcpus: u8,
    backend: Arc<dyn BlockBackend>,
) -> Result<Blk, BlkError> {
    let options = BlkOptions {
        serial: disk.serial.clone(),
        queues: disk.queues.unwrap_or(u16::from(vcpus).min(DEFAULT_QUEUES)),
        engine: disk.engine,
    };
    Blk::new(backend, &options)
}

fn net_options(net: &NetConfig) -> Result<NetOptions, MacError> {
    Ok(NetOptions {
        mac: net.mac.parse::<Mac>()?,
        mtu: net.mtu,
    })
}
