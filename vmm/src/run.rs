//! The main thread: it waits for what the guest, the signals and the clients want, and decides.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::config::VmConfig;
use crate::control::{EndReason, Event};
use crate::event_loop::{EventHandler, EventLoop, EventLoopHandle, lock};
use crate::machine::{Machine, MachineError, Surroundings};
use crate::requests::Request;
use crate::resources::Resources;
use crate::trace::Timeline;
use crate::virtio::FailureSink;

/// Triple faults in a row without a byte on the console that end the machine.
const FAULTS_IN_A_ROW: u32 = 3;

/// Sources of the main thread's handler.
mod source {
    pub(super) const REQUEST: u64 = 0;
    pub(super) const CONSOLE: u64 = 1;
    pub(super) const FAILURE: u64 = 2;
}

/// Runs a machine to its end.
///
/// # Errors
/// When it cannot be built; after that every end has an [`EndReason`].
pub fn run(
    config: &VmConfig,
    resources: Resources,
    timeline: &Arc<Timeline>,
) -> Result<EndReason, RunError> {
    let mut events = EventLoop::new().map_err(RunError::EventLoop)?;
    let failures = Arc::new(Failures::new().map_err(RunError::EventLoop)?);
    let mut resources = resources;
    let log = resources.console_log.take();
    let around = Surroundings {
        events: events.handle(),
        failures: Arc::clone(&failures) as Arc<dyn FailureSink>,
        on_vcpu_start: Arc::new(|| {}),
        timeline: Arc::clone(timeline),
    };
    let machine = Machine::build(config, resources, &around)?;
    machine.start()?;
    let supervisor = Arc::new(Mutex::new(Supervisor {
        machine,
        events: events.handle(),
        exit_on_reboot: config.exit_on_reboot,
        failures,
        log,
        stdio: config.console.stdio,
        button_pressed: false,
        faults: Faults::default(),
        end: None,
    }));
    lock(&supervisor)
        .register(&supervisor)
        .map_err(RunError::EventLoop)?;
    events.run().map_err(RunError::EventLoop)?;
    let mut supervisor = lock(&supervisor);
    supervisor.machine.shut_down();
    supervisor.drain_console();
    if config.trace {
        eprint!("{}", supervisor.machine.trace().table());
    }
    Ok(supervisor.end.take().unwrap_or(EndReason::Quit))
}

/// Why a machine did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The event loop.
    #[error("the event loop failed")]
    EventLoop(#[source] io::Error),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// Collects failed devices for the main thread.
struct Failures {
    list: Mutex<VecDeque<(String, String)>>,
    event: EventFd,
}

impl Failures {
    fn new() -> io::Result<Self> {
        Ok(Self {
            list: Mutex::default(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    fn take(&self) -> VecDeque<(String, String)> {
        let _: io::Result<u64> = self.event.read();
        std::mem::take(&mut *lock(&self.list))
    }
}

impl FailureSink for Failures {
    fn device_failed(&self, device: &str, reason: &str) {
        lock(&self.list).push_back((device.to_owned(), reason.to_owned()));
        let _: io::Result<()> = self.event.write(1);
    }
}

/// Counts triple faults that come without any sign of life between them.
#[derive(Debug, Default)]
struct Faults {
    in_a_row: u32,
    console_bytes: u64,
}

impl Faults {
    /// Says whether the guest deserves another reset.
    fn again(&mut self, console_bytes: u64) -> bool {
        if console_bytes != self.console_bytes {
            self.in_a_row = 0;
        }
        self.console_bytes = console_bytes;
        self.in_a_row += 1;
        self.in_a_row < FAULTS_IN_A_ROW
    }
}

struct Supervisor {
    machine: Machine,
    events: EventLoopHandle,
    exit_on_reboot: bool,
    failures: Arc<Failures>,
    log: Option<File>,
    stdio: bool,
    button_pressed: bool,
    faults: Faults,
    end: Option<EndReason>,
}

struct Fd(RawFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Supervisor {
    fn register(&self, handler: &Arc<Mutex<Self>>) -> io::Result<()> {
        let add = |fd: RawFd, source| {
            self.events
                .add(&Fd(fd), EventSet::IN, handler.clone(), source)
                .map(|_| ())
        };
        add(self.machine.requests().event().as_raw_fd(), source::REQUEST)?;
        add(self.machine.console().timer_fd(), source::CONSOLE)?;
        add(self.failures.event.as_raw_fd(), source::FAILURE)
    }

    fn finish(&mut self, reason: EndReason) {
        self.end.get_or_insert(reason);
        self.events.stop();
    }

    fn announce(&mut self, _event: &Event) {}

    fn handle_request(&mut self) {
        match self.machine.requests().take() {
            None => {}
            Some(Request::PowerOff) if self.button_pressed => self.finish(EndReason::PowerButton),
            Some(Request::PowerOff) => self.finish(EndReason::GuestPoweroff),
            Some(Request::Reset) => self.reset(),
            Some(Request::TripleFault { vcpu, registers }) => {
                if self.faults.again(self.machine.console().total()) {
                    tracing::info!(vcpu, "triple fault: the machine starts anew");
                    self.reset();
                } else {
                    self.finish(EndReason::VcpuError {
                        vcpu,
                        message: format!(
                            "{FAULTS_IN_A_ROW} triple faults in a row without console output"
                        ),
                        registers,
                    });
                }
            }
            Some(Request::VcpuFailed {
                vcpu,
                message,
                registers,
            }) => self.finish(EndReason::VcpuError {
                vcpu,
                message,
                registers,
            }),
        }
    }

    fn reset(&mut self) {
        if self.exit_on_reboot {
            self.finish(EndReason::GuestReboot);
            return;
        }
        self.announce(&Event::Reset);
        if let Err(error) = self.machine.reset() {
            self.finish(EndReason::InternalError {
                message: format!("cannot reset the machine: {error}"),
            });
        }
    }

    fn drain_console(&mut self) {
        let bytes = self.machine.console().take();
        if self.stdio {
            let mut out = io::stdout().lock();
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
        }
        if let Some(log) = &mut self.log
            && let Err(error) = log.write_all(&bytes)
        {
            tracing::warn!(%error, "console.log: cannot write; logging stops");
            self.log = None;
        }
    }
}

impl EventHandler for Supervisor {
    fn ready(&mut self, source: u64, _events: EventSet) {
        match source {
            source::REQUEST => self.handle_request(),
            source::CONSOLE => self.drain_console(),
            source::FAILURE => {
                for (device, reason) in self.failures.take() {
                    self.announce(&Event::DeviceFailed { device, reason });
                }
            }
            _ => {}
        }
    }
}
