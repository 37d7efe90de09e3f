//! What the guest's kernel knows of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::command::Args;
use crate::disk::sysfs;
use crate::mem::Pages;

/// Memory, CPUs, clocks, command line.
pub(crate) fn report() -> Result<Value> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(json!({
        "release": read("/proc/sys/kernel/osrelease")?,
        "cmdline": read("/proc/cmdline")?,
        "memory_kib": memory_total()?,
        "iomem_ram_bytes": iomem_ram()?,
        "cpus_online": read("/sys/devices/system/cpu/online")?,
        "topology": topology()?,
        "uptime": read("/proc/uptime")?.split(' ').next(),
        "clocksource": sysfs(Path::new("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "unix_time": now.as_secs(),
        "hwrng": sysfs(Path::new("/sys/class/misc/hw_random/rng_current")),
        "cpu_flags": cpu_flags()?,
    }))
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

fn memory_total() -> Result<u64> {
    let text = read("/proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next())
        .context("/proc/meminfo has no MemTotal")?;
    Ok(kib.parse()?)
}

/// All "System RAM" of the firmware's map: what the VMM gave, before the kernel took its share.
fn iomem_ram() -> Result<u64> {
    let mut bytes = 0;
    for line in read("/proc/iomem")?.lines() {
        // Indented lines are parts of the line above them.
        let Some((range, "System RAM")) = line.split_once(" : ") else {
            continue;
        };
        if let Some((first, last)) = range.split_once('-') {
            let (first, last) = (
                u64::from_str_radix(first, 16),
                u64::from_str_radix(last, 16),
            );
            bytes += last? - first? + 1;
        }
    }
    Ok(bytes)
}

fn topology() -> Result<Vec<Value>> {
    let mut cpus: Vec<Value> = Vec::new();
    for index in 0..1024 {
        let dir = format!("/sys/devices/system/cpu/cpu{index}/topology");
        let dir = Path::new(&dir);
        if !dir.exists() {
            break;
        }
        let number = |name: &str| sysfs(&dir.join(name)).and_then(|text| text.parse::<i64>().ok());
        cpus.push(json!({
            "package": number("physical_package_id"),
            "core": number("core_id"),
            "threads": sysfs(&dir.join("thread_siblings_list")),
        }));
    }
    Ok(cpus)
}

fn cpu_flags() -> Result<Vec<String>> {
    let text = read("/proc/cpuinfo")?;
    let flags = text
        .lines()
        .find_map(|line| line.strip_prefix("flags")?.split_once(':'))
        .map_or("", |(_, flags)| flags);
    Ok(flags.split_whitespace().map(str::to_owned).collect())
}

/// SMBIOS as Linux shows it, and the raw OEM strings (type 11).
pub(crate) fn dmi() -> Result<Value> {
    let mut ids = BTreeMap::new();
    for entry in fs::read_dir("/sys/class/dmi/id").context("no SMBIOS")? {
        let entry = entry?;
        if let Ok(text) = fs::read_to_string(entry.path()) {
            ids.insert(
                entry.file_name().to_string_lossy().into_owned(),
                text.trim().to_owned(),
            );
        }
    }
    let table = fs::read("/sys/firmware/dmi/tables/DMI").context("no SMBIOS table")?;
    Ok(json!({ "id": ids, "oem_strings": strings_of_type(&table, 11) }))
}

/// All strings of the structures of one type (SMBIOS 3.x §6.1: header with type and length, the
/// formatted area, then strings ended by a zero byte each, the set ended by a second one).
fn strings_of_type(mut table: &[u8], kind: u8) -> Vec<String> {
    let mut found = Vec::new();
    while let [this, len, ..] = *table {
        let Some(mut rest) = table.get(usize::from(len).max(4)..) else {
            break;
        };
        if rest.starts_with(&[0, 0]) {
            rest = &rest[1..];
        }
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            let (text, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if text.is_empty() {
                break;
            }
            if this == kind {
                found.push(String::from_utf8_lossy(text).into_owned());
            }
        }
        if rest.len() == table.len() {
            break;
        }
        table = rest;
    }
    found
}

/// `/proc/interrupts`, summed over the CPUs: lines with a number only.
pub(crate) fn interrupts() -> Result<Value> {
    let text = read("/proc/interrupts")?;
    let cpus = text.lines().next().unwrap_or("").split_whitespace().count();
    let mut lines = Vec::new();
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        let Some(Ok(irq)) = words
            .next()
            .map(|word| word.trim_end_matches(':').parse::<u32>())
        else {
            continue;
        };
        let words: Vec<&str> = words.collect();
        let (counts, rest) = words.split_at(cpus.min(words.len()));
        let total: u64 = counts
            .iter()
            .filter_map(|word| word.parse::<u64>().ok())
            .sum();
        lines.push(json!({ "irq": irq, "total": total, "source": rest.join(" ") }));
    }
    Ok(Value::Array(lines))
}

/// Every PCI function.
pub(crate) fn pci() -> Result<Value> {
    let mut functions = Vec::new();
    for dir in pci_functions()? {
        let id = |name: &str| sysfs(&dir.join(name));
        functions.push(json!({
            "slot": dir.file_name().map(|name| name.to_string_lossy().into_owned()),
            "vendor": id("vendor"),
            "device": id("device"),
            "class": id("class"),
            "msi": fs::read_dir(dir.join("msi_irqs")).map_or(0, Iterator::count),
            "driver": fs::read_link(dir.join("driver")).ok()
                .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned())),
        }));
    }
    Ok(Value::Array(functions))
}

/// The sysfs directories of all PCI functions, in slot order.
pub(crate) fn pci_functions() -> Result<Vec<std::path::PathBuf>> {
    let mut dirs: Vec<_> = fs::read_dir("/sys/bus/pci/devices")
        .context("the guest has no PCI bus")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    dirs.sort();
    Ok(dirs)
}

/// `{"bytes"}` from the hardware random number generator, as hexadecimal.
pub(crate) fn random(args: &Args) -> Result<Value> {
    let wanted = args.size("bytes")?;
    let mut bytes = vec![0; wanted.min(4096)];
    let mut source = fs::File::open("/dev/hwrng").context("no /dev/hwrng")?;
    source.read_exact(&mut bytes).context("/dev/hwrng")?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({ "hex": hex, "source": sysfs(Path::new("/sys/class/misc/hw_random/rng_current")) }))
}

/// The last kilobytes of the kernel's log.
pub(crate) fn kernel_log() -> Result<Value> {
    const SYSLOG_ACTION_READ_ALL: libc::c_int = 3;
    let mut buf = vec![0_u8; 1 << 18];
    let room = libc::c_int::try_from(buf.len())?;
    // SAFETY: the kernel writes at most `room` bytes into `buf`, which is that long.
    let got = unsafe { libc::klogctl(SYSLOG_ACTION_READ_ALL, buf.as_mut_ptr().cast(), room) };
    let got = usize::try_from(got).context("the kernel's log cannot be read")?;
    buf.truncate(got);
    let tail = &buf[got.saturating_sub(32 << 10)..];
    Ok(json!(String::from_utf8_lossy(tail)))
}

/// `{"mib"}`: writes a value to every page of that much memory and reads all of them back, so that
/// RAM which is missing or mapped twice is found.
pub(crate) fn touch_memory(args: &Args) -> Result<Value> {
    let len = args.size("mib")? << 20;
    let mut pages = Pages::new(len)?;
    let bytes = pages.bytes();
    for at in (0..len).step_by(4096) {
        bytes[at..at + 8].copy_from_slice(&cumulet_tests::pattern::mix(at as u64).to_le_bytes());
    }
    for at in (0..len).step_by(4096) {
        let want = cumulet_tests::pattern::mix(at as u64).to_le_bytes();
        ensure!(
            bytes[at..at + 8] == want,
            "the page at {at} lost its content"
        );
    }
    Ok(json!({ "pages": len / 4096 }))
}

/// `{"argv"}`: runs a program of the initramfs to its end.
pub(crate) fn exec(args: &Args) -> Result<Value> {
    let argv: Vec<String> =
        serde_json::from_value(args.get("argv").clone()).context("argv is a list of strings")?;
    let (program, rest) = argv.split_first().context("argv is empty")?;
    let out = std::process::Command::new(program)
        .args(rest)
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(json!({
        "status": out.status.code(),
        "stdout": String::from_utf8_lossy(&out.stdout),
        "stderr": String::from_utf8_lossy(&out.stderr),
    }))
}
