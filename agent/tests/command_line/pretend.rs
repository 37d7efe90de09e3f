//! A VMM that runs no guest: it reads the configuration, serves the control socket and ends as the
//! guest's "command line" says. With it the life cycle is tested on hosts without KVM.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cumulet_vmm::config::{BootConfig, ControlConfig, VmConfig};
use cumulet_vmm::control::{Command, EndReason, Event, Reply, Request};

struct Machine {
    behaviour: String,
    log: PathBuf,
}

fn end(reason: &EndReason) -> ! {
    eprintln!("{}", serde_json::to_string(reason).unwrap());
    std::process::exit(i32::from(reason.exit_code()));
}

/// Never returns.
pub(crate) fn run() -> ! {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let config: VmConfig = serde_json::from_str(&text).unwrap();
    let (BootConfig::Kernel { cmdline, .. }
    | BootConfig::Disk {
        extra_cmdline: cmdline,
    }) = &config.boot;
    let log = config.console.log.clone().unwrap();
    let folder = log.parent().unwrap();
    std::fs::write(folder.join("machine.json"), &text).unwrap();
    std::fs::write(folder.join("pretended.pid"), std::process::id().to_string()).unwrap();
    for disk in &config.disks {
        assert!(disk.path.exists(), "{} is missing", disk.path.display());
    }
    let machine = Arc::new(Machine {
        behaviour: cmdline.clone(),
        log,
    });
    machine.say("the pretended guest boots\n");
    if machine.does("fail-at-once") {
        machine.say("no root file system\n");
        end(&EndReason::InternalError {
            message: "no kernel found in the image".into(),
        });
    }
    let Some(ControlConfig::Fd(fd)) = config.control else {
        panic!("a listening control socket should be inherited");
    };
    // SAFETY: the supervisor opened this descriptor for us.
    let listener = UnixListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
    listener.set_nonblocking(false).unwrap();
    if machine.does("poweroff") {
        let machine = Arc::clone(&machine);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            machine.say("powering off\n");
            end(&EndReason::GuestPoweroff);
        });
    }
    for stream in listener.incoming() {
        let machine = Arc::clone(&machine);
        thread::spawn(move || machine.serve(stream.unwrap()));
    }
    unreachable!("a listener never ends");
}

impl Machine {
    fn does(&self, what: &str) -> bool {
        self.behaviour.split(' ').any(|word| word == what)
    }

    fn say(&self, text: &str) {
        let mut log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        log.write_all(text.as_bytes()).unwrap();
    }

    fn serve(&self, stream: UnixStream) {
        let mut out = stream.try_clone().unwrap();
        let mut send = |value: serde_json::Value| {
            let mut line = serde_json::to_vec(&value).unwrap();
            line.push(b'\n');
            let _ = out.write_all(&line);
        };
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            let request: Request = serde_json::from_str(&line).unwrap();
            let result = match request.command {
                Command::Status => Some(serde_json::json!({ "state": "running" })),
                _ => None,
            };
            let reply = Reply {
                id: request.id,
                result,
                error: None,
            };
            send(serde_json::to_value(&reply).unwrap());
            match request.command {
                Command::PowerButton if !self.does("deaf") => {
                    self.say("the power button was pressed\n");
                    end(&EndReason::PowerButton);
                }
                Command::Quit => end(&EndReason::Quit),
                Command::Reset => self.say("reset\n"),
                Command::Subscribe => send(serde_json::to_value(Event::Running).unwrap()),
                Command::Console { .. } => send("console".into()),
                _ => {}
            }
        }
    }
}
