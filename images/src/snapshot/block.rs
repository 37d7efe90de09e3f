//! Blocks: their keys, and how one is stored.
//!
//! ```text
//! 0   4  magic "cBLK"
//! 4   2  format version
//! 6   2  codec: 0 as it is, 1 zstd
//! 8   4  length of the plain block
//! 12  4  length of the stored bytes
//! 16  4  CRC-32 of the stored bytes
//! 20  4  CRC-32 of this header before it
//! 24     the stored bytes
//! ```
//! Numbers are little-endian. The key's digest is of the plain block, so it checks everything.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::error::SnapshotError;
use crate::io::index;

/// Bytes of a snapshot block, EBS's own size (EBS direct APIs, `BlockSize` 524288).
pub const SNAPSHOT_BLOCK: u64 = 512 * 1024;
/// [`SNAPSHOT_BLOCK`] as a length in memory.
pub(super) const BLOCK: usize = 512 * 1024;
/// [`SNAPSHOT_BLOCK`] as the header has it.
const BLOCK_U32: u32 = 512 * 1024;

const MAGIC: &[u8; 4] = b"cBLK";
const FORMAT: u16 = 1;
const PLAIN: u16 = 0;
const ZSTD: u16 = 1;
const HEADER: usize = 24;
/// zstd's fastest regular level: a disk's blocks are many, and most of the gain is in it.
const LEVEL: i32 = 1;

/// SHA-256 of a plain block: what EBS direct APIs call its checksum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `block`.
    #[must_use]
    pub fn of(block: &[u8]) -> Self {
        Self(Sha256::digest(block).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a stored block: its digest and the writer that stored it. A name is used once: when
/// its object has been deleted, the same bytes are stored again under another (see `gc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// What the block holds.
    pub(super) digest: Digest,
    /// The writer's random number.
    pub(super) session: u64,
}

impl Key {
    /// Bytes of a key in a table.
    pub(super) const LEN: usize = 40;

    /// The object's name in the store.
    pub(super) fn name(&self) -> String {
        format!(
            "{}/{}.{:016x}",
            shard_name(self.shard()),
            self.digest,
            self.session
        )
    }

    /// Its folder's number.
    pub(super) fn shard(&self) -> u8 {
        self.digest.0[0]
    }

    /// Reads a name within a folder; `None` for what is no block.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (hex, session) = name.split_once('.')?;
        let lower = |s: &str| {
            s.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if hex.len() != 64 || session.len() != 16 || !lower(hex) || !lower(session) {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self {
            digest: Digest(digest),
            session: u64::from_str_radix(session, 16).ok()?,
        })
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..32].copy_from_slice(&self.digest.0);
        out[32..].copy_from_slice(&self.session.to_le_bytes());
        out
    }

    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(&bytes[..32]);
        let mut session = [0; 8];
        session.copy_from_slice(&bytes[32..]);
        Self {
            digest: Digest(digest),
            session: u64::from_le_bytes(session),
        }
    }
}

/// The folder of the blocks whose digest begins with this byte.
pub(super) fn shard_name(shard: u8) -> String {
    format!("blocks/{shard:02x}")
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The object for a plain block of [`BLOCK`] bytes.
pub(super) fn encode(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(plain, LEVEL)?;
    // Not worth the time of every later read for less than an eighth.
    let (codec, body) = if packed.len() < plain.len() - plain.len() / 8 {
        (ZSTD, packed.as_slice())
    } else {
        (PLAIN, plain)
    };
    let stored = u32::try_from(body.len()).map_err(std::io::Error::other)?;
    let mut out = vec![0; HEADER];
    put(&mut out, 0, MAGIC);
    put(&mut out, 4, &FORMAT.to_le_bytes());
    put(&mut out, 6, &codec.to_le_bytes());
    put(&mut out, 8, &BLOCK_U32.to_le_bytes());
    put(&mut out, 12, &stored.to_le_bytes());
    put(&mut out, 16, &crc32fast::hash(body).to_le_bytes());
    let crc = crc32fast::hash(&out[..20]);
    put(&mut out, 20, &crc.to_le_bytes());
    out.extend_from_slice(body);
    Ok(out)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The plain block of an object, checked against the key it was found under.
///
/// # Errors
/// [`SnapshotError::Damaged`] or [`SnapshotError::Format`], with the object's name.
pub(super) fn decode(key: &Key, object: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    let damaged = |why: &str| SnapshotError::damaged(&key.name(), why);
    let Some((header, body)) = object.split_at_checked(HEADER) else {
        return Err(damaged("it is cut off"));
    };
    if &header[..4] != MAGIC || u32_at(header, 20) != crc32fast::hash(&header[..20]) {
        return Err(damaged("its header is not what was written"));
    }
    if u16_at(header, 4) != FORMAT {
        return Err(SnapshotError::Format {
            name: key.name(),
            found: u16_at(header, 4).into(),
            known: FORMAT.into(),
        });
    }
    if u32_at(header, 8) != BLOCK_U32 || u64::from(u32_at(header, 12)) != crate::io::len_u64(body) {
        return Err(damaged("its length is not what was written"));
    }
    if u32_at(header, 16) != crc32fast::hash(body) {
        return Err(damaged("its stored bytes are not what was written"));
    }
    let plain = match u16_at(header, 6) {
        PLAIN => body.to_vec(),
        ZSTD => zstd::bulk::decompress(body, BLOCK)
            .map_err(|e| damaged(&format!("it cannot be unpacked: {e}")))?,
        other => return Err(damaged(&format!("its codec {other} is unknown"))),
    };
    if plain.len() != BLOCK || Digest::of(&plain) != key.digest {
        return Err(damaged("its content does not have the digest of its name"));
    }
    Ok(plain)
}

/// Bytes of block `number` that lie within a volume of `size` bytes; 0 when it lies behind its end.
pub(super) fn len_in_volume(number: u64, size: u64) -> usize {
    let start = number.saturating_mul(SNAPSHOT_BLOCK);
    index(size.saturating_sub(start).min(SNAPSHOT_BLOCK))
}
