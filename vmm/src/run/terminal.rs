//! The guest's console on this process's own standard input and output.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Ends the VMM when typed (Ctrl-]).
const ESCAPE: u8 = 0x1d;
/// Output kept for a terminal or pipe that does not take it.
const MAX_BACKLOG: usize = 1 << 20;

/// How often the rest is tried at the end, and the pause between.
const LAST_TRIES: u32 = 200;
const LAST_PAUSE: Duration = Duration::from_millis(5);

/// Standard input and output. A terminal is in raw mode while this lives.
pub(super) struct Terminal {
    input: File,
    output: File,
    saved: Option<libc::termios>,
    backlog: Vec<u8>,
}

/// What was typed.
pub(super) enum Typed {
    /// For the guest.
    Bytes(Vec<u8>),
    /// The escape character.
    Escape,
    /// The end of the input.
    End,
}

impl Terminal {
    /// Takes the terminal over.
    pub(super) fn new() -> io::Result<Self> {
        // Opened anew, so that non-blocking mode is ours alone. Not possible for sockets.
        let output = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/proc/self/fd/1")
            .or_else(|_| io::stdout().as_fd().try_clone_to_owned().map(File::from))?;
        // Not `io::stdin()`: its buffer would hide input from the event loop.
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let saved = make_raw(input.as_raw_fd());
        if saved.is_some() {
            eprint!("Ctrl-] ends the machine.\r\n");
        }
        Ok(Self {
            input,
            output,
            saved,
            backlog: Vec::new(),
        })
    }

    /// The descriptor to watch for input.
    pub(super) fn input(&self) -> &File {
        &self.input
    }

    /// Reads what is there.
    pub(super) fn read(&mut self) -> Typed {
        let mut buffer = [0; 1024];
        match self.input.read(&mut buffer) {
            Ok(0) => Typed::End,
            Ok(count) if self.saved.is_some() && buffer[..count].contains(&ESCAPE) => Typed::Escape,
            Ok(count) => Typed::Bytes(buffer[..count].to_vec()),
            Err(_) => Typed::Bytes(Vec::new()),
        }
    }

    /// Writes what fits; the rest waits for the next call. A full backlog loses its oldest part.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.backlog.extend_from_slice(bytes);
        while !self.backlog.is_empty() {
            match self.output.write(&self.backlog) {
                Ok(count) if count > 0 => {
                    self.backlog.drain(..count);
                }
                _ => break,
            }
        }
        let surplus = self.backlog.len().saturating_sub(MAX_BACKLOG);
        self.backlog.drain(..surplus);
    }
}

impl Terminal {
    /// Gives a reader that is a little slow the chance to take the rest.
    fn write_rest(&mut self) {
        for _ in 0..LAST_TRIES {
            self.write(&[]);
            if self.backlog.is_empty() {
                break;
            }
            std::thread::sleep(LAST_PAUSE);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.write_rest();
        if let Some(saved) = &self.saved {
            // SAFETY: restores the settings read from this descriptor.
            unsafe { libc::tcsetattr(self.input.as_raw_fd(), libc::TCSANOW, saved) };
        }
    }
}

/// Puts a terminal into raw mode and returns its settings before; `None` for anything else.
fn make_raw(fd: i32) -> Option<libc::termios> {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: fills the structure, or fails for what is no terminal.
    let done = unsafe { libc::tcgetattr(fd, settings.as_mut_ptr()) };
    if done != 0 {
        return None;
    }
    // SAFETY: filled by the successful call above.
    let saved = unsafe { settings.assume_init() };
    let mut raw = saved;
    // SAFETY: changes the copy, then applies it.
    let done = unsafe {
        libc::cfmakeraw(&raw mut raw);
        libc::tcsetattr(fd, libc::TCSANOW, &raw const raw)
    };
    (done == 0).then_some(saved)
}
