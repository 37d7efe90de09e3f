//! A panic costs what had it and nothing else.

use std::os::unix::process::ExitStatusExt as _;

use nix::sys::signal::Signal;

use crate::agent::{Agent, Failure, Home, fields, until};

const LAUNCH: [(&str, &str); 4] = [
    ("ImageId", "ami-0cb00000000000001"),
    ("MinCount", "1"),
    ("MaxCount", "1"),
    ("InstanceType", "t3.micro"),
];

fn addresses(agent: &Agent) -> usize {
    agent
        .ask("DescribeAddresses", &[])
        .items("addressesSet")
        .len()
}

/// Allocates an address, which is to fail in the way of a panic.
fn fails(agent: &Agent, home: &Home) {
    match agent.call("AllocateAddress", &fields(&[])) {
        Err(Failure::Refused {
            status,
            code,
            message,
        }) => {
            assert_eq!((status, code.as_str()), (500, "InternalError"));
            assert!(
                !message.contains("CUMULET_FAULT"),
                "what broke is for the log: {message}"
            );
        }
        other => panic!("{other:?}"),
    }
    let said = home.said();
    assert!(
        said.contains("an action panicked") && said.contains("request_id"),
        "{said}"
    );
}

#[test]
fn a_panic_in_a_handler_is_an_error_of_that_request() {
    for point in ["change.made", "commit.written", "request.served"] {
        let home = Home::new();
        // The first change makes the region.
        let agent = home.serve(&[("CUMULET_FAULT", &format!("panic@{point}:3"))]);
        agent.ask("AllocateAddress", &[]);
        if point == "request.served" {
            agent.ask("DescribeAddresses", &[]);
            // Not in the handler: the connection is lost, and nothing else.
            let lost = agent.call("AllocateAddress", &fields(&[]));
            assert!(matches!(lost, Err(Failure::Lost)), "{lost:?}");
            assert_eq!(addresses(&agent), 2);
        } else {
            fails(&agent, &home);
            // Looked at before anything else is changed: what the handler had made is taken back already.
            assert_eq!(addresses(&agent), 1, "{point}");
            agent.ask("AllocateAddress", &[]);
            assert_eq!(addresses(&agent), 2, "{point}");
        }
        agent.end();
        let agent = home.serve(&[]);
        assert_eq!(addresses(&agent), 2, "{point}: what is on disk");
        agent.end();
    }
}

#[test]
fn a_region_whose_first_request_panics_is_whole_afterwards() {
    let home = Home::new();
    let agent = home.serve(&[("CUMULET_FAULT", "panic@change.made:1")]);
    fails(&agent, &home);
    let vpcs = agent.ask("DescribeVpcs", &[]);
    assert_eq!(vpcs.items("vpcSet").len(), 1, "{vpcs:?}");
    agent.end();
}

#[test]
fn a_panic_over_an_instance_is_got_over() {
    for (point, state) in [
        ("start.before", "running"),
        ("start.after", "running"),
        ("entered.running", "running"),
        ("terminate.before", "terminated"),
        ("entered.terminated", "terminated"),
    ] {
        let home = Home::new();
        let agent = home.serve(&[("CUMULET_FAULT", &format!("panic@{point}"))]);
        let launched = agent.ask("RunInstances", &LAUNCH);
        let id = launched.items("instancesSet")[0].text("instanceId");
        let one = [("InstanceId.1", id.as_str())];
        let is = |state: &str| {
            until(&format!("{id} to be {state} in spite of {point}"), || {
                let shown = agent.ask("DescribeInstances", &one);
                let instance = &shown.items("reservationSet")[0].items("instancesSet")[0];
                (instance.text("instanceState/name") == state).then_some(())
            });
        };
        is("running");
        if state == "terminated" {
            agent.ask("TerminateInstances", &one);
            is("terminated");
        }
        // Committed states are shown a moment before the panic.
        until(&format!("the panic at {point}"), || {
            home.said().contains(point).then_some(())
        });
        agent.end();
    }
}

#[test]
fn a_panic_where_nobody_catches_it_ends_the_agent() {
    // While it starts, and in the engine, without which the agent would answer and do nothing.
    for point in ["database.made", "engine.woken"] {
        let home = Home::new();
        let status = home.fail(&[("CUMULET_FAULT", &format!("panic@{point}"))]);
        let aborted = Some(Signal::SIGABRT as i32);
        assert_eq!(status.signal(), aborted, "{point}: {status}");
    }
}
