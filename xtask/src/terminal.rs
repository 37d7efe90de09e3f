//! The user's terminal: its size, and raw mode while a remote program owns the keys.

use anyhow::Result;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Rows and columns, when standard input is a terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the ioctl writes the struct it is given, which lives until it returns.
    let done = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) };
    (done == 0 && size.ws_row > 0).then_some((size.ws_row, size.ws_col))
}

/// Raw mode; the old mode comes back on drop.
pub(crate) struct Raw(Termios);

impl Raw {
    pub(crate) fn enter() -> Result<Self> {
        let old = tcgetattr(std::io::stdin())?;
        let mut raw = old.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
