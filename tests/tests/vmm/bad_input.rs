//! What the VMM refuses, each with a message that names the thing, and exit status 1.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use cumulet_tests::process::Exit;
use cumulet_tests::{Machine, elf, paths};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// The machine must be refused with exit status 1 and all of these words.
#[track_caller]
fn says(exit: &Exit, words: &[&str]) {
    assert_eq!(exit.code, Some(1), "{exit:?}");
    for word in words {
        assert!(
            exit.stderr.contains(word),
            "{word:?} is missing in: {}",
            exit.stderr
        );
    }
    assert_eq!(exit.reason()["reason"], "internal_error", "{}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

fn refused(change: impl FnOnce(&mut Value)) -> Exit {
    let mut machine = Machine::new();
    change(&mut machine.config);
    machine.refused()
}

#[test]
fn configurations_that_cannot_be() {
    let disk = |serial: &str, path: &str| json!({ "path": path, "serial": serial });
    says(
        &refused(|config| config["vcpus"] = json!(0)),
        &["vcpus", "1 to 32"],
    );
    says(
        &refused(|config| config["vcpus"] = json!(33)),
        &["vcpus", "1 to 32"],
    );
    says(
        &refused(|config| config["memory_mib"] = json!(63)),
        &["memory_mib", "64"],
    );
    says(
        &refused(|config| config["memory_mib"] = json!(u64::MAX)),
        &["memory_mib"],
    );
    says(
        &refused(|config| config["surprise"] = json!(1)),
        &["surprise"],
    );
    says(
        &refused(|config| config["disks"] = json!([disk("a", "/x"), disk("a", "/y")])),
        &["disks[1].serial", "twice"],
    );
    says(
        &refused(|config| config["disks"] = json!([disk("a", "/x"), disk("b", "/x")])),
        &["disks[1].path", "/x", "twice"],
    );
    let volume = |serial: &str| json!({ "path": "/x", "serial": serial, "format": "volume", "read_only": true });
    says(
        &refused(|config| config["disks"] = json!([volume("a"), volume("b")])),
        &["disks[1].path", "/x", "twice"],
    );
    says(
        &refused(|config| config["disks"] = json!([disk("a serial of 21 bytes", "/x")])),
        &["disks[0].serial", "20"],
    );
    says(
        &refused(|config| {
            config["disks"] = (0..40)
                .map(|n| disk(&format!("d{n}"), &format!("/{n}")))
                .collect();
        }),
        &["disks", "41 devices", "slots"],
    );
    says(
        &refused(|config| {
            config["nets"] = (0..40)
                .map(|n| json!({ "tap": { "name": format!("t{n}") }, "mac": format!("02:00:00:00:00:{n:02x}") }))
                .collect();
        }),
        &["slots"],
    );
    let net = |mac: &str| json!([{ "tap": { "name": "tap9" }, "mac": mac }]);
    says(
        &refused(|config| config["nets"] = net("ff:ff:ff:ff:ff:ff")),
        &["nets[0].mac"],
    );
    says(
        &refused(|config| config["nets"] = net("nonsense")),
        &["nets[0].mac", "nonsense"],
    );
    says(
        &refused(|config| config["nets"] = net("02:00:00:00:00:01")),
        &["tap9"],
    );
    says(
        &refused(|config| config["boot"] = json!({ "disk": {} })),
        &["boot", "disk"],
    );
    says(
        &refused(|config| config["smbios"] = json!({ "uuid": "no" })),
        &["smbios.uuid"],
    );
    says(
        &refused(|config| config["boot"]["kernel"]["cmdline"] = json!("x".repeat(10_000))),
        &["cmdline", "10000"],
    );
}

#[test]
fn files_that_are_not_there_or_not_right() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = dir.path().join("missing");
    let kernel = |path: &Path| {
        let path = path.to_owned();
        refused(move |config| config["boot"]["kernel"]["kernel"] = json!(path))
    };
    says(&kernel(&missing), &["kernel", "missing", "No such file"]);
    says(&kernel(dir.path()), &["kernel", "directory"]);
    let initrd = missing.clone();
    says(
        &refused(move |config| config["boot"]["kernel"]["initrd"] = json!(initrd)),
        &["initrd", "missing", "No such file"],
    );
    for format in ["raw", "volume"] {
        let path = missing.clone();
        says(
            &refused(move |config| {
                config["disks"] = json!([{ "path": path, "serial": "d", "format": format }]);
            }),
            &["disks[0]", "missing"],
        );
    }
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let whole = std::fs::read(paths::payload("6.1", "vmlinuz")).expect("the kernel");
    says(
        &kernel(&write("truncated", &whole[..1 << 20])),
        &["kernel", "truncated"],
    );
    says(&kernel(&write("stub", &whole[..700])), &["kernel"]);
    says(&kernel(&write("empty", b"")), &["kernel"]);
    says(
        &kernel(&write("text", b"This is no kernel.\n")),
        &["kernel"],
    );
    says(
        &kernel(&write("aarch64", &elf::elf(&[0; 64], 183))),
        &["kernel", "aarch64", "x86_64"],
    );
    // An arm64 "Image": its magic is at offset 56.
    let mut image = vec![0; 4096];
    image[56..60].copy_from_slice(b"ARM\x64");
    says(&kernel(&write("arm64", &image)), &["kernel", "aarch64"]);
    // Debian 12's kernel says itself that 64 MiB are too few.
    says(
        &refused(|config| config["memory_mib"] = json!(64)),
        &["memory_mib", "needs", "64"],
    );
    // An initrd that does not fit into the guest's memory.
    let large = cumulet_tests::machine::raw_file(&dir.path().join("large"), 200 << 20);
    says(
        &refused(move |config| config["boot"]["kernel"]["initrd"] = json!(large)),
        &["memory_mib"],
    );
    // Disks that end within a sector, or have none.
    for bytes in [0, 100, (1 << 20) + 100] {
        let odd = write("odd", &vec![0; bytes]);
        let says_how_many = format!("{bytes} bytes");
        says(
            &refused(move |config| config["disks"] = json!([{ "path": odd, "serial": "d" }])),
            &["disks[0]", "odd", "512", &says_how_many],
        );
    }
    // A tap that nobody handed over, and a descriptor that is none.
    for (fd, says_what) in [(77, "77 is not open"), (1, "not a tap's name or inherited")] {
        let net = json!([{ "tap": { "fd": fd }, "mac": "02:00:00:00:00:01" }]);
        says(
            &refused(move |config| config["nets"] = net),
            &["nets[0].tap", says_what],
        );
    }
}

#[test]
fn configuration_files_that_are_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = |content: &[u8]| {
        let path = dir.path().join("config.json");
        std::fs::write(&path, content).expect("a file");
        cumulet_tests::process::Process::start(
            std::process::Command::new(paths::binary("cumulet-vmm"))
                .arg("--config")
                .arg(path),
        )
        .wait()
    };
    for content in [&b""[..], b"{", b"[]", b"\xff\xfe", b"{\"vcpus\":\"many\"}"] {
        says(&run(content), &["config.json"]);
    }
    let exit = cumulet_tests::process::Process::start(
        std::process::Command::new(paths::binary("cumulet-vmm"))
            .args(["--config", "/no/such/file"]),
    )
    .wait();
    says(&exit, &["/no/such/file", "No such file"]);
}

/// A disk or a control socket that another machine uses.
#[test]
fn things_in_use() {
    let machine = Machine::new();
    let disk = machine.raw_file("disk", 1 << 20);
    let mut vm = machine.disk(&disk, "d").start();
    drop(vm.control());
    says(
        &Machine::new().disk(&disk, "d").refused(),
        &["disks[0]", "another process"],
    );
    let socket = vm.socket();
    says(
        &refused(|config| config["control"] = json!({ "path": socket })),
        &["control", "vm.sock", "listens"],
    );
    // The owner of both did not notice.
    vm.hello();
    // What a killed VMM leaves behind is no obstacle.
    vm.kill();
    let mut again = Machine::new().disk(&disk, "d");
    again.config["control"] = json!({ "path": socket });
    let mut again = again.start();
    again.hello();
}

/// In a mount namespace of the child, after its fork.
fn private_mounts() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    Ok(())
}

#[test]
fn hosts_without_a_fit_kvm() {
    let with = |step: fn() -> std::io::Result<()>| {
        Machine::new()
            .prepare(move |command| {
                // SAFETY: only system calls between fork and exec.
                unsafe { command.pre_exec(step) };
            })
            .refused()
    };
    let no_kvm = with(|| {
        private_mounts()?;
        mount(
            Some("tmpfs"),
            "/dev",
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )?;
        Ok(())
    });
    says(&no_kvm, &["/dev/kvm"]);
    let not_kvm = with(|| {
        private_mounts()?;
        let none = None::<&str>;
        mount(Some("/dev/null"), "/dev/kvm", none, MsFlags::MS_BIND, none)?;
        Ok(())
    });
    says(&not_kvm, &["/dev/kvm"]);

    // An ordinary user who is not in the group kvm.
    let machine = Machine::new();
    std::fs::set_permissions(machine.dir(), std::fs::Permissions::from_mode(0o777))
        .expect("permissions");
    let exit = machine
        .prepare(|command| {
            command.uid(65534).gid(65534);
        })
        .refused();
    says(&exit, &["/dev/kvm", "group"]);
}
