//! Real machines: one supervisor and one VMM an instance, as `cumulet run --keep` has them.
//!
//! A supervisor outlives the agent. What this module knows of a machine it reads from the state folder: who holds the
//! instance's lock, and what the instance's own record says. So a restarted agent finds everything as it left it.

use std::io::Read as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{Backend, End, Failure, Machine, Networks, machine_record};
use crate::amis;
use crate::api::ApiError;
use crate::error::{Error, Kind, Result};
use crate::fabric::Reachability;
use crate::fault;
use crate::launch;
use crate::state::record::{State, StateReason};
use crate::state::{Held, Home, InstanceDir, Listed};
use crate::supervise::protocol::{Report, Request};
use crate::supervise::{self, Launched};
use crate::types::{self, InstanceType, MAX_VCPUS};

/// Who holds an instance while we make or start it.
const WHO: &str = "cumulet serve";
/// How long the guest may take to shut down before its power is cut. EC2's own limit is of this order.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the last process of an instance may take to let go of it.
const LET_GO: Duration = Duration::from_secs(60);
/// EC2's first check comes a minute or more after a guest's network is up: who has waited for it finds the guest's services. A
/// guest that answers ARP is taken to be still booting for so long, unless its console says that it is through.
const BOOTING: Duration = Duration::from_secs(60);
/// How often it is looked whether a machine still runs.
const LOOK: Duration = Duration::from_millis(250);
/// How long a machine may take until the guest's vCPUs run, when an agent before us started it.
const START: Duration = Duration::from_secs(300);

/// The machines of one state folder.
#[derive(Debug)]
pub struct Kvm {
    home: Home,
    networks: Arc<Networks>,
}

impl Kvm {
    /// Machines in this state folder, plugged into these networks.
    #[must_use]
    pub fn new(home: Home, networks: Arc<Networks>) -> Self {
        Self { home, networks }
    }

    /// Does something that blocks, on a thread for that.
    fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        what: impl FnOnce(&Home) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Failure>> {
        async move {
            match tokio::task::spawn_blocking(move || what(&self.home)).await {
                Ok(done) => done.map_err(|error| failure(&error)),
                Err(error) => Err(Failure {
                    code: "Server.InternalError".to_owned(),
                    message: error.to_string(),
                }),
            }
        }
        .boxed()
    }

    /// Whether the console shows a login prompt, or that cloud-init is through.
    fn has_booted(&self, id: &str) -> bool {
        let Ok(dir) = self.home.instance(id) else {
            return false;
        };
        let text = supervise::log_tail(&dir, 64 << 10).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.contains("login: ") || text.contains("finished at")
    }
}

fn failure(error: &Error) -> Failure {
    let mut message = error.to_string();
    if let Some(mend) = &error.mend {
        message.push_str(". To mend it: ");
        message.push_str(mend);
    }
    let code = match error.kind {
        Kind::Host if error.code == "InsufficientHostStorage" => "Client.VolumeLimitExceeded",
        _ => "Server.InternalError",
    };
    Failure {
        code: code.to_owned(),
        message,
    }
}

impl Backend for Kvm {
    fn notice(&self) -> Option<&'static str> {
        None
    }

    fn check_type(&self, kind: &InstanceType) -> Result<(), ApiError> {
        if kind.vcpus > MAX_VCPUS {
            return Err(ApiError::new(
                "InsufficientInstanceCapacity",
                format!(
                    "We currently do not have sufficient {} capacity: it has {} vCPUs and a machine here has at most {MAX_VCPUS}.",
                    kind.name, kind.vcpus
                ),
            ));
        }
        Ok(types::check(kind)?)
    }

    fn memory_mib(&self) -> Option<u64> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 1024)
    }

    fn console(&self, id: &str, limit: usize) -> Result<Vec<u8>, ApiError> {
        let dir = self.home.instance(id)?;
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        supervise::log_tail(&dir, limit).map_err(|error| {
            ApiError::internal(format!("the console of {id} cannot be read: {error}"))
        })
    }

    fn reachability(&self, id: &str) -> Option<Reachability> {
        let (known, since) = self.networks.reachability(id)?;
        let booting = known == Reachability::Passed && since < BOOTING && !self.has_booted(id);
        Some(if booting {
            Reachability::Initializing
        } else {
            known
        })
    }

    fn start(self: Arc<Self>, machine: Machine) -> BoxFuture<'static, Result<(), Failure>> {
        let networks = Arc::clone(&self.networks);
        self.blocking(move |home| start(home, &networks, &machine))
    }

    fn stop(self: Arc<Self>, id: String, force: bool) -> BoxFuture<'static, Result<(), Failure>> {
        self.blocking(move |home| {
            let dir = home.instance(&id)?;
            if !runs(&dir)? {
                return Ok(());
            }
            let patience = if force { Duration::ZERO } else { PATIENCE };
            let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
            end(&dir, &Request::Stop { timeout_ms })
        })
    }

    fn reboot(self: Arc<Self>, id: String) -> BoxFuture<'static, Result<(), Failure>> {
        self.blocking(move |home| {
            let dir = home.instance(&id)?;
            let timeout_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
            supervise::ask(&dir, &Request::Reboot { timeout_ms }).map(drop)
        })
    }

    fn terminate(
        self: Arc<Self>,
        id: String,
        keep: Vec<String>,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        self.blocking(move |home| {
            let dir = home.instance(&id)?;
            if runs(&dir)? {
                // Told to terminate, the supervisor would delete what it has not been told to keep.
                let request = match keep.as_slice() {
                    [] => Request::Terminate,
                    _ => Request::Stop { timeout_ms: 0 },
                };
                end(&dir, &request)?;
            }
            fault::point("machine.ended");
            for volume in &keep {
                home.keep_volume(&dir, volume)?;
            }
            fault::point("volumes.kept");
            home.remove(&dir)
        })
    }

    fn ended(self: Arc<Self>, id: String) -> BoxFuture<'static, End> {
        async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let look = self.home.instance(&id).and_then(|dir| look(&dir));
                match look {
                    Ok(Some(end)) => return end,
                    Ok(None) => {}
                    Err(error) => tracing::warn!(instance = id, %error, "cannot look"),
                }
            }
        }
        .boxed()
    }

    fn update(self: Arc<Self>, machine: Machine) -> BoxFuture<'static, Result<(), Failure>> {
        let networks = Arc::clone(&self.networks);
        self.blocking(move |home| {
            let dir = home.instance(&machine.instance.instance_id)?;
            if !runs(&dir)? {
                return Ok(());
            }
            let update = Request::Update {
                tags: machine.instance.tags.clone(),
                metadata: machine.instance.metadata,
                place: Box::new(machine_record::place(&machine)),
            };
            supervise::ask(&dir, &update)?;
            networks.refresh()
        })
    }
}

/// Whether somebody runs the instance.
fn runs(dir: &InstanceDir) -> Result<bool> {
    match dir.look()? {
        Some(Listed::Good {
            record,
            holder: Some(_),
        }) if record.state == State::Stopped => {
            // Its supervisor has done everything and is about to exit.
            supervise::wait_until_free(dir, LET_GO)?;
            Ok(false)
        }
        Some(Listed::Good { holder, .. }) => Ok(holder.is_some()),
        Some(Listed::Damaged { .. }) | None => Ok(false),
    }
}

/// How the instance has ended, if it has.
fn look(dir: &InstanceDir) -> Result<Option<End>> {
    if dir.holder()?.is_some() {
        return Ok(None);
    }
    Ok(match dir.look()? {
        Some(Listed::Good {
            holder: Some(_), ..
        }) => None,
        Some(Listed::Good { record, .. }) => Some(match &record.state_reason {
            Some(reason) if reason.code == "Client.InstanceInitiatedShutdown" => End::Guest,
            Some(reason) if reason.code == "Client.UserInitiatedShutdown" => End::User,
            Some(reason) => {
                let message = reason.message.strip_prefix("Server.InternalError: ");
                End::Failed(message.unwrap_or(&reason.message).to_owned())
            }
            None => End::Failed("its machine is gone".to_owned()),
        }),
        Some(Listed::Damaged { error, .. }) => Some(End::Failed(error.to_string())),
        None => Some(End::Gone),
    })
}

/// Asks the supervisor to end the machine and waits until it has.
fn end(dir: &InstanceDir, request: &Request) -> Result<()> {
    match supervise::ask(dir, request) {
        Ok(mut accepted) => {
            // The end of the stream is the end of the supervisor.
            let _ = accepted.stream.read_to_end(&mut Vec::new());
        }
        // It may have ended by itself before it heard us.
        Err(error) => {
            if dir.holder()?.is_some() {
                return Err(error);
            }
        }
    }
    supervise::wait_until_free(dir, LET_GO)
}

fn start(home: &Home, networks: &Networks, machine: &Machine) -> Result<()> {
    let dir = home.instance(&machine.instance.instance_id)?;
    match dir.look()? {
        Some(Listed::Good {
            holder: Some(_), ..
        }) => wait_for_another(&dir),
        Some(Listed::Damaged { error, .. }) => Err(error),
        Some(Listed::Good { .. }) => {
            let held = launch::ready(home, &dir, WHO, |record| {
                machine_record::refresh(record, machine)
            })?;
            let held = plug_in(home, networks, held, false)?;
            run(home, held, false)
        }
        None => {
            let held = create(home, machine)?;
            fault::point("machine.made");
            let held = plug_in(home, networks, held, true)?;
            fault::point("machine.plugged");
            run(home, held, true)
        }
    }
}

/// Gives the instance its place in the network. Its record is on disk: the metadata service reads it there.
fn plug_in(home: &Home, networks: &Networks, mut held: Held, first: bool) -> Result<Held> {
    match networks.refresh() {
        Ok(()) => Ok(held),
        Err(error) if first => {
            held.delete(home)?;
            Err(error)
        }
        Err(error) => {
            let reason = StateReason::internal(&error.to_string());
            held.enter(State::Stopped, Some(reason))?;
            Err(error)
        }
    }
}

/// An agent before us has started it.
fn wait_for_another(dir: &InstanceDir) -> Result<()> {
    let limit = Instant::now() + START;
    loop {
        let state = match dir.look()? {
            Some(Listed::Good { record, holder }) if holder.is_some() => record.state,
            _ => State::Stopped,
        };
        match state {
            State::Running => return Ok(()),
            State::Pending if Instant::now() < limit => thread::sleep(LOOK),
            state => {
                return Err(Error::internal(format!(
                    "the machine did not start: it is {state}"
                )));
            }
        }
    }
}

/// Starts the supervisor and waits until the guest's vCPUs run.
fn run(home: &Home, held: Held, first: bool) -> Result<()> {
    let mut launched = supervise::launch_kept(home, held, first)?;
    fault::point("supervisor.started");
    let result = until_running(&mut launched);
    // A process that nobody waits for stays as a zombie.
    let reaper = thread::Builder::new().name("reaper".to_owned());
    let _ = reaper.spawn(move || launched.wait());
    result
}

fn until_running(launched: &mut Launched) -> Result<()> {
    loop {
        match launched.report() {
            Some(Report::Phase { .. }) => {}
            Some(Report::Warning { what }) => tracing::warn!("{what}"),
            Some(Report::Running) => return Ok(()),
            Some(Report::Ended { error, why, .. }) => {
                return Err(error.unwrap_or_else(|| Error::internal(why)));
            }
            None => return Err(Error::internal("the supervisor ended without a word")),
        }
    }
}

/// Makes the instance on disk.
fn create(home: &Home, machine: &Machine) -> Result<Held> {
    let ami = amis::find(&amis::open(home)?, &machine.instance.image_id)?;
    let record = machine_record::new(machine, launch::image(&ami))?;
    launch::create(home, record, Some(&ami), WHO)
}
