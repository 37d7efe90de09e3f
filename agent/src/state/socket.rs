//! Unix sockets in folders whose path may be longer than a socket address holds.
//!
//! `sun_path` has 108 bytes, and a state folder can lie deeper than that. The kernel resolves
//! `/proc/self/fd/N/name` to the folder behind the open descriptor N, so that is what is bound and
//! connected: the sockets stay inside the instance's own folder (mode 0700) at any depth.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

fn through_folder(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// Listens on `folder/name`, taking the place of a socket that a killed process left there. The
/// caller holds the instance's lock, so nobody else can be listening.
///
/// # Errors
/// When the folder cannot be opened or the socket not be made.
pub fn bind_socket(folder: &Path, name: &str) -> io::Result<UnixListener> {
    let opened = File::open(folder)?;
    let path = through_folder(&opened, name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Connects to `folder/name`.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when nobody listens.
pub fn connect_socket(folder: &Path, name: &str) -> io::Result<UnixStream> {
    let opened = File::open(folder)?;
    UnixStream::connect(through_folder(&opened, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn works_in_a_folder_deeper_than_a_socket_address() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        for _ in 0..2 {
            let listener = bind_socket(&deep, "s").unwrap();
            let mut client = connect_socket(&deep, "s").unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"hello").unwrap();
            drop(client);
            let mut text = String::new();
            server.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    }
}
