//! The serial console as a line protocol.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};

/// The guest's only way to talk: `/dev/ttyS0`, raw, no echo.
pub(crate) struct Console {
    tty: File,
    pending: Vec<u8>,
}

impl Console {
    /// Longest command accepted, in bytes.
    const LONGEST: usize = 1 << 16;

    pub(crate) fn open() -> Result<Self> {
        let tty = File::options()
            .read(true)
            .write(true)
            .open("/dev/ttyS0")
            .context("cannot open /dev/ttyS0: has the machine a 16550 at 0x3f8?")?;
        let mut settings = tcgetattr(&tty)?;
        cfmakeraw(&mut settings);
        tcsetattr(&tty, SetArg::TCSANOW, &settings)?;
        Ok(Self {
            tty,
            pending: Vec::new(),
        })
    }

    /// Prints one line and waits until the UART has taken it.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        self.tty.write_all(format!("{text}\r\n").as_bytes())?;
        loop {
            // The kernel interrupts waits of a task that has used io_uring.
            match tcdrain(&self.tty) {
                Err(Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Waits for one line, without its end.
    pub(crate) fn read_line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            ensure!(
                self.pending.len() < Self::LONGEST,
                "a command line is longer than {} bytes",
                Self::LONGEST
            );
            let mut chunk = [0; 512];
            let got = match self.tty.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            };
            self.pending.extend(chunk.iter().take(got));
        }
    }
}
