//! Whatever happens to the process, nothing of it stays on the host.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cumulet_agent::fabric::{EnterConfig, Publish, UplinkMode, UplinkState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cases::on_fabric;
use crate::guest::ip;
use crate::outer::{is_played, output_of, sh};

/// Set for the process that is to be killed; its value marks all that it starts.
pub(crate) const VICTIM: &str = "CUMULET_FABRIC_VICTIM";

/// Waits for something that must happen, however slow the machine.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "not so after a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Fields of `/proc/PID/stat`: command, state, session.
fn stat(pid: Pid) -> Option<(String, String, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    Some((
        head.split_once('(')?.1.to_owned(),
        fields[0].to_owned(),
        fields[3].parse().ok()?,
    ))
}

fn alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|(_, state, _)| state != "Z" && state != "X")
}

fn all_processes() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .parse()
                .ok()
                .map(Pid::from_raw)
        })
        .collect()
}

/// The host-side process that carries this mark in its environment.
fn host_side(mark: &str) -> Option<Pid> {
    all_processes().into_iter().find(|&pid| {
        stat(pid).is_some_and(|(name, ..)| name == "cumulet-host")
            && fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == mark.as_bytes())
            })
    })
}

/// All processes of the host side with this mark, itself first: they share its session.
fn host_processes(mark: &str) -> Vec<Pid> {
    let Some(leader) = host_side(mark) else {
        return Vec::new();
    };
    let mut members = vec![leader];
    members.extend(all_processes().into_iter().filter(|&pid| {
        pid != leader
            && stat(pid).is_some_and(|(_, _, session)| session == leader.as_raw())
            && alive(pid)
    }));
    members
}

/// What this very case's host side has started.
pub(crate) fn started_by_host_side() -> Vec<Pid> {
    let mark = format!(
        "{}={}",
        crate::CASE,
        env::var(crate::CASE).expect("in a case")
    );
    host_processes(&mark).into_iter().skip(1).collect()
}

struct Victim {
    child: Child,
    port: u16,
    mark: String,
}

/// Starts a fabric with all that it can have in another process.
fn start_victim(uplink: UplinkMode) -> Victim {
    let name = format!("{uplink}-{}", std::process::id());
    let program = if is_played() {
        "/mnt/bin/fabric".into()
    } else {
        env::current_exe().expect("path")
    };
    let mut child = Command::new(program)
        .env_remove(crate::CASE)
        .env(VICTIM, &name)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("start the victim");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output"))
        .read_line(&mut line)
        .expect("read");
    let port = line
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("the victim failed: '{line}'"));
    Victim {
        child,
        port,
        mark: format!("{VICTIM}={name}"),
    }
}

/// The victim's own part; its name begins with the uplink it is to have.
pub(crate) fn victim(name: &str) {
    let uplink: UplinkMode = name
        .split('-')
        .next()
        .and_then(|mode| mode.parse().ok())
        .expect("an uplink");
    let host = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let publish = Publish {
        host,
        guest: SocketAddrV4::new(ip(0), 80),
    };
    let config = EnterConfig {
        publish: vec![publish],
        uplink,
    };
    on_fabric(&config, 1, async |fabric| {
        let tap = fabric.open_tap(ip(0)).await.expect("tap");
        assert_eq!(fabric.uplink_settled().await, UplinkState::Up(uplink));
        let mut vmm = Command::new("sleep");
        // SAFETY: only a system call between fork and exec.
        unsafe {
            vmm.arg("1000")
                .stdin(tap)
                .pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        let mut vmm = vmm.spawn().expect("start a stand-in for the VMM");
        println!("{}", fabric.published()[0].host.port());
        vmm.wait().expect("wait for ever");
    });
}

/// All that the host's network could show of us.
fn host_network() -> String {
    output_of(
        "ip -o link; ip -o addr; ip route show table all; ip rule; ip netns list; grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding; nft list ruleset 2>/dev/null || true",
    )
}

/// The same, when nothing of the case before is left in it: the kernel clears networks away in the background.
fn quiet_host_network() -> String {
    wait_until("no interface of another case is left", || {
        !output_of("ip -o link").contains(": cumulet")
    });
    host_network()
}

pub(crate) fn kill_9() {
    let before = quiet_host_network();
    let mut victim = start_victim(UplinkMode::Pasta);
    assert_eq!(
        host_network(),
        before,
        "the host's network changed while a fabric ran"
    );
    let processes = host_processes(&victim.mark);
    assert!(
        processes.len() >= 2,
        "the host side and pasta: {processes:?}"
    );
    assert!(
        TcpListener::bind((Ipv4Addr::LOCALHOST, victim.port)).is_err(),
        "the published port is bound"
    );
    victim.child.kill().expect("kill -9");
    victim.child.wait().expect("wait");
    wait_until("the host side and pasta are gone", || {
        !processes.iter().any(|&pid| alive(pid))
    });
    wait_until("the published port is free", || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, victim.port)).is_ok()
    });
    assert_eq!(host_network(), before);
}

pub(crate) fn kill_9_with_veth() {
    sh("sysctl -qw net.ipv4.ip_forward=1");
    let before = quiet_host_network();
    let mut victim = start_victim(UplinkMode::Veth);
    let during = host_network();
    assert!(
        during.contains("table inet cumulet") && during.contains(": cumulet"),
        "{during}"
    );
    victim.child.kill().expect("kill -9");
    victim.child.wait().expect("wait");
    wait_until("the host's network is as before", || {
        host_network() == before
    });
    wait_until("no process is left", || {
        host_processes(&victim.mark).is_empty()
    });
}

pub(crate) fn kill_9_of_host_side() {
    let mut victim = start_victim(UplinkMode::Pasta);
    let processes = host_processes(&victim.mark);
    assert!(
        processes.len() >= 2,
        "the host side and pasta: {processes:?}"
    );
    kill(processes[0], Signal::SIGKILL).expect("kill the host side");
    wait_until("the host side and pasta are gone", || {
        !processes.iter().any(|&pid| alive(pid))
    });
    victim.child.kill().expect("kill");
    victim.child.wait().expect("wait");
}
