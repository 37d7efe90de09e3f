//! What the user may say about a machine: one JSON document, validated once.

mod validate;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use validate::{Invalid, Problem};

/// A whole machine. Given to `cumulet-vmm --config FILE` (`-` reads standard input).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// Number of vCPUs, 1 to 32.
    #[serde(default = "one")]
    pub vcpus: u8,
    /// Guest RAM in MiB, from 64.
    pub memory_mib: u64,
    /// What to boot.
    pub boot: BootConfig,
    /// Disks in PCI slot order; the first is the root disk.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// Network interfaces in order.
    #[serde(default)]
    pub nets: Vec<NetConfig>,
    /// Offer virtio-rng (entropy from the host's getrandom).
    #[serde(default = "yes")]
    pub rng: bool,
    /// Identity strings for SMBIOS.
    #[serde(default)]
    pub smbios: SmbiosConfig,
    /// Let the guest use VMX/SVM itself.
    #[serde(default)]
    pub nested_virtualization: bool,
    /// The serial console.
    #[serde(default)]
    pub console: ConsoleConfig,
    /// Where to listen for control connections.
    #[serde(default)]
    pub control: Option<ControlConfig>,
    /// Count exits by reason, port, MMIO register and queue.
    #[serde(default)]
    pub trace: bool,
    /// seccomp, landlock and no-new-privileges. Off only for debugging the VMM itself.
    #[serde(default = "yes")]
    pub sandbox: bool,
    /// End the process on a guest reboot instead of resetting the machine.
    #[serde(default)]
    pub exit_on_reboot: bool,
}

/// What to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BootConfig {
    /// Find kernel, initrd and command line inside the first disk, anew at every reset.
    Disk {
        /// Appended to the command line found in the image.
        #[serde(default)]
        extra_cmdline: String,
    },
    /// Boot this kernel (bzImage, or ELF with a PVH note).
    Kernel {
        /// Kernel file on the host.
        kernel: PathBuf,
        /// Initial RAM disk on the host.
        #[serde(default)]
        initrd: Option<PathBuf>,
        /// The whole command line.
        #[serde(default)]
        cmdline: String,
    },
}

/// One virtio-blk disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// A raw file of whole 512-byte sectors, or the folder of a cumulet volume.
    pub path: PathBuf,
    /// Which of the two.
    #[serde(default)]
    pub format: DiskFormat,
    /// What GET_ID answers: up to 20 ASCII bytes (virtio 1.2 §5.2.6), unique in this machine.
    pub serial: String,
    /// The guest may only read (virtio 1.2 §5.2.3, `VIRTIO_BLK_F_RO`). A raw disk may then be in use
    /// by several machines.
    #[serde(default)]
    pub read_only: bool,
    /// Number of request queues, 1 to 32; by default one a vCPU, at most 4.
    #[serde(default)]
    pub queues: Option<u16>,
    /// How requests reach the host.
    #[serde(default)]
    pub engine: DiskEngine,
}

/// Format of a disk's backing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// A raw file or block device.
    #[default]
    Raw,
    /// A copy-on-write volume of `cumulet-images`.
    Volume,
}

/// How a disk's requests reach the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskEngine {
    /// `io_uring` where the host allows it, plain system calls otherwise.
    #[default]
    Auto,
    /// `io_uring` or an error.
    IoUring,
    /// Plain `preadv`/`pwritev`.
    Sync,
}

/// One virtio-net interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// The tap device it is plugged into.
    pub tap: TapConfig,
    /// MAC address, `02:00:00:00:00:01`.
    pub mac: String,
    /// MTU offered to the guest (virtio 1.2 §5.1.3, `VIRTIO_NET_F_MTU`).
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Whether the host's kernel moves the frames.
    #[serde(default)]
    pub vhost: VhostMode,
}

/// Whether the host's kernel moves an interface's frames (vhost-net), or the VMM does. A driver that
/// vhost-net cannot serve (no MSI-X, no checksum offload) is always served by the VMM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VhostMode {
    /// vhost-net if `/dev/vhost-net` can be opened.
    Auto,
    /// The VMM.
    #[default]
    Off,
    /// vhost-net, or the machine does not start.
    On,
}

/// Where a tap comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TapConfig {
    /// An inherited, open tap file descriptor (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR).
    Fd(i32),
    /// The name of an existing tap device, opened by the VMM.
    Name(String),
}

/// SMBIOS strings; the VMM gives them no meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmbiosConfig {
    /// Type 1 UUID, and serial number unless `serial` is given.
    pub uuid: Option<String>,
    /// Type 1 serial number.
    pub serial: Option<String>,
    /// BIOS, system, board and chassis vendor.
    pub vendor: Option<String>,
    /// Type 0 version.
    pub bios_version: Option<String>,
    /// Type 1 product name.
    pub product: Option<String>,
    /// Type 2 asset tag.
    pub board_asset_tag: Option<String>,
    /// Type 3 asset tag.
    pub chassis_asset_tag: Option<String>,
    /// Type 11 OEM strings.
    pub oem_strings: Vec<String>,
}

/// The serial console (16550 at 0x3f8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleConfig {
    /// Join the guest's console to this process's standard input and output.
    pub stdio: bool,
    /// Append the guest's output to this file too.
    pub log: Option<PathBuf>,
}

/// Where the VMM listens for control connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ControlConfig {
    /// Make a Unix socket here (mode 0600).
    Path(PathBuf),
    /// An inherited, listening Unix socket.
    Fd(i32),
}

fn one() -> u8 {
    1
}

fn yes() -> bool {
    true
}
