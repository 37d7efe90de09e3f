//! The agent is killed while it makes and ends machines. The machines are pretended ones; supervisors, folders, volumes and
//! the AMI store are real.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;

use cumulet_agent::fault::KVM;
use cumulet_images::testing::{TinyImage, host_kernel, tiny_image};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::{Agent, Failure, Home, fields, until};
use crate::xml::Element;

/// An AMI that only passes for one; its id.
fn ami(home: &Home) -> String {
    let folder = tempfile::tempdir().unwrap();
    let kernel = folder.path().join("kernel");
    fs::write(&kernel, host_kernel(700_000)).unwrap();
    let path = folder.path().join("image");
    let image = TinyImage {
        kernel: &kernel,
        initrd: None,
        cmdline: "root=/dev/vda1",
        size: 16 << 20,
        tree: None,
    };
    tiny_image(&path, &image).unwrap();
    let imported = home
        .command(&["--output", "json", "images", "import"])
        .arg(&path)
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&imported.stdout)
        .unwrap_or_else(|error| panic!("{error}: {imported:?}"));
    told["ImageId"].as_str().unwrap().to_owned()
}

/// An agent that is started again when it has died of its fault, once.
struct Immortal<'a> {
    home: &'a Home,
    fault: &'static str,
    agent: Option<Agent>,
    died: bool,
}

impl<'a> Immortal<'a> {
    fn new(home: &'a Home, fault: &'static str) -> Self {
        Self {
            home,
            fault,
            agent: Some(home.serve(&[("CUMULET_FAULT", fault)])),
            died: false,
        }
    }

    /// Asks until there is an answer.
    fn ask(&mut self, action: &str, pairs: &[(&str, &str)]) -> Element {
        loop {
            let agent = self.agent.as_ref().unwrap();
            match agent.call(action, &fields(pairs)) {
                Ok(answer) => return answer,
                Err(Failure::Lost) => {
                    let status = self.agent.take().unwrap().ended();
                    let killed = Some(Signal::SIGKILL as i32);
                    assert_eq!(status.signal(), killed, "{status}: {}", self.home.said());
                    assert!(!self.died, "died twice of {}", self.fault);
                    self.died = true;
                    self.agent = Some(self.home.serve(&[]));
                }
                Err(refused) => panic!("{action} {pairs:?}: {refused:?}: {}", self.home.said()),
            }
        }
    }

    fn until(&mut self, id: &str, state: &str) {
        let (home, fault) = (self.home, self.fault);
        let mut last = String::new();
        until(&format!("{id} to be {state} in spite of {fault}"), || {
            let shown = self.ask("DescribeInstances", &[("InstanceId.1", id)]);
            let instance = &shown.items("reservationSet")[0].items("instancesSet")[0];
            let now = instance.text("instanceState/name");
            if now != last {
                println!("{fault}: {now} {:?}", instance.maybe("stateReason/message"));
                last = now.clone();
            }
            let over = now == "terminated" && state != now;
            assert!(!over, "{instance:?}: {}", home.said());
            (now == state).then_some(())
        });
    }
}

/// How many machines run over this state folder.
fn machines(home: &Home) -> usize {
    let all = home.processes().into_iter();
    all.filter(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("pretended_vmm")
    })
    .count()
}

#[test]
fn machines_are_made_once_and_ended_whole_by_an_agent_that_dies_meanwhile() {
    // Some that any backend comes by, where a machine makes a difference.
    let others = ["supervisor.started:2", "start.after", "stop.after"];
    for fault in KVM.iter().copied().chain(others) {
        let home = Home::with_machines();
        let ami = ami(&home);
        let mut agent = Immortal::new(&home, fault);
        let launch = [
            ("ImageId", ami.as_str()),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("InstanceType", "t3.nano"),
            ("ClientToken", "one"),
            ("BlockDeviceMapping.1.DeviceName", "/dev/sdf"),
            ("BlockDeviceMapping.1.Ebs.VolumeSize", "1"),
            ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "false"),
        ];
        let launched = agent.ask("RunInstances", &launch);
        let id = launched.items("instancesSet")[0].text("instanceId");
        agent.until(&id, "running");
        assert_eq!(machines(&home), 1, "{fault}");
        let one = [("InstanceId.1", id.as_str())];
        agent.ask("StopInstances", &one);
        agent.until(&id, "stopped");
        assert_eq!(machines(&home), 0, "{fault}");
        agent.ask("StartInstances", &one);
        agent.until(&id, "running");
        assert_eq!(machines(&home), 1, "{fault}");
        agent.ask("TerminateInstances", &one);
        agent.until(&id, "terminated");
        assert!(agent.died, "nothing came to {fault}");

        // Its volume that stays is there; nothing else of it is.
        let volumes = agent.ask("DescribeVolumes", &[]);
        let [volume] = volumes.items("volumeSet") else {
            panic!("{fault}: {volumes:?}");
        };
        assert_eq!(volume.text("status"), "available", "{fault}");
        let kept = home.path().join("volumes").join(volume.text("volumeId"));
        assert!(kept.is_dir(), "{fault}: {}", kept.display());
        let left: Vec<_> = fs::read_dir(home.path().join("instances"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != ".lock")
            .collect();
        assert!(left.is_empty(), "{fault}: {left:?}");
        agent.ask("DeregisterImage", &[("ImageId", &ami)]);
        agent.agent.take().unwrap().end();
        until(&format!("all processes to end in spite of {fault}"), || {
            home.processes().is_empty().then_some(())
        });
    }
}
