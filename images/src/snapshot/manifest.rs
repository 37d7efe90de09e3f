//! Manifests: what a snapshot is and which blocks it has. Each is complete in itself.
//!
//! A manifest, like every small object of the store, is sealed:
//!
//! ```text
//! 0   4  magic: "cSNP" manifest, "cGRB" condemned blocks, "cWTS" leases waited for (see gc)
//! 4   4  format version
//! 8   8  length of the plain content
//! 16  32 SHA-256 of what is before this and of the plain content
//! 48     the content, zstd
//! ```
//! A manifest's content is the length of a JSON text (4 bytes), that text ([`SnapshotInfo`]) and the
//! table of blocks by rising index: index (8), digest (32), session (8). Numbers are little-endian.

use std::io::Read;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::block::{Digest, Key, SNAPSHOT_BLOCK};
use super::error::SnapshotError;
use crate::io::{index, len_u64};

/// Version of manifests that this code writes and reads.
pub const SNAPSHOT_FORMAT: u32 = 1;
/// The largest volume: 64 TiB, EBS's limit for io2 Block Express.
pub const MAX_VOLUME: u64 = 64 << 40;

const HEADER: usize = 48;
const ENTRY: usize = 8 + Key::LEN;
/// Longest content that is unpacked: the table of the largest volume, and its JSON text.
const MAX_CONTENT: u64 = MAX_VOLUME / SNAPSHOT_BLOCK * 48 + (1 << 20);

/// Kinds of sealed objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Condemned,
    Waits,
}

impl Kind {
    fn magic(self) -> &'static [u8; 4] {
        match self {
            Self::Manifest => b"cSNP",
            Self::Condemned => b"cGRB",
            Self::Waits => b"cWTS",
        }
    }
}

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// `snap-` and 17 hexadecimal digits.
    pub id: String,
    /// The volume it was taken of.
    pub volume_id: String,
    /// The volume's size in bytes.
    pub volume_size: u64,
    /// The snapshot whose unchanged blocks it took over; for people and for
    /// `DescribeSnapshots`, nothing is read from it any more.
    #[serde(default)]
    pub parent: Option<String>,
    /// When it was begun, as EC2 writes it: `2026-11-21T12:00:00.000Z`.
    pub start_time: String,
    /// Text of the agent's (description, tags), kept as it is.
    #[serde(default)]
    pub description: String,
    /// Random number of its writer, 16 hexadecimal digits: tells two attempts at one id apart.
    pub writer: String,
    /// Blocks written by it, not taken over.
    pub new_blocks: u64,
    /// Bytes that it added to the store, compressed.
    pub new_bytes: u64,
}

/// A completed snapshot. (One that is not completed has no manifest, and no content to speak of.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it is.
    pub info: SnapshotInfo,
    /// By rising index.
    pub(super) blocks: Vec<(u64, Key)>,
}

impl Manifest {
    /// The indexes of the blocks that are not zeros with their digests, rising.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = (u64, Digest)> + '_ {
        self.blocks.iter().map(|(at, key)| (*at, key.digest))
    }

    /// The digest of a block; `None` for zeros.
    #[must_use]
    pub fn block(&self, number: u64) -> Option<Digest> {
        self.key(number).map(|key| key.digest)
    }

    pub(super) fn key(&self, number: u64) -> Option<Key> {
        let found = self.blocks.binary_search_by_key(&number, |(at, _)| *at);
        found.ok().map(|i| self.blocks[i].1)
    }

    pub(super) fn encode(&self) -> std::io::Result<Vec<u8>> {
        let text = serde_json::to_vec(&self.info)?;
        let len = u32::try_from(text.len()).map_err(std::io::Error::other)?;
        let mut out = Vec::with_capacity(4 + text.len() + self.blocks.len() * ENTRY);
        out.extend(len.to_le_bytes());
        out.extend(text);
        for (at, key) in &self.blocks {
            out.extend(at.to_le_bytes());
            out.extend(key.to_bytes());
        }
        seal(Kind::Manifest, &out)
    }

    /// Reads the manifest found under `name`, which must be that of snapshot `id`.
    pub(super) fn decode(name: &str, id: &str, object: &[u8]) -> Result<Self, SnapshotError> {
        let damaged = |why: &str| SnapshotError::damaged(name, why);
        let content = unseal(Kind::Manifest, name, object)?;
        let (len, rest) = content
            .split_first_chunk::<4>()
            .ok_or_else(|| damaged("it is cut off"))?;
        let (text, table) = rest
            .split_at_checked(index(u32::from_le_bytes(*len).into()))
            .ok_or_else(|| damaged("its description is cut off"))?;
        let info: SnapshotInfo = serde_json::from_slice(text)
            .map_err(|e| damaged(&format!("its description cannot be read: {e}")))?;
        if info.id != id {
            return Err(damaged(&format!("it is that of {}", info.id)));
        }
        let (entries, tail) = table.as_chunks::<ENTRY>();
        let mut blocks = Vec::with_capacity(entries.len());
        let mut next = 0;
        for entry in entries {
            let mut at = [0; 8];
            at.copy_from_slice(&entry[..8]);
            let mut key = [0; Key::LEN];
            key.copy_from_slice(&entry[8..]);
            let at = u64::from_le_bytes(at);
            if at < next || at >= info.volume_size.div_ceil(SNAPSHOT_BLOCK) {
                return Err(damaged("its table of blocks is out of order"));
            }
            next = at + 1;
            blocks.push((at, Key::from_bytes(key)));
        }
        if !tail.is_empty() {
            return Err(damaged("its table of blocks is cut off"));
        }
        Ok(Self { info, blocks })
    }
}

fn digest(header: &[u8], content: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(header);
    hash.update(content);
    hash.finalize().into()
}

/// Packs a small object.
pub(super) fn seal(kind: Kind, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER);
    out.extend(kind.magic());
    out.extend(SNAPSHOT_FORMAT.to_le_bytes());
    out.extend(len_u64(content).to_le_bytes());
    let sum = digest(&out, content);
    out.extend(sum);
    out.extend(zstd::bulk::compress(content, 1)?);
    Ok(out)
}

/// Unpacks and checks what [`seal`] made.
pub(super) fn unseal(kind: Kind, name: &str, object: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    let damaged = |why: &str| SnapshotError::damaged(name, why);
    let Some((header, body)) = object.split_first_chunk::<HEADER>() else {
        return Err(damaged("it is cut off"));
    };
    let (lead, sum) = header.split_at(16);
    if &lead[..4] != kind.magic() {
        return Err(damaged("it is something else"));
    }
    let found = u32::from_le_bytes([lead[4], lead[5], lead[6], lead[7]]);
    if found != SNAPSHOT_FORMAT {
        return Err(SnapshotError::Format {
            name: name.into(),
            found,
            known: SNAPSHOT_FORMAT,
        });
    }
    let mut len = [0; 8];
    len.copy_from_slice(&lead[8..]);
    let len = u64::from_le_bytes(len);
    if len > MAX_CONTENT {
        return Err(damaged("its length is impossible"));
    }
    // Grows with what is really there, not with what the header promises.
    let mut content = Vec::new();
    zstd::stream::read::Decoder::new(body)
        .and_then(|decoder| decoder.take(len + 1).read_to_end(&mut content))
        .map_err(|e| damaged(&format!("it cannot be unpacked: {e}")))?;
    if len_u64(&content) != len || digest(lead, &content) != *sum {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(content)
}
