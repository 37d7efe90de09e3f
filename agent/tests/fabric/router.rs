//! The router's process, and one of another version.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use cumulet_agent::error::Error;
use cumulet_agent::router::{Client, RouterArgs};
use cumulet_agent::state::Home;

/// Set for the process that plays an old router: its state folder.
pub(crate) const OLD: &str = "CUMULET_FABRIC_OLD_ROUTER";

/// Runs the router when this process was started as one, as `cumulet` itself would.
pub(crate) fn started() -> Option<ExitCode> {
    let arguments: Vec<String> = env::args().collect();
    let [_, home, folder, command, fd, number] = arguments.as_slice() else {
        return None;
    };
    let names = (home.as_str(), command.as_str(), fd.as_str());
    if names != ("--home", "__router", "--ready-fd") {
        return None;
    }
    let ready_fd = number.parse().expect("a descriptor");
    let status = cumulet_agent::router::main(Some(Path::new(folder)), &RouterArgs { ready_fd });
    Some(ExitCode::from(status.expect("the router runs")))
}

/// A router that has never heard of versions: it does not understand the question.
pub(crate) fn old(home: &str) {
    let listener = UnixListener::bind(Path::new(home).join("router.sock")).expect("bind");
    println!("listening");
    let error = Error::internal("this request is not understood");
    let refused = serde_json::json!({"reply": "refused", "error": error});
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.expect("accept"));
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
            let _ = writeln!(stream.get_mut(), "{refused}");
            line.clear();
        }
    }
}

pub(crate) fn replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::open(Some(folder.path())).expect("a state folder");
    let code = |result: Result<Client, Error>| result.map(drop).map_err(|error| error.code);
    assert_eq!(code(Client::connect(&home)), Err("RouterGone".into()));
    let mut old = Command::new(env::current_exe().expect("own path"))
        .env(OLD, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the old router");
    let mut line = String::new();
    let output = old.stdout.take().expect("its output");
    BufReader::new(output).read_line(&mut line).expect("read");
    assert_eq!(line, "listening\n");

    // Who only wants to talk to it is told what is wrong.
    assert_eq!(code(Client::connect(&home)), Err("RouterVersion".into()));
    let mut client = Client::start(&home).expect("another router");
    assert_eq!(old.wait().expect("wait").signal(), Some(libc::SIGKILL));
    assert!(client.answers().expect("it answers").is_empty());
    // One of this version stays.
    let mut second = Client::start(&home).expect("the same router");
    assert!(client.answers().is_ok() && second.answers().is_ok());
}
