//! QEMU's command line for L1.

use super::{Flavour, emulator::Emulator, image::Image, proto};
use crate::sh;
use anyhow::{Context as _, Result};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Size of L1's scratch disk (sparse: only what tests write costs space).
const SCRATCH: &str = "64G";

/// Makes the disks of one L1 in `dir`: the empty scratch file system and the seed with this very program and the token.
pub(crate) fn prepare(dir: &Path, token: &str) -> Result<()> {
    for (name, size) in [("scratch.img", SCRATCH), ("seed.img", "256M")] {
        let path = dir.join(name);
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let mut mke2fs =
            Command::new(sh::find("mke2fs").context("no mke2fs: run `cargo xtask setup`")?);
        mke2fs.args(["-q", "-t", "ext4"]);
        if name == "seed.img" {
            let seed = dir.join("seed");
            if seed.exists() {
                fs::remove_dir_all(&seed)?;
            }
            fs::create_dir(&seed)?;
            fs::copy("/proc/self/exe", seed.join("xtask")).context("cannot copy this program")?;
            fs::write(seed.join("token"), token)?;
            mke2fs
                .args(["-m", "0", "-O", "^has_journal", "-d"])
                .arg(&seed);
        } else {
            // All lazy: a fresh 64 GiB file system in a blink, a few MiB on disk.
            mke2fs.args([
                "-m",
                "0",
                "-E",
                "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
                "-O",
                "^resize_inode",
            ]);
        }
        sh::run(mke2fs.arg(&path).arg(size))?;
        if name == "seed.img" {
            fs::remove_dir_all(dir.join("seed"))?;
        }
    }
    Ok(())
}

/// Starts QEMU. It dies with the thread that called this (parent-death signal), so it can never be left over.
pub(crate) fn start(
    dir: &Path,
    emulator: &Emulator,
    image: &Image,
    flavour: &Flavour,
    port: u16,
) -> Result<Child> {
    let mut qemu = emulator.command();
    if flavour.icount {
        qemu.args([
            "-accel",
            "tcg,thread=single",
            "-icount",
            "shift=1,sleep=off",
        ]);
    } else {
        qemu.args(["-accel", "tcg,thread=multi"]);
    }
    qemu.args(["-cpu", "EPYC,+svm,+npt,+nrip-save"])
        .args(["-smp", &flavour.cpus.to_string(), "-m", &format!("{}M", flavour.memory_mib)])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-kernel"])
        .arg(&image.kernel)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests audit=0 root=/dev/nvme0n1 rw rootfstype=ext4 init=/sbin/l1init"])
        // One NVMe controller with a namespace per disk: the names n1, n2 … cannot be shuffled by probe order.
        .args(["-device", "nvme,id=nvme0,serial=l1"]);
    let scratch = dir.join("scratch.img");
    let seed = dir.join("seed.img");
    let mut disks = vec![
        (image.root.as_path(), "snapshot=on"),
        (&scratch, "discard=unmap"),
        (&seed, "snapshot=on"),
    ];
    disks.extend(
        flavour
            .disks
            .iter()
            .map(|disk| (disk.as_path(), "snapshot=on")),
    );
    for (number, (path, option)) in (1..).zip(disks) {
        let path = path
            .to_str()
            .context("a path that is not UTF-8")?
            .replace(',', ",,");
        qemu.args([
            "-drive",
            &format!("file={path},format=raw,if=none,id=disk{number},cache=unsafe,{option}"),
        ]);
        qemu.args([
            "-device",
            &format!("nvme-ns,drive=disk{number},bus=nvme0,nsid={number}"),
        ]);
    }
    let guest_port = proto::PORT;
    qemu.args([
        "-netdev",
        &format!("user,id=net0,net=192.168.127.0/24,hostfwd=tcp:127.0.0.1:{port}-:{guest_port}"),
    ])
    .args([
        "-device",
        "virtio-net-pci,netdev=net0",
        "-device",
        "virtio-rng-pci",
    ])
    // The overlays of snapshot=on are unlinked files in TMPDIR.
    .env("TMPDIR", dir)
    .stdin(Stdio::null())
    .stdout(fs::File::create(dir.join("console.log"))?)
    .stderr(fs::File::create(dir.join("qemu.log"))?);
    let owner = nix::unistd::getpid();
    // SAFETY: prctl and getppid are async-signal-safe; the closure touches no memory of the parent but a copied pid.
    unsafe {
        qemu.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            if nix::unistd::getppid() != owner {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    qemu.spawn().context("cannot start the emulator")
}
