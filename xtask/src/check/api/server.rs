//! The `cumulet serve` of a test run, in a state folder of its own, which is gone afterwards however the run ends.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The server has this long to say where it listens.
const START: Duration = Duration::from_secs(60);

/// What a server says when it listens.
#[derive(Clone, Debug, Deserialize)]
struct Hello {
    endpoint: String,
    access_key_id: String,
    secret_access_key: String,
    region: String,
    account: String,
}

/// A running server.
pub(super) struct Server {
    // Dropped in this order: the process first, then its folder.
    process: Process,
    folder: Folder,
    hello: Hello,
}

impl Server {
    /// Starts `command`, a cumulet yet without arguments.
    pub(super) fn start(mut command: Command) -> Result<Self> {
        let folder = Folder::make()?;
        let log = File::create(folder.path.join("server.log"))?;
        command
            .args(["serve", "--backend", "simulated"])
            .args(["--listen", "127.0.0.1:0", "--output", "json", "--home"])
            .arg(folder.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        clear_aws(&mut command);
        let child = bound_to_us(&mut command)
            .spawn()
            .with_context(|| format!("cannot start `{}`", crate::sh::show(&command)))?;
        let mut process = Process(child);
        let hello = process.hello().with_context(|| {
            let said = fs::read_to_string(folder.path.join("server.log")).unwrap_or_default();
            format!("`{}` does not serve:\n{said}", crate::sh::show(&command))
        })?;
        Ok(Self {
            process,
            folder,
            hello,
        })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.hello.endpoint
    }

    /// Everything that it has logged.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.folder.path.join("server.log")).unwrap_or_default()
    }

    /// A folder for what a script writes.
    pub(super) fn scratch(&self, script: &str) -> Result<PathBuf> {
        let path = self.folder.path.join("scripts").join(script);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Tells a script where the server is, in the variables that every SDK reads, and nothing else of this user's AWS.
    pub(super) fn introduce(&self, script: &mut Command) -> Result<()> {
        let nothing = self.folder.path.join("nothing");
        File::create(&nothing)?;
        clear_aws(script);
        script
            .env("AWS_ENDPOINT_URL", &self.hello.endpoint)
            .env("AWS_ACCESS_KEY_ID", &self.hello.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &self.hello.secret_access_key)
            .env("AWS_REGION", &self.hello.region)
            .env("AWS_DEFAULT_REGION", &self.hello.region)
            .env("AWS_CONFIG_FILE", &nothing)
            .env("AWS_SHARED_CREDENTIALS_FILE", &nothing)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            // An error is to be seen, not tried again.
            .env("AWS_MAX_ATTEMPTS", "1")
            .env("AWS_PAGER", "")
            .env("HOME", &self.folder.path)
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .env("CUMULET_ACCOUNT", &self.hello.account)
            // For the command line beside the server.
            .env("CUMULET_HOME", self.folder.home());
        Ok(())
    }

    /// Ends the server as a user would; that it does not end well is an error.
    pub(super) fn end(mut self) -> Result<()> {
        self.process.end()
    }
}

/// The user's own AWS settings are none of the test's.
pub(in crate::check) fn clear_aws(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
}

/// A command that is killed when this program ends.
pub(in crate::check) fn bound_to_us(command: &mut Command) -> &mut Command {
    // SAFETY: prctl is async-signal-safe and nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            Ok(())
        })
    }
}

/// The server's process, killed on drop.
struct Process(Child);

impl Process {
    fn hello(&mut self) -> Result<Hello> {
        let output = self
            .0
            .stdout
            .take()
            .context("its output is not connected")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut values = serde_json::Deserializer::from_reader(output).into_iter::<Hello>();
            // Whoever asked may have given up.
            let _ = sender.send(values.next());
            // What else it says is read too, so that it is never held up.
            values.for_each(drop);
        });
        match receiver.recv_timeout(START) {
            Ok(Some(hello)) => hello.context("it says where it listens in another way"),
            Ok(None) => bail!("it ended with {}", self.0.wait()?),
            Err(_) => bail!("it has not said where it listens for {} s", START.as_secs()),
        }
    }

    fn end(&mut self) -> Result<()> {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?);
        if let Some(status) = self.0.try_wait()? {
            bail!("the server had ended before with {status}");
        }
        kill(pid, Signal::SIGTERM)?;
        for _ in 0..300 {
            if let Some(status) = self.0.try_wait()? {
                if !status.success() {
                    bail!("the server ended with {status}");
                }
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the server did not end when it was told to");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A private temporary folder. It is removed by a process that notices our end by the end of a pipe, `kill -9` too.
pub(in crate::check) struct Folder {
    path: PathBuf,
    keeper: Child,
}

/// Waits for the end of its input. Whoever wrote in the folder is killed with us, but maybe a moment later.
const KEEPER: &str = r#"trap '' HUP INT TERM
cat >/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf -- "$1" 2>/dev/null
    [ -e "$1" ] || exit 0
    sleep 1
done
exit 1"#;

impl Folder {
    pub(in crate::check) fn make() -> Result<Self> {
        let name = format!("cumulet-api-{}-{}", std::process::id(), unique());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Ctrl-C is for us.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { path, keeper })
    }

    pub(in crate::check) fn path(&self) -> &Path {
        &self.path
    }

    /// The server's state folder.
    fn home(&self) -> PathBuf {
        self.path.join("home")
    }
}

/// Tells apart the folders of one process.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It only waits for the folder to be gone.
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script, "cumulet"]);
        command
    }

    const HELLO: &str = r#"echo '{"endpoint":"e","access_key_id":"a","secret_access_key":"s","region":"r","account":"1"}'"#;

    #[test]
    fn nothing_is_left_of_a_server() {
        let server = Server::start(fake(&format!("{HELLO}\nexec sleep 1000"))).unwrap();
        let (path, pid) = (server.folder.path.clone(), server.process.0.id());
        assert_eq!(server.endpoint(), "e");
        assert!(path.is_dir());
        drop(server);
        assert!(!path.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_server_that_does_not_serve_says_why() {
        let broken = fake("echo 'no such command' >&2; exit 2");
        let error = format!("{:#}", Server::start(broken).map(drop).unwrap_err());
        assert!(error.contains("no such command"), "{error}");
        assert!(error.contains("exit status: 2"), "{error}");
    }

    #[test]
    fn a_server_that_ends_early_or_badly_is_told() {
        let script = format!("trap 'exit 3' TERM\n{HELLO}\nwhile :; do sleep 0.1; done");
        let server = Server::start(fake(&script)).unwrap();
        let error = server.end().unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
    }
}
