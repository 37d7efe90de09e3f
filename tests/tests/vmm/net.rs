//! The network device on a tap of the test's own.

use std::os::unix::process::CommandExt as _;

use cumulet_tests::{Machine, Vm, net};
use serde_json::json;

const MAC: &str = "02:00:00:00:00:07";

#[test]
fn tcp_udp_and_icmp_with_offloads_by_the_vmm() {
    tcp_udp_and_icmp_with_offloads("off");
}

#[test]
fn tcp_udp_and_icmp_with_offloads_by_vhost() {
    tcp_udp_and_icmp_with_offloads("on");
}

fn tcp_udp_and_icmp_with_offloads(vhost: &str) {
    net::enter_with_tap();
    let mut machine = Machine::new().vcpus(2).tap("tap0", MAC);
    machine.config["nets"][0]["mtu"] = json!(1400);
    machine.config["nets"][0]["vhost"] = json!(vhost);
    let mut vm = machine.start();
    vm.hello();
    let list = vm.guest(&json!({ "cmd": "net_list" }));
    let nic = &list[0];
    assert_eq!(nic["mac"], MAC, "{list}");
    assert_eq!(nic["mtu"], 1400, "{list}");
    for feature in ["tx_checksum", "rx_checksum", "scatter_gather", "tso", "gso"] {
        assert_eq!(nic["features"][feature], true, "{feature} in {list}");
    }
    net::ip("link set tap0 mtu 1400");
    net_up(&mut vm);
    let host = net::HOST.to_string();
    // One byte, an odd number, one that must be fragmented.
    for bytes in [1, 57, 4001] {
        vm.guest(&json!({ "cmd": "icmp", "to": host, "bytes": bytes, "count": 2 }));
    }
    let port = net::udp_echo();
    for bytes in [1, 1371, 1372, 20_000] {
        vm.guest(&json!({ "cmd": "udp_echo", "to": format!("{host}:{port}"), "bytes": bytes, "count": 3 }));
    }
    let bytes = 16 << 20;
    tcp_both_ways(&mut vm, bytes);
    // Segmentation offload: far fewer packets than the MTU alone would make, both ways.
    let after = vm.guest(&json!({ "cmd": "net_list" }));
    for direction in ["tx_packets", "rx_packets"] {
        let packets = after[0][direction].as_u64().expect("a number");
        let plain = u64::try_from(bytes).expect("small") / 1348;
        assert!(
            packets < plain / 2,
            "{direction}: {packets} packets, {plain} without offload"
        );
    }
    // Who moved all that.
    let stats = vm.control().ask("stats");
    let counters = &stats["devices"]["net0"];
    let by_vhost = vhost == "on";
    assert_eq!(counters["vhost"], u64::from(by_vhost), "{stats}");
    assert_eq!(counters["tx_frames"] == 0, by_vhost, "{stats}");
    vm.send(&json!({ "cmd": "end", "how": "poweroff" }));
    let exit = vm.exit();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    // The tap is the test's and stays.
    net::ip("link show tap0");
}

/// Joins the guest's first interface to the tap's network.
fn net_up(vm: &mut Vm) {
    let list = vm.guest(&json!({ "cmd": "net_list" }));
    vm.guest(&json!({
        "cmd": "net_up", "name": list[0]["name"], "address": net::GUEST.to_string(), "prefix": net::PREFIX,
    }));
}

/// Sends so many bytes to the host and gets them back, all right.
fn tcp_both_ways(vm: &mut Vm, bytes: usize) {
    let (port, echo) = net::tcp_echo_once();
    let moved = vm.guest(&json!({
        "cmd": "tcp_connect", "to": format!("{}:{port}", net::HOST), "send": bytes, "receive": bytes, "seed": 3,
    }));
    assert_eq!(moved["received"], bytes);
    assert_eq!(echo.join().expect("the echo"), bytes);
}

#[test]
fn reset_with_traffic_in_flight_by_the_vmm() {
    reset_with_traffic_in_flight("off");
}

#[test]
fn reset_with_traffic_in_flight_by_vhost() {
    reset_with_traffic_in_flight("on");
}

/// The reset button while packets arrive and leave: the next boot finds
/// a sound network device. The tap comes as an inherited descriptor, as `cumulet` hands it over.
fn reset_with_traffic_in_flight(vhost: &str) {
    const FD: i32 = 77;
    net::enter_with_tap();
    let tap = net::open_tap();
    let mut machine = Machine::new().reboots().vcpus(2);
    machine.config["nets"] = json!([{ "tap": { "fd": FD }, "mac": MAC, "vhost": vhost }]);
    let mut vm = machine
        .prepare(move |command| {
            let tap = tap.try_clone().expect("a descriptor");
            // SAFETY: only a system call between fork and exec; the number is not in use.
            unsafe {
                command.pre_exec(move || {
                    nix::unistd::dup2_raw(&tap, FD).map(std::mem::forget)?;
                    Ok(())
                });
            }
        })
        .start();
    vm.hello();
    let host = net::HOST.to_string();
    for _ in 0..3 {
        net_up(&mut vm);
        vm.guest(&json!({ "cmd": "icmp", "to": host, "bytes": 56, "count": 2 }));
        // The guest sends without end, and datagrams come in that nobody reads.
        let flood = net::flood(9);
        let sink = net::tcp_sink();
        vm.send(&json!({
            "cmd": "tcp_connect", "to": format!("{host}:{}", sink.port), "send": 1_u64 << 40, "receive": 0,
        }));
        sink.wait_for(4 << 20);
        vm.control().ask("reset");
        vm.hello();
        drop(flood);
    }
    net_up(&mut vm);
    tcp_both_ways(&mut vm, 4 << 20);
}

#[test]
fn a_paused_machine_receives_nothing_by_the_vmm() {
    a_paused_machine_receives_nothing("off");
}

#[test]
fn a_paused_machine_receives_nothing_by_vhost() {
    a_paused_machine_receives_nothing("on");
}

/// Whatever is received is written into guest RAM, which stays as it is while the machine is paused.
fn a_paused_machine_receives_nothing(vhost: &str) {
    net::enter_with_tap();
    let mut machine = Machine::new().tap("tap0", MAC);
    machine.config["nets"][0]["vhost"] = json!(vhost);
    let mut vm = machine.start();
    vm.hello();
    net_up(&mut vm);
    let ping = json!({ "cmd": "icmp", "to": net::HOST.to_string(), "bytes": 56, "count": 2 });
    vm.guest(&ping);
    let _flood = net::flood(9);
    let (before, _) = net::tap_frames();
    net::wait_for_tap("frames to the guest", |taken, _| taken > before + 10);
    vm.control().ask("pause");
    let (paused, dropped) = net::tap_frames();
    // The tap's own queue fills up, and nobody takes from it.
    net::wait_for_tap("a full tap", |_, drops| drops > dropped + 10);
    assert_eq!(net::tap_frames().0, paused);
    vm.control().ask("resume");
    net::wait_for_tap("frames again", |taken, _| taken > paused + 10);
    vm.guest(&ping);
}
