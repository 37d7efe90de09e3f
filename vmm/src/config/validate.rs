//! Checks a configuration as a whole and reports everything that is wrong with it at once.

use std::collections::BTreeSet;
use std::fmt;

use super::{BootConfig, ControlConfig, DiskConfig, DiskFormat, NetConfig, TapConfig, VmConfig};
use crate::arch::layout::PCI_SLOTS;
use crate::arch::smbios::parse_uuid;
use crate::virtio::net::Mac;

/// Largest number of vCPUs.
const MAX_VCPUS: u8 = 32;
/// Smallest guest RAM, MiB.
const MIN_MEMORY: u64 = 64;
/// Largest guest RAM, MiB (1 TiB).
const MAX_MEMORY: u64 = 1 << 20;
/// PCI slots taken by the bridges.
const BRIDGE_SLOTS: u8 = 2;
/// Longest disk serial (virtio 1.2 §5.2.6, `VIRTIO_BLK_T_GET_ID`).
const MAX_SERIAL: usize = 20;
/// Most queues a disk can have.
const MAX_QUEUES: u16 = 32;
/// Longest interface name, its final NUL not counted (`IFNAMSIZ`).
const MAX_INTERFACE_NAME: usize = 15;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, `disks[1].serial`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub Vec<Problem>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { field, problem }) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{field}: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

#[derive(Default)]
struct Report(Vec<Problem>);

impl Report {
    fn check(&mut self, good: bool, field: impl Into<String>, problem: impl Into<String>) {
        if !good {
            self.0.push(Problem {
                field: field.into(),
                problem: problem.into(),
            });
        }
    }
}

impl VmConfig {
    /// Checks every field and how they fit together.
    ///
    /// # Errors
    /// All problems found.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut report = Report::default();
        report.check(
            (1..=MAX_VCPUS).contains(&self.vcpus),
            "vcpus",
            format!("{} is not in 1 to {MAX_VCPUS}", self.vcpus),
        );
        report.check(
            (MIN_MEMORY..=MAX_MEMORY).contains(&self.memory_mib),
            "memory_mib",
            format!("{} is not in {MIN_MEMORY} to {MAX_MEMORY}", self.memory_mib),
        );
        if let BootConfig::Disk { .. } = self.boot {
            report.check(
                !self.disks.is_empty(),
                "boot.disk",
                "there is no disk to boot from; give disks[0]",
            );
        }
        let slots = self.disks.len() + self.nets.len() + usize::from(self.rng);
        let room = usize::from(PCI_SLOTS - BRIDGE_SLOTS);
        report.check(
            slots <= room,
            "disks",
            format!("{slots} devices (disks, nets, rng) do not fit into {room} PCI slots"),
        );
        check_disks(&self.disks, &mut report);
        check_nets(&self.nets, &mut report);
        if let Some(uuid) = &self.smbios.uuid {
            report.check(
                parse_uuid(uuid).is_ok(),
                "smbios.uuid",
                format!("{uuid:?} is not a UUID like ec2e1916-9099-7caf-fd21-012345abcdef"),
            );
        }
        if let Some(ControlConfig::Fd(fd)) = self.control {
            report.check(
                fd > 2,
                "control.fd",
                format!("{fd} is not an inherited descriptor"),
            );
        }
        if report.0.is_empty() {
            Ok(())
        } else {
            Err(Invalid(report.0))
        }
    }
}

fn check_disks(disks: &[DiskConfig], report: &mut Report) {
    let mut serials = BTreeSet::new();
    let mut paths = BTreeSet::new();
    for (index, disk) in disks.iter().enumerate() {
        let serial = &disk.serial;
        report.check(
            (1..=MAX_SERIAL).contains(&serial.len())
                && serial.bytes().all(|byte| byte.is_ascii_graphic()),
            format!("disks[{index}].serial"),
            format!("{serial:?} is not 1 to {MAX_SERIAL} printable ASCII characters"),
        );
        report.check(
            serials.insert(serial),
            format!("disks[{index}].serial"),
            format!("{serial:?} is used twice"),
        );
        let shareable = disk.read_only && disk.format == DiskFormat::Raw;
        report.check(
            paths.insert(&disk.path) || shareable,
            format!("disks[{index}].path"),
            format!(
                "{} is used twice; only raw disks can be, read-only",
                disk.path.display()
            ),
        );
        if let Some(queues) = disk.queues {
            report.check(
                (1..=MAX_QUEUES).contains(&queues),
                format!("disks[{index}].queues"),
                format!("{queues} is not in 1 to {MAX_QUEUES}"),
            );
        }
    }
}

fn check_nets(nets: &[NetConfig], report: &mut Report) {
    let mut macs = BTreeSet::new();
    let mut taps = BTreeSet::new();
    for (index, net) in nets.iter().enumerate() {
        let field = format!("nets[{index}].mac");
        match net.mac.parse::<Mac>() {
            Err(error) => report.check(false, field, error.to_string()),
            Ok(mac) => report.check(
                macs.insert(mac.bytes()),
                field,
                format!("{} is used twice", net.mac),
            ),
        }
        if let Some(mtu) = net.mtu {
            report.check(
                mtu >= 68,
                format!("nets[{index}].mtu"),
                format!("{mtu} is less than 68, the least for IPv4"),
            );
        }
        let (good, tap) = match &net.tap {
            TapConfig::Fd(fd) => (*fd > 2, fd.to_string()),
            TapConfig::Name(name) => (
                (1..=MAX_INTERFACE_NAME).contains(&name.len()) && !name.contains(['/', '\0', ' ']),
                name.clone(),
            ),
        };
        let field = format!("nets[{index}].tap");
        report.check(
            good,
            &*field,
            format!("{tap:?} is not a tap's name or inherited descriptor"),
        );
        report.check(
            taps.insert(tap.clone()),
            field,
            format!("{tap} is used twice"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(change: impl FnOnce(&mut serde_json::Value)) -> VmConfig {
        let mut value = json!({
            "memory_mib": 128,
            "boot": {"disk": {}},
            "disks": [{"path": "/a", "serial": "vol-1"}, {"path": "/b", "serial": "vol-2"}],
            "nets": [{"tap": {"name": "tap0"}, "mac": "02:00:00:00:00:01"}],
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn fields(config: &VmConfig) -> Vec<String> {
        let Err(Invalid(problems)) = config.validate() else {
            return Vec::new();
        };
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn a_good_configuration_passes() {
        assert!(config(|_| {}).validate().is_ok());
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let bad = config(|value| {
            value["vcpus"] = 33.into();
            value["memory_mib"] = 63.into();
            value["disks"][1] = json!({"path": "/a", "serial": "vol-1", "queues": 0});
            value["nets"][0]["mac"] = "03:00:00:00:00:01".into();
            value["nets"][0]["mtu"] = 10.into();
            value["smbios"] = json!({"uuid": "x"});
        });
        assert_eq!(
            fields(&bad),
            [
                "vcpus",
                "memory_mib",
                "disks[1].serial",
                "disks[1].path",
                "disks[1].queues",
                "nets[0].mac",
                "nets[0].mtu",
                "smbios.uuid"
            ]
        );
    }

    #[test]
    fn devices_are_limited_by_slots_and_boot_needs_a_disk() {
        let none = config(|value| value["disks"] = json!([]));
        assert_eq!(fields(&none), ["boot.disk"]);
        let many = config(|value| {
            value["disks"] = (0..29)
                .map(|n| json!({"path": format!("/{n}"), "serial": format!("vol-{n}")}))
                .collect();
        });
        assert_eq!(fields(&many), ["disks"]);
    }
}
