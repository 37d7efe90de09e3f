//! The store with real images of every format, and with everything that can go wrong.

use std::os::unix::fs::FileExt;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::testing::{TinyImage, host_kernel, tiny_image};

const SIZE: u64 = 12 << 20;

/// A bootable raw image of 12 MiB.
fn image(dir: &Path) -> PathBuf {
    let kernel = dir.join("kernel");
    fs::write(&kernel, host_kernel(700_000)).unwrap();
    let path = dir.join("my-image.raw");
    let image = TinyImage {
        kernel: &kernel,
        initrd: None,
        cmdline: "root=/dev/vda1",
        size: SIZE,
        tree: None,
    };
    tiny_image(&path, &image).unwrap();
    path
}

fn convert(from: &Path, to: &Path, args: &[&str]) {
    let out = Command::new("qemu-img")
        .args(["convert", "-f", "raw"])
        .args(args)
        .args([from, to])
        .output()
        .expect("qemu-img (Debian package qemu-utils)");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn store(dir: &Path) -> AmiStore {
    let mut store = AmiStore::open(&dir.join("amis")).unwrap();
    store.patience = Duration::ZERO;
    store
}

fn import(store: &AmiStore, path: &Path) -> Result<Ami, StoreError> {
    store.import(path, &ImportOptions::default(), &mut |_| {})
}

/// The words of an error and all its causes.
fn text(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        out = format!("{out}: {cause}");
        next = cause.source();
    }
    out
}

/// Whether nothing but whole AMIs and the lock is in the store.
fn is_tidy(store: &AmiStore) -> bool {
    fs::read_dir(store.dir()).unwrap().flatten().all(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name == "lock" || (is_id(&name) && entry.path().join(MANIFEST).exists())
    })
}

#[test]
fn every_format_gives_the_same_disk() {
    let tmp = TempDir::new().unwrap();
    let raw = image(tmp.path());
    let store = store(tmp.path());
    let mut steps = Vec::new();
    let first = store
        .import(&raw, &ImportOptions::default(), &mut |p| steps.push(p))
        .unwrap();
    assert_eq!(first.name, "my-image");
    assert_eq!(first.size, SIZE);
    assert!(first.used_bytes < SIZE / 2, "{}", first.used_bytes);
    assert_eq!(first.root_device_name, "/dev/sda1");
    assert!(
        first
            .boot
            .as_ref()
            .unwrap()
            .cmdline
            .contains("console=ttyS0")
    );
    assert!(steps.windows(2).all(|pair| pair[0].done <= pair[1].done));
    assert_eq!(
        steps.last(),
        Some(&Progress {
            done: SIZE,
            total: SIZE
        })
    );
    assert_eq!(
        fs::read(store.disk_path(&first)).unwrap(),
        fs::read(&raw).unwrap()
    );
    for (name, args) in [
        ("plain.qcow2", &["-O", "qcow2"][..]),
        ("packed.qcow2", &["-O", "qcow2", "-c"]),
        (
            "old.qcow2",
            &["-O", "qcow2", "-o", "compat=0.10,cluster_size=4096"],
        ),
        ("dynamic.vhd", &["-O", "vpc", "-o", "force_size=on"]),
        (
            "fixed.vhd",
            &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
        ),
        ("sparse.vmdk", &["-O", "vmdk"]),
        (
            "stream.vmdk",
            &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        ),
    ] {
        let path = tmp.path().join(name);
        convert(&raw, &path, args);
        let ami = import(&store, &path).unwrap_or_else(|e| panic!("{name}: {}", text(&e)));
        assert_eq!(
            (ami.digest, ami.size),
            (first.digest.clone(), SIZE),
            "{name}"
        );
        // A file cut short is noticed, wherever it is cut.
        let len = fs::metadata(&path).unwrap().len();
        for left in [len - 512, len / 2, len / 4] {
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(left)
                .unwrap();
            match import(&store, &path) {
                // The last cluster of a qcow2 may be metadata that no data needs.
                Ok(ami) if left == len - 512 => assert_eq!(ami.digest, first.digest, "{name}"),
                Ok(_) => panic!("{name} cut to {left} of {len} was taken"),
                Err(_) => assert!(is_tidy(&store), "{name}"),
            }
        }
    }
    assert!(is_tidy(&store));
    assert_eq!(store.find("my-image").unwrap(), first);
    assert_eq!(store.verify(&first.id, &mut |_| {}).unwrap(), first);
}

#[test]
fn a_volume_keeps_its_ami() {
    let tmp = TempDir::new().unwrap();
    let store = store(tmp.path());
    let ami = import(&store, &image(tmp.path())).unwrap();
    let dir = tmp.path().join("vol-1");
    store
        .create_volume(&ami, &dir, "vol-1", Some(SIZE * 2))
        .unwrap();
    let error = store.delete(&ami.id).unwrap_err();
    assert!(
        matches!(&error, StoreError::InUse { volume, .. } if volume == "vol-1"),
        "{error}"
    );
    let vol = Volume::open(&dir).unwrap();
    let mut head = vec![0; 4096];
    crate::io::read_at(&vol, 0, &mut head).unwrap();
    assert_eq!(head[510..512], [0x55, 0xaa]);
    drop(vol);
    Volume::remove(&dir).unwrap();
    store.delete(&ami.id).unwrap();
    assert!(matches!(store.find(&ami.id), Err(StoreError::Unknown(_))));
    assert!(matches!(store.delete(&ami.id), Err(StoreError::Unknown(_))));
    let gone = store.create_volume(&ami, &dir, "vol-1", None);
    assert!(matches!(gone, Err(StoreError::Unknown(_))));
    assert!(is_tidy(&store));
}

#[test]
fn a_volume_that_was_moved_keeps_its_ami_too() {
    let tmp = TempDir::new().unwrap();
    let store = store(tmp.path());
    let ami = import(&store, &image(tmp.path())).unwrap();
    let (dir, moved) = (tmp.path().join("vol-1"), tmp.path().join("moved"));
    store.create_volume(&ami, &dir, "vol-1", None).unwrap();
    fs::rename(&dir, &moved).unwrap();
    store.volume_moved(&moved).unwrap();
    let error = store.delete(&ami.id).unwrap_err();
    assert!(
        matches!(&error, StoreError::InUse { path, .. } if *path == moved),
        "{error}"
    );
    Volume::remove(&moved).unwrap();
    store.delete(&ami.id).unwrap();
}

#[test]
fn bad_images_are_refused_in_words() {
    let tmp = TempDir::new().unwrap();
    let raw = image(tmp.path());
    let store = store(tmp.path());
    let refused = |path: &Path, words: &str| {
        let error = text(&import(&store, path).unwrap_err());
        assert!(error.contains(words), "{error}");
        assert!(is_tidy(&store));
    };
    let bad = tmp.path().join("bad");
    let write = |bytes: &[u8]| fs::write(&bad, bytes).unwrap();
    write(b"short");
    refused(&bad, "truncated");
    write(&[0x1f, 0x8b, 8, 0]);
    refused(&bad, "gzip-compressed: unpack it first");
    write(&vec![0; 1 << 20]);
    refused(&bad, "no partition table");
    write(&fs::read(&raw).unwrap()[..8 << 20]);
    refused(&bad, "truncated: partition 1 (sectors 2048 to");
    refused(&tmp.path().join("none"), "No such file");
    refused(tmp.path(), "not a regular file");
    // No kernel; forced it is a data disk.
    let tiny = fs::read(&raw).unwrap();
    let at = tiny.windows(4).position(|w| w == b"HdrS").unwrap();
    write(&tiny);
    File::options()
        .write(true)
        .open(&bad)
        .unwrap()
        .write_all_at(b"XXXX", u64::try_from(at).unwrap())
        .unwrap();
    refused(&bad, "/boot/vmlinuz is not a Linux kernel");
    let forced = ImportOptions {
        force: true,
        ..ImportOptions::default()
    };
    let ami = store.import(&bad, &forced, &mut |_| {}).unwrap();
    assert_eq!((ami.boot, ami.architecture), (None, None));
    // A kernel for 32 bits only.
    write(&tiny);
    File::options()
        .write(true)
        .open(&bad)
        .unwrap()
        .write_all_at(&[0], u64::try_from(at + 0x34).unwrap())
        .unwrap();
    if std::env::consts::ARCH == "x86_64" {
        refused(&bad, "is for i386, this machine is x86_64");
    }
}

#[test]
fn an_image_cannot_name_other_files() {
    let tmp = TempDir::new().unwrap();
    let raw = image(tmp.path());
    let store = store(tmp.path());
    let overlay = tmp.path().join("overlay.qcow2");
    let out = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([&raw, &overlay])
        .output()
        .unwrap();
    assert!(out.status.success());
    let error = text(&import(&store, &overlay).unwrap_err());
    assert!(error.contains("stands on another file"), "{error}");
    let trusted = ImportOptions {
        allow_other_files: true,
        ..ImportOptions::default()
    };
    let ami = store.import(&overlay, &trusted, &mut |_| {}).unwrap();
    assert_eq!(ami.digest, import(&store, &raw).unwrap().digest);
    let data = tmp.path().join("external.qcow2");
    let file = format!(
        "data_file={},data_file_raw=on",
        tmp.path().join("ext").display()
    );
    convert(&raw, &data, &["-O", "qcow2", "-o", &file]);
    let error = text(&import(&store, &data).unwrap_err());
    assert!(error.contains("stands on another file"), "{error}");
    let flat = tmp.path().join("flat.vmdk");
    convert(
        &raw,
        &flat,
        &["-O", "vmdk", "-o", "subformat=monolithicFlat"],
    );
    let error = text(&import(&store, &flat).unwrap_err());
    assert!(error.contains("names other files"), "{error}");
    let other = store.import(&flat, &trusted, &mut |_| {}).unwrap();
    assert_eq!(other.digest, ami.digest);
}

#[test]
fn damage_is_found_by_the_digest() {
    let tmp = TempDir::new().unwrap();
    let store = store(tmp.path());
    let ami = import(&store, &image(tmp.path())).unwrap();
    let disk = store.disk_path(&ami);
    let mut bytes = fs::read(&disk).unwrap();
    bytes[3 << 20] ^= 1;
    fs::remove_file(&disk).unwrap();
    fs::write(&disk, &bytes).unwrap();
    let error = store.verify(&ami.id, &mut |_| {}).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn left_overs_go_and_drafts_at_work_stay() {
    let tmp = TempDir::new().unwrap();
    let first = store(tmp.path());
    let dead = first.dir().join(".draft-dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join(DISK), "half").unwrap();
    fs::create_dir(first.dir().join(".trash-ami-1")).unwrap();
    let alive = first.draft().unwrap();
    store(tmp.path());
    assert!(!dead.exists() && !first.dir().join(".trash-ami-1").exists());
    assert!(alive.dir().exists());
    let dir = alive.dir().to_owned();
    drop(alive);
    assert!(!dir.exists());
}

#[test]
fn a_locked_store_names_its_owner() {
    let tmp = TempDir::new().unwrap();
    let store = store(tmp.path());
    let raw = image(tmp.path());
    let held = lock::take(store.dir(), Duration::ZERO).unwrap();
    let error = import(&store, &raw).unwrap_err();
    let me = std::process::id().to_string();
    assert!(
        matches!(&error, StoreError::Locked { owner, .. } if *owner == me),
        "{error}"
    );
    assert!(store.list().unwrap().is_empty(), "looking needs no lock");
    drop(held);
    import(&store, &raw).unwrap();
}

#[test]
fn sources_take_any_bytes() {
    let tmp = TempDir::new().unwrap();
    let raw = image(tmp.path());
    let path = tmp.path().join("x");
    let mut seed = 0x1234_5678_9abc_def1u64;
    for args in [
        &["-O", "qcow2"][..],
        &["-O", "vpc", "-o", "force_size=on"],
        &["-O", "vmdk"],
        &["-O", "vmdk", "-o", "subformat=streamOptimized"],
    ] {
        convert(&raw, &path, args);
        let good = fs::read(&path).unwrap();
        for _ in 0..if std::env::var_os("CUMULET_SOAK").is_some() {
            5000
        } else {
            60
        } {
            let mut bad = good.clone();
            for _ in 0..4 {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                // Headers and tables are in the first MiB and in the last sectors.
                let reach = if seed & 1 == 0 {
                    2048
                } else {
                    200_000.min(bad.len())
                };
                let at = crate::io::index(seed >> 20) % reach;
                let at = if seed & 6 == 0 {
                    bad.len() - 1 - at
                } else {
                    at
                };
                bad[at] = u8::try_from(seed >> 8 & 0xff).unwrap();
            }
            fs::write(&path, &bad).unwrap();
            if let Ok(mut source) = source::open(&path, false) {
                let mut buf = [0; 4096];
                let mut at = 0;
                for _ in 0..2000 {
                    if at + 4096 > source.size() {
                        break;
                    }
                    let Ok(run) = source.run(at) else { break };
                    let _ = source.read(at, &mut buf);
                    let (source::Run::Data(len) | source::Run::Zeros(len)) = run;
                    assert!(len > 0 && at + len <= source.size());
                    at += len.min(65536);
                }
            }
        }
    }
}
