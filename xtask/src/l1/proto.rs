//! What client and agent say to each other over one TCP connection per request.
//!
//! A frame is: kind (1 byte), length (4 bytes, big-endian), payload. The first frame is the client's [`Opening`] as
//! JSON. Everything that follows depends on the request:
//! * `Exec`: client sends `DATA` (standard input), `END` (its end), `RESIZE`; agent sends `OUT`, `ERR`, then `DONE`.
//! * `Put`: agent answers `NEED` or `HAVE`; the client then sends `AT` frames (8 bytes offset, data) and `END`; agent `DONE`.
//! * `Get`: agent sends `META` (JSON [`Meta`]), `AT` frames, `DONE`.
//! * `Dial`: agent answers `DONE` when the port has answered; from then on the connection is that to the port, byte by byte.
//! * `Beat`: agent sends `BEAT` every second until the connection closes.
//! * `FAIL` with a text may come from the agent instead of any of its answers, and is the last frame.

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;

/// Changed whenever client and agent of different builds would misunderstand each other.
pub(crate) const VERSION: u32 = 2;
/// TCP port of the agent inside L1.
pub(crate) const PORT: u16 = 7001;
/// No frame's payload is longer.
pub(crate) const MAX_FRAME: usize = 1 << 20;

/// Kinds of frame.
pub(crate) mod kind {
    pub(crate) const OPEN: u8 = 1;
    pub(crate) const DATA: u8 = 2;
    pub(crate) const END: u8 = 3;
    pub(crate) const RESIZE: u8 = 4;
    pub(crate) const OUT: u8 = 5;
    pub(crate) const ERR: u8 = 6;
    pub(crate) const DONE: u8 = 7;
    pub(crate) const NEED: u8 = 8;
    pub(crate) const HAVE: u8 = 9;
    pub(crate) const AT: u8 = 10;
    pub(crate) const META: u8 = 11;
    pub(crate) const BEAT: u8 = 12;
    pub(crate) const FAIL: u8 = 13;
}

/// First frame of every connection.
#[derive(Serialize, Deserialize)]
pub(crate) struct Opening {
    /// [`VERSION`] of the client.
    pub(crate) version: u32,
    /// The secret of this L1: the forwarded port is open to every local user.
    pub(crate) token: String,
    pub(crate) request: Request,
}

/// What the client wants.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    Exec(Exec),
    /// Store a file, unless the agent still has the one last pushed under the same stamp.
    Put {
        path: PathBuf,
        mode: u32,
        size: u64,
        /// Identity of the sender's file (device, inode, size, change time).
        stamp: String,
    },
    /// Fetch a file.
    Get {
        path: PathBuf,
    },
    /// Become a connection to this port of L1's own 127.0.0.1.
    Dial {
        port: u16,
    },
    Beat,
}

/// A command to run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) argv: Vec<String>,
    /// Added to L1's own small environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: Option<PathBuf>,
    /// User to run as; root when `None`.
    pub(crate) user: Option<String>,
    /// Rows and columns: run on a terminal of that size.
    pub(crate) tty: Option<(u16, u16)>,
    /// Kill what the command leaves running when it ends (processes in the background, daemons).
    pub(crate) reap: bool,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Exit code, or 128 + signal as a shell would say.
    pub(crate) code: i32,
    /// Commands that were still running afterwards and were killed (only with `reap`).
    pub(crate) leftovers: Vec<String>,
}

/// What a fetched file is.
#[derive(Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) size: u64,
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

/// Sends one frame; the payload may be in pieces.
pub(crate) fn send(to: &mut impl Write, kind: u8, pieces: &[&[u8]]) -> Result<()> {
    let length: usize = pieces.iter().map(|p| p.len()).sum();
    if length > MAX_FRAME {
        bail!("frame of {length} bytes is too long");
    }
    let mut frame = Vec::with_capacity(length + 5);
    frame.push(kind);
    frame.extend_from_slice(&u32::try_from(length)?.to_be_bytes());
    for piece in pieces {
        frame.extend_from_slice(piece);
    }
    to.write_all(&frame).context("the connection to L1 broke")
}

/// Sends a value as JSON.
pub(crate) fn send_json(to: &mut impl Write, kind: u8, value: &impl Serialize) -> Result<()> {
    send(to, kind, &[&serde_json::to_vec(value)?])
}

/// Reads one frame; `None` when the other side has closed.
pub(crate) fn receive(from: &mut impl Read) -> Result<Option<Frame>> {
    let mut head = [0; 5];
    loop {
        match from.read(&mut head[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break from.read_exact(&mut head[1..])?,
            // So ends a read with a time limit when this process, or the whole machine, was stopped meanwhile.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]]))?;
    if length > MAX_FRAME {
        bail!("frame of {length} bytes is too long");
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Some(Frame {
        kind: head[0],
        payload,
    }))
}

/// Reads a frame that must be of that kind; a `FAIL` becomes the error it tells of.
pub(crate) fn expect(from: &mut impl Read, kind: u8) -> Result<Vec<u8>> {
    let frame = receive(from)?.context("L1 closed the connection")?;
    if frame.kind == kind::FAIL {
        bail!("{}", String::from_utf8_lossy(&frame.payload));
    }
    if frame.kind != kind {
        bail!("unexpected frame of kind {} (wanted {kind})", frame.kind);
    }
    Ok(frame.payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose first read is interrupted.
    struct Interrupted<'a>(bool, &'a [u8]);

    impl Read for Interrupted<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            if std::mem::take(&mut self.0) {
                return Err(ErrorKind::Interrupted.into());
            }
            self.1.read(to)
        }
    }

    #[test]
    fn an_interruption_is_no_end() {
        let mut wire = Vec::new();
        send(&mut wire, kind::AT, &[b"abc"]).unwrap();
        let mut stream = Interrupted(true, &wire);
        assert_eq!(expect(&mut stream, kind::AT).unwrap(), b"abc");
    }

    #[test]
    fn frames_survive_the_trip() {
        let mut wire = Vec::new();
        send(&mut wire, kind::AT, &[b"abc", b"", b"de"]).unwrap();
        send(&mut wire, kind::END, &[]).unwrap();
        let mut wire = wire.as_slice();
        assert_eq!(expect(&mut wire, kind::AT).unwrap(), b"abcde");
        assert_eq!(expect(&mut wire, kind::END).unwrap(), b"");
        assert_eq!(receive(&mut wire).unwrap(), None);
    }

    #[test]
    fn overlong_and_cut_frames_are_errors() {
        assert!(receive(&mut [kind::OUT, 0xff, 0, 0, 0].as_slice()).is_err());
        assert!(receive(&mut [kind::OUT, 0, 0, 0, 9, 1].as_slice()).is_err());
        let mut fail = Vec::new();
        send(&mut fail, kind::FAIL, &[b"no such user"]).unwrap();
        let error = expect(&mut fail.as_slice(), kind::DONE).unwrap_err();
        assert_eq!(error.to_string(), "no such user");
    }
}
