//! A `cumulet serve` over the simulated back end that may die at any time, and a client that does not mind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use time::OffsetDateTime;

use crate::signer::Signer;
use crate::xml::Element;

/// A hang guard, not a measure: nothing takes this long on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Parameters of a request.
pub(crate) type Fields = Vec<(String, String)>;

/// Makes parameters of what is written in place.
pub(crate) fn fields(pairs: &[(&str, &str)]) -> Fields {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The API says no.
    Refused {
        /// HTTP status.
        status: u16,
        /// EC2's code.
        code: String,
        /// In words.
        message: String,
    },
    /// The agent was gone before it had answered.
    Lost,
}

/// A state folder and everything that was said on standard error over it.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    backend: &'static [&'static str],
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            backend: &["--backend", "simulated"],
        }
    }

    /// One whose instances are machines, of a `cumulet-vmm` that only pretends.
    pub(crate) fn with_machines() -> Self {
        let home = Self {
            folder: tempfile::tempdir().unwrap(),
            backend: &["--skip-doctor"],
        };
        let vmm = home.bin().join("cumulet-vmm");
        fs::create_dir(home.bin()).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_cumulet"), home.bin().join("cumulet")).unwrap();
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\nexec '{}' --ignored --exact --nocapture --test-threads=1 pretended_vmm\n",
            own.display()
        );
        fs::write(&vmm, script).unwrap();
        fs::set_permissions(&vmm, fs::Permissions::from_mode(0o755)).unwrap();
        home
    }

    /// Where `cumulet` and the pretended `cumulet-vmm` are side by side.
    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    /// `cumulet` over this state folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut program = self.bin().join("cumulet");
        if !program.exists() {
            program = env!("CARGO_BIN_EXE_cumulet").into();
        }
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(program);
        command
            .args(args)
            .env("CUMULET_HOME", self.path())
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What all agents have said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Starts an agent; `None` when it died of its fault before it listened.
    pub(crate) fn start(&self, environment: &[(&str, &str)]) -> Option<Agent> {
        match self.try_start(environment) {
            Ok(agent) => Some(agent),
            Err(status) => {
                let killed = Some(Signal::SIGKILL as i32);
                assert_eq!(status.signal(), killed, "{status}: {}", self.said());
                None
            }
        }
    }

    /// Starts an agent that ends by itself, before or after it listens; how it ends.
    pub(crate) fn fail(&self, environment: &[(&str, &str)]) -> ExitStatus {
        match self.try_start(environment) {
            Ok(agent) => agent.ended(),
            Err(status) => status,
        }
    }

    fn try_start(&self, environment: &[(&str, &str)]) -> Result<Agent, ExitStatus> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log());
        let mut child = self
            .command(&["serve", "--listen", "127.0.0.1:0", "--output", "json"])
            .args(self.backend)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        if line.is_empty() {
            return Err(wait(&mut child));
        }
        let told: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let address = text("endpoint").replace("http://", "").parse();
        Ok(Agent {
            child,
            address: address.unwrap(),
            signer: Signer {
                id: text("access_key_id"),
                secret: text("secret_access_key"),
                region: text("region"),
                service: "ec2".to_owned(),
                at: OffsetDateTime::now_utc(),
            },
        })
    }

    /// Starts an agent that is not to die.
    #[track_caller]
    pub(crate) fn serve(&self, environment: &[(&str, &str)]) -> Agent {
        let agent = self.start(environment);
        agent.unwrap_or_else(|| panic!("it died: {}", self.said()))
    }

    /// Files below the state folder, by their path in it.
    pub(crate) fn files(&self) -> Vec<String> {
        let root = self.path();
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    let path = entry.path();
                    let name = path.strip_prefix(&root).unwrap();
                    found.push(name.display().to_string());
                }
            }
        }
        found.sort();
        found
    }

    /// Processes that were started for this state folder.
    pub(crate) fn processes(&self) -> Vec<String> {
        let wanted = format!("CUMULET_HOME={}", self.path().display());
        let ids = fs::read_dir("/proc").unwrap().flatten();
        ids.filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let text = String::from_utf8_lossy(&environment).into_owned();
            text.split('\0').any(|variable| variable == wanted)
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
    }
}

impl Drop for Home {
    /// Supervisors outlive the agent of a test that failed, and nobody else would end them.
    fn drop(&mut self) {
        for id in self.processes() {
            if let Ok(id) = id.parse() {
                let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
            }
        }
    }
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    address: SocketAddr,
    signer: Signer,
}

impl Agent {
    /// Calls an action.
    pub(crate) fn call(&self, action: &str, fields: &Fields) -> Result<Element, Failure> {
        let mut form = format!("Action={action}&Version=2016-11-15");
        for (name, value) in fields {
            form.push_str(&format!(
                "&{name}={}",
                cumulet_agent::api::form::encode(value)
            ));
        }
        let (status, body) = self.post(&form).map_err(|_| Failure::Lost)?;
        let answer = Element::read(&body);
        if status == 200 {
            return Ok(answer);
        }
        let error = |name: &str| answer.text(&format!("Errors/Error/{name}"));
        Err(Failure::Refused {
            status,
            code: error("Code"),
            message: error("Message"),
        })
    }

    /// Calls an action that is to succeed.
    #[track_caller]
    pub(crate) fn ask(&self, action: &str, pairs: &[(&str, &str)]) -> Element {
        let answer = self.call(action, &fields(pairs));
        answer.unwrap_or_else(|failure| panic!("{action} {pairs:?}: {failure:?}"))
    }

    fn post(&self, form: &str) -> io::Result<(u16, String)> {
        let signer = Signer {
            at: OffsetDateTime::now_utc(),
            ..self.signer.clone()
        };
        let mut request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n",
            self.address,
            form.len()
        );
        for (name, value) in signer.headers("POST", &self.address.to_string(), "", form) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("\r\n{form}"));
        let mut tcp = TcpStream::connect(self.address)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        tcp.read_to_end(&mut reply)?;
        let reply = String::from_utf8(reply).map_err(io::Error::other)?;
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(cut)?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then_some(value)
        });
        if length.and_then(|text| text.parse().ok()) != Some(body.len()) {
            return Err(cut());
        }
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
        Ok((status.ok_or_else(cut)?, body.to_owned()))
    }

    /// How it ended.
    pub(crate) fn ended(mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Ends it as a user would.
    pub(crate) fn end(mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let status = wait(&mut self.child);
        assert!(status.success(), "it ended with {status}");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// A file of its folder in /proc.
    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join(name)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    until("the agent's end", || child.try_wait().unwrap())
}

/// Waits until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A number in a file of lines `NAME: NUMBER`.
pub(crate) fn field(path: &Path, name: &str) -> u64 {
    let mut text = String::new();
    File::open(path).unwrap().read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    value
        .trim_start_matches(':')
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{name} is {value}"))
}
