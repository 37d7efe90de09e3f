//! Abuse of the control socket: whatever clients do, the guest and the other clients go on.

use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;

use cumulet_tests::{Machine, Vm};
use serde_json::{Value, json};

/// The guest answers and a new client is served.
fn all_is_well(vm: &mut Vm) {
    assert_eq!(vm.guest(&json!({ "cmd": "ping" })), "pong");
    assert!(vm.control().ask("status").is_object());
}

#[test]
fn abuse_of_the_control_socket() {
    let mut vm = Machine::new().start();
    vm.hello();

    // Lines that are no requests: each gets an error, and the connection lives.
    let mut control = vm.control();
    for line in [
        "garbage",
        "{}",
        "[]",
        "null",
        "{\"command\":\"dance\"}",
        "{\"command\":[1]}",
        "{\"id\":-1,\"command\":\"status\"}",
        "{\"id\":\"x\",\"command\":\"status\"}",
        "\u{0}\u{1}\u{fffd}",
    ] {
        control.send_line(line).expect("a send");
        let reply = control.reply();
        assert!(reply["error"].is_string(), "{line:?} got {reply}");
    }
    assert!(control.ask("status").is_object());

    // Many requests in one write are answered one by one, in order.
    let batch: String = (100..200)
        .map(|id| format!("{{\"id\":{id},\"command\":\"status\"}}\n"))
        .collect();
    control.send_line(batch.trim_end()).expect("a send");
    for id in 100..200 {
        assert_eq!(control.reply()["id"], json!(id));
    }

    // A line without end costs that client its connection, not the VMM its memory.
    let mut endless = UnixStream::connect(vm.socket()).expect("a connection");
    let chunk = vec![b'x'; 1 << 16];
    let refused = (0..256).any(|_| endless.write_all(&chunk).is_err());
    assert!(refused, "16 MiB without a line's end were taken");
    all_is_well(&mut vm);

    // A client that asks and never reads.
    let mut deaf = UnixStream::connect(vm.socket()).expect("a connection");
    deaf.set_nonblocking(true).expect("a socket option");
    let ask = "{\"command\":\"console_output\"}\n".repeat(100);
    for _ in 0..100 {
        // The socket's buffer fills up, or the VMM hangs up: both are fine.
        if deaf.write_all(ask.as_bytes()).is_err() {
            break;
        }
    }
    all_is_well(&mut vm);
    drop(deaf);

    // A client that goes away in the middle of a line, and one that never says anything.
    let mut half = UnixStream::connect(vm.socket()).expect("a connection");
    half.write_all(b"{\"command\":\"pau").expect("a send");
    drop(half);
    let silent = UnixStream::connect(vm.socket()).expect("a connection");

    // Far more connections than anybody needs: some are refused, then there is room again.
    let crowd: Vec<_> = (0..500)
        .filter_map(|_| UnixStream::connect(vm.socket()).ok())
        .collect();
    assert_eq!(vm.guest(&json!({ "cmd": "ping" })), "pong");
    drop((crowd, silent));
    all_is_well(&mut vm);
}

/// The console by the control socket: what was said before, what is said now, what the client
/// types; two at a time; and one that does not read.
#[test]
fn console_by_the_control_socket() {
    let mut vm = Machine::new().start();
    vm.hello();
    let mut console = vm.control();
    let reply = console.request(json!({ "command": "console", "replay": true }));
    assert!(reply.is_ok(), "{reply:?}");
    let mut console = console.into_stream();
    let mut deaf = vm.control();
    assert!(deaf.request(json!({ "command": "console" })).is_ok());
    let mut line = String::new();
    while !line.contains("HELLO") {
        line.clear();
        console.read_line(&mut line).expect("the replay");
    }
    console
        .get_mut()
        .write_all(b"{\"cmd\":\"ping\"}\n")
        .expect("typing");
    while !line.contains("pong") {
        line.clear();
        console.read_line(&mut line).expect("the answer");
    }
    // The same is on standard output.
    vm.wait_line("pong", |line| line.contains("pong").then_some(()));
    // More output than the sockets between hold, which the deaf one does not read.
    for _ in 0..8 {
        vm.guest(&json!({ "cmd": "log" }));
    }
    let drained = std::thread::spawn(move || {
        let mut all = Vec::new();
        console.read_to_end(&mut all).expect("the console's end");
        all.len()
    });
    let ring = vm.control().ask("console_output");
    let encoded = ring["output"].as_str().expect("text").len();
    assert!(
        encoded <= (64 << 10) * 4 / 3 + 4,
        "{encoded} bytes of base64"
    );
    vm.control().ask("quit");
    assert_eq!(vm.exit().code, Some(0));
    assert!(drained.join().expect("the reader") > 0);
}

/// Only the VMM's own user (and root) may connect.
#[test]
fn another_user_is_kept_out() {
    let machine = Machine::new();
    // The folder is open to all, so that only the socket itself protects the machine.
    std::fs::set_permissions(machine.dir(), std::fs::Permissions::from_mode(0o755))
        .expect("permissions");
    let vm = machine.start();
    drop(vm.control());
    let mode = std::fs::metadata(vm.socket())
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut other = std::process::Command::new("socat");
    other
        .args(["-u", "OPEN:/dev/null"])
        .arg(format!("UNIX-CONNECT:{}", vm.socket().display()));
    let tried = other.uid(65534).gid(65534).output().expect("socat");
    assert!(!tried.status.success(), "another user connected");
    let said = String::from_utf8_lossy(&tried.stderr);
    assert!(said.contains("Permission denied"), "{said}");
}

/// The configuration by standard input, without a console there.
#[test]
fn configuration_by_standard_input() {
    let mut machine = Machine::new();
    machine.config["console"] = json!({ "stdio": false });
    let config: Value = machine.config.clone();
    let mut child = cumulet_tests::process::Process::start(
        std::process::Command::new(cumulet_tests::paths::binary("cumulet-vmm")).args([
            "--config",
            "-",
            "--check-config",
        ]),
    );
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(config.to_string().as_bytes())
        .expect("the configuration");
    drop(stdin);
    let exit = child.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}
