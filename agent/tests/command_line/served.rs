//! Instances that the EC2 API launched, changed by the command line: through the server while one runs, and without one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use time::OffsetDateTime;

use super::common::{Killed, PATIENCE, World, first_said, until};
use super::signer::Signer;

/// A running `cumulet serve` over pretended machines; killed when dropped, as by `kill -9`.
struct Serve {
    _child: Killed,
    said: Value,
}

impl Serve {
    fn start(world: &World) -> Self {
        let args = "--output json serve --skip-doctor --listen 127.0.0.1:0";
        let args: Vec<&str> = args.split(' ').collect();
        let mut child = world.command(&args).spawn().unwrap();
        let said = first_said(&mut child);
        Self {
            _child: Killed(child),
            said,
        }
    }

    /// The answer's body.
    fn call(&self, form: &str) -> String {
        let text = |name: &str| self.said[name].as_str().unwrap().to_owned();
        let signer = Signer {
            id: text("access_key_id"),
            secret: text("secret_access_key"),
            region: text("region"),
            service: "ec2".into(),
            at: OffsetDateTime::now_utc(),
        };
        let host = text("endpoint").replace("http://", "");
        let form = format!("{form}&Version=2016-11-15");
        let mut request = format!("POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in signer.headers("POST", &host, "", &form) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        request.push_str(&format!("Content-Length: {}\r\n\r\n{form}", form.len()));
        let mut tcp = TcpStream::connect(&host).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{form}: {answer}");
        answer
    }

    /// Launches an instance with this name, whose guest behaves like this; gives its id when it runs.
    fn launch(&self, world: &World, ami: &str, name: &str, behaviour: &str) -> String {
        let answer = self.call(&format!(
            "Action=RunInstances&ImageId={ami}&MinCount=1&MaxCount=1&InstanceType=t3.nano\
             &TagSpecification.1.ResourceType=instance\
             &TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value={name}\
             &TagSpecification.1.Tag.2.Key=behaviour&TagSpecification.1.Tag.2.Value={behaviour}"
        ));
        let id = text(&answer, "instanceId").to_owned();
        until("the instance to run", || {
            let told = self.describe(&id);
            let state = text(text(&told, "instanceState"), "name").to_owned();
            assert!(matches!(&*state, "pending" | "running"), "{told}");
            (state == "running").then_some(())
        });
        assert_eq!(world.state(&id), "running");
        id
    }

    fn describe(&self, id: &str) -> String {
        self.call(&format!("Action=DescribeInstances&InstanceId.1={id}"))
    }

    fn state(&self, id: &str) -> String {
        let told = self.describe(id);
        text(text(&told, "instanceState"), "name").to_owned()
    }
}

/// What is in the first element of this name.
#[track_caller]
fn text<'a>(xml: &'a str, name: &str) -> &'a str {
    let found = xml.split_once(&format!("<{name}>"));
    let (_, rest) = found.unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split_once(&format!("</{name}>")).unwrap().0
}

fn ami(world: &World) -> String {
    world.image("tiny", 700_000);
    let imported = world.run(&["--output", "json", "images", "import", "tiny"]);
    imported.succeeds();
    imported.json()["ImageId"].as_str().unwrap().to_owned()
}

#[test]
fn what_the_api_launched_is_changed_through_the_server() {
    let world = World::new();
    let ami = ami(&world);
    let serve = Serve::start(&world);
    let id = serve.launch(&world, &ami, "web", "");
    let own = world.launch("", &["--name", "own"]);
    let public = text(&serve.describe(&id), "ipAddress").to_owned();
    assert_eq!(world.describe("web")["PublicIpAddress"], public.as_str());
    assert!(world.run(&["ps"]).stdout().contains(&public));

    // One of each sort, at once. Only what the API was asked for has a reason with a time.
    let stopped = world.run(&["stop", "web", "own"]);
    stopped.succeeds();
    for one in [&id, &own] {
        let line = format!("{one}: running -> stopped\n");
        assert!(stopped.stdout().contains(&line), "{}", stopped.stdout());
        assert_eq!(world.state(one), "stopped");
    }
    let told = serve.describe(&id);
    assert_eq!(text(text(&told, "instanceState"), "name"), "stopped");
    assert!(
        text(&told, "reason").starts_with("User initiated ("),
        "{told}"
    );
    assert_eq!(
        text(text(&told, "stateReason"), "code"),
        "Client.UserInitiatedShutdown"
    );
    assert!(!told.contains("<ipAddress>"), "{told}");

    // No test of this host: it is the server that starts it.
    let started = world.run(&["start", "web"]);
    started.succeeds();
    assert_eq!(started.stdout(), format!("{id}: stopped -> running\n"));
    assert_eq!(serve.state(&id), "running");
    assert!(serve.describe(&id).contains("<ipAddress>"));

    let machine = world.vmm(&id);
    let rebooted = world.run(&["reboot", "web"]);
    assert_eq!(rebooted.stdout(), format!("{id}: asked to reboot\n"));
    until("the reboot", || (world.vmm(&id) != machine).then_some(()));
    // What EC2's API cannot say goes straight to the supervisor.
    let reset = world.run(&["reboot", "web", "--force"]);
    assert_eq!(reset.stdout(), format!("{id}: rebooted\n"));
    assert!(world.run(&["logs", "web"]).stdout().contains("reset"));

    let protect = |yes: bool| {
        let id = &id;
        serve.call(&format!(
            "Action=ModifyInstanceAttribute&DisableApiTermination.Value={yes}&InstanceId={id}"
        ));
    };
    protect(true);
    world
        .run(&["terminate", "web"])
        .fails(4, &["OperationNotPermitted", &id]);
    assert_eq!(world.state(&id), "running");
    protect(false);
    let ended = world.run(&["terminate", "web"]);
    assert_eq!(ended.stdout(), format!("{id}: running -> terminated\n"));
    assert_eq!(serve.state(&id), "terminated");
    assert!(!world.instance(&id).exists());
    assert_eq!(world.ids(), [own]);
}

#[test]
fn a_deaf_guest_is_cut_off_in_time_through_the_server_too() {
    let world = World::new();
    let ami = ami(&world);
    let serve = Serve::start(&world);
    let id = serve.launch(&world, &ami, "web", "deaf");
    world.run(&["stop", "web", "--timeout", "1s"]).succeeds();
    assert_eq!(serve.state(&id), "stopped");
    world.run(&["start", "web"]).succeeds();
    world.run(&["stop", "web", "--force"]).succeeds();
    assert_eq!(serve.state(&id), "stopped");
}

#[test]
fn a_start_that_fails_says_why() {
    let world = World::new();
    let ami = ami(&world);
    let serve = Serve::start(&world);
    let id = serve.launch(&world, &ami, "web", "");
    world.run(&["stop", "web"]).succeeds();
    let root = world.describe(&id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
        .as_str()
        .unwrap()
        .to_owned();
    let volume = world.instance(&id).join(&root);
    std::fs::rename(&volume, volume.with_extension("away")).unwrap();
    world
        .run(&["start", "web"])
        .fails(6, &["Server.InternalError", "cumulet logs"]);
    std::fs::rename(volume.with_extension("away"), &volume).unwrap();
    world.run(&["start", "web"]).succeeds();
    assert_eq!(serve.state(&id), "running");
}

#[test]
fn without_a_server_everything_but_a_start_is_done_directly() {
    let world = World::new();
    let ami = ami(&world);
    let serve = Serve::start(&world);
    let id = serve.launch(&world, &ami, "web", "");
    drop(serve);
    // As on EC2, starting what runs changes nothing.
    world.run(&["start", "web", "--skip-doctor"]).succeeds();
    world.run(&["reboot", "web"]).succeeds();
    world.run(&["stop", "web"]).succeeds();
    assert_eq!(world.state(&id), "stopped");
    let own = world.launch("", &["--name", "own"]);
    world.run(&["stop", "own"]).succeeds();
    let refused = world.run(&["start", "own", "web", "--skip-doctor"]);
    let mend = format!("cumulet start {id}");
    refused.fails(4, &["NotServing", &id, "cumulet serve", &mend]);
    assert_eq!(world.state(&own), "stopped", "all or none");

    // The next server has seen it stop, and starts it.
    let serve = Serve::start(&world);
    until("the server to see it", || {
        (serve.state(&id) == "stopped").then_some(())
    });
    world.run(&["start", "web"]).succeeds();
    assert_eq!(serve.state(&id), "running");
    drop(serve);
    world.run(&["terminate", "web"]).succeeds();
    assert!(!world.instance(&id).exists());
    let serve = Serve::start(&world);
    until("the server to see it", || {
        (serve.state(&id) == "terminated").then_some(())
    });
}

#[test]
fn what_the_server_does_not_know_is_told_with_the_way_out() {
    let world = World::new();
    let id = world.launch("", &[]);
    world.run(&["stop", &id]).succeeds();
    world.adopt(&id);
    let serve = Serve::start(&world);
    for command in ["start", "stop", "reboot", "terminate"] {
        world
            .run(&[command, &id])
            .fails(3, &["InvalidInstanceID.NotFound", &id, "cumulet serve"]);
    }
    drop(serve);
    world.run(&["terminate", &id]).succeeds();
}
