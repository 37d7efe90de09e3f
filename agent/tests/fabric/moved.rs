//! Public addresses that go to another instance.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use cumulet_agent::fabric::network::{Port, Traffic};

use crate::guest::Guest;
use crate::vpc::{address, anywhere, ask, boot, network, on_shared, port, public, rule, serve};

/// How long an echo that does not come is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
const UDP: u16 = 5000;

fn with_public(mut port: Port, last: u8) -> Port {
    port.public = vec![(port.ip, public(last))];
    port
}

/// Answers every datagram with a name.
async fn say(guest: &Guest, ip: Ipv4Addr, name: &'static str) {
    let bound = guest.run(move || {
        let socket = UdpSocket::bind((ip, UDP)).expect("bind");
        thread::spawn(move || {
            while let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                let _ = socket.send_to(name.as_bytes(), from);
            }
        });
    });
    bound.await;
}

/// Who answers a datagram from this very socket; it is sent again until somebody does.
fn answered_by(socket: &UdpSocket, to: Ipv4Addr) -> String {
    let mut name = [0; 16];
    for _ in 0..60 {
        let _ = socket.send_to(b"?", (to, UDP));
        if let Ok(length) = socket.recv(&mut name) {
            return String::from_utf8_lossy(&name[..length]).into_owned();
        }
    }
    panic!("nobody answers at {to}");
}

/// Whether what is sent comes back.
fn echoes(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
    let mut echo = [0];
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut echo).is_ok()
}

pub(crate) fn connections() {
    on_shared(async |mut shared| {
        let (one, two) = (port('a', 0, 10, "web"), port('a', 0, 12, "web"));
        let mut a = network('a', vec![with_public(one, 10), with_public(two, 11)]);
        let datagrams = rule(false, Traffic::Udp(UDP, UDP), anywhere());
        if let Some(rules) = a.groups.get_mut("web") {
            rules.push(datagrams);
        }
        let b = network('b', vec![with_public(port('b', 0, 10, "web"), 20)]);
        shared
            .apply(vec![a.clone(), b.clone()])
            .await
            .expect("apply");
        let [one, two] = [address(0, 10), address(0, 12)];
        let one_guest = boot(&shared, &a, one).await;
        let two_guest = boot(&shared, &a, two).await;
        let client = boot(&shared, &b, one).await;
        serve(&one_guest, one, 80).await;
        serve(&two_guest, two, 80).await;
        serve(&client, one, 80).await;
        say(&one_guest, one, "one").await;
        say(&two_guest, two, "two").await;

        let (mut inward, _) = ask(&client, public(10), 80).await.expect("inwards");
        let (mut outward, _) = ask(&one_guest, public(20), 80).await.expect("outwards");
        let (mut inside, _) = ask(&two_guest, one, 80).await.expect("inside");
        let (mut other, _) = ask(&client, public(11), 80).await.expect("to another");
        let socket = client.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
            let pause = Some(Duration::from_secs(1));
            socket.set_read_timeout(pause).expect("time limit");
            socket
        });
        let socket = socket.await;
        assert_eq!(answered_by(&socket, public(10)), "one");
        assert!(echoes(&mut inward) && echoes(&mut outward));
        assert!(echoes(&mut inside) && echoes(&mut other));

        // The address goes from one to two, which keeps its own as well.
        let mut moved = a.clone();
        moved.ports[0].public.clear();
        moved.ports[1].more = vec![address(0, 13)];
        moved.ports[1].public.push((address(0, 13), public(10)));
        two_guest
            .run(|| crate::outer::sh("ip addr add 10.0.0.13/24 dev eth0"))
            .await;
        say(&two_guest, address(0, 13), "moved").await;
        shared.apply(vec![moved, b.clone()]).await.expect("apply");
        // Even from the same port, and however often it is tried, the new one answers.
        assert_eq!(answered_by(&socket, public(10)), "moved");
        assert!(!echoes(&mut inward), "it still reaches the old instance");
        assert!(!echoes(&mut outward), "it still has the old address");
        // What has nothing to do with it goes on.
        assert!(echoes(&mut inside), "a private connection");
        assert!(echoes(&mut other), "another public address's");

        // Back again.
        shared.apply(vec![a, b]).await.expect("apply");
        assert_eq!(answered_by(&socket, public(10)), "one");
        assert!(echoes(&mut other), "another public address's");
    });
}
