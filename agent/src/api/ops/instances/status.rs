//! DescribeInstanceStatus.

use super::{check_known, view};
use crate::api::filters::{Filters, Values, one};
use crate::api::paging::page;
use crate::api::shapes::common::Filter;
use crate::api::shapes::instances::InstanceState;
use crate::api::wire::{Timestamp, shapes};
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;
use crate::cloud::instance::Instance;
use crate::fabric::Reachability;
use crate::state::record::State;

shapes! {
    /// Request of DescribeInstanceStatus.
    input DescribeStatusRequest {
        /// Ids.
        instance_ids: Vec<String> = "InstanceId",
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Page size.
        max_results: Option<i32> = "MaxResults",
        /// Page.
        next_token: Option<String> = "NextToken",
        /// Those that do not run, too.
        include_all_instances: Option<bool> = "IncludeAllInstances",
    }
    /// Answer of DescribeInstanceStatus.
    output DescribeStatusResult {
        /// One for each.
        statuses: Vec<InstanceStatus> = "instanceStatusSet",
        /// Next page.
        next_token: Option<String> = "nextToken",
    }
    /// `InstanceStatus`.
    output InstanceStatus {
        /// Zone.
        availability_zone: String = "availabilityZone",
        /// Scheduled events; there are none.
        events: Vec<Event> = "eventsSet",
        /// Id.
        instance_id: String = "instanceId",
        /// State.
        state: InstanceState = "instanceState",
        /// Whether the guest answers.
        instance_status: Summary = "instanceStatus",
        /// Whether the VMM lives.
        system_status: Summary = "systemStatus",
    }
    /// `InstanceStatusEvent`.
    output Event {
        /// Code.
        code: String = "code",
    }
    /// `InstanceStatusSummary`.
    output Summary {
        /// Checks.
        details: Vec<Detail> = "details",
        /// `ok`, `impaired`, `initializing`, `not-applicable`.
        status: String = "status",
    }
    /// `InstanceStatusDetails`.
    output Detail {
        /// Since when it fails.
        impaired_since: Option<Timestamp> = "impairedSince",
        /// `reachability`.
        name: String = "name",
        /// `passed`, `failed`, `initializing`.
        status: String = "status",
    }
}

pub(super) fn describe_instance_status(
    cloud: &Cloud,
    call: &Call,
    request: DescribeStatusRequest,
) -> Result<DescribeStatusResult, ApiError> {
    if !request.instance_ids.is_empty() && request.max_results.is_some() {
        return Err(ApiError::combination(
            "The parameter instancesSet cannot be used with the parameter maxResults",
        ));
    }
    let filters = Filters::new(&request.filters)?;
    filters.check(|name| values(&InstanceStatus::default(), name))?;
    let all = request.include_all_instances == Some(true);
    cloud.read(&call.region, |region| {
        check_known(region, &request.instance_ids)?;
        let mut found = Vec::new();
        for instance in region.instances.iter() {
            let named = request.instance_ids.is_empty()
                || request.instance_ids.contains(&instance.instance_id);
            // May look at the guest's console: only where the answer shows.
            let shows = named && instance.state == State::Running;
            let reachability = shows.then(|| cloud.reachability(&instance.instance_id));
            let shown = status(instance, reachability.flatten());
            let passes = filters.pass(&instance.tags, |name| values(&shown, name))?;
            if named && passes && (all || instance.state == State::Running) {
                found.push(shown);
            }
        }
        let paging = (request.max_results, request.next_token.as_deref());
        let page = page(found, |s| s.instance_id.clone(), paging, 5..=1000)?;
        Ok(DescribeStatusResult {
            statuses: page.items,
            next_token: page.next,
        })
    })?
}

fn values(shown: &InstanceStatus, name: &str) -> Values {
    match name {
        "availability-zone" => one(&shown.availability_zone),
        "instance-state-name" => one(&shown.state.name),
        "instance-state-code" => one(shown.state.code.to_string()),
        "instance-status.status" => one(&shown.instance_status.status),
        "instance-status.reachability" => Some(reachability(&shown.instance_status)),
        "system-status.status" => one(&shown.system_status.status),
        "system-status.reachability" => Some(reachability(&shown.system_status)),
        "event.code"
        | "event.description"
        | "event.instance-event-id"
        | "event.not-after"
        | "event.not-before"
        | "event.not-before-deadline" => Some(Vec::new()),
        _ => None,
    }
}

fn reachability(summary: &Summary) -> Vec<String> {
    let details = summary.details.iter();
    details.map(|detail| detail.status.clone()).collect()
}

/// A check's result, with the reachability in detail where there is a machine.
fn summary(status: &str, reachability: Option<&str>, impaired_since: Option<Timestamp>) -> Summary {
    let detail = |status: &str| Detail {
        impaired_since,
        name: "reachability".to_owned(),
        status: status.to_owned(),
    };
    Summary {
        details: reachability.map(detail).into_iter().collect(),
        status: status.to_owned(),
    }
}

fn guest_check(reachability: Option<Reachability>) -> Summary {
    match reachability {
        None | Some(Reachability::Initializing) => {
            summary("initializing", Some("initializing"), None)
        }
        Some(Reachability::Passed) => summary("ok", Some("passed"), None),
        Some(Reachability::Failed { since }) => {
            summary("impaired", Some("failed"), Some(Timestamp(since.into())))
        }
    }
}

/// The instance check is whether the guest answers, the system check whether there is a machine, which is what
/// `running` says.
fn status(instance: &Instance, reachability: Option<Reachability>) -> InstanceStatus {
    let (guest, system) = if instance.state == State::Running {
        let system = summary("ok", Some("passed"), None);
        (guest_check(reachability), system)
    } else {
        let none = || summary("not-applicable", None, None);
        (none(), none())
    };
    InstanceStatus {
        availability_zone: instance.zone.clone(),
        events: Vec::new(),
        instance_id: instance.instance_id.clone(),
        state: view::state(instance.state),
        instance_status: guest,
        system_status: system,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_the_guest_answers_is_the_instance_check() {
        let told = |reachability| {
            let summary = guest_check(reachability);
            let detail = summary.details.into_iter().next().unwrap();
            let since = detail.impaired_since.map(Timestamp::text);
            (summary.status, detail.status, since)
        };
        let words = |one: &str, two: &str, since: Option<&str>| {
            (one.to_owned(), two.to_owned(), since.map(str::to_owned))
        };
        let initializing = words("initializing", "initializing", None);
        assert_eq!(told(None), initializing);
        assert_eq!(told(Some(Reachability::Initializing)), initializing);
        assert_eq!(
            told(Some(Reachability::Passed)),
            words("ok", "passed", None)
        );
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(
            told(Some(Reachability::Failed { since })),
            words("impaired", "failed", Some("1970-01-02T00:00:00.000Z"))
        );
    }
}
