//! Two instances at once: each sees its own metadata service and nothing of the other's.

use std::io::Write as _;

use cumulet_tests::cli::Home;
use cumulet_tests::paths::payload;
use cumulet_tests::process::Process;
use serde_json::{Value, json};

/// A small guest joined by its console.
struct Guest {
    id: String,
    console: Process,
    mark: usize,
}

impl Guest {
    fn launch(home: &Home, name: &str) -> Self {
        let user_data = home.file(&format!("{name}.txt"), &format!("user data of {name}"));
        let launched = home.run(&[
            "run",
            "--kernel",
            &payload("6.1", "vmlinuz").display().to_string(),
            "--initrd",
            &payload("6.1", "initrd").display().to_string(),
            "--cmdline",
            "console=ttyS0 quiet panic=-1",
            "--vcpus",
            "1",
            "--memory",
            "160M",
            "--user-data",
            &user_data,
            "--metadata-options",
            "http-tokens=required",
            "--uplink",
            "none",
            "--keep",
            "--name",
            name,
        ]);
        let instance = launched.ok().json()["Instances"][0].take();
        let id = instance["InstanceId"].as_str().expect("an id").to_owned();
        let address = instance["PrivateIpAddress"].as_str().expect("an address");
        let console = Process::start(&mut home.command(&["console", &id]));
        let mut guest = Self {
            id,
            console,
            mark: 0,
        };
        guest.line("HELLO");
        let nic = guest.ask(&json!({ "cmd": "net_list" }));
        let nic = nic.as_array().expect("interfaces").iter();
        let nic = nic
            .filter_map(|nic| nic["name"].as_str())
            .find(|name| *name != "lo");
        guest.ask(
            &json!({ "cmd": "net_up", "name": nic.expect("an interface"), "address": address,
            "prefix": 20, "gateway": "172.31.0.1" }),
        );
        guest
    }

    fn line(&mut self, with: &str) -> String {
        let found = self.console.stdout.wait_line(self.mark, |line| {
            line.contains(with).then(|| line.to_owned())
        });
        let Some((line, mark)) = found else {
            panic!(
                "no {with:?} on the console:\n{}",
                self.console.stdout.text()
            );
        };
        self.mark = mark;
        line
    }

    fn ask(&mut self, command: &Value) -> Value {
        let stdin = self
            .console
            .stdin
            .as_mut()
            .expect("the console takes input");
        writeln!(stdin, "{command}").expect("a line to the console");
        let line = self.line("@@");
        let (_, answer) = line.split_once("@@").expect("an answer");
        let mut answer: Value = serde_json::from_str(answer).expect("JSON");
        assert!(answer["error"].is_null(), "{command}: {answer}");
        answer["ok"].take()
    }

    /// Status and body.
    fn http(&mut self, method: &str, path: &str, headers: &Value) -> (u64, String) {
        let answer = self.ask(
            &json!({ "cmd": "http", "to": "169.254.169.254:80", "method": method,
            "path": path, "headers": headers }),
        );
        let status = answer["status"].as_u64().unwrap_or_default();
        (
            status,
            answer["body"].as_str().unwrap_or_default().to_owned(),
        )
    }

    fn token(&mut self) -> String {
        let headers = json!({ "X-aws-ec2-metadata-token-ttl-seconds": "300" });
        let (status, token) = self.http("PUT", "/latest/api/token", &headers);
        assert_eq!(status, 200, "{token}");
        token
    }

    fn get(&mut self, path: &str, token: &str) -> (u64, String) {
        self.http("GET", path, &json!({ "X-aws-ec2-metadata-token": token }))
    }
}

#[test]
fn two_instances_do_not_see_each_others_metadata() {
    let home = Home::new("imds", false);
    let mut one = Guest::launch(&home, "one");
    let mut two = Guest::launch(&home, "two");
    let (token_one, token_two) = (one.token(), two.token());
    let path = "/latest/meta-data/instance-id";
    assert_eq!(one.get(path, &token_one), (200, one.id.clone()));
    assert_eq!(two.get(path, &token_two), (200, two.id.clone()));
    assert_eq!(
        one.get("/latest/user-data", &token_one),
        (200, "user data of one".into())
    );
    assert_eq!(
        two.get("/latest/user-data", &token_two),
        (200, "user data of two".into())
    );
    // A token is bound to its instance.
    assert_eq!(one.get(path, &token_two).0, 401);
    assert_eq!(two.get(path, &token_one).0, 401);
    // And without one nothing is told.
    assert_eq!(one.http("GET", path, &json!({})).0, 401);
    for name in ["one", "two"] {
        home.run(&["terminate", name]).ok();
    }
}
