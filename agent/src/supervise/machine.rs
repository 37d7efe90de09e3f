//! From an instance's record to the machine that the VMM builds.

use std::path::PathBuf;

use cumulet_vmm::config::{
    BootConfig, ConsoleConfig, ControlConfig, DiskConfig, DiskEngine, DiskFormat, NetConfig,
    SmbiosConfig, TapConfig, VhostMode, VmConfig,
};

use super::protocol::CONSOLE_LOG;
use crate::state::Held;
use crate::state::record::{DiskKind, Record};

/// The descriptors that the VMM inherits.
#[derive(Debug, Clone)]
pub(super) struct Inherited {
    /// The guest's network cables, in the order of its interfaces.
    pub(super) taps: Vec<i32>,
    /// A listening control socket.
    pub(super) control: i32,
    /// MTU of the network.
    pub(super) mtu: u16,
}

/// The VMM's configuration.
pub(super) fn config(held: &Held, inherited: &Inherited) -> VmConfig {
    let record = &held.record;
    let hardware = &record.hardware;
    let boot = match &hardware.direct {
        Some(direct) => BootConfig::Kernel {
            kernel: direct.kernel.clone(),
            initrd: direct.initrd.clone(),
            cmdline: direct.cmdline.clone(),
        },
        None => BootConfig::Disk {
            extra_cmdline: hardware.extra_cmdline.clone(),
        },
    };
    VmConfig {
        vcpus: hardware.vcpus,
        memory_mib: hardware.memory_mib,
        boot,
        disks: disks(held),
        nets: record
            .macs()
            .zip(&inherited.taps)
            .map(|(mac, tap)| NetConfig {
                tap: TapConfig::Fd(*tap),
                mac: mac.to_owned(),
                mtu: Some(inherited.mtu),
                vhost: VhostMode::default(),
            })
            .collect(),
        rng: true,
        smbios: smbios(record),
        nested_virtualization: hardware.nested,
        console: ConsoleConfig {
            stdio: false,
            log: Some(held.dir.file(CONSOLE_LOG)),
        },
        control: Some(ControlConfig::Fd(inherited.control)),
        trace: hardware.trace,
        sandbox: true,
        exit_on_reboot: false,
    }
}

fn disks(held: &Held) -> Vec<DiskConfig> {
    held.record
        .disks
        .iter()
        .map(|disk| DiskConfig {
            path: held.dir.file(&disk.file_name()),
            format: match disk.kind {
                DiskKind::Root | DiskKind::Data => DiskFormat::Volume,
                DiskKind::Scratch => DiskFormat::Raw,
            },
            serial: disk.serial(),
            read_only: false,
            queues: None,
            engine: DiskEngine::Auto,
        })
        .collect()
}

/// What EC2's own firmware tables say, and in the OEM strings what this really is.
fn smbios(record: &Record) -> SmbiosConfig {
    const VENDOR: &str = "Amazon EC2";
    SmbiosConfig {
        uuid: Some(record.system_uuid.clone()),
        serial: Some(record.system_uuid.clone()),
        vendor: Some(VENDOR.to_owned()),
        bios_version: Some("1.0".to_owned()),
        product: Some(record.hardware.instance_type.clone()),
        board_asset_tag: Some(record.instance_id.clone()),
        chassis_asset_tag: Some(VENDOR.to_owned()),
        oem_strings: vec!["cumulet".to_owned()],
    }
}

/// Every scratch disk's file with its size.
pub(super) fn scratch_files(held: &Held) -> Vec<(PathBuf, u64)> {
    held.record
        .disks
        .iter()
        .filter(|disk| disk.kind == DiskKind::Scratch)
        .map(|disk| (held.dir.file(&disk.file_name()), disk.size.0))
        .collect()
}
