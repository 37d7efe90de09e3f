//! The resolver on real images made by the host's own tools, and on damaged ones.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::block::{Capabilities, Extent};
use crate::io::index;
use crate::layout::{ALIGNMENT, PartitionPlan, Role, write_gpt};
use crate::raw::RawDisk;
use crate::testing::{TinyImage, bzimage, ext4, tiny_image};

fn run(program: &str, args: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let out = Command::new(program).args(args).env("PATH", path).output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        out.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn disk(path: &Path) -> Arc<dyn BlockBackend> {
    Arc::new(RawDisk::open(path, true).unwrap())
}

fn bytes(file: &mut BootFile) -> Vec<u8> {
    let mut out = Vec::new();
    file.read_to_end(&mut out).unwrap();
    out
}

/// A folder with files, to be made into a file system.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let dir = TempDir::new().unwrap();
        for (path, bytes) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn part(number: u32, role: Role, start_mib: u64, mib: u64) -> PartitionPlan {
    PartitionPlan {
        number,
        role,
        start: start_mib << 20,
        len: mib << 20,
    }
}

fn gpt_disk(dir: &Path, mib: u64, plan: &[PartitionPlan]) -> PathBuf {
    let path = dir.join("disk.raw");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.set_len(mib << 20).unwrap();
    write_gpt(&file, plan).unwrap();
    path
}

/// Copies a file system image into a partition.
fn place(disk: &Path, part: &PartitionPlan, image: &Path) {
    let mut out = File::options().write(true).open(disk).unwrap();
    out.seek(SeekFrom::Start(part.start)).unwrap();
    io::copy(&mut File::open(image).unwrap(), &mut out).unwrap();
}

fn vfat(dir: &Path, mib: u64, files: &[(&str, &[u8])]) -> PathBuf {
    let image = dir.join("vfat.img");
    File::create(&image).unwrap().set_len(mib << 20).unwrap();
    let image_arg = image.to_str().unwrap().to_owned();
    run("mkfs.vfat", &["-n", "ESP", &image_arg]);
    for (path, bytes) in files {
        let mut dirs = String::new();
        for part in path.split('/').take(path.matches('/').count()) {
            dirs = format!("{dirs}/{part}");
            let _ = Command::new("mmd")
                .args(["-D", "s", "-i", &image_arg, &format!("::{dirs}")])
                .output();
        }
        let tmp = dir.join("one");
        fs::write(&tmp, bytes).unwrap();
        run(
            "mcopy",
            &[
                "-i",
                &image_arg,
                tmp.to_str().unwrap(),
                &format!("::/{path}"),
            ],
        );
    }
    image
}

const GRUB: &str = "set default=\"0\"\nmenuentry 'Debian' {\n linux /boot/vmlinuz-6.1 root=LABEL=r ro quiet\n\
    initrd /boot/initrd.img-6.1\n}\n";

#[test]
fn gpt_ext4_grub() {
    let tmp = TempDir::new().unwrap();
    let (kernel, initrd) = (bzimage(1, 3_000_001), bzimage(2, 777_777));
    let files = Files::new(&[
        ("boot/vmlinuz-6.1", &kernel),
        ("boot/initrd.img-6.1", &initrd),
        ("boot/grub/grub.cfg", GRUB.as_bytes()),
    ]);
    std::os::unix::fs::symlink("boot/vmlinuz-6.1", files.path().join("vmlinuz")).unwrap();
    let root = part(1, Role::Linux, 8, 20);
    let plan = [
        part(14, Role::BiosBoot, 1, 3),
        part(15, Role::Esp, 4, 4),
        root,
    ];
    let path = gpt_disk(tmp.path(), 32, &plan);
    ext4(&path, &root, files.path()).unwrap();
    let mut found = resolve(&disk(&path)).unwrap();
    assert_eq!(found.cmdline, "root=LABEL=r ro quiet console=ttyS0");
    assert_eq!(found.architecture, Some(Architecture::X86_64));
    assert_eq!(
        found.origin,
        "partition 1 (ext4): /boot/grub/grub.cfg, entry \"Debian\""
    );
    assert_eq!(bytes(&mut found.kernel), kernel);
    assert_eq!(bytes(found.initrd.as_mut().unwrap()), initrd);
    found.kernel.seek(SeekFrom::Start(2_000_000)).unwrap();
    assert_eq!(bytes(&mut found.kernel), kernel[2_000_000..]);
    // Without the list the links serve, and the root is named by partition.
    run(
        "debugfs",
        &[
            "-w",
            "-R",
            "rm /boot/grub/grub.cfg",
            &format!("{}?offset=8388608", path.display()),
        ],
    );
    let found = resolve(&disk(&path)).unwrap();
    assert!(
        found.origin.contains("/vmlinuz (no boot loader"),
        "{}",
        found.origin
    );
    assert_eq!(found.initrd.map(|f| f.path()), None);
}

#[test]
fn tiny_images_boot_from_extlinux() {
    let tmp = TempDir::new().unwrap();
    let kernel = tmp.path().join("k");
    fs::write(&kernel, bzimage(3, 100_000)).unwrap();
    let image = TinyImage {
        kernel: &kernel,
        initrd: Some(&kernel),
        cmdline: "console=ttyS0,115200 panic=-1 -- single",
        size: 16 << 20,
        tree: None,
    };
    let path = tmp.path().join("tiny.raw");
    tiny_image(&path, &image).unwrap();
    let mut found = resolve(&disk(&path)).unwrap();
    assert_eq!(found.cmdline, image.cmdline);
    assert_eq!(bytes(&mut found.kernel), bzimage(3, 100_000));
    assert_eq!(found.initrd.unwrap().size(), 100_000);
}

#[test]
fn whole_disk_ext4_with_menu_lst_and_two_initrds() {
    let tmp = TempDir::new().unwrap();
    let menu = "default 0\ntitle x\nroot (hd0)\nkernel /boot/k root=/dev/sda1 console=hvc0\ninitrd /boot/a /boot/b\n";
    let files = Files::new(&[
        ("boot/k", &bzimage(1, 9000)),
        ("boot/a", b"abcde"),
        ("boot/b", b"fgh"),
        ("boot/grub/menu.lst", menu.as_bytes()),
    ]);
    let path = tmp.path().join("disk.raw");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let whole = PartitionPlan {
        number: 1,
        role: Role::Linux,
        start: 0,
        len: 8 << 20,
    };
    ext4(&path, &whole, files.path()).unwrap();
    let mut found = resolve(&disk(&path)).unwrap();
    assert_eq!(found.cmdline, "root=/dev/sda1 console=hvc0 console=ttyS0");
    assert!(
        found.origin.starts_with("whole disk (ext4)"),
        "{}",
        found.origin
    );
    assert_eq!(bytes(found.initrd.as_mut().unwrap()), b"abcde\0\0\0fgh");
}

#[test]
fn mbr_with_a_logical_partition_and_a_bare_kernel() {
    let tmp = TempDir::new().unwrap();
    let files = Files::new(&[
        ("boot/vmlinuz-6.1.0-9", &bzimage(1, 9000)),
        ("boot/vmlinuz-6.1.0-13", &bzimage(2, 9000)),
        ("boot/initramfs-6.1.0-13.img", b"initrd"),
        ("etc/fstab", b""),
    ]);
    let path = tmp.path().join("disk.raw");
    let mut file = File::create(&path).unwrap();
    file.set_len(32 << 20).unwrap();
    let entry = |kind: u8, first: u32, count: u32| {
        let mut e = vec![0, 0, 0, 0, kind, 0, 0, 0];
        e.extend(first.to_le_bytes());
        e.extend(count.to_le_bytes());
        e
    };
    let mut sector = |at: u64, entries: &[Vec<u8>]| {
        let mut bytes = vec![0u8; 512];
        bytes[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
        for (i, e) in entries.iter().enumerate() {
            bytes[446 + i * 16..462 + i * 16].copy_from_slice(e);
        }
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        file.seek(SeekFrom::Start(at * 512)).unwrap();
        file.write_all(&bytes).unwrap();
    };
    sector(0, &[entry(0x82, 2048, 2048), entry(0x0f, 4096, 61440)]);
    sector(4096, &[entry(0x83, 2048, 40960)]);
    let logical = PartitionPlan {
        number: 5,
        role: Role::Linux,
        start: 6144 * 512,
        len: 40960 * 512,
    };
    ext4(&path, &logical, files.path()).unwrap();
    let mut found = resolve(&disk(&path)).unwrap();
    assert_eq!(found.cmdline, "root=PARTUUID=12345678-05 ro console=ttyS0");
    assert_eq!(bytes(&mut found.kernel), bzimage(2, 9000));
    assert_eq!(found.initrd.unwrap().path(), "/boot/initramfs-6.1.0-13.img");
}

/// Makes an XFS of 300 MiB (the least there is) from a folder of files and folders.
fn xfs(dir: &Path, tree: &Path) -> PathBuf {
    fn add(proto: &mut String, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let (name, path) = (entry.file_name().into_string().unwrap(), entry.path());
            if path.is_dir() {
                *proto += &format!("{name} d--755 0 0\n");
                add(proto, &path);
                *proto += "$\n";
            } else {
                *proto += &format!("{name} ---644 0 0 {}\n", path.display());
            }
        }
    }
    let image = dir.join("xfs.img");
    File::create(&image).unwrap().set_len(300 << 20).unwrap();
    let mut proto = "nothing\n0 0\nd--755 0 0\n".to_owned();
    add(&mut proto, tree);
    proto += "$\n";
    let path = dir.join("proto");
    fs::write(&path, proto).unwrap();
    run(
        "mkfs.xfs",
        &[
            "-q",
            "-L",
            "BOOT",
            "-p",
            path.to_str().unwrap(),
            image.to_str().unwrap(),
        ],
    );
    image
}

#[test]
fn xfs_root_with_bls_and_a_separate_boot() {
    let tmp = TempDir::new().unwrap();
    let kernel = bzimage(7, 5_000_000);
    let boot = Files::new(&[
        ("vmlinuz-6.1.55-75.amzn2023", &kernel),
        ("initramfs-6.1.55-75.amzn2023.img", b"initrd of amzn"),
        ("grub2/grubenv", b"# GRUB Environment Block\nsaved_entry=id-6.1.55-75.amzn2023\nkernelopts=root=UUID=1 ro\n####"),
        ("loader/entries/id-6.1.99.conf", b"title newer\nversion 6.1.99\nlinux /gone\noptions x\n"),
        ("loader/entries/id-6.1.55-75.amzn2023.conf", b"title AL\nversion 6.1.55\nlinux /vmlinuz-6.1.55-75.amzn2023\n\
            initrd /initramfs-6.1.55-75.amzn2023.img $tuned_initrd\noptions $kernelopts $tuned_params selinux=1\n"),
    ]);
    let xfs = xfs(tmp.path(), boot.path());
    let esp = part(1, Role::Esp, 1, 8);
    let boot_part = part(2, Role::Linux, 16, 300);
    let path = gpt_disk(tmp.path(), 320, &[esp, boot_part]);
    place(
        &path,
        &esp,
        &vfat(
            tmp.path(),
            8,
            &[("EFI/fedora/grub.cfg", b"configfile /grub2/grub.cfg\n")],
        ),
    );
    place(&path, &boot_part, &xfs);
    let mut found = resolve(&disk(&path)).unwrap();
    assert_eq!(found.cmdline, "root=UUID=1 ro selinux=1 console=ttyS0");
    assert_eq!(bytes(&mut found.kernel), kernel);
    assert_eq!(bytes(found.initrd.as_mut().unwrap()), b"initrd of amzn");
    assert!(
        found.origin.contains("partition 2 (xfs)"),
        "{}",
        found.origin
    );
}

#[test]
fn systemd_boot_on_vfat() {
    let tmp = TempDir::new().unwrap();
    let kernel = bzimage(9, 2_345_678);
    let esp = part(1, Role::Esp, 1, 40);
    let path = gpt_disk(tmp.path(), 42, &[esp]);
    let entry = b"title Arch\nlinux /vmlinuz-linux-with-a-long-name\ninitrd /initramfs-linux.img\noptions root=PARTUUID=5 rw\n";
    let image = vfat(
        tmp.path(),
        40,
        &[
            ("loader/loader.conf", b"timeout 3\ndefault arch*\n"),
            ("loader/entries/arch.conf", entry),
            ("loader/entries/zz-uki.conf", b"efi /EFI/Linux/x.efi\n"),
            ("vmlinuz-linux-with-a-long-name", &kernel),
            ("initramfs-linux.img", b"initrd"),
        ],
    );
    place(&path, &esp, &image);
    let mut found = resolve(&disk(&path)).unwrap();
    assert_eq!(bytes(&mut found.kernel), kernel);
    found.kernel.seek(SeekFrom::Start(100)).unwrap();
    assert_eq!(bytes(&mut found.kernel), kernel[100..]);
    assert_eq!(bytes(found.initrd.as_mut().unwrap()), b"initrd");
}

#[test]
fn what_cannot_be_booted_is_explained() {
    let tmp = TempDir::new().unwrap();
    let path = tmp.path().join("disk.raw");
    let fails = |path: &Path| resolve(&disk(path)).unwrap_err().to_string();
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    assert!(
        fails(&path).contains("no partition table"),
        "{}",
        fails(&path)
    );
    fs::remove_file(&path).unwrap();
    let root = part(1, Role::Linux, 1, 6);
    let path = gpt_disk(tmp.path(), 8, &[root]);
    assert!(
        fails(&path).contains("partition 1 (unknown): no known file system"),
        "{}",
        fails(&path)
    );
    let files = Files::new(&[
        ("boot/grub/grub.cfg", GRUB.as_bytes()),
        ("boot/vmlinuz-1", b"text"),
    ]);
    ext4(&path, &root, files.path()).unwrap();
    let text = fails(&path);
    assert!(
        text.contains("kernel /boot/vmlinuz-6.1: entity not found"),
        "{text}"
    );
    assert!(
        text.contains("/boot/vmlinuz-1 has 4 bytes") || text.contains("not a Linux kernel"),
        "{text}"
    );
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(5 << 20)
        .unwrap();
    assert!(fails(&path).contains("truncated"), "{}", fails(&path));
}

#[test]
fn a_damaged_first_table_is_read_from_its_copy() {
    let tmp = TempDir::new().unwrap();
    let root = part(1, Role::Linux, 1, 6);
    let path = gpt_disk(tmp.path(), 8, &[root]);
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(600)).unwrap();
    file.write_all(b"garbage").unwrap();
    let whole = Slice::whole(&disk(&path), &Budget::new(1 << 20));
    let table = partition::read(&whole, |_| false).unwrap();
    assert_eq!(table.partitions.len(), 1);
    assert!(table.remarks[0].contains("copy was used"));
}

/// A disk with some bytes changed.
#[derive(Debug)]
struct Patched {
    below: Arc<dyn BlockBackend>,
    bytes: BTreeMap<u64, u8>,
}

impl BlockBackend for Patched {
    fn size(&self) -> u64 {
        self.below.size()
    }
    fn capabilities(&self) -> Capabilities {
        self.below.capabilities()
    }
    fn locate_read(&self, offset: u64, len: u64) -> io::Result<Extent<'_>> {
        match self.bytes.range(offset..offset + len).next() {
            None => self.below.locate_read(offset, len),
            Some((&at, _)) if at / 512 > offset / 512 => {
                self.below.locate_read(offset, at / 512 * 512 - offset)
            }
            Some(_) => Ok(Extent {
                place: crate::block::Place::Buffered,
                len: 512,
            }),
        }
    }
    fn read_buffered(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        crate::io::read_at(&*self.below, offset, buf)?;
        let end = offset + u64::try_from(buf.len()).unwrap();
        for (at, byte) in self.bytes.range(offset..end) {
            buf[index(at - offset)] = *byte;
        }
        Ok(())
    }
    fn locate_write(&self, _: u64, _: u64) -> io::Result<Extent<'_>> {
        unreachable!("the resolver never writes")
    }
    fn complete_write(&self, _: u64, _: u64) -> io::Result<()> {
        unreachable!("the resolver never writes")
    }
    fn write_buffered(&self, _: u64, _: &[u8]) -> io::Result<()> {
        unreachable!("the resolver never writes")
    }
    fn flush(&self) -> io::Result<()> {
        unreachable!("the resolver never writes")
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        unreachable!("the resolver never writes")
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        unreachable!("the resolver never writes")
    }
}

/// Changes random bytes where there is something; whatever comes out, it must come out.
fn fuzz(path: &Path, runs: u64) {
    let good = disk(path);
    let spots = spots(path);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below.max(1)
    };
    for _ in 0..runs {
        let mut bytes = BTreeMap::new();
        for _ in 0..=random(12) {
            let at = spots[index(random(u64::try_from(spots.len()).unwrap()))] + random(512);
            let value = match random(3) {
                0 => 0,
                1 => 0xff,
                _ => u8::try_from(random(256)).unwrap(),
            };
            bytes.insert(at, value);
        }
        let bad: Arc<dyn BlockBackend> = Arc::new(Patched {
            below: good.clone(),
            bytes: bytes.clone(),
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if let Ok(mut found) = resolve(&bad) {
                let _ = io::copy(&mut found.kernel, &mut io::sink());
                if let Some(initrd) = &mut found.initrd {
                    let _ = io::copy(initrd, &mut io::sink());
                }
            }
        }));
        assert!(result.is_ok(), "panicked with {bytes:?}");
    }
}

fn soak(runs: u64) -> u64 {
    if std::env::var_os("CUMULET_SOAK").is_some() {
        runs * 100
    } else {
        runs
    }
}

/// Sectors of a disk that are not zeros.
fn spots(path: &Path) -> Vec<u64> {
    let mut file = File::open(path).unwrap();
    let mut out = Vec::new();
    let mut buf = vec![0; 1 << 20];
    for at in (0..file.metadata().unwrap().len()).step_by(1 << 20) {
        file.seek(SeekFrom::Start(at)).unwrap();
        let n = file.read(&mut buf).unwrap();
        let used = (at..).step_by(512).zip(buf[..n].chunks(512));
        out.extend(
            used.filter(|(_, c)| c.iter().any(|&b| b != 0))
                .map(|(at, _)| at),
        );
    }
    out
}

#[test]
fn damaged_ext4_images_never_hang_or_panic() {
    let tmp = TempDir::new().unwrap();
    let files = Files::new(&[
        ("boot/vmlinuz-6.1", &bzimage(1, 5000)),
        ("boot/initrd.img-6.1", b"initrd"),
        ("boot/grub/grub.cfg", GRUB.as_bytes()),
    ]);
    for i in 0..200 {
        fs::write(
            files.path().join(format!("boot/file-with-a-long-name-{i}")),
            "",
        )
        .unwrap();
    }
    let root = part(1, Role::Linux, 1, 2);
    let path = gpt_disk(tmp.path(), 4, &[root]);
    ext4(&path, &root, files.path()).unwrap();
    fuzz(&path, soak(400));
    // Most checksums catch the damage early; without them it gets further.
    run(
        "tune2fs",
        &[
            "-O",
            "^metadata_csum",
            &format!("{}?offset={ALIGNMENT}", path.display()),
        ],
    );
    resolve(&disk(&path)).unwrap();
    fuzz(&path, soak(400));
}

#[test]
fn damaged_vfat_images_never_hang_or_panic() {
    let tmp = TempDir::new().unwrap();
    let kernel = bzimage(1, 5000);
    let esp = part(1, Role::Esp, 1, 2);
    let path = gpt_disk(tmp.path(), 4, &[esp]);
    let image = vfat(
        tmp.path(),
        2,
        &[
            (
                "loader/entries/a.conf",
                b"linux /a-kernel-with-a-long-name\noptions x\n",
            ),
            ("a-kernel-with-a-long-name", &kernel),
        ],
    );
    place(&path, &esp, &image);
    resolve(&disk(&path)).unwrap();
    fuzz(&path, soak(400));
}

#[test]
fn damaged_xfs_images_never_hang_or_panic() {
    let tmp = TempDir::new().unwrap();
    let entry = b"linux /vmlinuz-6.1\noptions x\n";
    let files = Files::new(&[
        ("vmlinuz-6.1", &bzimage(1, 5000)),
        ("loader/entries/a.conf", entry),
    ]);
    for i in 0..150 {
        fs::write(files.path().join(format!("file-with-a-long-name-{i}")), "").unwrap();
    }
    let path = xfs(tmp.path(), files.path());
    resolve(&disk(&path)).unwrap();
    fuzz(&path, soak(400));
}
