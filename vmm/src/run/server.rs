//! The control socket's clients, served without ever blocking the main thread.
//!
//! A client that reads too slowly, sends too long a line or belongs to another user is
//! disconnected; the others and the guest do not notice.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use vmm_sys_util::epoll::EventSet;

use crate::control::{Event, Reply, Request};
use crate::event_loop::{EventLoopHandle, SharedHandler, Token};

/// Connections at a time.
const MAX_CLIENTS: usize = 64;
/// Longest request line.
const MAX_LINE: usize = 64 << 10;
/// Bytes that may wait for a slow client.
const MAX_BACKLOG: usize = 1 << 20;
/// Bytes read from a client in one go.
const CHUNK: usize = 16 << 10;

/// What a client sent.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A request line.
    Request(Request),
    /// A line that is none; the text says why.
    Bad(String),
    /// Bytes for the guest's console.
    Console(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Requests,
    Console,
}

struct Client {
    stream: UnixStream,
    token: Token,
    mode: Mode,
    subscribed: bool,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The listening socket and its connections. Event sources are numbered from
/// [`Server::first_source`]: the listener, then one a client.
pub(super) struct Server {
    listener: UnixListener,
    events: EventLoopHandle,
    first_source: u64,
    next: u64,
    clients: BTreeMap<u64, Client>,
    /// The guest's console takes no more input now.
    stalled: bool,
}

impl Server {
    /// Listens; `handler` gets the events, numbered from `first_source`.
    pub(super) fn new(
        listener: UnixListener,
        events: EventLoopHandle,
        handler: SharedHandler,
        first_source: u64,
    ) -> io::Result<Self> {
        events.add(&listener, EventSet::IN, handler, first_source)?;
        Ok(Self {
            listener,
            events,
            first_source,
            next: first_source + 1,
            clients: BTreeMap::new(),
            stalled: false,
        })
    }

    /// Whether an event source is one of the server's.
    pub(super) fn owns(&self, source: u64) -> bool {
        source >= self.first_source
    }

    /// Handles an event: accepts, reads or writes. Returns what a client sent.
    pub(super) fn ready(
        &mut self,
        source: u64,
        events: EventSet,
        handler: &SharedHandler,
    ) -> Vec<Incoming> {
        if source == self.first_source {
            self.accept(handler);
            return Vec::new();
        }
        if events.contains(EventSet::OUT) {
            self.flush(source);
        }
        if events.intersects(EventSet::IN | EventSet::HANG_UP | EventSet::ERROR) {
            return self.read(source);
        }
        Vec::new()
    }

    fn accept(&mut self, handler: &SharedHandler) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "control: cannot accept a connection");
                    return;
                }
            };
            if let Err(error) = self.admit(stream, handler) {
                tracing::warn!(%error, "control: connection refused");
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, handler: &SharedHandler) -> io::Result<()> {
        let uid = peer_uid(&stream)?;
        // SAFETY: reads a number; cannot fail.
        let own = unsafe { libc::geteuid() };
        if uid != own && uid != 0 {
            return Err(io::Error::other(format!(
                "user {uid} may not control this machine"
            )));
        }
        if self.clients.len() >= MAX_CLIENTS {
            return Err(io::Error::other(format!(
                "{MAX_CLIENTS} connections are open already"
            )));
        }
        stream.set_nonblocking(true)?;
        let source = self.next;
        self.next += 1;
        let token = self
            .events
            .add(&stream, EventSet::IN, handler.clone(), source)?;
        self.clients.insert(
            source,
            Client {
                stream,
                token,
                mode: Mode::Requests,
                subscribed: false,
                input: Vec::new(),
                output: Vec::new(),
            },
        );
        Ok(())
    }

    fn read(&mut self, source: u64) -> Vec<Incoming> {
        let Some(client) = self.clients.get_mut(&source) else {
            return Vec::new();
        };
        if client.mode == Mode::Console && self.stalled {
            // Left in the socket until the guest takes it; only a hang-up brings us here.
            self.drop_client(source);
            return Vec::new();
        }
        let mut buffer = [0; CHUNK];
        let count = match client.stream.read(&mut buffer) {
            Ok(0) => {
                self.drop_client(source);
                return Vec::new();
            }
            Ok(count) => count,
            Err(error) if would_block(&error) => return Vec::new(),
            Err(_) => {
                self.drop_client(source);
                return Vec::new();
            }
        };
        if client.mode == Mode::Console {
            return vec![Incoming::Console(buffer[..count].to_vec())];
        }
        client.input.extend_from_slice(&buffer[..count]);
        let incoming = take_lines(&mut client.input);
        if client.input.len() > MAX_LINE {
            tracing::warn!("control: a request line is too long; disconnected");
            self.drop_client(source);
        }
        incoming
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, source: u64, reply: &Reply) {
        if let Ok(mut line) = serde_json::to_vec(reply) {
            line.push(b'\n');
            self.send(source, &line);
        }
    }

    /// From now on the client gets events.
    pub(super) fn subscribe(&mut self, source: u64) {
        if let Some(client) = self.clients.get_mut(&source) {
            client.subscribed = true;
        }
    }

    /// Turns a connection into the interactive console. Returns what the client sent behind its
    /// request already.
    pub(super) fn make_console(&mut self, source: u64, replay: &[u8]) -> Vec<u8> {
        self.send(source, replay);
        let Some(client) = self.clients.get_mut(&source) else {
            return Vec::new();
        };
        client.mode = Mode::Console;
        std::mem::take(&mut client.input)
    }

    /// Sends an event to all subscribers.
    pub(super) fn announce(&mut self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else {
            return;
        };
        line.push(b'\n');
        self.send_where(&line, |client| {
            client.subscribed && client.mode == Mode::Requests
        });
    }

    /// Sends console output to all interactive consoles.
    pub(super) fn console_output(&mut self, bytes: &[u8]) {
        self.send_where(bytes, |client| client.mode == Mode::Console);
    }

    /// Stops reading from interactive consoles while the guest takes no input.
    pub(super) fn set_stalled(&mut self, stalled: bool) {
        if self.stalled != stalled {
            self.stalled = stalled;
            for client in self.clients.values() {
                self.watch(client);
            }
        }
    }

    fn send_where(&mut self, bytes: &[u8], wanted: impl Fn(&Client) -> bool) {
        let sources: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, client)| wanted(client))
            .map(|(source, _)| *source)
            .collect();
        for source in sources {
            self.send(source, bytes);
        }
    }

    fn send(&mut self, source: u64, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(&source) else {
            return;
        };
        client.output.extend_from_slice(bytes);
        self.flush(source);
        if let Some(client) = self.clients.get(&source)
            && client.output.len() > MAX_BACKLOG
        {
            tracing::warn!("control: a client reads too slowly; disconnected");
            self.drop_client(source);
        }
    }

    fn flush(&mut self, source: u64) {
        let Some(client) = self.clients.get_mut(&source) else {
            return;
        };
        let before = client.output.is_empty();
        while !client.output.is_empty() {
            match client.stream.write(&client.output) {
                Ok(0) => break,
                Ok(count) => {
                    client.output.drain(..count);
                }
                Err(error) if would_block(&error) => break,
                Err(_) => {
                    self.drop_client(source);
                    return;
                }
            }
        }
        if !before && let Some(client) = self.clients.get(&source) {
            self.watch(client);
        }
    }

    fn watch(&self, client: &Client) {
        let mut events = EventSet::empty();
        if !(self.stalled && client.mode == Mode::Console) {
            events |= EventSet::IN;
        }
        if !client.output.is_empty() {
            events |= EventSet::OUT;
        }
        // Fails only for a client that is gone.
        let _ = self.events.modify(client.token, events);
    }

    fn drop_client(&mut self, source: u64) {
        if let Some(client) = self.clients.remove(&source) {
            self.events.remove(client.token);
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Cuts whole lines off the front, up to and including a request for the console: what follows
/// that one is the console's.
fn take_lines(input: &mut Vec<u8>) -> Vec<Incoming> {
    let mut incoming = Vec::new();
    let mut taken = 0;
    while let Some(length) = input[taken..].iter().position(|byte| *byte == b'\n') {
        let line = input[taken..taken + length].trim_ascii();
        taken += length + 1;
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice::<Request>(line) {
            Ok(request) => {
                let console = matches!(request.command, crate::control::Command::Console { .. });
                incoming.push(Incoming::Request(request));
                if console {
                    break;
                }
            }
            Err(error) => incoming.push(Incoming::Bad(format!("not a request: {error}"))),
        }
    }
    input.drain(..taken);
    incoming
}

/// The user at the other end (unix(7), `SO_PEERCRED`).
fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the pointers are to a structure and its size, which outlive the call.
    let done = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if done == 0 {
        Ok(credentials.uid)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Command;
    use proptest::prelude::*;

    #[test]
    fn lines_are_cut_and_the_console_keeps_what_follows() {
        let mut input =
            b"{\"id\":1,\"command\":\"pause\"}\n\nrubbish\n{\"command\":\"console\"}\nls\n{\"com"
                .to_vec();
        let lines = take_lines(&mut input);
        assert_eq!(lines.len(), 3);
        let Incoming::Request(first) = &lines[0] else {
            panic!("{lines:?}")
        };
        assert_eq!((first.id, &first.command), (1, &Command::Pause));
        assert!(matches!(&lines[1], Incoming::Bad(_)));
        assert_eq!(input, b"ls\n{\"com");
    }

    proptest! {
        #[test]
        fn any_bytes_are_lines_or_rest(mut input in proptest::collection::vec(any::<u8>(), 0..300)) {
            take_lines(&mut input);
            prop_assert!(!input.contains(&b'\n'));
        }
    }
}
