//! Tap devices: the kernel's end of a guest's cable.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::error::{FabricError, Result};

nix::ioctl_write_ptr_bad!(
    /// Makes or attaches to a device (linux/if_tun.h).
    tunsetiff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);

/// Makes tap device `name` and opens it. The device is gone when the descriptor, which is
/// close-on-exec and non-blocking, and all its duplicates are closed.
///
/// Frames carry no packet information but a virtio-net header (`IFF_VNET_HDR`), whose size and
/// offloads the VMM chooses.
pub(super) fn open(name: &str) -> Result<OwnedFd> {
    let refused = |hint: &'static str| {
        let name = name.to_owned();
        move |source: io::Error| FabricError::Tap { name, hint, source }
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(refused(
            "/dev/net/tun must exist and be writable: 'modprobe tun && chmod 666 /dev/net/tun' as root",
        ))?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(refused("its name must have 1 to 15 bytes")(
            io::ErrorKind::InvalidInput.into(),
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // IFF_TUN_EXCL: never attach to a device that somebody else made.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let flags = u16::try_from(flags)
        .map_err(io::Error::other)
        .map_err(refused("flags do not fit"))?;
    request.ifr_ifru.ifru_flags = libc::c_short::from_ne_bytes(flags.to_ne_bytes());
    // SAFETY: the request is a valid ifreq that outlives the call.
    unsafe { tunsetiff(file.as_raw_fd(), &raw const request) }
        .map_err(io::Error::from)
        .map_err(refused("is another process still using this port?"))?;
    Ok(file.into())
}
