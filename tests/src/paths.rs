//! Where the things under test are.

use std::path::PathBuf;

/// The folder that the runner names in this variable.
///
/// # Panics
/// When it is not set.
#[must_use]
pub fn folder(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(folder) => folder.into(),
        None => panic!(
            "{variable} is not set: run tests by `cargo xtask test` or `cargo xtask host exec --test`"
        ),
    }
}

/// A product binary: in the folder `CUMULET_BIN_DIR`, or beside the test's own profile folder.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("CUMULET_BIN_DIR").map_or_else(
        || {
            // target/PROFILE/deps/TEST-HASH -> target/PROFILE
            let exe = std::env::current_exe().expect("own path");
            exe.ancestors()
                .nth(2)
                .expect("a test lies two levels down")
                .to_owned()
        },
        PathBuf::from,
    );
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "no {}: build it, or name its folder in CUMULET_BIN_DIR",
        path.display()
    );
    path
}

/// A file of the payload (`cargo xtask payload`): `payload("6.1", "vmlinuz")`.
///
/// # Panics
/// When the environment does not name the payload's folder.
#[must_use]
pub fn payload(kernel: &str, file: &str) -> PathBuf {
    folder("CUMULET_PAYLOAD_DIR")
        .join("kernels")
        .join(kernel)
        .join(file)
}
