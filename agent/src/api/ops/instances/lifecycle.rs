//! Start, stop, reboot, terminate.

use super::{check_ids, edit, view, wrong_state};
use crate::api::shapes::common::Done;
use crate::api::shapes::instances::{
    InstanceIds, InstanceStateChange, StateChanges, StopInstancesRequest, TerminateInstancesRequest,
};
use crate::api::wire::Timestamp;
use crate::api::{ApiError, Call};
use crate::cloud::{Cloud, Region, net};
use crate::fault;
use crate::state::record::{State, StateReason};

/// `User initiated (2026-01-31 12:00:00 GMT)`.
fn by_user() -> String {
    let now = Timestamp::now().text();
    let (day, time) = now.split_once('T').unwrap_or((&now, ""));
    let time = time.split('.').next().unwrap_or_default();
    format!("User initiated ({day} {time} GMT)")
}

/// Changes each instance in one transaction, in the order asked for, and shows each change.
fn change_all(
    cloud: &Cloud,
    call: &Call,
    ids: &[String],
    mut change: impl FnMut(&mut Region, &str) -> Result<(), ApiError>,
) -> Result<StateChanges, ApiError> {
    let mut entered = Vec::new();
    let instances = cloud.change(&call.region, |region| {
        check_ids(region, ids)?;
        let mut changes: Vec<InstanceStateChange> = Vec::new();
        for id in ids {
            if changes.iter().any(|change| change.instance_id == *id) {
                continue;
            }
            let state = |region: &Region| region.instances.get(id).map(|instance| instance.state);
            let previous = state(region).unwrap_or(State::Terminated);
            change(region, id)?;
            let current = state(region).unwrap_or(State::Terminated);
            entered.push(current);
            changes.push(InstanceStateChange {
                instance_id: id.clone(),
                current_state: view::state(current),
                previous_state: view::state(previous),
            });
        }
        call.go()?;
        Ok(changes)
    })?;
    entered.into_iter().for_each(fault::entered);
    Ok(StateChanges { instances })
}

pub(super) fn start_instances(
    cloud: &Cloud,
    call: &Call,
    request: InstanceIds,
) -> Result<StateChanges, ApiError> {
    change_all(cloud, call, &request.instance_ids, |region, id| {
        let state = super::find(region, id)?.state;
        match state {
            // As on EC2, starting what runs changes nothing.
            State::Pending | State::Running => Ok(()),
            State::Stopped => {
                cloud.check_capacity(region, id)?;
                net::assign_public_again(region, id)?;
                let instance = edit(region, id)?;
                instance.launch_time = Timestamp::now();
                instance.reboots_done = instance.reboots;
                instance.forced = false;
                instance.enter(State::Pending, None, "");
                Ok(())
            }
            _ => Err(wrong_state(id, "started")),
        }
    })
}

pub(super) fn stop_instances(
    cloud: &Cloud,
    call: &Call,
    request: StopInstancesRequest,
) -> Result<StateChanges, ApiError> {
    if request.hibernate == Some(true) {
        return Err(ApiError::unsupported(
            "cumulet cannot hibernate instances yet: stop them without Hibernate",
        ));
    }
    let force = request.force == Some(true) || request.skip_os_shutdown == Some(true);
    change_all(cloud, call, &request.instance_ids, |region, id| {
        let instance = edit(region, id)?;
        if instance.disable_api_stop {
            return Err(ApiError::new(
                "OperationNotPermitted",
                format!(
                    "The instance '{id}' may not be stopped. Modify its 'disableApiStop' instance attribute and try again."
                ),
            ));
        }
        match instance.state {
            State::Stopped => Ok(()),
            State::Stopping => {
                // Asked for again, with force: cuts the wait for the guest short.
                if force && !instance.forced {
                    instance.forced = true;
                }
                Ok(())
            }
            State::Pending | State::Running => {
                instance.forced = force;
                instance.enter(State::Stopping, Some(StateReason::user()), &by_user());
                Ok(())
            }
            _ => Err(wrong_state(id, "stopped")),
        }
    })
}

pub(super) fn reboot_instances(
    cloud: &Cloud,
    call: &Call,
    request: InstanceIds,
) -> Result<Done, ApiError> {
    cloud.change(&call.region, |region| {
        check_ids(region, &request.instance_ids)?;
        for id in &request.instance_ids {
            let instance = edit(region, id)?;
            match instance.state {
                State::Running | State::Pending => instance.reboots += 1,
                _ => return Err(wrong_state(id, "rebooted")),
            }
        }
        call.go()
    })?;
    Ok(Done::yes())
}

pub(super) fn terminate_instances(
    cloud: &Cloud,
    call: &Call,
    request: TerminateInstancesRequest,
) -> Result<StateChanges, ApiError> {
    change_all(cloud, call, &request.instance_ids, |region, id| {
        let instance = edit(region, id)?;
        if instance.disable_api_termination && instance.is_alive() {
            return Err(ApiError::new(
                "OperationNotPermitted",
                format!(
                    "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."
                ),
            ));
        }
        if instance.is_alive() {
            instance.enter(State::ShuttingDown, Some(StateReason::user()), &by_user());
        }
        Ok(())
    })
}
