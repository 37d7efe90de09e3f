//! `cumulet run`.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use super::args::RunArgs;
use super::console;
use super::launch;
use super::output::Output;
use super::shape;
use super::ssh::{self, Session};
use crate::doctor;
use crate::error::{Error, Kind, Result};
use crate::state::record::{Record, State};
use crate::state::{Home, InstanceDir};
use crate::supervise::protocol::{Report, SUPERVISOR_LOG};
use crate::supervise::{self, Launched};

/// `cumulet run`.
pub(super) fn run(home: &Home, output: Output, args: RunArgs) -> Result<u8> {
    let plan = launch::plan(home, output, &args)?;
    if !args.skip_doctor {
        doctor::require_fit()?;
    }
    let news = News::catch_signals();
    let held = launch::create(home, plan)?;
    let tied = !args.keep;
    let started = supervise::launch(home, &held, true, tied);
    let launched = match started {
        Ok(launched) => launched,
        Err(error) => {
            let _ = held.delete(home);
            return Err(error);
        }
    };
    let record = held.record.clone();
    let dir = held.dir.clone();
    // The supervisor has the lock now, too; ours must not keep a dead instance alive.
    drop(held);
    let mut watched = Watched::new(launched, news);
    watched.until_running(output, &dir)?;
    announce(output, &record, &dir, &args);
    let status = if args.ssh {
        let session = Session {
            user: ssh::DEFAULT_USER,
            identity: None,
            command: &[],
            wait: ssh::DEFAULT_WAIT,
        };
        ssh::session(home, output, &record, &session, &mut || {
            watched.check(output)
        })
    } else if args.console {
        console::interactive(&dir, output).map(|()| 0)
    } else if args.keep {
        return Ok(0);
    } else {
        return watched.until_ended(output);
    };
    if args.keep {
        if status.is_ok() {
            output.note(&format!(
                "{0} goes on; `cumulet terminate {0}` ends it",
                record.instance_id
            ));
        }
        return status;
    }
    watched.end(output);
    status
}

/// Tells what was launched and how to reach it.
fn announce(output: Output, record: &Record, dir: &InstanceDir, args: &RunArgs) {
    let mut record = record.clone();
    record.state = State::Running;
    let id = &record.instance_id;
    if args.ssh || args.console {
        output.note(&format!("{id} runs ({})", record.network.private_ip));
        return;
    }
    output.result(
        &json!({
            "ReservationId": record.reservation_id,
            "Instances": [shape::instance(&record, dir.path())],
        }),
        || {
            let mut text = format!(
                "{id} runs: {}, {}\n",
                record.hardware.instance_type, record.network.private_ip
            );
            for port in &record.network.publish {
                text.push_str(&format!(
                    "  port {} is at {}:{}\n",
                    port.guest, port.address, port.host
                ));
            }
            text.push_str(&format!(
                "  cumulet ssh {id}        a shell in it\n  cumulet console {id}    its serial console\n"
            ));
            if args.keep {
                text.push_str(&format!("  cumulet terminate {id}  the end of it\n"));
            } else {
                text.push_str("It ends with this command: press Ctrl-C. (--keep lets it live on.)\n");
            }
            text
        },
    );
}

/// What may happen while we wait.
enum New {
    Report(Box<Report>),
    SupervisorGone,
    Interrupted,
}

/// Signals and reports in one queue.
struct News {
    sender: mpsc::Sender<New>,
    receiver: mpsc::Receiver<New>,
}

impl News {
    /// From now on Ctrl-C, SIGTERM and a closed terminal are news rather than the end of us. Must
    /// be called before other threads exist.
    fn catch_signals() -> Self {
        let (sender, receiver) = mpsc::channel();
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        // Blocked signals wait for `sigwait`. Programs that we start inherit the mask, so whoever
        // starts one undoes it.
        if set.thread_block().is_ok() {
            let sender = sender.clone();
            thread::spawn(move || {
                while set.wait().is_ok() {
                    if sender.send(New::Interrupted).is_err() {
                        break;
                    }
                }
            });
        }
        Self { sender, receiver }
    }
}

/// A supervisor and what it reports.
struct Watched {
    news: mpsc::Receiver<New>,
    leash: Option<std::os::fd::OwnedFd>,
}

impl Watched {
    fn new(mut launched: Launched, news: News) -> Self {
        let leash = launched.take_leash();
        let sender = news.sender;
        thread::spawn(move || {
            while let Some(report) = launched.report() {
                if sender.send(New::Report(Box::new(report))).is_err() {
                    return;
                }
            }
            launched.wait();
            let _ = sender.send(New::SupervisorGone);
        });
        Self {
            news: news.receiver,
            leash,
        }
    }

    fn next(&self) -> New {
        self.news.recv().unwrap_or(New::SupervisorGone)
    }

    /// Waits for the guest's first instruction.
    fn until_running(&mut self, output: Output, dir: &InstanceDir) -> Result<()> {
        let spinner = output.spinner(&format!("launching {}", dir.id()));
        loop {
            match self.next() {
                New::Report(report) => match *report {
                    Report::Phase { what } => spinner.set_message(format!("{}: {what}", dir.id())),
                    Report::Warning { what } => spinner.suspend(|| output.warn(&what)),
                    Report::Running => {
                        spinner.finish_and_clear();
                        return Ok(());
                    }
                    Report::Ended {
                        error,
                        why,
                        console,
                        ..
                    } => {
                        spinner.finish_and_clear();
                        show_console(output, console.as_deref());
                        self.drain();
                        return Err(error.unwrap_or_else(|| ended_early(&why)));
                    }
                },
                New::SupervisorGone => {
                    spinner.finish_and_clear();
                    return Err(vanished(dir));
                }
                New::Interrupted => {
                    spinner.finish_and_clear();
                    self.end(output);
                    return Err(interrupted());
                }
            }
        }
    }

    /// Waits for the end of the instance, or ends it at Ctrl-C.
    fn until_ended(mut self, output: Output) -> Result<u8> {
        loop {
            match self.next() {
                New::Report(report) => match *report {
                    Report::Ended {
                        error,
                        why,
                        console,
                        trace,
                        ..
                    } => {
                        if let Some(trace) = trace {
                            output.note(&trace);
                        }
                        self.drain();
                        return match error {
                            None => {
                                output.note(&format!("the instance has ended: {why}"));
                                Ok(0)
                            }
                            Some(error) => {
                                show_console(output, console.as_deref());
                                Err(error)
                            }
                        };
                    }
                    Report::Warning { what } => output.warn(&what),
                    Report::Phase { .. } | Report::Running => {}
                },
                New::SupervisorGone => {
                    return Err(killed());
                }
                New::Interrupted => {
                    self.end(output);
                    return Ok(0);
                }
            }
        }
    }

    /// Looks at the news without waiting: an error when it makes no sense to go on.
    fn check(&mut self, output: Output) -> Result<()> {
        while let Ok(new) = self.news.try_recv() {
            match new {
                New::Interrupted => return Err(interrupted()),
                New::SupervisorGone => return Err(killed()),
                New::Report(report) => match *report {
                    Report::Ended {
                        error,
                        why,
                        console,
                        ..
                    } => {
                        show_console(output, console.as_deref());
                        return Err(error.unwrap_or_else(|| ended_early(&why)));
                    }
                    Report::Warning { what } => output.warn(&what),
                    Report::Phase { .. } | Report::Running => {}
                },
            }
        }
        Ok(())
    }

    /// Ends the instance that is tied to us and waits until nothing of it is left.
    fn end(&mut self, output: Output) {
        if self.leash.take().is_none() {
            return;
        }
        let spinner = output.spinner("ending the instance");
        loop {
            match self.news.recv_timeout(Duration::from_secs(60)) {
                Ok(New::SupervisorGone) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(New::Report(report)) => {
                    if let Report::Ended {
                        trace: Some(trace), ..
                    } = *report
                    {
                        spinner.suspend(|| output.note(&trace));
                    }
                }
                Ok(New::Interrupted) => {}
                Err(RecvTimeoutError::Timeout) => {
                    output.warn("the supervisor takes long to end the instance");
                    break;
                }
            }
        }
        spinner.finish_and_clear();
    }

    /// Waits for the supervisor's end after its last report.
    fn drain(&self) {
        while let Ok(new) = self.news.recv_timeout(Duration::from_secs(30)) {
            if matches!(new, New::SupervisorGone) {
                break;
            }
        }
    }
}

fn show_console(output: Output, console: Option<&str>) {
    if let Some(lines) = console {
        output.note(&format!("the console's last lines:\n{lines}"));
    }
}

fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "Interrupted", "interrupted")
}

fn killed() -> Error {
    Error::new(
        Kind::Instance,
        "Server.InternalError",
        "the supervisor was killed, and the instance with it",
    )
}

fn ended_early(why: &str) -> Error {
    Error::new(
        Kind::Instance,
        "Server.InternalError",
        format!("the instance ended while it started: {why}"),
    )
}

fn vanished(dir: &InstanceDir) -> Error {
    let log = dir.file(SUPERVISOR_LOG);
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let last = said.lines().last().unwrap_or("it said nothing");
    Error::internal(format!(
        "the supervisor of {} ended unexpectedly: {last}",
        dir.id()
    ))
}

/// Waits until a started supervisor's guest runs; for `start`, whose instance is always kept.
pub(super) fn wait_for_start(launched: Launched, output: Output, dir: &InstanceDir) -> Result<()> {
    Watched::new(launched, News::catch_signals()).until_running(output, dir)
}
