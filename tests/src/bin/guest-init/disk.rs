//! Disks: what the kernel sees of them, and patterns whose every byte follows from a seed and its
//! place.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::command::Args;
use crate::mem::Pages;
use cumulet_tests::pattern::fill;

/// Bytes moved by one request of the pattern commands.
const CHUNK: usize = 1 << 20;

mod ioctl {
    // linux/fs.h: both take a pair of u64, start and length in bytes.
    nix::ioctl_write_ptr_bad!(blkdiscard, 0x1277, [u64; 2]);
    nix::ioctl_write_ptr_bad!(blkzeroout, 0x127f, [u64; 2]);
}

/// One line of a sysfs file.
pub(crate) fn sysfs(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn sysfs_number(path: &Path) -> Option<u64> {
    sysfs(path)?.parse().ok()
}

/// Every virtio disk with what sysfs says of it.
pub(crate) fn list() -> Result<Value> {
    let mut disks = Vec::new();
    for name in names()? {
        let dir = Path::new("/sys/block").join(&name);
        let queue = dir.join("queue");
        let number = |file: &str| sysfs_number(&queue.join(file));
        disks.push(json!({
            "name": name,
            "serial": sysfs(&dir.join("serial")),
            "bytes": sysfs_number(&dir.join("size")).unwrap_or(0) * 512,
            "read_only": sysfs_number(&dir.join("ro")) == Some(1),
            "logical_block": number("logical_block_size"),
            "physical_block": number("physical_block_size"),
            "rotational": number("rotational"),
            "write_cache": sysfs(&queue.join("write_cache")),
            "discard_max": number("discard_max_bytes"),
            "discard_granularity": number("discard_granularity"),
            "write_zeroes_max": number("write_zeroes_max_bytes"),
            "max_segments": number("max_segments"),
            "queues": fs::read_dir(dir.join("mq")).map_or(0, Iterator::count),
        }));
    }
    Ok(Value::Array(disks))
}

fn names() -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir("/sys/block")?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.starts_with("vd"))
        .collect();
    names.sort();
    Ok(names)
}

/// The device file of the disk with this serial number (or, failing that, this name).
pub(crate) fn find(args: &Args) -> Result<PathBuf> {
    find_by(args.text("disk")?)
}

/// As [`find`], by the serial number itself.
pub(crate) fn find_by(wanted: &str) -> Result<PathBuf> {
    for name in names()? {
        let serial = sysfs(&Path::new("/sys/block").join(&name).join("serial"));
        if serial.as_deref() == Some(wanted) || name == wanted {
            return Ok(Path::new("/dev").join(name));
        }
    }
    bail!("no disk with serial number {wanted:?}")
}

/// Opens a disk, past the page cache if asked.
pub(crate) fn open(path: &Path, write: bool, direct: bool) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(if direct { libc::O_DIRECT } else { 0 })
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Runs `each(buffer, position)` over the range in chunks.
fn chunks(args: &Args, mut each: impl FnMut(&mut [u8], u64) -> Result<()>) -> Result<u64> {
    let (offset, len) = (args.number("offset")?, args.number("len")?);
    ensure!(
        offset % 512 == 0 && len % 512 == 0,
        "not a whole number of sectors"
    );
    let chunk = usize::try_from(args.number_or("chunk", CHUNK as u64)?)?;
    let mut pages = Pages::new(chunk)?;
    let mut done = 0;
    while done < len {
        let now = usize::try_from((len - done).min(chunk as u64))?;
        each(&mut pages.bytes()[..now], offset + done)?;
        done += now as u64;
    }
    Ok(done)
}

/// Writes the pattern of `seed`.
pub(crate) fn write(args: &Args) -> Result<Value> {
    let seed = args.number("seed")?;
    let file = open(&find(args)?, true, args.flag("direct"))?;
    let bytes = chunks(args, |buf, at| {
        fill(buf, seed, at);
        file.write_all_at(buf, at)
            .with_context(|| format!("write of {} bytes at {at}", buf.len()))
    })?;
    if args.flag("fsync") {
        file.sync_all().context("fsync")?;
    }
    Ok(json!({ "bytes": bytes }))
}

/// Reads back and compares with the pattern of `seed`, or with zeros when there is no seed.
pub(crate) fn verify(args: &Args) -> Result<Value> {
    let seed = args.get("seed").as_u64();
    let file = open(&find(args)?, false, args.flag("direct"))?;
    if !args.flag("direct") {
        // The range must come from the device, not from this guest's memory.
        nix::fcntl::posix_fadvise(
            &file,
            0,
            0,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )?;
    }
    let mut expected = vec![0; CHUNK];
    let bytes = chunks(args, |buf, at| {
        file.read_exact_at(buf, at)
            .with_context(|| format!("read of {} bytes at {at}", buf.len()))?;
        expected.resize(buf.len(), 0);
        match seed {
            Some(seed) => fill(&mut expected, seed, at),
            None => expected.fill(0),
        }
        if let Some(bad) = buf
            .iter()
            .zip(&expected)
            .position(|(got, want)| got != want)
        {
            let head = &buf[bad..buf.len().min(bad + 16)];
            bail!("wrong byte at {}: found {head:02x?}", at + bad as u64);
        }
        Ok(())
    })?;
    Ok(json!({ "bytes": bytes }))
}

/// Flushes the disk.
pub(crate) fn fsync(args: &Args) -> Result<Value> {
    open(&find(args)?, true, false)?
        .sync_all()
        .context("fsync")?;
    Ok(json!(null))
}

fn range(args: &Args) -> Result<[u64; 2]> {
    Ok([args.number("offset")?, args.number("len")?])
}

/// Tells the disk that the range is not needed.
pub(crate) fn discard(args: &Args) -> Result<Value> {
    discard_range(&open(&find(args)?, true, false)?, range(args)?)?;
    Ok(json!(null))
}

/// Makes the range read as zeros by the device's own means.
pub(crate) fn zeroout(args: &Args) -> Result<Value> {
    zero_range(&open(&find(args)?, true, false)?, range(args)?)?;
    Ok(json!(null))
}

pub(crate) fn discard_range(file: &File, range: [u64; 2]) -> Result<()> {
    // SAFETY: the request reads two u64 from the pointer and keeps nothing.
    unsafe { ioctl::blkdiscard(file.as_raw_fd(), &raw const range) }.context("BLKDISCARD")?;
    Ok(())
}

pub(crate) fn zero_range(file: &File, range: [u64; 2]) -> Result<()> {
    // SAFETY: the request reads two u64 from the pointer and keeps nothing.
    unsafe { ioctl::blkzeroout(file.as_raw_fd(), &raw const range) }.context("BLKZEROOUT")?;
    Ok(())
}
