//! The host under test is fit: what every other end-to-end test takes for granted, said clearly when it is not so.

use std::fs::File;

use cumulet_tests::paths;

#[test]
fn kvm_can_be_opened() {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        panic!("cannot open /dev/kvm: {error}");
    }
}

#[test]
fn test_guests_are_there() {
    for series in ["5.10", "6.1", "6.12"] {
        for file in ["vmlinuz", "initrd"] {
            let path = paths::payload(series, file);
            assert!(path.is_file(), "no {}", path.display());
        }
    }
}

#[test]
fn binaries_are_there() {
    for name in ["cumulet", "cumulet-vmm"] {
        let _ = paths::binary(name);
    }
}
