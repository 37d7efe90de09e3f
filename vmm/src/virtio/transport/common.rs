//! The common configuration structure (virtio 1.2 §4.1.4.3): its registers, and what may be written
//! when.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use crate::virtio::link::status_bit;
use crate::virtio::{Link, Ram, has_feature};

const FEATURES_OK: u8 = status_bit(VIRTIO_CONFIG_S_FEATURES_OK);
const DRIVER_OK: u8 = status_bit(VIRTIO_CONFIG_S_DRIVER_OK);

/// Registers of one queue, as the driver set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueRegisters {
    pub(super) max_size: u16,
    pub(super) size: u16,
    pub(super) enabled: bool,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

impl QueueRegisters {
    pub(super) fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
        }
    }

    /// The queue these registers describe, if its size is right, its parts aligned and in RAM.
    pub(super) fn build(&self, event_idx: bool, memory: &Ram) -> Option<Queue> {
        let mut queue = Queue::new(self.max_size).ok()?;
        queue.try_set_size(self.size).ok()?;
        let address = GuestAddress;
        queue
            .try_set_desc_table_address(address(self.descriptors))
            .ok()?;
        queue
            .try_set_avail_ring_address(address(self.driver))
            .ok()?;
        queue.try_set_used_ring_address(address(self.device)).ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        // Address 0 is where the real-mode vectors are; the queue crate takes it for "not set".
        let set = self.descriptors != 0 && self.driver != 0 && self.device != 0;
        (set && queue.is_valid(memory)).then_some(queue)
    }
}

/// What the transport has to do after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    None,
    /// The driver wrote this device status.
    Status(u8),
    /// The driver chose a vector.
    Vector,
}

/// The registers that are neither status nor interrupts (those are the [`Link`]'s).
#[derive(Debug)]
pub(super) struct Common {
    pub(super) offered: u64,
    pub(super) driver_features: u64,
    pub(super) queues: Vec<QueueRegisters>,
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
}

impl Common {
    pub(super) fn new(offered: u64, queue_sizes: &[u16]) -> Self {
        Self {
            offered,
            driver_features: 0,
            queues: queue_sizes
                .iter()
                .copied()
                .map(QueueRegisters::new)
                .collect(),
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.driver_features = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = QueueRegisters::new(queue.max_size);
        }
    }

    /// The driver's features are ours, and modern (virtio 1.2 §6.1).
    pub(super) fn features_fit(&self) -> bool {
        self.driver_features & !self.offered == 0
            && has_feature(self.driver_features, VIRTIO_F_VERSION_1)
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// Reads any bytes of the structure.
    pub(super) fn read(&self, link: &Link, offset: u64, data: &mut [u8]) {
        let mut image = Image::default();
        image.put(0x00, &self.device_feature_select.to_le_bytes());
        image.put(0x04, &half(self.offered, self.device_feature_select));
        image.put(0x08, &self.driver_feature_select.to_le_bytes());
        image.put(
            0x0c,
            &half(self.driver_features, self.driver_feature_select),
        );
        image.put(0x10, &link.vector(None).to_le_bytes());
        let count = u16::try_from(self.queues.len()).unwrap_or(u16::MAX);
        image.put(0x12, &count.to_le_bytes());
        image.put(0x14, &[link.status(), link.generation()]);
        image.put(0x16, &self.queue_select.to_le_bytes());
        image.put(0x1a, &link.vector(Some(self.queue_select)).to_le_bytes());
        if let Some(queue) = self.selected() {
            image.put(0x18, &queue.size.to_le_bytes());
            image.put(0x1c, &[u8::from(queue.enabled), 0]);
            // Notification address and data are the queue's number.
            image.put(0x1e, &self.queue_select.to_le_bytes());
            image.put(0x20, &queue.descriptors.to_le_bytes());
            image.put(0x28, &queue.driver.to_le_bytes());
            image.put(0x30, &queue.device.to_le_bytes());
            image.put(0x38, &self.queue_select.to_le_bytes());
        }
        super::super::read_config_bytes(&image.0, offset, data);
    }

    /// Writes one register. The width must be the register's (virtio 1.2 §4.1.3.1); halves of the
    /// 64-bit addresses are registers of their own. Anything else is ignored, as is what the
    /// device's state forbids.
    pub(super) fn write(&mut self, link: &Link, memory: &Ram, offset: u64, data: &[u8]) -> Action {
        let status = link.status();
        match (offset, data) {
            (0x14, &[status]) => return Action::Status(status),
            (0x10, &[a, b]) => link.set_vector(None, u16::from_le_bytes([a, b])),
            (0x16, &[a, b]) => self.queue_select = u16::from_le_bytes([a, b]),
            (0x1a, &[a, b]) => {
                link.set_vector(Some(self.queue_select), u16::from_le_bytes([a, b]));
                return Action::Vector;
            }
            (_, &[a, b, c, d]) => {
                self.write_dword(status, offset, u32::from_le_bytes([a, b, c, d]));
            }
            (0x18, &[a, b]) => {
                let size = u16::from_le_bytes([a, b]);
                if let Some(queue) = self.configurable(status)
                    && size.is_power_of_two()
                    && size <= queue.max_size
                {
                    queue.size = size;
                }
            }
            (0x1c, &[1, 0]) => self.enable_selected(link, memory),
            _ => {}
        }
        Action::None
    }

    fn write_dword(&mut self, status: u8, offset: u64, value: u32) {
        match offset {
            0x00 => self.device_feature_select = value,
            0x08 => self.driver_feature_select = value,
            0x0c if status & (FEATURES_OK | DRIVER_OK) == 0 => match self.driver_feature_select {
                0 => set_low(&mut self.driver_features, value),
                1 => set_high(&mut self.driver_features, value),
                _ => {}
            },
            0x20..0x38 => {
                if let Some(queue) = self.configurable(status) {
                    match offset {
                        0x20 => set_low(&mut queue.descriptors, value),
                        0x24 => set_high(&mut queue.descriptors, value),
                        0x28 => set_low(&mut queue.driver, value),
                        0x2c => set_high(&mut queue.driver, value),
                        0x30 => set_low(&mut queue.device, value),
                        0x34 => set_high(&mut queue.device, value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// The selected queue while it may still be changed.
    fn configurable(&mut self, status: u8) -> Option<&mut QueueRegisters> {
        let queue = self.queues.get_mut(usize::from(self.queue_select))?;
        (!queue.enabled && status & DRIVER_OK == 0).then_some(queue)
    }

    fn enable_selected(&mut self, link: &Link, memory: &Ram) {
        let status = link.status();
        let index = self.queue_select;
        let Some(queue) = self.configurable(status) else {
            return;
        };
        if status & FEATURES_OK == 0 {
            link.fail(&format!(
                "queue {index} enabled before the features were agreed"
            ));
        } else if queue.build(false, memory).is_none() {
            link.fail(&format!(
                "queue {index} of size {} at {:#x}, {:#x}, {:#x} is misaligned or not in RAM",
                queue.size, queue.descriptors, queue.driver, queue.device
            ));
        } else {
            queue.enabled = true;
        }
    }
}

/// Bytes of the structure, as the capability says.
const IMAGE_LEN: usize = 0x40;

/// The structure's bytes, put together for a read.
struct Image([u8; IMAGE_LEN]);

impl Default for Image {
    fn default() -> Self {
        Self([0; IMAGE_LEN])
    }
}

impl Image {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// The half of a 64-bit feature set that a select register names; none beyond.
fn half(features: u64, select: u32) -> [u8; 4] {
    let bytes = features.to_le_bytes();
    match select {
        0 => [bytes[0], bytes[1], bytes[2], bytes[3]],
        1 => [bytes[4], bytes[5], bytes[6], bytes[7]],
        _ => [0; 4],
    }
}

fn set_low(place: &mut u64, value: u32) {
    *place = *place & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(place: &mut u64, value: u32) {
    *place = *place & u64::from(u32::MAX) | u64::from(value) << 32;
}
