//! The task of one instance.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Backend, End, Failure, Machine, Wake, records};
use crate::api::ApiError;
use crate::api::wire::Timestamp;
use crate::cloud::instance::{Instance, ShutdownBehavior};
use crate::cloud::{Cloud, Region};
use crate::fault;
use crate::state::record::{State, StateReason};

/// Before something that failed is tried again.
const PAUSE: Duration = Duration::from_secs(2);

struct Worker {
    cloud: Arc<Cloud>,
    backend: Arc<dyn Backend>,
    wake: Wake,
    notify: Arc<Notify>,
}

/// Lives until the instance is terminated or gone.
pub(super) async fn live(
    cloud: Arc<Cloud>,
    backend: Arc<dyn Backend>,
    wake: Wake,
    notify: Arc<Notify>,
) -> Wake {
    let worker = Worker {
        cloud,
        backend,
        wake,
        notify,
    };
    loop {
        match worker.step().await {
            Ok(true) => {}
            Ok(false) => return worker.wake,
            Err(error) => {
                // A full disk, as a rule. The record is as it was; it is tried again.
                tracing::error!(%error, instance = worker.wake.instance, "cannot commit");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Worker {
    fn id(&self) -> String {
        self.wake.instance.clone()
    }

    /// Commits a change of the instance, unless its state is another one by now.
    async fn settle(
        &self,
        from: State,
        change: impl FnOnce(&mut Region, &str) + Send + 'static,
    ) -> Result<(), ApiError> {
        let (cloud, wake) = (Arc::clone(&self.cloud), self.wake.clone());
        let task = move || {
            let state = |region: &Region| region.instances.get(&wake.instance).map(|i| i.state);
            let entered = cloud.change(&wake.region, |region| {
                if state(region) != Some(from) {
                    return Ok(None);
                }
                change(region, &wake.instance);
                Ok(state(region).filter(|now| *now != from))
            })?;
            entered.into_iter().for_each(fault::entered);
            Ok(())
        };
        tokio::task::spawn_blocking(task)
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
    }

    /// One look at the record and what follows from it. False: nothing more will ever follow.
    async fn step(&self) -> Result<bool, ApiError> {
        let instance = self.cloud.read(&self.wake.region, |region| {
            region.instances.get(&self.wake.instance).cloned()
        })?;
        let Some(instance) = instance else {
            return Ok(false);
        };
        match instance.state {
            State::Pending => self.start(&instance).await?,
            State::Running if instance.reboots_done < instance.reboots => {
                self.reboot(&instance).await?;
            }
            State::Running => self.watch(&instance).await?,
            State::Stopping => self.stop(&instance).await?,
            State::Stopped => self.notify.notified().await,
            State::ShuttingDown => self.terminate(&instance).await?,
            State::Terminated => return Ok(false),
        }
        Ok(true)
    }

    /// What the backend has to know; a failure when the records do not fit together.
    fn machine(&self, instance: &Instance) -> Result<Result<Machine, Failure>, ApiError> {
        let machine = self.cloud.read(&self.wake.region, |region| {
            records::machine(&self.cloud, region, instance)
        })?;
        Ok(machine.map_err(|error| Failure {
            code: "Server.InternalError".to_owned(),
            message: error.message,
        }))
    }

    async fn start(&self, instance: &Instance) -> Result<(), ApiError> {
        let started = match self.machine(instance)? {
            Ok(machine) => {
                fault::point("start.before");
                Arc::clone(&self.backend).start(machine).await
            }
            Err(failure) => Err(failure),
        };
        fault::point("start.after");
        let notice = self.backend.notice();
        match started {
            Ok(()) => {
                self.settle(State::Pending, move |region, id| {
                    if let Some(instance) = region.instances.edit(id) {
                        instance.launched = true;
                        instance.reboots_done = instance.reboots;
                        let reason = notice.map(|text| StateReason::new("Cumulet.Simulated", text));
                        instance.enter(State::Running, reason, "");
                    }
                })
                .await
            }
            Err(failure) => {
                tracing::warn!(instance = self.wake.instance, %failure, "not started");
                self.settle(State::Pending, move |region, id| {
                    let launched = region.instances.get(id).is_some_and(|i| i.launched);
                    let reason = reason(&failure);
                    let words = failure.message.clone();
                    if launched {
                        records::stopped(region, id, Some(reason), &words);
                    } else if let Some(instance) = region.instances.edit(id) {
                        // As on EC2, what never ran is terminated; the machine's remains are cleared away first.
                        instance.enter(State::ShuttingDown, Some(reason), &words);
                    }
                })
                .await
            }
        }
    }

    async fn reboot(&self, instance: &Instance) -> Result<(), ApiError> {
        let wanted = instance.reboots;
        fault::point("reboot.before");
        let rebooted = Arc::clone(&self.backend).reboot(self.id()).await;
        fault::point("reboot.after");
        if let Err(failure) = &rebooted {
            tracing::warn!(instance = self.wake.instance, %failure, "not rebooted");
        }
        self.settle(State::Running, move |region, id| {
            if let Some(instance) = region.instances.edit(id) {
                instance.reboots_done = wanted;
            }
        })
        .await?;
        fault::point("reboot.committed");
        Ok(())
    }

    /// Until the record changes or the machine ends.
    async fn watch(&self, instance: &Instance) -> Result<(), ApiError> {
        let updated = match self.machine(instance)? {
            Ok(machine) => Arc::clone(&self.backend).update(machine).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = updated {
            // It may be about to end, which is seen next.
            tracing::warn!(instance = self.wake.instance, %failure, "not told of changes");
        }
        let end = tokio::select! {
            () = self.notify.notified() => return Ok(()),
            end = Arc::clone(&self.backend).ended(self.id()) => end,
        };
        let behavior = instance.shutdown_behavior;
        self.settle(State::Running, move |region, id| match end {
            End::Guest if behavior == ShutdownBehavior::Terminate => {
                if let Some(instance) = region.instances.edit(id) {
                    let reason = StateReason::guest();
                    instance.enter(State::ShuttingDown, Some(reason), "");
                }
            }
            End::Guest => records::stopped(region, id, Some(StateReason::guest()), ""),
            End::User => records::stopped(region, id, Some(StateReason::user()), ""),
            End::Gone => {
                if let Some(instance) = region.instances.edit(id) {
                    instance.enter(State::ShuttingDown, Some(StateReason::user()), "");
                }
            }
            End::Failed(why) => {
                let words = format!("Server.InternalError: {why}");
                records::stopped(region, id, Some(StateReason::internal(&why)), &words);
            }
        })
        .await
    }

    async fn stop(&self, instance: &Instance) -> Result<(), ApiError> {
        let mut forced = instance.forced;
        fault::point("stop.before");
        let mut stopping = Arc::clone(&self.backend).stop(self.id(), forced);
        let stopped = loop {
            tokio::select! {
                stopped = &mut stopping => break stopped,
                () = self.notify.notified() => {
                    let now = self.cloud.read(&self.wake.region, |region| {
                        region.instances.get(&self.wake.instance).cloned()
                    })?;
                    match now {
                        // Terminated meanwhile: the next look sees it.
                        Some(now) if now.state != State::Stopping => return Ok(()),
                        Some(now) if now.forced && !forced => {
                            forced = true;
                            stopping = Arc::clone(&self.backend).stop(self.id(), true);
                        }
                        Some(_) => {}
                        None => return Ok(()),
                    }
                }
            }
        };
        fault::point("stop.after");
        if let Err(failure) = stopped {
            tracing::warn!(instance = self.wake.instance, %failure, "not stopped");
            tokio::time::sleep(PAUSE).await;
            return Ok(());
        }
        self.settle(State::Stopping, |region, id| {
            let words = region.instances.get(id).map(|instance| {
                (
                    instance.state_reason.clone(),
                    instance.transition_reason.clone(),
                )
            });
            let (reason, words) = words.unwrap_or_default();
            records::stopped(region, id, reason, &words);
        })
        .await
    }

    async fn terminate(&self, instance: &Instance) -> Result<(), ApiError> {
        let devices = instance.devices.iter();
        let keep = devices
            .filter(|device| !device.delete_on_termination)
            .map(|device| device.volume_id.clone())
            .collect();
        fault::point("terminate.before");
        let gone = Arc::clone(&self.backend).terminate(self.id(), keep).await;
        fault::point("terminate.after");
        if let Err(failure) = gone {
            tracing::warn!(instance = self.wake.instance, %failure, "not terminated");
            tokio::time::sleep(PAUSE).await;
            return Ok(());
        }
        self.settle(State::ShuttingDown, |region, id| {
            records::bury(region, id);
            if let Some(instance) = region.instances.edit(id) {
                instance.state = State::Terminated;
                instance.terminated = Some(Timestamp::now());
            }
        })
        .await
    }
}

fn reason(failure: &Failure) -> StateReason {
    StateReason::new(
        &failure.code,
        format!("{}: {}", failure.code, failure.message),
    )
}
