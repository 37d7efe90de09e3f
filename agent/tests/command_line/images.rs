//! The AMI store by the command line: what is refused, by which code and status, and what is left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::common::{Done, World};

/// What is in the AMI store, sorted.
fn store(world: &World) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(world.home().join("amis"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn import(world: &World, name: &str) -> Done {
    world.image(name, 700_000);
    world.run(&["--output", "json", "images", "import", name])
}

#[test]
fn images_that_are_none_are_refused() {
    let world = World::new();
    world.image("good", 700_000);
    let good = fs::read(world.path("good")).unwrap();
    let refused = |bytes: &[u8], code: &str, says: &str| {
        fs::write(world.path("bad"), bytes).unwrap();
        world
            .run(&["images", "import", "bad"])
            .fails(2, &[code, "bad", says]);
        assert_eq!(store(&world), ["lock"]);
    };
    refused(&good[..8 << 20], "InvalidImage", "truncated");
    refused(&good[..1000], "InvalidImage", "truncated");
    refused(&[0; 1 << 20], "InvalidImage", "no partition table");
    refused(b"\x1f\x8b\x08\x00", "InvalidImage", "unpack it first");
    let patched = |offset: usize, bytes: &[u8]| {
        let header = good.windows(4).position(|at| at == b"HdrS").unwrap();
        let mut image = good.clone();
        image[header + offset..][..bytes.len()].copy_from_slice(bytes);
        image
    };
    if std::env::consts::ARCH == "x86_64" {
        let no_kernel = patched(0, b"XXXX");
        refused(&no_kernel, "InvalidImage", "not a Linux kernel");
        // `xloadflags` of the boot protocol: no 64-bit entry.
        let other = patched(0x34, &[0]);
        refused(&other, "UnsupportedArchitecture", "i386");
    }
    world
        .run(&["images", "import", "absent"])
        .fails(2, &["InvalidImage", "absent", "No such file"]);
}

#[test]
fn an_image_in_use_is_not_removed() {
    let world = World::new();
    let imported = import(&world, "tiny");
    imported.succeeds();
    let ami = imported.json()["ImageId"].as_str().unwrap().to_owned();
    let kernel = world.path("kernel").display().to_string();
    let done = world.run(&[
        "--output",
        "json",
        "run",
        "tiny",
        "--keep",
        "--skip-doctor",
        "--uplink",
        "none",
        "--kernel",
        &kernel,
    ]);
    done.succeeds();
    let json = done.json();
    let id = json["Instances"][0]["InstanceId"].as_str().unwrap();
    let refused = || {
        let mend = format!("cumulet terminate {id}");
        world
            .run(&["images", "rm", "tiny"])
            .fails(4, &["InvalidAMIID.InUse", &ami, id, "vol-", &mend]);
        assert_eq!(store(&world), [ami.as_str(), "lock"]);
    };
    refused();
    world.run(&["stop", id]).succeeds();
    refused();
    world.run(&["terminate", id]).succeeds();
    world.run(&["images", "rm", "tiny"]).succeeds();
    assert_eq!(store(&world), ["lock"]);
}

#[test]
fn a_store_at_work_names_who_holds_it() {
    let world = World::new();
    import(&world, "first").succeeds();
    let before = store(&world);
    let lock = world.home().join("amis/lock");
    let held = File::options().write(true).open(lock).unwrap();
    held.lock().unwrap();
    held.set_len(0).unwrap();
    let me = std::process::id().to_string();
    held.write_all_at(me.as_bytes(), 0).unwrap();
    let owner = format!("process {me}");
    let folder = world.home().join("amis").display().to_string();
    import(&world, "second").fails(4, &["ImageStoreLocked", &owner, &folder]);
    world
        .run(&["images", "rm", "first"])
        .fails(4, &["ImageStoreLocked", &owner]);
    assert_eq!(store(&world), before);
    // Looking takes no lock.
    world.run(&["images", "list"]).succeeds();
    drop(held);
    import(&world, "third").succeeds();
}

#[test]
fn a_full_disk_ends_an_import_and_keeps_nothing() {
    let world = World::new();
    world.image("large", 6_000_000);
    fs::create_dir(world.home()).unwrap();
    let place = world.home().join("amis").display().to_string();
    // Whether all of it was imported on a disk of so many KiB; if not, it was refused well.
    let fits = |room: u32| {
        let script = format!(
            r#"
            mount -t tmpfs -o size={room}k,mode=0700 none "$HOME_FOLDER"
            status=0; "$@" || status=$?
            ls -A "$HOME_FOLDER/amis"
            exit $status
            "#
        );
        let done = world.run_within(&script, &["images", "import", "large"]);
        if done.status() == 0 {
            return true;
        }
        done.fails(
            5,
            &["InsufficientHostStorage", "no space left", &place, "--home"],
        );
        assert_eq!(done.stdout(), "lock\n", "{room} KiB");
        false
    };
    assert!(!fits(256) && !fits(3000));
    // Page by page to the size that is enough: the manifest comes after the data.
    let mut room = 6_000_000 / 1024;
    while !fits(room) {
        room += 4;
    }
    assert!(room > 6_000_000 / 1024 + 4, "the last steps were not tried");
}

/// Deleting is what a full disk needs; it must not need room itself.
#[test]
fn a_full_disk_can_be_emptied() {
    let world = World::new();
    world.image("tiny", 700_000);
    fs::create_dir(world.home()).unwrap();
    let script = r#"
        # To the last page; and lock files that have no page yet.
        fill() {
            find "$HOME_FOLDER" -name '*lock' -exec truncate -s 0 {} +
            dd if=/dev/zero of="$HOME_FOLDER/ballast$1" bs=4k 2>/dev/null && exit 99
            df --output=avail "$HOME_FOLDER" | tail -1
        }
        mount -t tmpfs -o size=16m,mode=0700 none "$HOME_FOLDER"
        cumulet images import tiny --name used
        cumulet images import tiny --name spare
        cumulet run used --keep --name x --skip-doctor --uplink none --kernel kernel
        cumulet stop x
        fill 1
        cumulet images rm spare
        fill 2
        cumulet terminate x
        fill 3
        "$@"
        ls -A "$HOME_FOLDER/amis" "$HOME_FOLDER/instances"
        "#;
    let done = world.run_within(script, &["images", "rm", "used"]);
    done.succeeds();
    let out = done.stdout();
    assert_eq!(out.matches("removed").count(), 2, "{out}");
    let full = out.lines().filter(|line| line.trim() == "0").count();
    assert_eq!(full, 3, "{out}");
    assert!(out.contains("terminated"), "{out}");
}
