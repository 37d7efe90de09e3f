//! `cumulet serve` and `cumulet env` as processes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use time::OffsetDateTime;

use crate::client::post;
use crate::signer::Signer;

fn cumulet(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cumulet"));
    command
        .args(args)
        .env("CUMULET_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(home: &Path, args: &[&str]) -> Output {
    cumulet(home, args).output().unwrap()
}

/// A server and what it has said of itself; killed when dropped.
struct Served {
    child: Child,
    said: Value,
}

impl Served {
    fn start(home: &Path, more: &[&str]) -> Self {
        let mut args = vec!["--output", "json", "serve", "--listen", "127.0.0.1:0"];
        args.extend(["--backend", "simulated"]);
        args.extend(more);
        let mut child = cumulet(home, &args).spawn().unwrap();
        let mut line = String::new();
        let out = child.stdout.as_mut().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let said = serde_json::from_str(&line).unwrap();
        Self { child, said }
    }

    fn text(&self, name: &str) -> &str {
        self.said[name].as_str().unwrap()
    }

    fn who(&self, id: &str, secret: &str) -> String {
        let signer = Signer {
            id: id.into(),
            secret: secret.into(),
            region: self.text("region").into(),
            service: "sts".into(),
            at: OffsetDateTime::now_utc(),
        };
        let address = self.text("endpoint").strip_prefix("http://").unwrap();
        let form = "Action=GetCallerIdentity&Version=2011-06-15";
        post(address.parse().unwrap(), &signer, form)
            .text("Account")
            .to_owned()
    }

    fn end(mut self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_tells_how_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let more = [
        "--account",
        "000000000007",
        "--access-key",
        "MORE:secret:000000000008",
        "--region",
        "eu-west-1",
    ];
    let served = Served::start(&home, &more);
    let (id, secret) = (
        served.text("access_key_id"),
        served.text("secret_access_key"),
    );
    assert_eq!(served.text("backend"), "simulated");
    assert_eq!(served.who(id, secret), "000000000007");
    assert_eq!(served.who("MORE", "secret"), "000000000008");

    let env = run(&home, &["env"]);
    let text = String::from_utf8(env.stdout).unwrap();
    for line in [
        format!("export AWS_ENDPOINT_URL={}\n", served.text("endpoint")),
        format!("export AWS_ACCESS_KEY_ID={id}\n"),
        format!("export AWS_SECRET_ACCESS_KEY={secret}\n"),
        "export AWS_DEFAULT_REGION=eu-west-1\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{text}");
    }

    let second = run(&home, &["serve", "--listen", "127.0.0.1:0"]);
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(4));
    assert!(
        text.contains(&format!("pid {} (cumulet serve)", served.child.id())),
        "{text}"
    );

    let id = id.to_owned();
    served.end(Signal::SIGTERM);
    assert_eq!(run(&home, &["env"]).status.code(), Some(3));
    let again = Served::start(&home, &[]);
    assert_eq!(again.text("access_key_id"), id, "the key is kept");
    again.end(Signal::SIGINT);
}

#[test]
fn addresses_that_others_reach_need_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run(folder.path(), &["serve", "--listen", "0.0.0.0:0"]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text.contains("--public") && text.contains("unencrypted"),
        "{text}"
    );
    for wrong in [
        ["--region", "mars-1"],
        ["--account", "12"],
        ["--access-key", "x"],
        ["--backend", "xen"],
    ] {
        let refused = run(folder.path(), &["serve", wrong[0], wrong[1]]);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_taken_port_is_told_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(
        folder.path(),
        &["serve", "--backend", "simulated", "--listen", &address],
    );
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(5));
    assert!(
        text.contains(&address) && text.contains("--listen"),
        "{text}"
    );
}
