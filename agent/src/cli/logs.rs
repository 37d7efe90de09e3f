//! `cumulet logs`: what the guest has said on its console, or what our side has logged, so far and from now on.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::unistd::{Whence, lseek};
use serde_json::json;
use time::OffsetDateTime;

use super::args::LogsArgs;
use super::output::Output;
use super::shape::timestamp;
use crate::error::{Context as _, Result};
use crate::state::{Home, InstanceDir};
use crate::supervise::protocol::{CONSOLE_LOG, SUPERVISOR_LOG};

/// How often it is looked for more.
const LOOK: Duration = Duration::from_millis(100);

/// `cumulet logs`.
pub(super) fn command(home: &Home, output: Output, args: &LogsArgs) -> Result<u8> {
    let dir = home.find(&args.instance)?;
    let name = if args.supervisor {
        SUPERVISOR_LOG
    } else {
        CONSOLE_LOG
    };
    let doing = || format!("cannot read the log {}", dir.file(name).display());
    let mut log = Log::new(dir.file(name));
    // Asked before reading: what is read after the end is everything.
    let mut lives = dir.holder()?.is_some();
    let mut bytes = log.more().context(doing)?;
    if let Some(lines) = args.lines {
        bytes.drain(..last_lines(&bytes, lines));
    }
    if !args.follow {
        print_once(&dir, output, &bytes);
        return Ok(0);
    }
    let mut printer = Printer::new(&dir, output);
    while printer.print(&bytes).is_ok() {
        if !lives {
            // A reader that went away is no failure.
            let _ = printer.end();
            output.note(&format!("{} does not run any more", dir.id()));
            break;
        }
        thread::sleep(LOOK);
        lives = dir.holder()?.is_some();
        bytes = log.more().context(doing)?;
    }
    Ok(0)
}

/// A log file that may not be there yet, may grow, and may begin anew.
struct Log {
    path: PathBuf,
    file: Option<File>,
    read: u64,
}

impl Log {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            read: 0,
        }
    }

    /// What is there and was not read before.
    fn more(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = match &mut self.file {
            Some(file) => file,
            empty => match File::open(&self.path) {
                Ok(file) => {
                    self.read = first_data(&file);
                    empty.insert(file)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
                Err(error) => return Err(error),
            },
        };
        if file.metadata()?.size() < self.read {
            self.read = 0;
        }
        file.seek(SeekFrom::Start(self.read))?;
        let count = file.read_to_end(&mut bytes)?;
        self.read += u64::try_from(count).unwrap_or(u64::MAX);
        // What is left of a block whose head was given back.
        let blank = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.drain(..blank);
        Ok(bytes)
    }
}

/// Where a log begins whose head was given back to the file system.
fn first_data(file: &File) -> u64 {
    let found = lseek(file, 0, Whence::SeekData).ok();
    found.and_then(|at| u64::try_from(at).ok()).unwrap_or(0)
}

/// Where the last lines begin.
fn last_lines(bytes: &[u8], lines: usize) -> usize {
    let ended = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut ends = ended.iter().enumerate().rev();
    let mut ends = ends.by_ref().filter(|(_, byte)| **byte == b'\n');
    match lines.checked_sub(1) {
        None => bytes.len(),
        Some(before) => ends.nth(before).map_or(0, |(at, _)| at + 1),
    }
}

fn value(dir: &InstanceDir, bytes: &[u8]) -> serde_json::Value {
    json!({
        "InstanceId": dir.id(),
        "Timestamp": timestamp(OffsetDateTime::now_utc()),
        "Output": String::from_utf8_lossy(bytes),
    })
}

/// Prints what a log holds now, in the shape of EC2's GetConsoleOutput.
pub(super) fn print_once(dir: &InstanceDir, output: Output, bytes: &[u8]) {
    if output.is_json() {
        output.result(&value(dir, bytes), String::new);
    } else {
        // Byte for byte: it may be piped. A reader that went away is no failure.
        let mut out = io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }
}

/// Prints as it comes: bytes for people, a JSON document a line for programs.
struct Printer<'a> {
    dir: &'a InstanceDir,
    output: Output,
    /// A line that has not ended yet.
    open: Vec<u8>,
}

impl<'a> Printer<'a> {
    fn new(dir: &'a InstanceDir, output: Output) -> Self {
        Self {
            dir,
            output,
            open: Vec::new(),
        }
    }

    fn print(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.output.is_json() {
            out.write_all(bytes)?;
            return out.flush();
        }
        self.open.extend(bytes);
        let whole = self.open.iter().rposition(|byte| *byte == b'\n');
        let rest = self.open.split_off(whole.map_or(0, |at| at + 1));
        for line in std::mem::replace(&mut self.open, rest).split_inclusive(|byte| *byte == b'\n') {
            writeln!(out, "{}", value(self.dir, line))?;
        }
        out.flush()
    }

    /// The last line, which nothing has ended.
    fn end(&mut self) -> io::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let line = std::mem::take(&mut self.open);
        writeln!(io::stdout().lock(), "{}", value(self.dir, &line))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_lines() {
        for (text, lines, wanted) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\n", 5, "a\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
            ("\n\n", 1, "\n"),
        ] {
            let from = last_lines(text.as_bytes(), lines);
            assert_eq!(&text[from..], wanted, "{lines} of {text:?}");
        }
    }

    #[test]
    fn a_log_may_come_late_grow_and_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::new(path.clone());
        assert_eq!(log.more().unwrap(), b"");
        fs::write(&path, "one\n").unwrap();
        assert_eq!(log.more().unwrap(), b"one\n");
        assert_eq!(log.more().unwrap(), b"");
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(log.more().unwrap(), b"two\n");
        fs::write(&path, "new\n").unwrap();
        assert_eq!(log.more().unwrap(), b"new\n");
        fs::remove_file(&path).unwrap();
        assert_eq!(log.more().unwrap(), b"", "what is gone is still open");
    }

    #[test]
    fn the_head_that_was_given_back_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = File::create(&path).unwrap();
        file.set_len((8 << 20) + 7).unwrap();
        drop(file);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"said\n").unwrap();
        assert_eq!(Log::new(path).more().unwrap(), b"said\n");
    }
}
