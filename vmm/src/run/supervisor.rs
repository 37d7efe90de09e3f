//! Decides what happens to the machine.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, Weak};

use base64::Engine as _;
use serde_json::{Value, json};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::failures::{Failure, Failures};
use super::server::{Incoming, Server};
use super::signals::Signals;
use super::terminal::{Terminal, Typed};
use crate::config::VmConfig;
use crate::control::{Command, EndReason, Event, Reply, Request as ControlRequest};
use crate::event_loop::{EventHandler, EventLoopHandle, SharedHandler, Token};
use crate::machine::{Machine, MachineError};
use crate::requests::Request;

/// Triple faults in a row without a byte on the console that end the machine.
const FAULTS_IN_A_ROW: u32 = 3;
/// Devices remembered as failed.
const FAILED_KEPT: usize = 32;

/// Event sources.
mod source {
    pub(super) const REQUEST: u64 = 0;
    pub(super) const CONSOLE: u64 = 1;
    pub(super) const FAILURE: u64 = 2;
    pub(super) const SIGNAL: u64 = 3;
    pub(super) const STDIN: u64 = 4;
    pub(super) const CONSOLE_ROOM: u64 = 5;
    pub(super) const SERVER: u64 = 16;
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

/// The machine and everyone who may tell it something.
pub(super) struct Supervisor {
    machine: Machine,
    events: EventLoopHandle,
    /// Itself, as the event loop knows it.
    handler: Option<Weak<Mutex<Self>>>,
    memory_mib: u64,
    vcpus: u8,
    exit_on_reboot: bool,
    server: Option<Server>,
    signals: Option<Signals>,
    failures: Option<Arc<Failures>>,
    failed: VecDeque<Failure>,
    console: Console,
    paused: bool,
    button_pressed: bool,
    faults: Faults,
    reason: Option<EndReason>,
}

/// Where console output goes and input comes from, besides control connections.
#[derive(Default)]
struct Console {
    log: Option<File>,
    terminal: Option<Terminal>,
    stdin: Option<Token>,
    room: Option<EventFd>,
    /// Input that the guest has not taken yet.
    input: VecDeque<u8>,
}

struct Fd(RawFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Supervisor {
    pub(super) fn new(machine: Machine, events: EventLoopHandle, config: &VmConfig) -> Self {
        Self {
            machine,
            events,
            handler: None,
            memory_mib: config.memory_mib,
            vcpus: config.vcpus,
            exit_on_reboot: config.exit_on_reboot,
            server: None,
            signals: None,
            failures: None,
            failed: VecDeque::new(),
            console: Console::default(),
            paused: false,
            button_pressed: false,
            faults: Faults::default(),
            reason: None,
        }
    }

    /// Registers everything it waits for.
    pub(super) fn listen(
        &mut self,
        own: &Arc<Mutex<Self>>,
        control: Option<UnixListener>,
        signals: Signals,
        failures: Arc<Failures>,
    ) -> io::Result<()> {
        self.handler = Some(Arc::downgrade(own));
        let add = |fd: RawFd, source| {
            self.events
                .add(&Fd(fd), EventSet::IN, own.clone(), source)
                .map(|_| ())
        };
        add(self.machine.requests().event().as_raw_fd(), source::REQUEST)?;
        add(self.machine.console().timer_fd(), source::CONSOLE)?;
        add(failures.event().as_raw_fd(), source::FAILURE)?;
        add(signals.as_raw_fd(), source::SIGNAL)?;
        self.failures = Some(failures);
        self.signals = Some(signals);
        if let Some(listener) = control {
            let handler: SharedHandler = own.clone();
            let server = Server::new(listener, self.events.clone(), handler, source::SERVER)?;
            self.server = Some(server);
        }
        Ok(())
    }

    /// Joins the console to its log and, if wanted, to standard input and output.
    pub(super) fn attach_console(
        &mut self,
        own: &Arc<Mutex<Self>>,
        log: Option<File>,
        terminal: Option<Terminal>,
    ) -> io::Result<()> {
        let room = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        self.events
            .add(&room, EventSet::IN, own.clone(), source::CONSOLE_ROOM)?;
        self.machine.notify_console_room(room.try_clone()?);
        self.console.room = Some(room);
        self.console.log = log;
        if let Some(terminal) = terminal {
            // A file or /dev/null cannot be watched: then there is no input.
            self.console.stdin = self
                .events
                .add(terminal.input(), EventSet::IN, own.clone(), source::STDIN)
                .ok();
            self.console.terminal = Some(terminal);
        }
        Ok(())
    }

    /// Lets the guest begin.
    pub(super) fn start(&mut self) -> Result<(), MachineError> {
        self.machine.start()?;
        self.announce(&Event::Running);
        Ok(())
    }

    /// The machine, for its counters.
    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Stops everything and tells the subscribers why.
    pub(super) fn end(&mut self) -> EndReason {
        let flushed = self.machine.shut_down();
        self.drain_console();
        let mut reason = self.reason.clone().unwrap_or(EndReason::Quit);
        if let Err(error) = flushed {
            reason = EndReason::InternalError {
                message: format!("a disk could not be flushed at the end: {error}"),
            };
        }
        self.announce(&Event::Ended {
            reason: reason.clone(),
        });
        self.console.terminal = None;
        reason
    }

    fn finish(&mut self, reason: EndReason) {
        self.reason.get_or_insert(reason);
        self.events.stop();
    }

    fn announce(&mut self, event: &Event) {
        if let Some(server) = &mut self.server {
            server.announce(event);
        }
    }

    fn handle_request(&mut self) {
        match self.machine.requests().take() {
            None => {}
            Some(Request::PowerOff) if self.button_pressed => self.finish(EndReason::PowerButton),
            Some(Request::PowerOff) => self.finish(EndReason::GuestPoweroff),
            Some(Request::Reset) if self.exit_on_reboot => self.finish(EndReason::GuestReboot),
            Some(Request::Reset) => self.reset(),
            Some(Request::TripleFault { vcpu, registers }) => self.triple_fault(vcpu, registers),
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

    fn triple_fault(&mut self, vcpu: u8, registers: String) {
        if !self.faults.again(self.machine.console().total()) {
            self.finish(EndReason::VcpuError {
                vcpu,
                message: format!("{FAULTS_IN_A_ROW} triple faults in a row without console output"),
                registers,
            });
        } else if self.exit_on_reboot {
            // Whoever wants to see the end of the first boot wants to know that it was a crash.
            self.finish(EndReason::VcpuError {
                vcpu,
                message: "triple fault".to_owned(),
                registers,
            });
        } else {
            tracing::info!(vcpu, "triple fault: the machine starts anew");
            self.reset();
        }
    }

    fn reset(&mut self) {
        self.announce(&Event::Reset);
        self.button_pressed = false;
        self.console.input.clear();
        self.stall(false);
        if let Err(error) = self.machine.reset() {
            let error = with_causes(&error);
            self.finish(EndReason::InternalError {
                message: format!("cannot reset the machine: {error}"),
            });
            return;
        }
        self.paused = false;
        self.announce(&Event::Running);
    }

    /// Does what a client asks. The answer may be sent before it takes effect.
    fn command(&mut self, source: u64, request: ControlRequest) {
        let id = request.id;
        let result = match request.command {
            Command::Status => self.status(),
            Command::Pause => {
                if !self.paused {
                    self.machine.pause();
                    self.paused = true;
                    self.announce(&Event::Paused);
                }
                json!({})
            }
            Command::Resume => {
                if self.paused {
                    self.machine.resume();
                    self.paused = false;
                    self.announce(&Event::Running);
                }
                json!({})
            }
            Command::PowerButton => {
                self.button_pressed = true;
                self.machine.press_power_button();
                json!({})
            }
            Command::Reset => {
                self.reset();
                json!({})
            }
            Command::Quit => {
                self.finish(EndReason::Quit);
                json!({})
            }
            Command::Stats => self.machine.stats(),
            Command::ConsoleOutput => {
                let ring = self.machine.console().ring();
                let output = base64::engine::general_purpose::STANDARD.encode(ring);
                json!({ "output": output })
            }
            Command::Console { replay } => {
                self.open_console(source, id, replay);
                return;
            }
            Command::Subscribe => {
                if let Some(server) = &mut self.server {
                    server.subscribe(source);
                }
                json!({})
            }
        };
        self.reply(source, id, Ok(result));
    }

    fn reply(&mut self, source: u64, id: u64, result: Result<Value, String>) {
        let (result, error) = match result {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(server) = &mut self.server {
            server.reply(source, &Reply { id, result, error });
        }
    }

    fn open_console(&mut self, source: u64, id: u64, replay: bool) {
        // What the ring holds must not be sent a second time as new output.
        self.drain_console();
        self.reply(source, id, Ok(json!({})));
        let replay = if replay {
            self.machine.console().ring()
        } else {
            Vec::new()
        };
        if let Some(server) = &mut self.server {
            let typed = server.make_console(source, &replay);
            self.type_in(&typed);
        }
    }

    fn status(&self) -> Value {
        let failed: serde_json::Map<_, _> = self
            .failed
            .iter()
            .map(|failure| (failure.device.clone(), failure.reason.clone().into()))
            .collect();
        json!({
            "state": if self.paused { "paused" } else { "running" },
            "pid": std::process::id(),
            "vcpus": self.vcpus,
            "memory_mib": self.memory_mib,
            "failed_devices": failed,
            "timeline_us": self.machine.trace().timeline.to_json(),
        })
    }

    fn drain_console(&mut self) {
        let bytes = self.machine.console().take();
        if let Some(terminal) = &mut self.console.terminal {
            terminal.write(&bytes);
        }
        if let Some(server) = &mut self.server {
            server.console_output(&bytes);
        }
        if let Some(log) = &mut self.console.log
            && let Err(error) = log.write_all(&bytes)
        {
            tracing::warn!(%error, "console.log: cannot write; logging stops");
            self.console.log = None;
        }
    }

    /// Gives the guest input, or keeps it until there is room.
    fn type_in(&mut self, bytes: &[u8]) {
        self.console.input.extend(bytes);
        let taken = self
            .machine
            .console_input(self.console.input.make_contiguous());
        self.console.input.drain(..taken);
        self.stall(!self.console.input.is_empty());
    }

    /// Stops or goes on reading input for the guest.
    fn stall(&mut self, stalled: bool) {
        if let Some(server) = &mut self.server {
            server.set_stalled(stalled);
        }
        if let Some(stdin) = self.console.stdin {
            let events = if stalled {
                EventSet::empty()
            } else {
                EventSet::IN
            };
            // Fails only if standard input is gone.
            let _ = self.events.modify(stdin, events);
        }
    }

    fn read_stdin(&mut self) {
        let Some(terminal) = &mut self.console.terminal else {
            return;
        };
        match terminal.read() {
            Typed::Bytes(bytes) => self.type_in(&bytes),
            Typed::Escape => self.finish(EndReason::Quit),
            Typed::End => {
                if let Some(stdin) = self.console.stdin.take() {
                    self.events.remove(stdin);
                }
            }
        }
    }

    fn collect_failures(&mut self) {
        let Some(failures) = self.failures.clone() else {
            return;
        };
        for failure in failures.take() {
            self.announce(&Event::DeviceFailed {
                device: failure.device.clone(),
                reason: failure.reason.clone(),
            });
            self.failed.retain(|old| old.device != failure.device);
            self.failed.push_back(failure);
            if self.failed.len() > FAILED_KEPT {
                self.failed.pop_front();
            }
        }
    }

    fn serve(&mut self, source: u64, events: EventSet) {
        let Some(handler) = self.handler.as_ref().and_then(Weak::upgrade) else {
            return;
        };
        let handler: SharedHandler = handler;
        let Some(server) = &mut self.server else {
            return;
        };
        if !server.owns(source) {
            return;
        }
        for incoming in server.ready(source, events, &handler) {
            match incoming {
                Incoming::Request(request) => self.command(source, request),
                Incoming::Bad(error) => self.reply(source, 0, Err(error)),
                Incoming::Console(bytes) => self.type_in(&bytes),
            }
        }
    }
}

impl EventHandler for Supervisor {
    fn ready(&mut self, source: u64, events: EventSet) {
        match source {
            source::REQUEST => self.handle_request(),
            source::CONSOLE => self.drain_console(),
            source::FAILURE => self.collect_failures(),
            source::SIGNAL => {
                // Left in the descriptor: the process ends now.
                self.finish(EndReason::Quit);
            }
            source::STDIN => self.read_stdin(),
            source::CONSOLE_ROOM => {
                if let Some(room) = &self.console.room {
                    let _: io::Result<u64> = room.read();
                }
                self.type_in(&[]);
            }
            other => self.serve(other, events),
        }
    }
}

/// An error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_silent_triple_faults_are_enough() {
        let mut faults = Faults::default();
        assert!(faults.again(0));
        assert!(faults.again(0));
        assert!(!faults.again(0));
        let mut faults = Faults::default();
        for bytes in 1..20 {
            assert!(faults.again(bytes), "the guest printed something each time");
        }
    }
}
