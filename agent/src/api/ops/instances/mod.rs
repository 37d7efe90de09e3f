//! Instances: launching, looking, changing.
//!
//! Handlers only change records. The cloud then wakes the engine, which brings the machine to where its record says
//! it is to be (`docs/agent.md`).

mod attributes;
mod console;
mod describe;
mod lifecycle;
mod options;
mod plan;
mod run;
mod status;
mod view;

use crate::api::ApiError;
use crate::api::actions::{Action, action, action_without};
use crate::cloud::Region;
use crate::cloud::instance::Instance;
use crate::ids;

/// Parameters of RunInstances that EC2 has and this program does not.
const RUN_WITHOUT: &[&str] = &[
    "AdditionalInfo",
    "CapacityReservationSpecification",
    "CpuOptions",
    "ElasticGpuSpecification",
    "ElasticInferenceAccelerator",
    "EnablePrimaryIpv6",
    "EnclaveOptions",
    "InstanceMarketOptions",
    "Ipv6Address",
    "Ipv6AddressCount",
    "KernelId",
    "LaunchTemplate",
    "LicenseSpecification",
    "MaintenanceOptions",
    "NetworkPerformanceOptions",
    "Operator",
    "PrivateDnsNameOptions",
    "RamdiskId",
    "SecondaryInterface",
];

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![
        action_without("RunInstances", run::run_instances, RUN_WITHOUT),
        action("DescribeInstances", describe::describe_instances),
        action("DescribeInstanceStatus", status::describe_instance_status),
        action("StartInstances", lifecycle::start_instances),
        action("StopInstances", lifecycle::stop_instances),
        action("RebootInstances", lifecycle::reboot_instances),
        action("TerminateInstances", lifecycle::terminate_instances),
        action("MonitorInstances", options::monitor_instances),
        action("UnmonitorInstances", options::unmonitor_instances),
        action(
            "ModifyInstanceMetadataOptions",
            options::modify_instance_metadata_options,
        ),
        action(
            "DescribeInstanceCreditSpecifications",
            options::describe_instance_credit_specifications,
        ),
        action(
            "ModifyInstanceCreditSpecification",
            options::modify_instance_credit_specification,
        ),
        action(
            "DescribeInstanceAttribute",
            attributes::describe_instance_attribute,
        ),
        action_without(
            "ModifyInstanceAttribute",
            attributes::modify_instance_attribute,
            &["EnclaveOptions", "SriovNetSupport", "Kernel", "Ramdisk"],
        ),
        action(
            "ResetInstanceAttribute",
            attributes::reset_instance_attribute,
        ),
        action("GetConsoleOutput", console::get_console_output),
        action("GetConsoleScreenshot", console::get_console_screenshot),
    ]
}

/// Makes sure that these are ids of instances that exist, and that there are some.
fn check_ids(region: &Region, ids: &[String]) -> Result<(), ApiError> {
    if ids.is_empty() {
        return Err(ApiError::missing("InstanceId"));
    }
    check_known(region, ids)
}

/// Makes sure that these are ids of instances that exist.
fn check_known(region: &Region, ids: &[String]) -> Result<(), ApiError> {
    ids.iter().try_for_each(|id| check_form(id))?;
    let missing: Vec<&str> = ids
        .iter()
        .filter(|id| region.instances.get(id).is_none())
        .map(String::as_str)
        .collect();
    match missing.as_slice() {
        [] => Ok(()),
        [one] => Err(not_found(one)),
        many => Err(ApiError::new(
            "InvalidInstanceID.NotFound",
            format!("The instance IDs '{}' do not exist", many.join(", ")),
        )),
    }
}

fn check_form(id: &str) -> Result<(), ApiError> {
    if ids::is("i", id) {
        return Ok(());
    }
    Err(ApiError::new(
        "InvalidInstanceID.Malformed",
        format!("Invalid id: \"{id}\" (expecting \"i-...\")"),
    ))
}

fn not_found(id: &str) -> ApiError {
    ApiError::new(
        "InvalidInstanceID.NotFound",
        format!("The instance ID '{id}' does not exist"),
    )
}

/// The instance with this id.
fn find<'a>(region: &'a Region, id: &str) -> Result<&'a Instance, ApiError> {
    check_form(id)?;
    region.instances.get(id).ok_or_else(|| not_found(id))
}

/// The instance with this id, to be changed.
fn edit<'a>(region: &'a mut Region, id: &str) -> Result<&'a mut Instance, ApiError> {
    check_form(id)?;
    region.instances.edit(id).ok_or_else(|| not_found(id))
}

/// EC2's `IncorrectInstanceState`.
fn wrong_state(id: &str, what: &str) -> ApiError {
    ApiError::new(
        "IncorrectInstanceState",
        format!("The instance '{id}' is not in a state from which it can be {what}."),
    )
}
