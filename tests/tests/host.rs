//! The host under test is fit: what every other end-to-end test takes for granted, said clearly when it is not so.

use std::fs::File;
use std::path::PathBuf;

fn folder(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(folder) => folder.into(),
        None => panic!(
            "{variable} is not set: run this by `cargo xtask test` or `cargo xtask host exec --test host`"
        ),
    }
}

#[test]
fn kvm_can_be_opened() {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        panic!("cannot open /dev/kvm: {error}");
    }
}

#[test]
fn test_guests_are_there() {
    let kernels = folder("CUMULET_PAYLOAD_DIR").join("kernels");
    for series in ["5.10", "6.1", "6.12"] {
        for file in ["vmlinuz", "initrd"] {
            let path = kernels.join(series).join(file);
            assert!(path.is_file(), "no {}", path.display());
        }
    }
}

#[test]
fn binaries_are_there() {
    for name in ["cumulet", "cumulet-vmm"] {
        let path = folder("CUMULET_BIN_DIR").join(name);
        assert!(path.is_file(), "no {}", path.display());
    }
}
