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
mod moved;
mod outer;
mod publish;
mod router;
mod status;
mod uplink;
mod vpc;

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::unistd::Uid;

/// One test.
struct Case {
    name: &'static str,
    needs: Needs,
    /// What it does, in a process of its own.
    run: fn(),
}

/// What a case needs of the host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing special: also run as an ordinary user.
    Nothing,
    /// The network that plays the host, which only root can make.
    PlayedHost,
    /// To be root itself.
    Root,
    /// The program `slirp4netns`.
    Slirp,
}

const fn case(name: &'static str, needs: Needs, run: fn()) -> Case {
    Case { name, needs, run }
}

const CASES: &[Case] = &[
    case(
        "dhcp_gives_each_port_its_address",
        Needs::Nothing,
        cases::dhcp,
    ),
    case(
        "metadata_answers_on_link_and_by_gateway",
        Needs::Nothing,
        cases::imds,
    ),
    case(
        "forged_frames_never_leave_their_port",
        Needs::Nothing,
        filter::forged_frames,
    ),
    case("ports_are_isolated", Needs::Nothing, filter::isolation),
    case(
        "arp_is_answered_for_neighbours_not_for_probes",
        Needs::Nothing,
        filter::arp_answers,
    ),
    case(
        "a_tap_can_be_opened_again_after_its_vmm",
        Needs::Nothing,
        filter::reopen_tap,
    ),
    case(
        "dns_knows_private_names",
        Needs::Nothing,
        dns::private_names,
    ),
    case(
        "dns_asks_the_hosts_resolvers",
        Needs::PlayedHost,
        dns::forwarding,
    ),
    case(
        "published_ports_carry_both_ways",
        Needs::Nothing,
        publish::publish,
    ),
    case("a_busy_port_is_named", Needs::Nothing, publish::busy_port),
    case(
        "pasta_leads_outside_not_to_the_hosts_loopback",
        Needs::Nothing,
        uplink::pasta,
    ),
    case(
        "slirp_leads_outside_not_to_the_hosts_loopback",
        Needs::Slirp,
        uplink::slirp,
    ),
    case(
        "veth_needs_a_forwarding_host",
        Needs::Root,
        uplink::veth_without_forwarding,
    ),
    case(
        "veth_leads_outside_not_to_the_host",
        Needs::Root,
        uplink::veth,
    ),
    case(
        "without_uplink_guests_still_run",
        Needs::Nothing,
        uplink::none,
    ),
    case(
        "without_a_network_on_the_host_guests_still_run",
        Needs::Root,
        uplink::offline,
    ),
    case(
        "pasta_is_started_again_when_it_ends",
        Needs::Nothing,
        uplink::pasta_killed,
    ),
    case(
        "security_groups_decide_between_instances",
        Needs::Nothing,
        vpc::security_groups,
    ),
    case(
        "revoked_rules_end_new_connections_only",
        Needs::Nothing,
        vpc::revoked,
    ),
    case(
        "vpcs_with_the_same_range_meet_by_public_addresses_only",
        Needs::Nothing,
        vpc::public_addresses,
    ),
    case(
        "connections_end_when_their_public_address_moves",
        Needs::Nothing,
        moved::connections,
    ),
    case(
        "the_host_reaches_public_addresses_and_not_back",
        Needs::Root,
        vpc::from_the_host,
    ),
    case(
        "routes_lead_through_an_instance",
        Needs::Nothing,
        vpc::routed_through_an_instance,
    ),
    case(
        "guests_are_asked_whether_they_answer",
        Needs::Nothing,
        status::answers,
    ),
    case(
        "a_router_of_another_version_is_replaced",
        Needs::Nothing,
        router::replaced,
    ),
    case("an_adopted_vpc_goes_on", Needs::Nothing, vpc::adopted),
    case("kill_9_leaves_nothing", Needs::Nothing, gone::kill_9),
    case(
        "kill_9_leaves_nothing_of_a_veth",
        Needs::Root,
        gone::kill_9_with_veth,
    ),
    case(
        "kill_9_of_the_host_side_ends_pasta",
        Needs::Nothing,
        gone::kill_9_of_host_side,
    ),
];

/// Set for a case's process: which case.
const CASE: &str = "CUMULET_FABRIC_CASE";
/// When a case counts as hanging.
const HANG_SECONDS: u32 = 240;
/// The ordinary user as whom root runs the rootless half.
const USER: u32 = 64_321;

fn main() -> ExitCode {
    if let Some(status) = router::started() {
        return status;
    }
    if let Ok(home) = env::var(router::OLD) {
        router::old(&home);
        return ExitCode::SUCCESS;
    }
    if let Ok(name) = env::var(CASE) {
        let case = CASES
            .iter()
            .find(|case| case.name == name)
            .expect("a known case");
        // A hang guard: the kernel ends the process.
        nix::unistd::alarm::set(HANG_SECONDS);
        (case.run)();
        return ExitCode::SUCCESS;
    }
    if let Ok(name) = env::var(gone::VICTIM) {
        gone::victim(&name);
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let root = Uid::effective().is_root();
    if given("--list") {
        list(root, given("--ignored"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| {
                if given("--exact") {
                    name == *filter
                } else {
                    name.contains(*filter)
                }
            })
    };
    if root {
        outer::play_host();
        dns::play_resolver();
    }
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for case in CASES.iter().filter(|case| wanted(case.name)) {
        let name = case.name;
        let users = match users(case.needs, root) {
            Ok(users) => users,
            Err(why) => {
                println!("test {name} ... ignored, {why}");
                ignored += 1;
                continue;
            }
        };
        let failures: Vec<_> = users
            .iter()
            .filter(|user| !run(name, **user))
            .map(|user| mode(root, *user))
            .collect();
        if failures.is_empty() {
            println!("test {name} ... ok");
            passed += 1;
        } else {
            println!("test {name} ... FAILED ({})", failures.join(", "));
            failed += 1;
        }
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The list that cargo-nextest asks for.
fn list(root: bool, ignored: bool) {
    for case in CASES {
        if !ignored || users(case.needs, root).is_err() {
            println!("{}: test", case.name);
        }
    }
}

/// The name of a way to run a case.
fn mode(root: bool, user: Option<u32>) -> &'static str {
    if root && user.is_none() {
        "as root"
    } else {
        "as an ordinary user"
    }
}

/// As whom a case runs (`None`: as we are), or why it cannot.
fn users(needs: Needs, root: bool) -> Result<&'static [Option<u32>], &'static str> {
    let all: &[Option<u32>] = if root { &[None, Some(USER)] } else { &[None] };
    match needs {
        Needs::Nothing => Ok(all),
        Needs::PlayedHost if !root => Err("only root can play the host"),
        Needs::PlayedHost => Ok(all),
        Needs::Root if !root => Err("it is about root"),
        Needs::Root => Ok(&[None]),
        Needs::Slirp if !Path::new("/usr/bin/slirp4netns").exists() => {
            Err("slirp4netns is not installed")
        }
        Needs::Slirp => Ok(all),
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
