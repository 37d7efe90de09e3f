//! `bench net`: TCP between guest and host by iperf3, through ours and QEMU's virtio-net.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::guest::{Contender, Guest, Machine};
use super::probe::{CpuTime, cpu_times, kvm_count};
use super::table::{Table, compare, median};
use crate::payload::cpio::Archive;

/// Bytes a transfer.
const BYTES: &str = "128M";

/// A tap device with an address of the host's, gone when dropped.
struct Tap {
    name: String,
    subnet: String,
}

impl Tap {
    fn new(number: usize) -> Result<Self> {
        let (name, subnet) = (format!("bench{number}"), format!("10.77.{number}"));
        let ip = |args: &[&str]| crate::sh::run(Command::new("ip").args(args));
        ip(&["tuntap", "add", "dev", &name, "mode", "tap", "vnet_hdr"])?;
        let tap = Self { name, subnet };
        ip(&[
            "address",
            "add",
            &format!("{}.1/24", tap.subnet),
            "dev",
            &tap.name,
        ])?;
        ip(&["link", "set", &tap.name, "up"])?;
        Ok(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["link", "delete", &self.name])
            .status();
    }
}

/// The iperf3 server, killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs all contenders in turn and gives the table (MiB/s).
pub(super) fn measure(dir: &Path, machine: &mut Machine, rounds: usize) -> Result<Table> {
    machine.initrd = with_iperf3(dir, &machine.initrd)?;
    let server = Server(
        Command::new("iperf3")
            .arg("-s")
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start iperf3 (package iperf3)")?,
    );
    let mut table = Table::new([
        "direction",
        "qemu MiB/s",
        "cumulet MiB/s",
        "ratio (rounds ahead)",
    ]);
    // Who moves the frames: the VMMs themselves, or vhost-net for both.
    let mut pairs = [
        Pair::new(dir, machine, 1, "off")?,
        Pair::new(dir, machine, 3, "on")?,
    ];
    for round in 0..=rounds {
        for pair in &mut pairs {
            pair.round(round, &server)?;
        }
    }
    for pair in &pairs {
        pair.rows(&mut table);
    }
    Ok(table)
}

/// Both VMMs, alike as to who moves the frames. They take turns.
struct Pair {
    vhost: &'static str,
    /// Before the taps: no guest outlives its tap.
    contenders: [Contender<'static>; 2],
    taps: [Rc<Tap>; 2],
    /// Rates by direction and contender, MiB/s.
    rates: [[Vec<f64>; 2]; 2],
}

impl Pair {
    fn new(dir: &Path, machine: &Machine, number: usize, vhost: &'static str) -> Result<Self> {
        let taps = [Rc::new(Tap::new(number)?), Rc::new(Tap::new(number + 1)?)];
        let netdev = format!(
            "tap,id=n0,ifname={},script=no,downscript=no,vhost={vhost}",
            taps[0].name
        );
        let qemu = machine.qemu(&[
            "-netdev",
            &netdev,
            "-device",
            "virtio-net-pci,netdev=n0,disable-legacy=on",
        ]);
        let ours = machine.ours(
            &dir.join(format!("net-{vhost}.json")),
            &json!([]),
            &json!([{
                "tap": { "name": taps[1].name }, "mac": "02:00:00:00:77:02", "vhost": vhost,
            }]),
        )?;
        let up = |tap: &Rc<Tap>| {
            let tap = Rc::clone(tap);
            move |guest: &mut Guest| {
                let name = interface(guest)?;
                guest
                    .ask(&json!({
                        "cmd": "net_up", "name": name,
                        "address": format!("{}.2", tap.subnet), "prefix": 24,
                    }))
                    .map(drop)
            }
        };
        Ok(Self {
            vhost,
            contenders: [
                Contender::new("qemu", qemu, machine.hang, up(&taps[0])),
                Contender::new("cumulet", ours, machine.hang, up(&taps[1])),
            ],
            taps,
            rates: Default::default(),
        })
    }

    /// One transfer each way by each. The round 0 is not counted.
    fn round(&mut self, round: usize, server: &Server) -> Result<()> {
        for (row, reverse) in self.rates.iter_mut().zip([false, true]) {
            let mut line = format!(
                "bench net: round {round}, vhost {}, reverse {reverse}:",
                self.vhost
            );
            for ((contender, tap), rates) in self.contenders.iter_mut().zip(&self.taps).zip(row) {
                let host = format!("{}.1", tap.subnet);
                let (rate, counts) = contender.measure(|guest| {
                    let before = Counts::now(guest, server)?;
                    let rate = iperf3(guest, &host, reverse)?;
                    Ok((rate, Counts::now(guest, server)?.since(&before)))
                })?;
                line.push_str(&format!(
                    " {} {rate:.0} MiB/s ({counts});",
                    contender.name()
                ));
                if round > 0 {
                    rates.push(rate);
                }
            }
            eprintln!("{line}");
        }
        Ok(())
    }

    fn rows(&self, table: &mut Table) {
        for (row, name) in self.rates.iter().zip(["guest to host", "host to guest"]) {
            let [qemu, ours] = row;
            let typical = |rates: &[f64]| format!("{:.0}", median(rates.iter().copied()));
            table.row([
                format!("{name}, vhost {}", self.vhost),
                typical(qemu),
                typical(ours),
                compare(ours, qemu),
            ]);
        }
    }
}

/// What a transfer is made of, counted until now.
struct Counts {
    /// By thread of the VMM and the server.
    cpu: BTreeMap<String, CpuTime>,
    /// KVM's, by name.
    kvm: [(&'static str, u64); 4],
    /// Frames the guest sent and received.
    frames: [u64; 2],
}

impl Counts {
    fn now(guest: &mut Guest, server: &Server) -> Result<Self> {
        let mut cpu = cpu_times(guest.pid())?;
        cpu.extend(cpu_times(server.0.id())?);
        let mut kvm = [
            ("exits", 0),
            ("irq_injections", 0),
            ("halt_exits", 0),
            ("io_exits", 0),
        ];
        for (name, count) in &mut kvm {
            *count = kvm_count(guest.pid(), name)?;
        }
        let list = guest.ask(&json!({ "cmd": "net_list" }))?;
        let of = |name: &str| {
            list.as_array()
                .into_iter()
                .flatten()
                .filter_map(|n| n[name].as_u64())
                .sum()
        };
        Ok(Self {
            cpu,
            kvm,
            frames: [of("tx_packets"), of("rx_packets")],
        })
    }

    /// What came since `before`: frames, KVM's counts, each busy thread's milliseconds in user mode, kernel and guest.
    fn since(&self, before: &Self) -> String {
        let [sent, received] = [0, 1].map(|at| self.frames[at] - before.frames[at]);
        let mut parts = vec![format!("frames {sent}/{received}")];
        for ((name, after), (_, before)) in self.kvm.iter().zip(&before.kvm) {
            parts.push(format!("{name} {}", after - before));
        }
        for (name, after) in &self.cpu {
            let before = before.cpu.get(name).copied().unwrap_or_default();
            let user = after.user.saturating_sub(before.user);
            let kernel = after.kernel.saturating_sub(before.kernel);
            let guest = after.guest.saturating_sub(before.guest);
            if user + kernel + guest > 0 {
                parts.push(format!("{name} {user}+{kernel}+{guest} ms"));
            }
        }
        parts.join(", ")
    }
}

/// The guest's one network interface.
fn interface(guest: &mut Guest) -> Result<String> {
    let list = guest.ask(&json!({ "cmd": "net_list" }))?;
    let names = list.as_array().context("no list of interfaces")?;
    names
        .iter()
        .filter_map(|n| n["name"].as_str())
        .find(|n| *n != "lo")
        .map(String::from)
        .with_context(|| format!("the guest has no interface: {list}"))
}

/// One transfer; MiB a second as the receiver saw it.
fn iperf3(guest: &mut Guest, host: &str, reverse: bool) -> Result<f64> {
    let mut argv = vec!["/usr/bin/iperf3", "-J", "-c", host, "-n", BYTES];
    if reverse {
        argv.push("-R");
    }
    let answer = guest.ask(&json!({ "cmd": "exec", "argv": argv }))?;
    let text = answer["stdout"].as_str().unwrap_or_default();
    let report: Value = serde_json::from_str(text)
        .with_context(|| format!("iperf3 in the guest answered {answer}"))?;
    let bits = report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .with_context(|| format!("iperf3 in the guest failed: {report}"))?;
    Ok(bits / 8.0 / f64::from(1 << 20))
}

/// The initramfs with this host's iperf3 and the libraries it needs behind it: the kernel unpacks
/// archives that follow each other.
fn with_iperf3(dir: &Path, initrd: &Path) -> Result<std::path::PathBuf> {
    let ldd = crate::sh::output(Command::new("ldd").arg("/usr/bin/iperf3"))?;
    let libraries = ldd.split_whitespace().filter(|word| word.starts_with('/'));
    let mut archive = Archive::new();
    let mut made = std::collections::BTreeSet::new();
    for path in std::iter::once("/usr/bin/iperf3").chain(libraries) {
        let inside = path.trim_start_matches('/');
        for (at, _) in inside.match_indices('/') {
            if made.insert(inside[..at].to_owned()) {
                archive.directory(&inside[..at])?;
            }
        }
        if made.insert(inside.to_owned()) {
            archive.file(inside, 0o755, &std::fs::read(path)?)?;
        }
    }
    let mut whole = std::fs::read(initrd)?;
    whole.resize(whole.len().next_multiple_of(4), 0);
    whole.extend(archive.finish()?);
    let path = dir.join("initrd-iperf3");
    std::fs::write(&path, whole)?;
    Ok(path)
}
