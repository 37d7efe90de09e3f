//! The console log: what the guest has said, kept within bounds.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;

use super::protocol::CONSOLE_LOG;
use crate::state::InstanceDir;

/// Bytes of the log that stay on disk; older ones are given back.
const KEPT: u64 = 4 << 20;

/// The last `limit` bytes of the console log. Empty when there is none yet.
///
/// # Errors
/// When the log exists and cannot be read.
pub fn log_tail(dir: &InstanceDir, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(dir.file(CONSOLE_LOG)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last lines of the console log, printable: a hostile guest must not steer the terminal.
#[must_use]
pub fn tail_lines(dir: &InstanceDir, lines: usize) -> Option<String> {
    let bytes = log_tail(dir, 8 * 1024).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<String> = text
        .split('\n')
        .map(|line| {
            line.chars()
                .filter(|c| !c.is_control() || *c == '\t')
                .collect()
        })
        .filter(|line: &String| !line.trim().is_empty())
        .collect();
    let last = all[all.len().saturating_sub(lines)..].join("\n");
    (!last.is_empty()).then_some(last)
}

/// Begins a new log for a new machine, as on EC2; the one before is kept as `console.log.1`.
pub(super) fn begin(dir: &InstanceDir) -> io::Result<()> {
    let log = dir.file(CONSOLE_LOG);
    match fs::rename(&log, dir.file(&format!("{CONSOLE_LOG}.1"))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives the space of old console output back: the head of the log becomes a hole. The VMM may
/// append meanwhile.
pub(super) fn trim(dir: &InstanceDir) -> io::Result<()> {
    let file = File::options().write(true).open(dir.file(CONSOLE_LOG))?;
    let size = file.metadata()?.len();
    if size <= KEPT {
        return Ok(());
    }
    let length = libc::off_t::try_from(size - KEPT).map_err(io::Error::other)?;
    // SAFETY: fallocate touches no memory of ours.
    let status = unsafe {
        libc::fallocate(
            file.as_raw_fd(),
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            0,
            length,
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
