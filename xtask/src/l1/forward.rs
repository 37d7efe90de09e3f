//! A port of L1's own 127.0.0.1 as one of this machine's: each connection goes through the agent.
//!
//! So what listens in L1 need not listen to anybody but L1 itself.

use super::client::Agent;
use super::proto::{self, Request, kind};
use anyhow::{Context as _, Result};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A forwarded port. Dropping it closes the port; connections that are there go on until one side ends them.
#[derive(Debug)]
pub(crate) struct Forward {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Forward {
    pub(super) fn start(agent: Agent, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("cannot listen for what is to be forwarded")?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let listening = thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let agent = agent.clone();
                thread::spawn(move || {
                    // The one who connected sees a closed connection, as when nobody listens.
                    let _ = stream
                        .map_err(Into::into)
                        .and_then(|stream| carry(stream, &agent, port));
                });
            }
        });
        Ok(Self {
            address,
            over,
            listening: Some(listening),
        })
    }

    /// Where the port is on this machine.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the listener; without it the thread would only end later.
        if TcpStream::connect(self.address).is_ok()
            && let Some(listening) = self.listening.take()
        {
            let _ = listening.join();
        }
    }
}

fn carry(stream: TcpStream, agent: &Agent, port: u16) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut there = agent.open(Request::Dial { port })?;
    proto::expect(&mut there, kind::DONE)?;
    Ok(join(stream, there)?)
}

/// The agent's side of a connection.
pub(super) fn serve(mut stream: TcpStream, port: u16) -> Result<()> {
    let to = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("nobody answers on L1's port {port}"))?;
    to.set_nodelay(true)?;
    proto::send(&mut stream, kind::DONE, &[])?;
    // A connection that breaks is the business of its two ends.
    let _ = join(stream, to);
    Ok(())
}

/// Passes on what each side says, and that it has said all, until both have.
fn join(one: TcpStream, other: TcpStream) -> io::Result<()> {
    let (from, to) = (other.try_clone()?, one.try_clone()?);
    let back = thread::spawn(move || pass_on(from, to));
    pass_on(one, other);
    let _ = back.join();
    Ok(())
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    // How it ended is all the same: the other side has to hear of an end.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn what_each_side_says_arrives_and_its_end_too() {
        let (mut client, carried) = pair();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let agent = thread::spawn(move || serve(carried, port));
        let (mut server, _) = listener.accept().unwrap();
        proto::expect(&mut client, kind::DONE).unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).unwrap();
        server.write_all(b"answer").unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!((asked.as_str(), answer.as_str()), ("question", "answer"));
        agent.join().unwrap().unwrap();
    }

    #[test]
    fn a_port_where_nobody_listens_is_an_error() {
        let (_client, carried) = pair();
        // Free a moment ago.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(serve(carried, port).is_err());
    }
}
