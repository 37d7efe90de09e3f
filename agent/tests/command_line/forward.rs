//! `cumulet forward`, with real connections to a pretended guest ([`super::pretend`] tells what it answers on which port).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::common::{PATIENCE, World, finish, first_said, until};

const ECHO: u16 = 7;
const COUNT: u16 = 8;
const GREET: u16 = 9;

/// A running `cumulet forward`; killed when dropped.
struct Forwarder {
    child: Option<Child>,
    said: Value,
}

impl Forwarder {
    fn start(world: &World, instance: &str, guest_ports: &[u16]) -> Self {
        let forwards: Vec<String> = guest_ports.iter().map(|port| format!("0:{port}")).collect();
        let mut args = vec!["--output", "json", "forward", instance];
        args.extend(forwards.iter().map(String::as_str));
        let mut child = world.command(&args).spawn().unwrap();
        let said = first_said(&mut child);
        Self {
            child: Some(child),
            said,
        }
    }

    fn connect(&self, guest: u16) -> TcpStream {
        let all = self.said["Forwards"].as_array().unwrap();
        let forward = all.iter().find(|one| one["GuestPort"] == guest).unwrap();
        assert_eq!(forward["Address"], "127.0.0.1");
        let port = u16::try_from(forward["HostPort"].as_u64().unwrap()).unwrap();
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Its exit status, and what it has said on standard error.
    fn end(mut self) -> (i32, String) {
        let mut child = self.child.take().unwrap();
        let mut error = child.stderr.take().unwrap();
        let status = finish(child);
        let mut text = String::new();
        error.read_to_string(&mut text).unwrap();
        (status, text)
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(id.try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn heard(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_and_half_closes_go_both_ways() {
    let world = World::new();
    let id = world.launch("answers", &["--name", "web"]);
    let forwarder = Forwarder::start(&world, "web", &[ECHO, COUNT, GREET]);
    assert_eq!(forwarder.said["InstanceId"], id.as_str());

    // More than fits into any buffer on the way, in both directions at once.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let stream = forwarder.connect(ECHO);
    let mut writing = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writer = thread::spawn(move || {
        writing.write_all(&bytes).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    assert!(heard(stream) == sent, "the echo differs");
    writer.join().unwrap();

    // The guest answers only after it has heard our end.
    let mut stream = forwarder.connect(COUNT);
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard(stream), b"3000000 bytes");

    // The guest ends first and still listens.
    let stream = forwarder.connect(GREET);
    assert_eq!(heard(stream.try_clone().unwrap()), b"hello");
    (&stream).write_all(b"goodbye").unwrap();
    drop(stream);
    until("the guest to hear it", || {
        let log = world.run(&["logs", &id]).stdout();
        log.contains("heard goodbye\n").then_some(())
    });

    // A reboot ends connections and not the forwarding.
    let cut = forwarder.connect(ECHO);
    world.run(&["reboot", "web"]).succeeds();
    let mut rest = Vec::new();
    let _ = (&cut).read_to_end(&mut rest);
    let mut stream = forwarder.connect(COUNT);
    stream.write_all(b"again").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard(stream), b"5 bytes");

    forwarder.signal(Signal::SIGINT);
    assert_eq!(forwarder.end(), (0, String::new()));
    assert_eq!(world.state(&id), "running");
}

#[test]
fn many_connections_at_once() {
    let world = World::new();
    let id = world.launch("answers", &[]);
    let forwarder = Forwarder::start(&world, &id, &[ECHO]);
    let mut streams: Vec<TcpStream> = (0..100).map(|_| forwarder.connect(ECHO)).collect();
    // The last is answered while the first is still open.
    for (number, stream) in streams.iter_mut().enumerate().rev() {
        let sent = format!("number {number}");
        stream.write_all(sent.as_bytes()).unwrap();
        let mut answer = vec![0; sent.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, sent.as_bytes());
    }
    for stream in streams {
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(heard(stream), b"");
    }
}

#[test]
fn a_port_that_the_guest_refuses_costs_one_connection() {
    let world = World::new();
    let id = world.launch("answers", &[]);
    let forwarder = Forwarder::start(&world, &id, &[ECHO, 4000]);
    let refused = forwarder.connect(4000).read(&mut [0]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    let stream = forwarder.connect(ECHO);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard(stream), b"");
    forwarder.signal(Signal::SIGTERM);
    let (status, said) = forwarder.end();
    assert_eq!(status, 0);
    assert!(
        said.contains("port 4000") && said.contains("refused"),
        "{said}"
    );
}

#[test]
fn it_ends_with_its_instance() {
    let world = World::new();
    let id = world.launch("answers", &[]);
    let args = ["forward", &id, "0:7"];
    for (end, says) in [("stop", "stopped"), ("terminate", "has ended")] {
        let mut child = world.command(&args).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(
            line.starts_with("127.0.0.1:") && line.ends_with(" -> 7\n"),
            "{line}"
        );
        world.run(&[end, &id]).succeeds();
        let forwarder = Forwarder {
            child: Some(child),
            said: Value::Null,
        };
        let (status, said) = forwarder.end();
        assert_eq!(status, 0, "{said}");
        assert!(said.contains(&id) && said.contains(says), "{said}");
        if end == "stop" {
            world.run(&args).fails(4, &["stopped", "cumulet start"]);
            world.run(&["start", &id, "--skip-doctor"]).succeeds();
        }
    }
}

#[test]
fn ports_that_cannot_be_had_are_named() {
    let world = World::new();
    let id = world.launch("", &[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let busy = format!("{port}:80");
    world
        .run(&["forward", &id, "0:22", &busy])
        .fails(4, &["PortBusy", &format!("127.0.0.1:{port}"), "0:80"]);
    // An address for documentation (RFC 5737), which no machine has.
    world
        .run(&["forward", &id, "192.0.2.1:0:80"])
        .fails(5, &["ListenRefused", "192.0.2.1"]);
    world
        .run(&["forward", &id, "80"])
        .fails(2, &["HOSTPORT:GUESTPORT"]);
    world
        .run(&["forward", &id])
        .fails(2, &["HOSTPORT:GUESTPORT"]);
    world
        .run(&["forward", "nobody", "0:80"])
        .fails(3, &["InvalidInstanceID.NotFound"]);
}
