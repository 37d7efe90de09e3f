//! What a disk tells the driver about itself (virtio 1.2 §5.2.3, §5.2.4).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};

use crate::virtio::feature_set;
use cumulet_images::block::{BlockBackend, SECTOR_SIZE};

/// Entries of each request queue.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Data buffers of one request: a queue's worth of descriptors less header and status. Without a
/// number here Linux sends one buffer a request.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Host file systems work in 4 KiB blocks: eight sectors, two to the power of three.
const PHYSICAL_BLOCK_EXPONENT: u8 = 3;
const SECTORS_PER_PHYSICAL_BLOCK: u32 = 1 << PHYSICAL_BLOCK_EXPONENT;
/// Most sectors of one discard or write-zeroes segment (2 GiB less one sector).
pub(super) const MAX_ZERO_SECTORS: u32 = (1 << 22) - 1;
/// Most segments of one discard or write-zeroes request.
pub(super) const MAX_ZERO_SEGMENTS: u32 = 16;

/// Offset of the write-back byte.
pub(super) const WRITEBACK: u64 = 32;
/// Bytes up to the last field offered.
const LEN: usize = 60;

/// Features of a disk on this backend.
pub(super) fn features(backend: &dyn BlockBackend) -> u64 {
    let always = feature_set(&[
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_MQ,
    ]);
    let capabilities = backend.capabilities();
    if capabilities.read_only {
        return always | feature_set(&[VIRTIO_BLK_F_RO]);
    }
    let writable = feature_set(&[
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_CONFIG_WCE,
        VIRTIO_BLK_F_WRITE_ZEROES,
    ]);
    let discard = if capabilities.discard {
        feature_set(&[VIRTIO_BLK_F_DISCARD])
    } else {
        0
    };
    always | writable | discard
}

/// `struct virtio_blk_config`.
pub(super) fn structure(size: u64, queues: u16, writeback: bool) -> [u8; LEN] {
    let mut config = [0; LEN];
    let mut put = |offset: usize, bytes: &[u8]| {
        config[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    let sector: [u8; 4] = 512_u32.to_le_bytes();
    put(0, &(size / SECTOR_SIZE).to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &sector);
    put(24, &[PHYSICAL_BLOCK_EXPONENT]);
    // Smallest sensible request, in logical blocks.
    put(26, &[1 << PHYSICAL_BLOCK_EXPONENT, 0]);
    put(32, &[u8::from(writeback)]);
    put(34, &queues.to_le_bytes());
    put(36, &MAX_ZERO_SECTORS.to_le_bytes());
    put(40, &MAX_ZERO_SEGMENTS.to_le_bytes());
    put(44, &SECTORS_PER_PHYSICAL_BLOCK.to_le_bytes());
    put(48, &MAX_ZERO_SECTORS.to_le_bytes());
    put(52, &MAX_ZERO_SEGMENTS.to_le_bytes());
    // Write-zeroes may give space back.
    put(56, &[1]);
    config
}
