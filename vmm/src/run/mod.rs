//! The main thread: it waits for what the guest, the signals and the clients want, and decides.

mod failures;
mod server;
mod signals;
mod supervisor;
mod terminal;

use std::io;
use std::sync::{Arc, Mutex};

use crate::config::VmConfig;
use crate::control::EndReason;
use crate::event_loop::{EventLoop, lock};
use crate::machine::{Machine, MachineError, Surroundings};
use crate::resources::Resources;
use crate::sandbox::{Filter, Sandbox, SandboxError, give_up_privileges};
use crate::trace::Timeline;
use crate::vcpu::OnStart;
use crate::virtio::FailureSink;
use failures::Failures;
use signals::Signals;
use supervisor::Supervisor;
use terminal::Terminal;

/// Why a machine did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The event loop.
    #[error("the event loop failed")]
    EventLoop(#[source] io::Error),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// Runs a machine to its end.
///
/// # Errors
/// When it cannot be built; after that every end has an [`EndReason`].
pub fn run(
    config: &VmConfig,
    mut resources: Resources,
    timeline: &Arc<Timeline>,
) -> Result<EndReason, RunError> {
    let mut events = EventLoop::new().map_err(RunError::EventLoop)?;
    let signals = Signals::new().map_err(RunError::EventLoop)?;
    let failures = Arc::new(Failures::new().map_err(RunError::EventLoop)?);
    let terminal = match config.console.stdio {
        true => Some(Terminal::new().map_err(RunError::EventLoop)?),
        false => None,
    };
    let sandbox = if config.sandbox {
        let sandbox = Sandbox::new()?;
        give_up_privileges()?;
        Some(sandbox)
    } else {
        None
    };
    let around = Surroundings {
        events: events.handle(),
        failures: Arc::clone(&failures) as Arc<dyn FailureSink>,
        on_vcpu_start: confined(sandbox.as_ref().map(Sandbox::vcpu)),
        on_load: confined(sandbox.as_ref().map(Sandbox::main)),
        timeline: Arc::clone(timeline),
    };
    let log = resources.console_log.take();
    let control = resources.control.take();
    let machine = Machine::build(config, resources, &around)?;
    let supervisor = Arc::new(Mutex::new(Supervisor::new(
        machine,
        events.handle(),
        config,
    )));
    let mut own = lock(&supervisor);
    own.listen(&supervisor, control, signals, failures)
        .and_then(|()| own.attach_console(&supervisor, log, terminal))
        .map_err(RunError::EventLoop)?;
    if let Some(sandbox) = &sandbox {
        sandbox.main().install().map_err(SandboxError::from)?;
    }
    own.start()?;
    drop(own);
    events.run().map_err(RunError::EventLoop)?;
    let reason = lock(&supervisor).end();
    if config.trace {
        eprint!("{}", lock(&supervisor).machine().report());
    }
    Ok(reason)
}

/// What a thread does first.
fn confined(filter: Option<&Arc<Filter>>) -> OnStart {
    match filter.cloned() {
        Some(filter) => Arc::new(move || filter.install().map_err(|error| error.to_string())),
        None => Arc::new(|| Ok(())),
    }
}
