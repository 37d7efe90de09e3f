//! vhost-net: the host kernel moves an interface's frames between its queues and its tap.
//!
//! [`VhostNet`] is what an interface tells it; [`Vhost`] tells it to the kernel.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use vhost::vhost_kern::VhostKernBackend;
use vhost::vhost_kern::vhost_binding::{VHOST_NET_SET_BACKEND, vhost_vring_file};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::virtio::queue::Rings;
use crate::virtio::{Ram, feature_set};

/// The device that makes instances of vhost-net.
const DEVICE: &str = "/dev/vhost-net";

/// Features that concern who serves the queues. Whatever the driver accepts of them, vhost must do.
pub(super) const QUEUE_FEATURES: u64 = feature_set(&[
    VIRTIO_F_VERSION_1,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_NET_F_MRG_RXBUF,
]);

/// The events of one queue.
pub struct RingEvents<'a> {
    /// Signalled by the driver.
    pub kick: &'a EventFd,
    /// Interrupts the driver.
    pub call: &'a EventFd,
    /// Signalled when the driver broke the rules.
    pub error: &'a EventFd,
}

/// Serves the two queues of an interface, 0 to receive and 1 to transmit, in place of this process.
pub trait VhostNet: Send + Sync {
    /// Those of [`QUEUE_FEATURES`] that the driver accepted.
    ///
    /// # Errors
    /// When vhost cannot do one of them.
    fn set_features(&self, features: u64) -> io::Result<()>;

    /// Describes queue `index`, which is not attached.
    ///
    /// # Errors
    /// When vhost refuses it.
    fn set_ring(&self, index: u16, rings: &Rings, events: &RingEvents<'_>) -> io::Result<()>;

    /// Begins to serve queue `index` from and to `tap`.
    ///
    /// # Errors
    /// When the tap is none, or the queue's rings are not accessible.
    fn attach(&self, index: u16, tap: RawFd) -> io::Result<()>;

    /// Ends that. When it returns nothing of the queue is in flight. The queue can be attached again
    /// and goes on where it was.
    ///
    /// # Errors
    /// When the queue was never described.
    fn detach(&self, index: u16) -> io::Result<()>;

    /// Index in the available ring of the next chain to serve; all before are given back.
    ///
    /// # Errors
    /// When the host refuses.
    fn next_available(&self, index: u16) -> io::Result<u16>;
}

/// An instance of the kernel's vhost-net without guest memory yet.
#[derive(Debug)]
pub struct VhostDevice(File);

impl VhostDevice {
    /// Opens one for this process. The kernel makes a thread for it.
    ///
    /// # Errors
    /// When the module is not loaded, access is denied, or the kernel's vhost-net is too old.
    pub fn open() -> io::Result<Self> {
        let device = Self(
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(DEVICE)?,
        );
        let vhost = device.with_memory(&Ram::new());
        let missing = QUEUE_FEATURES & !vhost.get_features().map_err(io_error)?;
        if missing != 0 {
            let message = format!("this kernel's vhost-net lacks virtio features {missing:#x}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        vhost.set_owner().map_err(io_error)?;
        Ok(Self(vhost.device))
    }

    fn with_memory(self, memory: &Ram) -> Vhost {
        Vhost {
            device: self.0,
            memory: Arc::new(memory.clone()),
        }
    }

    /// Tells it where guest RAM is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(self, memory: &Ram) -> io::Result<Vhost> {
        let regions: Vec<_> = memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo {
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: u64::try_from(region.as_ptr().addr()).unwrap_or(u64::MAX),
                mmap_offset: 0,
                mmap_handle: -1,
            })
            .collect();
        let vhost = self.with_memory(memory);
        vhost.set_mem_table(&regions).map_err(io_error)?;
        Ok(vhost)
    }
}

/// The kernel's vhost-net for one interface.
#[derive(Debug)]
pub struct Vhost {
    device: File,
    memory: Arc<Ram>,
}

impl AsRawFd for Vhost {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

impl VhostKernBackend for Vhost {
    type AS = Arc<Ram>;

    fn mem(&self) -> &Self::AS {
        &self.memory
    }
}

impl Vhost {
    /// Gives queue `index` a tap, or takes it away with -1.
    fn set_backend(&self, index: u16, fd: RawFd) -> io::Result<()> {
        let file = vhost_vring_file {
            index: index.into(),
            fd,
        };
        // SAFETY: the kernel reads one `vhost_vring_file` and checks the descriptor in it.
        let done = unsafe { ioctl_with_ref(self, VHOST_NET_SET_BACKEND(), &file) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl VhostNet for Vhost {
    fn set_features(&self, features: u64) -> io::Result<()> {
        VhostBackend::set_features(self, features).map_err(io_error)
    }

    fn set_ring(&self, index: u16, rings: &Rings, events: &RingEvents<'_>) -> io::Result<()> {
        let config = VringConfigData {
            queue_max_size: rings.size,
            queue_size: rings.size,
            flags: 0,
            desc_table_addr: rings.descriptors,
            used_ring_addr: rings.used,
            avail_ring_addr: rings.available,
            log_addr: None,
        };
        let index = usize::from(index);
        self.set_vring_num(index, rings.size)
            .and_then(|()| self.set_vring_addr(index, &config))
            .and_then(|()| self.set_vring_base(index, rings.next))
            .and_then(|()| self.set_vring_call(index, events.call))
            .and_then(|()| self.set_vring_err(index, events.error))
            .and_then(|()| self.set_vring_kick(index, events.kick))
            .map_err(io_error)
    }

    fn attach(&self, index: u16, tap: RawFd) -> io::Result<()> {
        self.set_backend(index, tap)
    }

    fn detach(&self, index: u16) -> io::Result<()> {
        self.set_backend(index, -1)
    }

    fn next_available(&self, index: u16) -> io::Result<u16> {
        let base = self.get_vring_base(usize::from(index)).map_err(io_error)?;
        u16::try_from(base).map_err(io::Error::other)
    }
}

/// What the kernel said, or what the crate did not want to ask it.
fn io_error(error: vhost::Error) -> io::Error {
    match error {
        vhost::Error::IoctlError(error) => error,
        other => io::Error::other(other),
    }
}
