//! The fabric on real packets.
//!
//! Entering a namespace needs a process with one thread, so this is a test program of its own kind
//! (`harness = false`): each case runs in a fresh process, as root and as an ordinary user when
//! started by root, else as the user. When root starts it, all of it runs inside a network namespace that
//! plays the host, so that the machine's own network is neither used nor at risk.
//!
//! `cargo test -p cumulet-agent --test fabric [NAME]`

mod cases;
mod dns;
mod filter;
mod frames;
mod gone;
mod guest;
mod outer;
mod publish;
mod uplink;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::unistd::Uid;

/// One test: its name and what it does, in a process of its own.
type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("dhcp_gives_each_port_its_address", cases::dhcp),
    (
        "metadata_address_answers_on_link_and_by_gateway",
        cases::imds,
    ),
    (
        "forged_frames_never_leave_their_port",
        filter::forged_frames,
    ),
    ("ports_are_isolated", filter::isolation),
    (
        "arp_is_answered_for_neighbours_but_not_for_probes",
        filter::arp_answers,
    ),
    ("dns_knows_private_names", dns::private_names),
    (FORWARDING, dns::forwarding),
    ("published_ports_carry_both_ways", publish::publish),
    ("a_busy_port_is_named", publish::busy_port),
    (
        "a_tap_can_be_opened_again_after_its_vmm",
        filter::reopen_tap,
    ),
    (
        "guests_reach_the_outside_but_not_the_hosts_loopback",
        uplink::pasta,
    ),
    ("without_uplink_guests_still_run", uplink::none),
    ("the_end_of_pasta_is_noticed", uplink::pasta_killed),
    ("kill_9_leaves_nothing", gone::kill_9),
    (
        "kill_9_of_the_host_side_ends_pasta",
        gone::kill_9_of_host_side,
    ),
];

/// The case that needs the played host's resolver.
const FORWARDING: &str = "dns_asks_the_hosts_resolvers";
/// Set for a case's process: which case.
const CASE: &str = "CUMULET_FABRIC_CASE";
/// When a case counts as hanging.
const HANG_SECONDS: u32 = 240;
/// The ordinary user as whom root runs the rootless half.
const USER: u32 = 64_321;

fn main() -> ExitCode {
    if let Ok(name) = env::var(CASE) {
        let (_, case) = CASES
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a known case");
        // A hang guard: the kernel ends the process.
        nix::unistd::alarm::set(HANG_SECONDS);
        case();
        return ExitCode::SUCCESS;
    }
    if let Ok(name) = env::var(gone::VICTIM) {
        gone::victim(&name);
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let root = Uid::effective().is_root();
    if root {
        outer::play_host();
        dns::play_resolver();
    }
    let users: &[Option<u32>] = if root { &[None, Some(USER)] } else { &[None] };
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, _) in CASES {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        if *name == FORWARDING && !root {
            println!("test {name} ... ignored: only root can play the host's resolver");
            continue;
        }
        for user in users {
            let mode = if root && user.is_none() {
                "root"
            } else {
                "rootless"
            };
            let ok = run(name, *user);
            println!(
                "test {name} ({mode}) ... {}",
                if ok { "ok" } else { "FAILED" }
            );
            if ok {
                passed += 1;
            } else {
                failed.push(format!("{name} ({mode})"));
            }
        }
    }
    println!(
        "\nfabric: {passed} passed; {} failed {failed:?}",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(name: &str, user: Option<u32>) -> bool {
    let mut child = Command::new(env::current_exe().expect("own path"));
    child.env(CASE, name);
    if let Some(user) = user {
        // The executable may lie where this user cannot reach it, so it goes by descriptor.
        outer::as_user(&mut child, user);
    }
    child.process_group(0);
    child.status().is_ok_and(|status| status.success())
}
