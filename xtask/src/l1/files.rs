//! Sparse-aware file transfer: only the parts that hold data travel.

use super::proto::{self, kind};
use anyhow::{Context as _, Result, bail};
use nix::unistd::{Whence, lseek};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const PIECE: usize = 256 << 10;

/// Sends the data of a file as `AT` frames.
pub(crate) fn send(file: &mut File, to: &mut impl Write) -> Result<()> {
    let size = i64::try_from(file.metadata()?.len())?;
    let mut position = 0;
    let mut buffer = vec![0; PIECE];
    while position < size {
        let data = match lseek(&*file, position, Whence::SeekData) {
            Ok(data) => data,
            Err(nix::errno::Errno::ENXIO) => break,
            Err(error) => return Err(error).context("cannot look for the file's data"),
        };
        let hole = lseek(&*file, data, Whence::SeekHole)?;
        let mut at = u64::try_from(data)?;
        let end = u64::try_from(hole)?;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let count = file.read_at(&mut buffer[..want], at)?;
            if count == 0 {
                bail!("the file shrank while it was sent");
            }
            proto::send(to, kind::AT, &[&at.to_be_bytes(), &buffer[..count]])?;
            at += u64::try_from(count)?;
        }
        position = hole;
    }
    Ok(())
}

/// Receives `AT` frames until one of kind `end`, and puts the file in place only when it is complete.
pub(crate) fn receive(
    from: &mut impl Read,
    path: &Path,
    mode: u32,
    size: u64,
    end: u8,
) -> Result<()> {
    let parent = path.parent().context("the target is no file name")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let mut partial = PathBuf::from(path).into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    if partial.exists() {
        fs::remove_file(&partial)?;
    }
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .with_context(|| format!("cannot create {}", partial.display()))?;
    file.set_len(size)?;
    loop {
        let frame = proto::receive(from)?.context("the connection ended within a file")?;
        if frame.kind == end {
            break;
        }
        match (frame.kind, frame.payload.split_first_chunk::<8>()) {
            (kind::AT, Some((at, data))) => file.write_all_at(data, u64::from_be_bytes(*at))?,
            (kind::FAIL, _) => bail!("{}", String::from_utf8_lossy(&frame.payload)),
            (other, _) => bail!("unexpected frame of kind {other} within a file"),
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    fs::rename(&partial, path).with_context(|| format!("cannot put {} in place", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn holes_stay_holes() {
        let dir = tempfile::tempdir().unwrap();
        let source = File::create_new(dir.path().join("a")).unwrap();
        source.set_len(64 << 20).unwrap();
        source.write_all_at(b"head", 0).unwrap();
        source.write_all_at(b"middle", 32 << 20).unwrap();
        let mut wire = Vec::new();
        send(&mut File::open(dir.path().join("a")).unwrap(), &mut wire).unwrap();
        assert!(wire.len() < 1 << 20, "{} bytes sent", wire.len());
        proto::send(&mut wire, kind::END, &[]).unwrap();
        let target = dir.path().join("sub/b");
        receive(&mut wire.as_slice(), &target, 0o640, 64 << 20, kind::END).unwrap();
        let got = fs::metadata(&target).unwrap();
        assert_eq!((got.len(), got.mode() & 0o777), (64 << 20, 0o640));
        assert!(got.blocks() < 4096, "{} blocks", got.blocks());
        assert!(fs::read(dir.path().join("a")).unwrap() == fs::read(&target).unwrap());
    }

    #[test]
    fn a_broken_transfer_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        fs::write(&target, "old").unwrap();
        let mut wire = Vec::new();
        proto::send(&mut wire, kind::AT, &[&0_u64.to_be_bytes(), b"new"]).unwrap();
        assert!(receive(&mut wire.as_slice(), &target, 0o600, 3, kind::END).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"old");
    }
}
