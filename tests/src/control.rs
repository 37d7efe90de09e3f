//! A client of the VMM's control socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::HANG_GUARD;

/// One connection.
pub struct Control {
    stream: BufReader<UnixStream>,
    next_id: u64,
    /// Event lines that came between replies.
    pub events: Vec<Value>,
}

impl Control {
    /// Connects, waiting for the socket to appear.
    ///
    /// # Errors
    /// What the last attempt said.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() > HANG_GUARD => return Err(error),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(HANG_GUARD))?;
        stream.set_write_timeout(Some(HANG_GUARD))?;
        Ok(Self {
            stream: BufReader::new(stream),
            next_id: 1,
            events: Vec::new(),
        })
    }

    /// Sends a command without arguments and gives its result.
    ///
    /// # Panics
    /// When the reply is an error, or there is none.
    pub fn ask(&mut self, command: &str) -> Value {
        self.request(json!({ "command": command }))
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Sends a request and gives the result of its reply.
    ///
    /// # Errors
    /// The reply's error.
    ///
    /// # Panics
    /// When there is no reply.
    pub fn request(&mut self, mut request: Value) -> Result<Value, String> {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = json!(id);
        self.send_line(&request.to_string())
            .expect("control socket");
        let mut reply = self.reply();
        assert_eq!(reply["id"], json!(id), "reply to another request: {reply}");
        match reply["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(reply["result"].take()),
        }
    }

    /// Sends a line as it is.
    ///
    /// # Errors
    /// When the other side has closed.
    pub fn send_line(&mut self, line: &str) -> io::Result<()> {
        self.stream
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
    }

    /// The next reply; events before it are kept.
    ///
    /// # Panics
    /// When the connection ends.
    pub fn reply(&mut self) -> Value {
        loop {
            let line = self.read_line().expect("control socket").expect("a reply");
            if line.get("event").is_none() {
                return line;
            }
            self.events.push(line);
        }
    }

    /// Waits for an event of this name, earlier ones included.
    ///
    /// # Panics
    /// When the connection ends before it.
    pub fn wait_event(&mut self, name: &str) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return self.events.remove(at);
            }
            match self.read_line().expect("control socket") {
                Some(line) => self.events.push(line),
                None => panic!("no event {name:?}; there were {:?}", self.events),
            }
        }
    }

    /// The next line as JSON; `None` when the other side has closed.
    ///
    /// # Errors
    /// When reading fails or the line is no JSON.
    pub fn read_line(&mut self) -> io::Result<Option<Value>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line)
            .map(Some)
            .map_err(io::Error::other)
    }

    /// The stream itself, for what is no line protocol.
    #[must_use]
    pub fn into_stream(self) -> BufReader<UnixStream> {
        self.stream
    }
}
