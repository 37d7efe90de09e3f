//! Small bootable images for tests, made in well under a second.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use crate::layout::{ALIGNMENT, PartitionPlan, Role, TAIL, write_gpt};

/// A small image: GPT, one ext4 partition, an extlinux list.
#[derive(Debug, Clone, Copy)]
pub struct TinyImage<'a> {
    /// Kernel file to put into it.
    pub kernel: &'a Path,
    /// Initial RAM disk to put into it.
    pub initrd: Option<&'a Path>,
    /// Command line of its boot entry.
    pub cmdline: &'a str,
    /// Size of the whole disk in bytes; at least the files' plus some MiB.
    pub size: u64,
    /// A folder whose contents are copied to the root of the file system.
    pub tree: Option<&'a Path>,
}

/// Bytes that pass for an x86_64 bzImage (boot protocol 2.15, 64-bit entry) and are otherwise a pattern
/// that depends on `seed`.
///
/// # Panics
/// When `len` is less than the header's 0x237 bytes.
#[must_use]
pub fn bzimage(seed: u8, len: usize) -> Vec<u8> {
    let mut out: Vec<u8> = (0u8..=250)
        .cycle()
        .skip(usize::from(seed))
        .take(len)
        .collect();
    out[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    out[0x202..0x206].copy_from_slice(b"HdrS");
    out[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    out[0x236] = 1;
    out
}

/// Bytes that pass for a kernel of the machine's own architecture.
///
/// # Panics
/// As [`bzimage`].
#[must_use]
pub fn host_kernel(len: usize) -> Vec<u8> {
    let mut out = bzimage(0, len);
    if std::env::consts::ARCH == "aarch64" {
        out[0x1fe] = 0;
        out[0x38..0x3c].copy_from_slice(b"ARM\x64");
    }
    out
}

/// Writes `image` to the new file `path`. Needs `mke2fs` (Debian package e2fsprogs).
///
/// # Errors
/// When a file cannot be read or written, or `mke2fs` fails; its own words are in the error.
pub fn tiny_image(path: &Path, image: &TinyImage<'_>) -> io::Result<()> {
    let tree = tempfile::tempdir()?;
    if let Some(from) = image.tree {
        run(Command::new("cp")
            .arg("-a")
            .arg(from.join("."))
            .arg(tree.path()))?;
    }
    let boot = tree.path().join("boot/extlinux");
    fs::create_dir_all(&boot)?;
    fs::copy(image.kernel, tree.path().join("boot/vmlinuz"))?;
    let mut list = format!(
        "default linux\nlabel linux\n  kernel /boot/vmlinuz\n  append {}\n",
        image.cmdline
    );
    if let Some(initrd) = image.initrd {
        fs::copy(initrd, tree.path().join("boot/initrd.img"))?;
        list.push_str("  initrd /boot/initrd.img\n");
    }
    fs::write(boot.join("extlinux.conf"), list)?;
    let part = PartitionPlan {
        number: 1,
        role: Role::Linux,
        start: ALIGNMENT,
        len: image
            .size
            .checked_sub(ALIGNMENT + TAIL)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "image too small"))?,
    };
    let disk = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    disk.set_len(image.size)?;
    write_gpt(&disk, &[part])?;
    ext4(path, &part, tree.path())
}

/// Makes an ext4 in a partition of the disk file `path` from the folder `tree`.
///
/// # Errors
/// When `mke2fs` is missing or fails.
pub fn ext4(path: &Path, part: &PartitionPlan, tree: &Path) -> io::Result<()> {
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(tree)
        .arg("-E")
        .arg(format!("offset={},root_owner=0:0", part.start))
        .arg(path)
        .arg(format!("{}k", part.len / 1024)))
}

/// Runs a program; its standard error becomes the error.
fn run(command: &mut Command) -> io::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let sbin = "/usr/local/sbin:/usr/sbin:/sbin";
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command
        .env("PATH", format!("{path}:{sbin}"))
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("cannot run {name}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{name} failed: {}", text.trim())))
}
