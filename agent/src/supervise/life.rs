//! The life of one instance, from the first VMM to the last: what happens on which event.
//!
//! Every state is committed to the record before it is acted on.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use cumulet_vmm::control::{Command as VmmCommand, EndReason, Event};
use serde_json::Value;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::network::Net;
use super::protocol::{Reply, Report, Request, VMM_SOCKET};
use super::requests::Incoming;
use super::vmm::{self, Control, End, Vmm};
use super::{Reporter, console, machine, settle_failure, vanishes};
use crate::error::{Context, Error, Kind, Result};
use crate::fabric::UplinkState;
use crate::state::record::{MetadataOptions, Place, State, StateReason};
use crate::state::{Held, Home, bind_socket};

/// The power button is pressed again after this long: a guest that is still booting does not hear
/// it.
const PRESS_AGAIN: Duration = Duration::from_secs(15);
/// How long the guest may take to shut down when the supervisor itself is told to end.
const HASTE: Duration = Duration::from_secs(60);

/// What is to become of the running VMM.
#[derive(Debug)]
enum Goal {
    Run,
    Stop { reason: StateReason, cut: Instant },
    Reboot { cut: Instant },
    Terminate,
}

/// What comes after a VMM has ended.
enum Next {
    Again,
    Over {
        state: State,
        reason: StateReason,
        error: Option<Error>,
    },
}

enum Happening {
    Ended(End),
    Event(Event),
    Request(Incoming),
    Leash,
    Terminated,
    Tick,
}

/// One instance that is being run.
pub(super) struct Life {
    home: Home,
    held: Held,
    net: Arc<Net>,
    inbox: mpsc::Receiver<Incoming>,
    leash: Option<OwnedFd>,
    goal: Goal,
    pressed: Instant,
    running: bool,
    /// Commands that wait for the machine to run again.
    waiting: Vec<(State, oneshot::Sender<Reply>)>,
    trace: Option<String>,
    uplink_told: bool,
}

/// What the loop listens to beside the VMM.
struct Ears {
    leash: Option<pipe::Receiver>,
    terminate: Signal,
    tick: Interval,
    ticks: u64,
}

impl Life {
    pub(super) fn new(
        home: Home,
        held: Held,
        net: Arc<Net>,
        inbox: mpsc::Receiver<Incoming>,
        leash: Option<OwnedFd>,
    ) -> Self {
        Self {
            home,
            held,
            net,
            inbox,
            leash,
            goal: Goal::Run,
            pressed: Instant::now(),
            running: false,
            waiting: Vec::new(),
            trace: None,
            uplink_told: false,
        }
    }

    /// Runs VMMs until the instance has stopped or is no more. `first`: the instance has never
    /// run; if it does not get to, nothing of it is left.
    pub(super) async fn live(mut self, mut reporter: Reporter, first: bool) -> Report {
        let report = match self.run(&mut reporter).await {
            Ok((state, reason, error)) => self.finish(state, reason, error),
            Err(error) => {
                let never_ran = first && !self.running;
                let trace = self.trace.take();
                let mut report = settle_failure(&self.home, self.held, error, never_ran);
                if let Report::Ended { trace: place, .. } = &mut report {
                    *place = trace;
                }
                report
            }
        };
        reporter.tell(&report);
        report
    }

    async fn run(
        &mut self,
        reporter: &mut Reporter,
    ) -> Result<(State, StateReason, Option<Error>)> {
        let mut ears = Ears::new(self.leash.take())?;
        self.blank_scratch_disks()?;
        console::begin(&self.held.dir).context(|| "cannot begin a console log")?;
        reporter.phase("starting the machine");
        loop {
            let end = self.run_machine(&mut ears, reporter).await?;
            if self.held.record.hardware.trace {
                self.trace = vmm::log(&self.held.dir);
            }
            match self.after(end)? {
                Next::Again => {
                    tracing::info!("the machine starts anew");
                    self.goal = Goal::Run;
                }
                Next::Over {
                    state,
                    reason,
                    error,
                } => return Ok((state, reason, error)),
            }
        }
    }

    /// One VMM process, from start to end.
    async fn run_machine(&mut self, ears: &mut Ears, reporter: &mut Reporter) -> Result<End> {
        let dir = self.held.dir.clone();
        let mut machine = self.start_machine().await?;
        let (sender, mut events) = mpsc::channel(64);
        tokio::spawn(async move {
            if let Err(error) = follow(Control::connect(&dir), sender).await {
                tracing::debug!(%error, "no events from the VMM");
            }
        });
        loop {
            let happening = tokio::select! {
                end = machine.wait() => Happening::Ended(end),
                Some(event) = events.recv() => Happening::Event(event),
                Some(incoming) = self.inbox.recv() => Happening::Request(incoming),
                heard = ears.listen() => heard,
            };
            match happening {
                Happening::Ended(end) => return Ok(end),
                Happening::Event(event) => self.heard(&event, reporter)?,
                Happening::Request(incoming) => self.decide(incoming, &mut machine).await,
                Happening::Leash => {
                    tracing::info!("the command that wanted the instance has ended");
                    self.terminate(&mut machine).await;
                }
                Happening::Terminated => self.told_to_end(&mut machine).await,
                Happening::Tick => {
                    self.warn_of_uplink(reporter);
                    self.tick(ears, &mut machine).await;
                }
            }
        }
    }

    async fn start_machine(&mut self) -> Result<Vmm> {
        let taps = self.net.open_taps(&self.held.record).await?;
        let control = bind_socket(self.held.dir.path(), VMM_SOCKET)
            .context(|| "cannot make the VMM's control socket")?;
        let cables = taps.iter().map(AsRawFd::as_raw_fd).collect();
        let inherited = machine::Inherited {
            taps: cables,
            control: control.as_raw_fd(),
            mtu: self.net.mtu(),
        };
        let mut inherit = taps;
        inherit.push(control.into());
        let config = machine::config(&self.held, &inherited);
        let vmm = Vmm::spawn(&self.held.dir, &config, &inherit, &self.held.lock).await?;
        tracing::info!(pid = vmm.pid(), "the VMM runs");
        Ok(vmm)
    }

    fn heard(&mut self, event: &Event, reporter: &mut Reporter) -> Result<()> {
        match event {
            Event::Running => {
                if !self.running {
                    self.running = true;
                    if self.held.record.state == State::Pending {
                        self.held.enter(State::Running, None)?;
                    }
                    reporter.tell(&Report::Running);
                }
                for (previous, reply) in self.waiting.drain(..) {
                    let current = self.held.record.state;
                    let _ = reply.send(Reply::Accepted { previous, current });
                }
            }
            Event::DeviceFailed { device, reason } => {
                let what = format!("device {device} was taken from the guest: {reason}");
                tracing::warn!("{what}");
                reporter.tell(&Report::Warning { what });
            }
            Event::Paused | Event::Reset | Event::Ended { .. } => {
                tracing::info!(?event, "the machine says");
            }
        }
        Ok(())
    }

    /// Tells once that there is no way to the outside, when that is known.
    fn warn_of_uplink(&mut self, reporter: &mut Reporter) {
        if self.uplink_told {
            return;
        }
        let uplink = self.net.uplink();
        // Once it is known how it stands, a VPC's is the agent's affair.
        self.uplink_told = self.net.is_shared() && uplink != UplinkState::Starting;
        if let UplinkState::Down(why) = uplink {
            self.uplink_told = true;
            let what = format!("the guest does not reach the outside: {why}");
            tracing::warn!("{what}");
            reporter.tell(&Report::Warning { what });
        }
    }

    /// Decides on a request. Replies when it is accepted; a reboot's reply waits for the machine.
    async fn decide(&mut self, incoming: Incoming, machine: &mut Vmm) {
        let Incoming { request, reply } = incoming;
        let previous = self.held.record.state;
        let decided = match request {
            Request::Stop { timeout_ms } => self.stop(timeout_ms, machine).await,
            Request::Reboot { timeout_ms } => match self.reboot(timeout_ms, machine).await {
                Ok(true) => {
                    self.waiting.push((previous, reply));
                    return;
                }
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            },
            Request::Terminate => {
                self.terminate(machine).await;
                Ok(())
            }
            Request::Update {
                tags,
                metadata,
                place,
            } => self.update(tags, metadata, *place),
            Request::Dial { .. } => Err(Error::internal("this request needs no decision")),
        };
        let current = self.held.record.state;
        let _ = reply.send(match decided {
            Ok(()) => Reply::Accepted { previous, current },
            Err(error) => Reply::Refused { error },
        });
    }

    /// Changes what the metadata service says.
    fn update(
        &mut self,
        tags: BTreeMap<String, String>,
        metadata: MetadataOptions,
        place: Place,
    ) -> Result<()> {
        let record = &mut self.held.record;
        let place = Some(place);
        if record.tags == tags && record.metadata == metadata && record.place == place {
            return Ok(());
        }
        record.tags = tags;
        record.metadata = metadata;
        record.place = place;
        self.held.save()?;
        self.net.update(&self.held.record)
    }

    async fn stop(&mut self, timeout_ms: u64, machine: &mut Vmm) -> Result<()> {
        let id = self.held.dir.id();
        if !self.held.record.keep {
            return Err(Error::wrong_state(format!(
                "{id} was launched without --keep and cannot be stopped"
            ))
            .mend(format!("`cumulet terminate {id}` ends it")));
        }
        if self.held.record.state == State::ShuttingDown {
            return Err(Error::wrong_state(format!("{id} is shutting down")));
        }
        self.held
            .enter(State::Stopping, Some(StateReason::user()))?;
        self.goal = Goal::Stop {
            reason: StateReason::user(),
            cut: Instant::now() + Duration::from_millis(timeout_ms),
        };
        if timeout_ms == 0 {
            machine.quit().await;
        } else {
            self.press(machine).await;
        }
        Ok(())
    }

    /// Whether the reply waits for the machine to run again.
    async fn reboot(&mut self, timeout_ms: u64, machine: &mut Vmm) -> Result<bool> {
        let id = self.held.dir.id();
        if !matches!(self.goal, Goal::Run | Goal::Reboot { .. }) || !self.running {
            let state = self.held.record.state;
            return Err(Error::wrong_state(format!(
                "{id} is {state}; only a running instance can be rebooted"
            )));
        }
        if timeout_ms == 0 {
            machine.ask(VmmCommand::Reset).await?;
            self.goal = Goal::Run;
            return Ok(false);
        }
        self.goal = Goal::Reboot {
            cut: Instant::now() + Duration::from_millis(timeout_ms),
        };
        self.press(machine).await;
        Ok(true)
    }

    async fn terminate(&mut self, machine: &mut Vmm) {
        self.goal = Goal::Terminate;
        let reason = Some(StateReason::user());
        // On a full disk the record cannot be written; deleting works all the same.
        if let Err(error) = self.held.enter(State::ShuttingDown, reason) {
            tracing::warn!(%error, "terminating all the same");
        }
        machine.quit().await;
    }

    /// SIGTERM: the host goes down, or someone ends us by hand.
    async fn told_to_end(&mut self, machine: &mut Vmm) {
        if vanishes(&self.held.record) {
            return self.terminate(machine).await;
        }
        if !matches!(self.goal, Goal::Stop { .. } | Goal::Terminate) {
            let reason = StateReason::new(
                "Server.ScheduledStop",
                "Server.ScheduledStop: the host asked the instance to stop",
            );
            if let Err(error) = self.held.enter(State::Stopping, Some(reason.clone())) {
                tracing::warn!(%error, "stopping all the same");
            }
            self.goal = Goal::Stop {
                reason,
                cut: Instant::now() + HASTE,
            };
            self.press(machine).await;
        }
    }

    async fn press(&mut self, machine: &Vmm) {
        self.pressed = Instant::now();
        if let Err(error) = machine.ask(VmmCommand::PowerButton).await {
            tracing::warn!(%error, "cannot press the power button");
        }
    }

    /// Once a second: presses again, cuts the power when time is up, trims the log.
    async fn tick(&mut self, ears: &mut Ears, machine: &mut Vmm) {
        ears.ticks += 1;
        let now = Instant::now();
        match self.goal {
            Goal::Stop { cut, .. } if now >= cut => {
                tracing::warn!("the guest did not shut down in time; its power is cut");
                machine.quit().await;
            }
            Goal::Reboot { cut } if now >= cut => {
                tracing::warn!("the guest did not shut down in time; it is reset");
                self.goal = Goal::Run;
                if let Err(error) = machine.ask(VmmCommand::Reset).await {
                    tracing::warn!(%error, "the VMM does not answer either");
                    self.goal = Goal::Reboot { cut };
                    machine.kill();
                }
                for (previous, reply) in self.waiting.drain(..) {
                    let current = self.held.record.state;
                    let _ = reply.send(Reply::Accepted { previous, current });
                }
            }
            Goal::Stop { .. } | Goal::Reboot { .. } if now >= self.pressed + PRESS_AGAIN => {
                self.press(machine).await;
            }
            _ => {}
        }
        if ears.ticks.is_multiple_of(10)
            && let Err(error) = console::trim(&self.held.dir)
        {
            tracing::debug!(%error, "cannot trim the console log");
        }
    }

    /// What follows the end of a VMM.
    fn after(&mut self, end: End) -> Result<Next> {
        tracing::info!(?end, "the VMM has ended");
        let wanted = matches!(
            end,
            End::Told(
                EndReason::GuestPoweroff
                    | EndReason::PowerButton
                    | EndReason::GuestReboot
                    | EndReason::Quit
            )
        );
        let over = |state, reason| {
            Ok(Next::Over {
                state,
                reason,
                error: None,
            })
        };
        match std::mem::replace(&mut self.goal, Goal::Run) {
            Goal::Terminate => return over(State::Terminated, StateReason::user()),
            Goal::Stop { reason, .. } if wanted => return over(State::Stopped, reason),
            // A hung VMM that had to be killed for a reboot is replaced, too.
            Goal::Reboot { .. } => return Ok(Next::Again),
            Goal::Stop { .. } | Goal::Run => {}
        }
        let rest = if vanishes(&self.held.record) {
            State::Terminated
        } else {
            State::Stopped
        };
        let why = match end {
            End::Told(EndReason::GuestReboot) => return Ok(Next::Again),
            End::Told(EndReason::GuestPoweroff | EndReason::PowerButton) => {
                return over(rest, StateReason::guest());
            }
            End::Told(EndReason::Quit) => return over(rest, StateReason::user()),
            End::Told(EndReason::VcpuError {
                vcpu,
                message,
                registers,
            }) => {
                tracing::error!("vCPU {vcpu}: {message}\n{registers}");
                format!("vCPU {vcpu} could not go on: {message}")
            }
            End::Told(EndReason::InternalError { message }) => message,
            End::Died(why) => why,
        };
        let error = Error::new(
            Kind::Instance,
            "Server.InternalError",
            format!("the machine of {} failed: {why}", self.held.dir.id()),
        );
        if !self.running {
            return Err(error);
        }
        Ok(Next::Over {
            state: rest,
            reason: StateReason::internal(&why),
            error: Some(error),
        })
    }

    /// Commits the last state.
    fn finish(mut self, state: State, reason: StateReason, error: Option<Error>) -> Report {
        let why = reason.message.clone();
        let console = error
            .as_ref()
            .and_then(|_| console::tail_lines(&self.held.dir, 15));
        let trace = self.trace.take();
        let settled = if state == State::Terminated {
            self.held.delete(&self.home)
        } else {
            // Scratch disks are blank on the next start in any case; here their space is freed.
            for (path, _) in machine::scratch_files(&self.held) {
                let _ = std::fs::remove_file(path);
            }
            self.held.enter(state, Some(reason))
        };
        let error = error.or(settled.err());
        Report::Ended {
            state,
            why,
            error,
            console,
            trace,
        }
    }

    /// Makes every scratch disk anew: sparse, all zeros.
    fn blank_scratch_disks(&self) -> Result<()> {
        for (path, size) in machine::scratch_files(&self.held) {
            let doing = || format!("cannot make the scratch disk {}", path.display());
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context(doing);
                }
                _ => {}
            }
            let file = std::fs::File::create_new(&path).context(doing)?;
            file.set_len(size).context(doing)?;
        }
        Ok(())
    }
}

impl Ears {
    fn new(leash: Option<OwnedFd>) -> Result<Self> {
        let doing = || "cannot listen for signals";
        let leash = leash
            .map(pipe::Receiver::from_owned_fd)
            .transpose()
            .context(|| "the leash is not a pipe")?;
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            leash,
            terminate: signal(SignalKind::terminate()).context(doing)?,
            tick,
            ticks: 0,
        })
    }

    async fn listen(&mut self) -> Happening {
        tokio::select! {
            () = gone(&mut self.leash) => Happening::Leash,
            _ = self.terminate.recv() => Happening::Terminated,
            _ = self.tick.tick() => Happening::Tick,
        }
    }
}

/// Ends when the other end of the leash is gone; then the leash is no more.
async fn gone(leash: &mut Option<pipe::Receiver>) {
    use tokio::io::AsyncReadExt;
    let Some(pipe) = leash else {
        return std::future::pending().await;
    };
    let mut bytes = [0; 16];
    while matches!(pipe.read(&mut bytes).await, Ok(1..)) {}
    *leash = None;
}

/// Passes the VMM's events on, and tells that it runs if it did so before we listened.
async fn follow(control: Result<Control>, sender: mpsc::Sender<Event>) -> Result<()> {
    let mut control = control?;
    control.ask(VmmCommand::Subscribe).await?;
    let status = control.ask(VmmCommand::Status).await?;
    let state = status.as_ref().and_then(|value| value.get("state"));
    if state.and_then(Value::as_str) == Some("running") {
        let _ = sender.send(Event::Running).await;
    }
    while let Some(event) = control.event().await {
        if sender.send(event).await.is_err() {
            break;
        }
    }
    Ok(())
}
