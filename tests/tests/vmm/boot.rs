//! Booting: vCPUs, memory sizes, kernels, and what the guest sees of the machine.

use cumulet_tests::{Machine, Vm, elf, rounds};
use serde_json::{Value, json};

/// Powers the guest off and checks that the VMM says so.
fn power_off(mut vm: Vm) {
    vm.send(&json!({ "cmd": "end", "how": "poweroff" }));
    let exit = vm.exit();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.reason()["reason"], "guest_poweroff", "{}", exit.stderr);
}

/// The machine has exactly `count` CPUs: one package, one thread a core, as its MADT and CPUID say.
fn check_cpus(system: &Value, count: usize) {
    let online = match count {
        1 => "0".to_owned(),
        more => format!("0-{}", more - 1),
    };
    assert_eq!(system["cpus_online"], online);
    let topology = system["topology"].as_array().expect("a list");
    assert_eq!(topology.len(), count);
    for cpu in topology {
        assert_eq!(
            cpu["package"], topology[0]["package"],
            "one package: {topology:?}"
        );
    }
    let mut cores: Vec<(i64, &str)> = topology
        .iter()
        .map(|cpu| {
            let core = cpu["core"].as_i64().expect("a number");
            (core, cpu["threads"].as_str().expect("a list"))
        })
        .collect();
    cores.sort_unstable();
    cores.dedup();
    // Threads of one core share its number and list: one core of two threads counts once.
    let threads = count / cores.len();
    assert_eq!(cores.len() * threads, count, "{topology:?}");
    assert!(threads <= 2, "{topology:?}");
}

/// RAM in the firmware's map, in MiB, rounded up: the first MiB has holes.
fn ram_mib(system: &Value) -> u64 {
    let bytes = system["iomem_ram_bytes"].as_u64().expect("a number");
    bytes.div_ceil(1 << 20)
}

/// One CPU and the least memory, with the newest of Debian's kernels that boots in it; everything
/// that can be asked of one guest: identity, PCI, clocks.
#[test]
fn smallest_machine_with_identity() {
    let mut machine = Machine::new().kernel("5.10").memory_mib(64);
    machine.config["smbios"] = json!({
        "uuid": "ec2e1916-9099-7caf-fd21-012345abcdef",
        "vendor": "Amazon EC2",
        "bios_version": "1.0",
        "product": "t3.micro",
        "board_asset_tag": "i-0123456789abcdef0",
        "oem_strings": ["cumulet", "second"],
    });
    let disk = machine.raw_file("data", 1 << 20);
    let mut vm = machine
        .cmdline("cumulet.test=yes")
        .disk(&disk, "vol-1")
        .start();
    assert!(vm.hello().starts_with("5.10."));
    let system = vm.guest(&json!({ "cmd": "system" }));
    check_cpus(&system, 1);
    assert_eq!(ram_mib(&system), 64);
    let cmdline = system["cmdline"].as_str().expect("text");
    assert!(cmdline.ends_with("cumulet.test=yes"), "{cmdline}");
    assert_eq!(system["clocksource"], "kvm-clock");
    let host = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let guest = system["unix_time"].as_u64().expect("a number");
    // The clock is read once at boot to the second; an emulated machine drifts a little.
    assert!(host.abs_diff(guest) < 120, "host {host}, guest {guest}");
    let flags = system["cpu_flags"].as_array().expect("a list");
    assert!(flags.contains(&json!("hypervisor")));
    for nested in ["svm", "vmx"] {
        assert!(!flags.contains(&json!(nested)), "{nested} is offered");
    }

    let dmi = vm.guest(&json!({ "cmd": "dmi" }));
    for (field, value) in [
        ("sys_vendor", "Amazon EC2"),
        ("bios_vendor", "Amazon EC2"),
        ("bios_version", "1.0"),
        ("board_vendor", "Amazon EC2"),
        ("chassis_vendor", "Amazon EC2"),
        ("product_name", "t3.micro"),
        ("product_uuid", "ec2e1916-9099-7caf-fd21-012345abcdef"),
        ("product_serial", "ec2e1916-9099-7caf-fd21-012345abcdef"),
        ("board_asset_tag", "i-0123456789abcdef0"),
    ] {
        assert_eq!(dmi["id"][field], value, "{field} in {dmi}");
    }
    assert_eq!(dmi["oem_strings"], json!(["cumulet", "second"]));

    let pci = vm.guest(&json!({ "cmd": "pci" }));
    let virtio: Vec<&Value> = pci
        .as_array()
        .expect("a list")
        .iter()
        .filter(|function| function["vendor"] == "0x1af4")
        .collect();
    assert_eq!(virtio.len(), 2, "a disk and the entropy device: {pci}");
    for function in virtio {
        assert_eq!(function["driver"], "virtio-pci", "{pci}");
        assert!(function["msi"].as_u64() >= Some(2), "{pci}");
    }

    let first = vm.guest(&json!({ "cmd": "random", "bytes": 64 }));
    let second = vm.guest(&json!({ "cmd": "random", "bytes": 64 }));
    assert!(
        first["source"]
            .as_str()
            .is_some_and(|name| name.starts_with("virtio_rng"))
    );
    assert_ne!(first["hex"], second["hex"]);
    assert_ne!(first["hex"], "00".repeat(64));

    vm.guest(&json!({
        "cmd": "write", "disk": "vol-1", "offset": 0, "len": 1 << 20, "seed": 1, "direct": true,
    }));
    let interrupts = vm.guest(&json!({ "cmd": "interrupts" }));
    let by_message = interrupts.as_array().expect("a list").iter().any(|line| {
        line["source"]
            .as_str()
            .is_some_and(|name| name.contains("MSI") && name.contains("-req"))
            && line["total"].as_u64() > Some(0)
    });
    assert!(
        by_message,
        "the disk's interrupts are not MSI-X: {interrupts}"
    );
    power_off(vm);
}

#[test]
fn two_vcpus_on_debian_11() {
    let machine = Machine::new().kernel("5.10").vcpus(2);
    let disk = machine.raw_file("data", 8 << 20);
    let mut vm = machine.disk(&disk, "vol-1").start();
    assert!(vm.hello().starts_with("5.10."));
    check_cpus(&vm.guest(&json!({ "cmd": "system" })), 2);
    torture(&mut vm);
    power_off(vm);
}

#[test]
fn two_vcpus_on_debian_13() {
    let machine = Machine::new().kernel("6.12").vcpus(2).memory_mib(256);
    let disk = machine.raw_file("data", 8 << 20);
    let mut vm = machine.disk(&disk, "vol-1").start();
    assert!(vm.hello().starts_with("6.12."));
    check_cpus(&vm.guest(&json!({ "cmd": "system" })), 2);
    torture(&mut vm);
    power_off(vm);
}

fn torture(vm: &mut Vm) {
    vm.guest(&json!({
        "cmd": "torture", "disk": "vol-1", "seed": 1, "ops": 100, "len": 4 << 20, "threads": 2,
        "direct": true, "discard": true,
    }));
}

/// Eight CPUs and more memory than fits below the hole at 3 GiB.
#[test]
fn eight_vcpus_and_memory_above_the_hole() {
    let mut vm = Machine::new().vcpus(8).memory_mib(5 << 10).start();
    vm.hello();
    let system = vm.guest(&json!({ "cmd": "system" }));
    check_cpus(&system, 8);
    assert_eq!(ram_mib(&system), 5 << 10);
    // Real memory on both sides of 4 GiB, each page its own: more than what lies below would give.
    vm.guest(&json!({ "cmd": "touch_memory", "mib": 256 }));
    power_off(vm);
}

/// A kernel of a few bytes, entered by PVH.
#[test]
fn elf_kernel_by_its_pvh_entry() {
    let dir = tempfile::tempdir().expect("a folder");
    let kernel = dir.path().join("kernel");
    std::fs::write(&kernel, elf::say_and_halt("PVH says hi\r\n")).expect("a file");
    let mut vm = Machine::new().boot(&kernel, None).start();
    vm.wait_line("the kernel's words", |line| {
        (line == "PVH says hi").then_some(())
    });
    vm.control().ask("quit");
    let exit = vm.exit();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.reason()["reason"], "quit", "{}", exit.stderr);
}

/// The same small machine boots again and again, two at a time: a guest that dies in one boot of a hundred shows here.
#[test]
fn boots_again_and_again() {
    std::thread::scope(|scope| {
        for worker in 0..2 {
            scope.spawn(move || {
                let boots = rounds(4, 250);
                for boot in 1..=boots {
                    let mut vm = Machine::new().start();
                    vm.hello();
                    power_off(vm);
                    eprintln!("worker {worker}: boot {boot} of {boots}");
                }
            });
        }
    });
}
