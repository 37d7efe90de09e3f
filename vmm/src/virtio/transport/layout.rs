//! Where things are in the one memory BAR of a virtio function, and the PCI capabilities that tell
//! the driver (virtio 1.2 §4.1.4).
//!
//! ```text
//!   0x0000 common configuration      0x1000 queue notification, 4 bytes a queue
//!   0x0800 ISR                       0x2000 MSI-X table
//!   0x0c00 device configuration      0x3000 MSI-X pending bits
//! ```
//! Notification and MSI-X have pages of their own, so that they could be mapped or trapped alone.

use crate::pci::config_space::{CAPABILITY_VENDOR, ConfigError, ConfigSpace};
use crate::pci::msix::Place;

/// The BAR all structures are in.
pub(super) const BAR: u8 = 0;
/// Its size.
pub(super) const BAR_SIZE: u64 = 0x4000;

pub(super) const COMMON: u64 = 0x0000;
pub(super) const COMMON_LEN: u64 = 0x40;
pub(super) const ISR: u64 = 0x0800;
pub(super) const ISR_LEN: u64 = 1;
pub(super) const DEVICE: u64 = 0x0c00;
pub(super) const DEVICE_LEN: u64 = 0x400;
pub(super) const NOTIFY: u64 = 0x1000;
pub(super) const NOTIFY_LEN: u64 = 0x1000;
/// Distance between the notification addresses of two queues.
pub(super) const NOTIFY_MULTIPLIER: u64 = 4;
pub(super) const MSIX_TABLE: u64 = 0x2000;
pub(super) const MSIX_PENDING: u64 = 0x3000;

/// Vectors that fit the table's page.
pub(super) const MAX_VECTORS: u16 = 256;

pub(super) const TABLE_PLACE: Place = Place {
    bar: BAR,
    offset: 0x2000,
};
pub(super) const PENDING_PLACE: Place = Place {
    bar: BAR,
    offset: 0x3000,
};

/// What a vendor capability points to (virtio 1.2 §4.1.4, `cfg_type`).
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Structure {
    Common = 1,
    Notify = 2,
    Isr = 3,
    Device = 4,
    PciAccess = 5,
}

/// Bytes of `struct virtio_pci_cap`.
const CAP_LEN: u8 = 16;
/// Place of `bar` in the PCI configuration access capability.
pub(super) const ACCESS_BAR: u8 = 4;
/// Place of `offset` in it.
pub(super) const ACCESS_OFFSET: u8 = 8;
/// Place of `length` in it.
pub(super) const ACCESS_LENGTH: u8 = 12;
/// Place of the data window in it.
pub(super) const ACCESS_DATA: u8 = 16;

fn body(structure: Structure, offset: u64, len: u64, extra: &[u8]) -> Vec<u8> {
    let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let cap_len = CAP_LEN + u8::try_from(extra.len()).unwrap_or(0);
    let mut body = vec![cap_len, structure as u8, BAR, 0, 0, 0];
    body.extend(word(offset));
    body.extend(word(len));
    body.extend(extra);
    body
}

/// Adds the five virtio capabilities; returns the offset of the PCI configuration access one.
pub(super) fn add_capabilities(config: &mut ConfigSpace) -> Result<u8, ConfigError> {
    let mut add =
        |body: Vec<u8>, mask: &[u8]| config.add_capability(CAPABILITY_VENDOR, &body, mask);
    add(body(Structure::Common, COMMON, COMMON_LEN, &[]), &[])?;
    add(body(Structure::Isr, ISR, ISR_LEN, &[]), &[])?;
    add(body(Structure::Device, DEVICE, DEVICE_LEN, &[]), &[])?;
    let multiplier = u32::try_from(NOTIFY_MULTIPLIER).unwrap_or(0).to_le_bytes();
    add(
        body(Structure::Notify, NOTIFY, NOTIFY_LEN, &multiplier),
        &[],
    )?;
    let mut mask = [0; 18];
    // bar, offset, length and the data window may be written (virtio 1.2 §4.1.4.9.1).
    mask[usize::from(ACCESS_BAR) - 2] = 0xff;
    mask[usize::from(ACCESS_OFFSET) - 2..].fill(0xff);
    add(body(Structure::PciAccess, 0, 0, &[0; 4]), &mask)
}
