//! A VMM that runs no guest: it reads the configuration, serves the control socket and ends as the
//! guest's "command line" says ([`behaviour`]). With it the life cycle is tested on hosts without KVM.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cumulet_vmm::config::{BootConfig, ControlConfig, VmConfig};
use cumulet_vmm::control::{Command, EndReason, Event, Reply, Request};

struct Machine {
    behaviour: String,
    log: PathBuf,
}

/// What the "kernel command line" says; of a guest that boots from its disk, what the instance's tag `behaviour` says.
fn behaviour(boot: &BootConfig, folder: &Path) -> String {
    match boot {
        BootConfig::Kernel { cmdline, .. } => cmdline.clone(),
        BootConfig::Disk { .. } => record(folder)["tags"]["behaviour"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }
}

/// The instance's record.
fn record(folder: &Path) -> serde_json::Value {
    let bytes = std::fs::read(folder.join("instance.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn end(reason: &EndReason) -> ! {
    eprintln!("{}", serde_json::to_string(reason).unwrap());
    std::process::exit(i32::from(reason.exit_code()));
}

/// Never returns.
pub(crate) fn run() -> ! {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    // The name of the process, which is not that of this thread.
    std::fs::write("/proc/self/comm", "cumulet-vmm").unwrap();
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let config: VmConfig = serde_json::from_str(&text).unwrap();
    let log = config.console.log.clone().unwrap();
    let folder = log.parent().unwrap().to_owned();
    std::fs::write(folder.join("machine.json"), &text).unwrap();
    std::fs::write(folder.join("pretended.pid"), std::process::id().to_string()).unwrap();
    for disk in &config.disks {
        assert!(disk.path.exists(), "{} is missing", disk.path.display());
    }
    let machine = Arc::new(Machine {
        behaviour: behaviour(&config.boot, &folder),
        log,
    });
    if machine.does("answers") {
        let address = own_address(&folder);
        for (port, service) in SERVICES {
            let listener = TcpListener::bind((address, port)).unwrap();
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let machine = Arc::clone(&machine);
                    thread::spawn(move || service(&machine, stream.unwrap()));
                }
            });
        }
    }
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

type Service = fn(&Machine, TcpStream);

/// What a guest that answers offers, by port.
const SERVICES: [(u16, Service); 4] = [(7, echo), (8, count), (9, greet), (22, ssh)];

/// Sends back what comes.
fn echo(_: &Machine, mut stream: TcpStream) {
    let mut out = stream.try_clone().unwrap();
    let _ = std::io::copy(&mut stream, &mut out);
}

/// Says an ssh server's first line and no more.
fn ssh(_: &Machine, mut stream: TcpStream) {
    let _ = stream.write_all(b"SSH-2.0-pretended\r\n");
}

/// Hears everything to the end, and only then says how much it was.
fn count(_: &Machine, mut stream: TcpStream) {
    let mut heard = Vec::new();
    if stream.read_to_end(&mut heard).is_ok() {
        let _ = write!(stream, "{} bytes", heard.len());
    }
}

/// Says everything first, and only then hears.
fn greet(machine: &Machine, mut stream: TcpStream) {
    stream.write_all(b"hello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    machine.say(&format!("heard {heard}\n"));
}

/// Gives the guest's address to this process's side of the network: there is no guest to have it.
fn own_address(folder: &Path) -> Ipv4Addr {
    let record = record(folder);
    let address = record["network"]["private_ip"].as_str().unwrap();
    let given = std::process::Command::new("ip")
        .args(["address", "replace", address, "dev", "lo"])
        .status()
        .unwrap();
    assert!(given.success(), "{address} is not given to lo");
    address.parse().unwrap()
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
            if matches!(request.command, Command::Reset) {
                self.say("reset\n");
            }
            send(serde_json::to_value(&reply).unwrap());
            match request.command {
                Command::PowerButton if !self.does("deaf") => {
                    self.say("the power button was pressed\n");
                    end(&EndReason::PowerButton);
                }
                Command::Quit => end(&EndReason::Quit),
                Command::Subscribe => send(serde_json::to_value(Event::Running).unwrap()),
                Command::Console { .. } => send("console".into()),
                _ => {}
            }
        }
    }
}
