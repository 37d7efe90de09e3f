//! `cumulet serve`: this machine answers as EC2.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use cumulet_imds::Keys;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use crate::api::credentials::{self, AccessKey, Credentials};
use crate::api::ops::regions;
use crate::api::server::{ServerConfig, State, serve};
use crate::cloud::{Cloud, Identity, StoreError};
use crate::doctor;
use crate::engine::{self, Engine};
use crate::error::{Context as _, Error, Kind, Result};
use crate::state::{Home, OwnerLock, write_atomically};

/// Held by the server of a state folder.
pub(super) const LOCK: &str = "serve.lock";
/// Says where the server is, as long as it runs.
pub(super) const RUNNING: &str = "serve.json";

/// `cumulet serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cumulet serve
  cumulet serve --backend simulated --listen 127.0.0.1:0 --output json
Point the aws CLI and SDKs at it with `eval \"$(cumulet env)\"`.")]
pub struct ServeArgs {
    /// Address and port to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8773")]
    pub listen: SocketAddr,

    /// Allow an address that other machines can reach
    #[arg(long)]
    pub public: bool,

    /// Region that clients are told to use; the others are served as well
    #[arg(long, value_name = "REGION", default_value = "us-east-1", value_parser = region)]
    pub region: String,

    /// Account that owns everything
    #[arg(long, value_name = "ACCOUNT", default_value = "123456789012", value_parser = credentials::account)]
    pub account: String,

    /// One more access key, beside those of credentials.json in the state folder; may be repeated.
    /// What is typed here can be seen by other users of this machine
    #[arg(long, value_name = "ID:SECRET[:ACCOUNT]")]
    pub access_key: Vec<AccessKey>,

    /// What instances are
    #[arg(long, value_enum, default_value_t = Backend::Kvm)]
    pub backend: Backend,

    /// Serve even if the test of this host's KVM fails
    #[arg(long)]
    pub skip_doctor: bool,
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Virtual machines
    Kvm,
    /// Records only: the whole API and life cycle without a machine behind it
    Simulated,
}

fn region(text: &str) -> Result<String, String> {
    if regions::exists(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a region of AWS, such as us-east-1"
        ))
    }
}

/// What `serve.json` says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) endpoint: String,
    pub(super) region: String,
    pub(super) account: String,
    pub(super) access_key_id: String,
}

/// Runs `cumulet serve`.
pub(super) fn command(home: &Home, output: Output, args: &ServeArgs) -> Result<u8> {
    refuse_public(args)?;
    init_log();
    let _lock = take_lock(home)?;
    if args.backend == Backend::Kvm && !args.skip_doctor {
        doctor::require_fit()?;
    }
    let credentials = Credentials::open(home.root(), &args.access_key)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context(|| "cannot start the server")?;
    let ended = runtime.block_on(async {
        // Before the address is told: whoever reads it may end us at once.
        let end = ended()?;
        let listener = listen(args.listen).await?;
        let address = listener
            .local_addr()
            .context(|| "cannot find the address of the server")?;
        let address = reachable(address);
        let identity = Identity {
            account: args.account.clone(),
            endpoint: address.to_string(),
            ..Identity::default()
        };
        let cloud = Cloud::open(home.root(), identity).map_err(unusable)?;
        let cloud = Arc::new(cloud.with_home(home.clone()));
        start_engine(home, &cloud, args.backend)?;
        let own = credentials.own().clone();
        let running = Running {
            endpoint: format!("http://{address}"),
            region: args.region.clone(),
            account: own.account.clone().unwrap_or_else(|| args.account.clone()),
            access_key_id: own.id.clone(),
        };
        let _told = Told::write(home, &running)?;
        announce(home, output, args.backend, &running, &own);
        let mut state = State::new(cloud, credentials, ServerConfig::default());
        if args.backend == Backend::Simulated {
            let keys = Keys::open(&home.imds_keys())
                .context(|| "cannot open the keys of the metadata service")?;
            state = state.with_metadata(keys);
        }
        serve(listener, Arc::new(state), end).await;
        output.note("cumulet serve has ended.");
        Ok(0)
    });
    // What waits for a guest is not waited for: the records say what was under way.
    runtime.shutdown_background();
    ended
}

/// Where what makes instances live is started, after the cloud is open and before anybody is answered.
fn start_engine(home: &Home, cloud: &Arc<Cloud>, backend: Backend) -> Result<()> {
    let backend: Arc<dyn engine::Backend> = match backend {
        Backend::Kvm => {
            let networks = Arc::new(engine::Networks::new(home.clone(), Arc::clone(cloud)));
            tokio::spawn(Arc::clone(&networks).follow());
            Arc::new(engine::Kvm::new(home.clone(), networks))
        }
        Backend::Simulated => Arc::new(engine::Simulated),
    };
    let engine = Engine::new(Arc::clone(cloud), backend)
        .context(|| "cannot start what makes instances live")?;
    tokio::spawn(engine.run());
    Ok(())
}

fn refuse_public(args: &ServeArgs) -> Result<()> {
    if args.public || args.listen.ip().is_loopback() {
        return Ok(());
    }
    let message = format!(
        "{} can be reached from other machines: requests and answers, private keys among them, would travel \
         unencrypted, and whoever has an access key could run programs here",
        args.listen
    );
    Err(Error::new(Kind::Usage, "PublicAddress", message)
        .mend("listen on 127.0.0.1, or say --public if you mean it"))
}

fn take_lock(home: &Home) -> Result<OwnerLock> {
    let path = home.root().join(LOCK);
    let taken = OwnerLock::try_take(&path, "cumulet serve")
        .context(|| format!("cannot lock {}", path.display()))?;
    taken.map_err(|holder| {
        let folder = home.root().display();
        Error::new(
            Kind::Conflict,
            "AlreadyServing",
            format!("the state folder {folder} is already served by {holder}"),
        )
        .mend("end that one, or serve another folder with --home")
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::AddrInUse => "choose another port with --listen 127.0.0.1:PORT",
            io::ErrorKind::PermissionDenied => "choose a port from 1024 on with --listen",
            _ => "choose an address of this machine with --listen",
        };
        Error::host("CannotListen", format!("cannot listen on {address}"))
            .because(&error)
            .mend(mend)
    })
}

/// Where this machine itself reaches the server.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn unusable(error: StoreError) -> Error {
    Error::internal("cannot open what EC2 knows here").because(&error)
}

/// Ready when the user or the system wants the server to end.
fn ended() -> Result<impl Future<Output = ()>> {
    let catch = |kind| signal(kind).context(|| "cannot wait for signals");
    let (mut interrupt, mut terminate) = (
        catch(SignalKind::interrupt())?,
        catch(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// `serve.json`, removed at the end.
struct Told(std::path::PathBuf);

impl Told {
    fn write(home: &Home, running: &Running) -> Result<Self> {
        let path = home.root().join(RUNNING);
        let doing = || format!("cannot write {}", path.display());
        let bytes = serde_json::to_vec(running).context(doing)?;
        write_atomically(&path, &bytes).context(doing)?;
        Ok(Self(path))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // What is left is told from a running server's by the lock.
        let _ = fs::remove_file(&self.0);
    }
}

fn announce(home: &Home, output: Output, backend: Backend, running: &Running, key: &AccessKey) {
    let text = if output.is_json() {
        let line = json!({
            "endpoint": running.endpoint,
            "access_key_id": key.id,
            "secret_access_key": key.secret,
            "region": running.region,
            "account": running.account,
            "backend": backend,
        });
        format!("{line}\n")
    } else {
        let default = Home::root_for(None).ok();
        let folder = if default.as_deref() == Some(home.root()) {
            String::new()
        } else {
            format!(
                "--home {} ",
                super::env::quoted(&home.root().display().to_string())
            )
        };
        format!(
            "\
This machine answers as EC2 at {endpoint} (region {region}, account {account}).

Point the aws CLI and SDKs at it in another terminal:
  eval \"$(cumulet {folder}env)\"
or with a profile in ~/.aws/config (aws --profile cumulet …):
  [profile cumulet]
  endpoint_url = {endpoint}
  region = {region}
  aws_access_key_id = {id}
  aws_secret_access_key = {secret}

Try: aws ec2 describe-availability-zones
{metadata}Ctrl-C ends it.
",
            metadata = match backend {
                Backend::Kvm => String::new(),
                Backend::Simulated => format!(
                    "An instance's metadata: AWS_EC2_METADATA_SERVICE_ENDPOINT={}/imds/INSTANCE\n",
                    running.endpoint
                ),
            },
            endpoint = running.endpoint,
            region = running.region,
            account = running.account,
            id = key.id,
            secret = key.secret,
        )
    };
    // A reader that went away is no reason to end.
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CUMULET_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // A second subscriber would be a bug elsewhere; logging is not worth failing for.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(io::stderr)
        .try_init();
}
