//! Everything the machine needs from the host, opened before privileges are dropped.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cumulet_images::block::{BlockBackend, ReadOnly};
use cumulet_images::raw::RawDisk;
use cumulet_images::volume::{Volume, VolumeError};
use kvm_ioctls::Kvm;

use crate::boot::BootSource;
use crate::config::{
    BootConfig, ControlConfig, DiskConfig, DiskFormat, NetConfig, TapConfig, VhostMode, VmConfig,
};
use crate::probe::{self, KVM_DEVICE};
use crate::virtio::net::{Tap, TapError, VhostDevice};

/// Why something could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// KVM.
    #[error("{0}. `cumulet doctor` says more")]
    Kvm(probe::Unfit),
    /// A file that the configuration names.
    #[error("{field}: cannot open {}", path.display())]
    File {
        /// Field of the configuration.
        field: String,
        /// The path there.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A volume.
    #[error("disks[{index}].path")]
    Volume {
        /// Index of the disk.
        index: usize,
        /// Why not.
        #[source]
        source: VolumeError,
    },
    /// A tap.
    #[error("nets[{index}].tap")]
    Tap {
        /// Index of the interface.
        index: usize,
        /// Why not.
        #[source]
        source: TapError,
    },
    /// vhost-net, which the configuration insists on.
    #[error(
        "nets[{index}].vhost: cannot use /dev/vhost-net; is the module vhost_net loaded and may you use it?"
    )]
    Vhost {
        /// Index of the interface.
        index: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing to boot from.
    #[error("boot.disk: there is no disk to boot from; give disks[0]")]
    NoDisk,
    /// The control socket.
    #[error("control: cannot listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another VMM listens there.
    #[error("control: another process listens on {}; is this machine running already?", .0.display())]
    ControlBusy(PathBuf),
    /// An inherited descriptor.
    #[error("{field}: descriptor {fd} is not open or not what it should be")]
    Descriptor {
        /// Field of the configuration.
        field: String,
        /// Its number.
        fd: i32,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The host's side of an interface.
pub struct Interface {
    /// Its tap.
    pub tap: Arc<Tap>,
    /// vhost-net, if it is to move the frames.
    pub vhost: Option<VhostDevice>,
}

/// Opened resources.
pub struct Resources {
    /// KVM's device.
    pub kvm: Kvm,
    /// What to boot.
    pub boot: BootSource,
    /// Disks in the order of the configuration.
    pub disks: Vec<Arc<dyn BlockBackend>>,
    /// Interfaces in the order of the configuration.
    pub nets: Vec<Interface>,
    /// Console log.
    pub console_log: Option<File>,
    /// Control socket.
    pub control: Option<UnixListener>,
}

impl Resources {
    /// Opens everything that `config` names.
    ///
    /// # Errors
    /// The first thing that is not there, named.
    pub fn open(config: &VmConfig) -> Result<Self, ResourceError> {
        let disks = config.disks.iter().enumerate();
        let disks: Vec<_> = disks
            .map(|(index, disk)| open_disk(index, disk))
            .collect::<Result<_, _>>()?;
        let boot = match &config.boot {
            BootConfig::Kernel {
                kernel,
                initrd,
                cmdline,
            } => BootSource::Files {
                kernel: open_file("boot.kernel.kernel", kernel)?,
                initrd: match initrd {
                    Some(path) => Some(open_file("boot.kernel.initrd", path)?),
                    None => None,
                },
                cmdline: cmdline.clone(),
            },
            BootConfig::Disk { extra_cmdline } => BootSource::Disk {
                disk: disks.first().cloned().ok_or(ResourceError::NoDisk)?,
                extra_cmdline: extra_cmdline.clone(),
            },
        };
        let console_log = match &config.console.log {
            Some(path) => Some(open_log(path)?),
            None => None,
        };
        let nets = config.nets.iter().enumerate();
        Ok(Self {
            kvm: open_kvm()?,
            boot,
            disks,
            nets: nets
                .map(|(index, net)| open_interface(index, net))
                .collect::<Result<_, _>>()?,
            console_log,
            control: match &config.control {
                Some(control) => Some(listen(control)?),
                None => None,
            },
        })
    }
}

fn open_kvm() -> Result<Kvm, ResourceError> {
    probe::open(Path::new(KVM_DEVICE)).map_err(ResourceError::Kvm)
}

fn open_file(field: &str, path: &Path) -> Result<File, ResourceError> {
    let error = |source| ResourceError::File {
        field: field.to_owned(),
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(error)?;
    let meta = file.metadata().map_err(error)?;
    if meta.is_dir() {
        return Err(error(io::ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}

fn open_disk(index: usize, disk: &DiskConfig) -> Result<Arc<dyn BlockBackend>, ResourceError> {
    match disk.format {
        DiskFormat::Raw => RawDisk::open(&disk.path, disk.read_only)
            .map(|disk| Arc::new(disk) as Arc<dyn BlockBackend>)
            .map_err(|source| ResourceError::File {
                field: format!("disks[{index}].path"),
                path: disk.path.clone(),
                source,
            }),
        DiskFormat::Volume => Volume::open(&disk.path)
            .map(|volume| match disk.read_only {
                true => Arc::new(ReadOnly(volume)) as Arc<dyn BlockBackend>,
                false => Arc::new(volume),
            })
            .map_err(|source| ResourceError::Volume { index, source }),
    }
}

fn open_interface(index: usize, net: &NetConfig) -> Result<Interface, ResourceError> {
    let tap = open_tap(index, &net.tap)?;
    let vhost = match net.vhost {
        VhostMode::Off => None,
        VhostMode::On => {
            let opened = VhostDevice::open();
            Some(opened.map_err(|source| ResourceError::Vhost { index, source })?)
        }
        VhostMode::Auto => VhostDevice::open()
            .inspect_err(|error| tracing::debug!(index, %error, "no vhost-net for an interface"))
            .ok(),
    };
    Ok(Interface { tap, vhost })
}

fn open_tap(index: usize, tap: &TapConfig) -> Result<Arc<Tap>, ResourceError> {
    let opened = match tap {
        TapConfig::Name(name) => Tap::open(name),
        TapConfig::Fd(fd) => {
            let field = format!("nets[{index}].tap");
            check_open(*fd).map_err(|source| ResourceError::Descriptor {
                field,
                fd: *fd,
                source,
            })?;
            // SAFETY: the descriptor is open, and the configuration says that it is ours to use:
            // the parent process made it for this field only.
            Tap::from_fd(unsafe { OwnedFd::from_raw_fd(*fd) })
        }
    };
    opened
        .map(Arc::new)
        .map_err(|source| ResourceError::Tap { index, source })
}

fn open_log(path: &Path) -> Result<File, ResourceError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| ResourceError::File {
            field: "console.log".to_owned(),
            path: path.to_path_buf(),
            source,
        })
}

/// Makes or takes over the control socket. A socket that a killed VMM left behind is replaced; one
/// that somebody listens on is not.
fn listen(control: &ControlConfig) -> Result<UnixListener, ResourceError> {
    let path = match control {
        ControlConfig::Path(path) => path,
        ControlConfig::Fd(fd) => return inherited_listener(*fd),
    };
    let error = |source| ResourceError::Listen {
        path: path.clone(),
        source,
    };
    let listener = match UnixListener::bind(path) {
        Err(busy) if busy.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(error)?;
                    UnixListener::bind(path).map_err(error)?
                }
                _ => return Err(ResourceError::ControlBusy(path.clone())),
            }
        }
        other => other.map_err(error)?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    Ok(listener)
}

fn inherited_listener(fd: i32) -> Result<UnixListener, ResourceError> {
    let error = |source| ResourceError::Descriptor {
        field: "control.fd".to_owned(),
        fd,
        source,
    };
    check_open(fd).map_err(error)?;
    // SAFETY: the descriptor is open, and the configuration says that it is ours to use: the
    // parent process made it for this field only.
    let listener = UnixListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
    listener.set_nonblocking(true).map_err(error)?;
    Ok(listener)
}

/// Makes sure that a descriptor number means something, and that children would not inherit it.
fn check_open(fd: i32) -> io::Result<()> {
    // SAFETY: changes a flag of a descriptor or fails if it is not open.
    let done = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
