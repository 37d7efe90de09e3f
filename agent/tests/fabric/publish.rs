//! Published ports and dialling.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};

use cumulet_agent::fabric::{EnterConfig, FabricError, Publish, enter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cases::{closed, on_fabric};
use crate::guest::{Guest, ip};

pub(crate) fn publish() {
    let loopback = Ipv4Addr::LOCALHOST;
    let publish = Publish {
        host: SocketAddr::new(loopback.into(), 0),
        guest: SocketAddrV4::new(ip(0), 80),
    };
    let host = HostClient::start();
    let config = EnterConfig {
        publish: vec![publish],
        ..closed()
    };
    on_fabric(&config, 1, async |fabric| {
        let guest = Guest::with_address(&fabric, 0).await;
        let server = guest
            .run(|| TcpListener::bind("0.0.0.0:80").expect("guest's server"))
            .await;
        // Echoes, after the client's end, what it got: a half-closed connection both ways.
        std::thread::spawn(move || {
            for stream in server.incoming() {
                let mut stream = stream.expect("accept");
                let mut text = String::new();
                stream.read_to_string(&mut text).expect("read");
                stream
                    .write_all(
                        format!("{} said {text}", stream.peer_addr().expect("peer").ip())
                            .as_bytes(),
                    )
                    .expect("write");
            }
        });
        let second = fabric.publish(publish).expect("publish again");
        for address in [fabric.published()[0].host, second] {
            assert_eq!(host.ask(address, "hello"), "172.31.0.1 said hello");
        }
        let mut direct = fabric
            .dial(SocketAddrV4::new(ip(0), 80))
            .await
            .expect("dial");
        direct.write_all(b"hi").await.expect("write");
        direct.shutdown().await.expect("shutdown");
        let mut text = String::new();
        direct.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "172.31.0.1 said hi");
        // Nobody listens there: the client sees an end, not a hang.
        let nothing = Publish {
            guest: SocketAddrV4::new(ip(0), 81),
            ..publish
        };
        assert_eq!(host.ask(fabric.publish(nothing).expect("publish"), "x"), "");
    });
}

/// A process that stays in the host's network and connects from there.
struct HostClient {
    requests: std::os::unix::net::UnixStream,
}

impl HostClient {
    fn start() -> Self {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("socket pair");
        // SAFETY: called while the process has one thread.
        if let nix::unistd::ForkResult::Child = unsafe { nix::unistd::fork() }.expect("fork") {
            drop(ours);
            Self::serve(theirs);
            std::process::exit(0);
        }
        Self { requests: ours }
    }

    fn serve(mut stream: std::os::unix::net::UnixStream) {
        let mut request = [0; 512];
        while let Ok(length @ 1..) = stream.read(&mut request) {
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let (address, text) = request.split_once(' ').expect("address and text");
            let mut answer = String::from(".");
            let mut peer = TcpStream::connect(address).expect("connect on the host");
            let _ = peer
                .write_all(text.as_bytes())
                .and_then(|()| peer.shutdown(Shutdown::Write));
            let _ = peer.read_to_string(&mut answer);
            stream.write_all(answer.as_bytes()).expect("answer");
        }
    }

    fn ask(&self, address: SocketAddr, text: &str) -> String {
        let mut requests = &self.requests;
        requests
            .write_all(format!("{address} {text}").as_bytes())
            .expect("request");
        let mut answer = [0; 512];
        let length = requests.read(&mut answer).expect("answer");
        String::from_utf8_lossy(&answer[1..length]).into_owned()
    }
}

pub(crate) fn busy_port() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = holder.local_addr().expect("address");
    let publish = Publish {
        host: taken,
        guest: SocketAddrV4::new(ip(0), 80),
    };
    let error = enter(&EnterConfig {
        publish: vec![publish],
        ..closed()
    })
    .expect_err("the port is taken");
    assert!(
        matches!(error, FabricError::PortBusy { address } if address == publish.host),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("port {} on 127.0.0.1", taken.port())),
        "{error}"
    );
}
