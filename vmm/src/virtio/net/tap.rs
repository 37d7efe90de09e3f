//! Tap devices, with the virtio header before every frame.

use std::ffi::{CString, c_int, c_short, c_uint};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::HEADER;

/// Offloads a guest takes from the tap (`TUN_F_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Frames may come without their checksum.
    pub checksum: bool,
    /// TCP over IPv4 may come unsegmented.
    pub tso4: bool,
    /// TCP over IPv6 may come unsegmented.
    pub tso6: bool,
    /// Unsegmented TCP may have the CWR bit set.
    pub ecn: bool,
}

impl Offloads {
    fn flags(self) -> c_uint {
        let flag = |on: bool, flag: c_uint| if on { flag } else { 0 };
        // Without the checksum the kernel takes none of the others.
        if !self.checksum {
            return 0;
        }
        libc::TUN_F_CSUM
            | flag(self.tso4, libc::TUN_F_TSO4)
            | flag(self.tso6, libc::TUN_F_TSO6)
            | flag(self.ecn && (self.tso4 || self.tso6), libc::TUN_F_TSO_ECN)
    }
}

/// Where an interface's frames go to and come from: one frame, with its virtio header, for each
/// `readv` and `writev`, none of which blocks.
pub trait NetBackend: AsRawFd + Send + Sync {
    /// What the guest takes; nothing until set.
    ///
    /// # Errors
    /// When the host cannot.
    fn set_offloads(&self, offloads: Offloads) -> io::Result<()>;
}

/// Why a tap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// A name the kernel cannot have.
    #[error("{0:?} is not a network interface name (1 to 15 bytes)")]
    Name(String),
    /// The tun driver is not there or not allowed.
    #[error("cannot open /dev/net/tun; is the tun module loaded and may you use it?")]
    Open(#[source] io::Error),
    /// The interface is missing, in use or another's.
    #[error("cannot attach to tap {name}; does it exist, is it yours and not in use?")]
    Attach {
        /// Interface name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// An inherited descriptor that is not a tap of ours.
    #[error("file descriptor {0} is not a tap with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR set")]
    NotATap(RawFd),
    /// The tap does not do as told.
    #[error("cannot set up the tap ({what})")]
    Setup {
        /// What was asked.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An attached tap.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
}

/// The flags every tap of ours has.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

impl Tap {
    /// Attaches to the existing tap `name`.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open(name: &str) -> Result<Self, TapError> {
        let bad_name = || TapError::Name(name.to_owned());
        let mut request = empty_request();
        if name.is_empty() || name.len() >= request.ifr_name.len() || !name.is_ascii() {
            return Err(bad_name());
        }
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = libc::c_char::try_from(byte).map_err(|_| bad_name())?;
        }
        request.ifr_ifru.ifru_flags = c_short::try_from(FLAGS).map_err(|_| bad_name())?;
        let attach_error = |source| TapError::Attach {
            name: name.to_owned(),
            source,
        };
        // Attaching to a name that is not there would make a new tap, if we may.
        let c_name = CString::new(name).map_err(|_| bad_name())?;
        // SAFETY: the name is a C string.
        if unsafe { libc::if_nametoindex(c_name.as_ptr()) } == 0 {
            return Err(attach_error(io::Error::last_os_error()));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(TapError::Open)?;
        // SAFETY: the request is a whole `ifreq`, as TUNSETIFF reads and writes it.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if result < 0 {
            return Err(attach_error(io::Error::last_os_error()));
        }
        Self { fd: file.into() }.set_up()
    }

    /// Uses an attached tap, opened by someone else.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn from_fd(fd: OwnedFd) -> Result<Self, TapError> {
        let mut request = empty_request();
        // SAFETY: the request is a whole `ifreq`, as TUNGETIFF writes it.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
        // SAFETY: TUNGETIFF sets the flags member; all bit patterns are valid for it.
        let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        if result < 0 || flags & FLAGS != FLAGS {
            return Err(TapError::NotATap(fd.as_raw_fd()));
        }
        let error = |source| TapError::Setup {
            what: "non-blocking",
            source,
        };
        // SAFETY: these calls pass no memory.
        let done = unsafe {
            let old = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
            old >= 0 && libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, old | libc::O_NONBLOCK) >= 0
        };
        if !done {
            return Err(error(io::Error::last_os_error()));
        }
        Self { fd }.set_up()
    }

    fn set_up(self) -> Result<Self, TapError> {
        let error = |what| move |source| TapError::Setup { what, source };
        let size = c_int::try_from(HEADER).unwrap_or(0);
        self.ioctl_pointer(libc::TUNSETVNETHDRSZ, size)
            .map_err(error("header size"))?;
        self.set_offloads(Offloads::default())
            .map_err(error("offloads"))?;
        Ok(self)
    }

    fn ioctl_pointer(&self, request: libc::Ioctl, value: c_int) -> io::Result<()> {
        // SAFETY: the kernel reads one int behind the pointer.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), request, &raw const value) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn empty_request() -> libc::ifreq {
    // SAFETY: an `ifreq` is plain data for which all zeros are valid.
    unsafe { std::mem::zeroed() }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl NetBackend for Tap {
    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let flags = libc::c_ulong::from(offloads.flags());
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD, flags) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_is_refused() {
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        assert!(matches!(Tap::from_fd(file), Err(TapError::NotATap(_))));
        for name in ["", "name-is-too-long", "t\u{e4}p"] {
            assert!(matches!(Tap::open(name), Err(TapError::Name(_))), "{name}");
        }
        let missing = Tap::open("cumulet-none").unwrap_err();
        assert!(matches!(missing, TapError::Attach { .. }), "{missing}");
    }

    #[test]
    fn segmentation_needs_the_checksum() {
        let all = Offloads {
            checksum: true,
            tso4: true,
            tso6: true,
            ecn: true,
        };
        assert_eq!(all.flags(), 0x0f);
        let none = Offloads {
            checksum: false,
            ..all
        };
        assert_eq!(none.flags(), 0);
    }
}
