//! Everything of one instance, for people and for programs: the record, and what is looked up beside it.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::output::table;
use super::processes::Processes;
use super::shape::{self, timestamp};
use super::show::age;
use crate::size::{MIB, Size};
use crate::state::InstanceDir;
use crate::state::record::{Disk, DiskKind, MetadataOptions, Record};

/// Widest label of a line, with the space after it.
const LABEL: usize = 12;

/// One instance as it is now.
#[derive(Debug)]
pub(super) struct Description<'a> {
    record: &'a Record,
    folder: &'a Path,
    /// Of each disk, in the record's order; none when it is not there.
    used: Vec<Option<u64>>,
    processes: Processes,
}

impl<'a> Description<'a> {
    /// Looks everything up. `held`: somebody runs it.
    pub(super) fn of(record: &'a Record, dir: &'a InstanceDir, held: bool) -> Self {
        let disks = record.disks.iter();
        Self {
            record,
            folder: dir.path(),
            used: disks
                .map(|disk| used(&dir.file(&disk.file_name())))
                .collect(),
            processes: if held {
                Processes::of(dir)
            } else {
                Processes::default()
            },
        }
    }

    /// In EC2's shape, with what only a local host has under `Cumulet`.
    pub(super) fn value(&self) -> Value {
        let mut value = shape::instance(self.record, self.folder);
        let local = &mut value["Cumulet"];
        for (index, used) in self.used.iter().enumerate() {
            local["Disks"][index]["UsedBytes"] = json!(used);
        }
        local["Processes"] = json!({
            "Supervisor": self.processes.supervisor,
            "Vmm": self.processes.vmm,
        });
        value
    }

    /// For people, in sections.
    pub(super) fn text(&self) -> String {
        let record = self.record;
        let mut text = match record.name() {
            Some(name) => format!("{} ({name})\n", record.instance_id),
            None => format!("{}\n", record.instance_id),
        };
        for line in self.machine() {
            text.push_str(&line);
        }
        if !record.disks.is_empty() {
            text.push_str("Disks\n");
            for line in self.disks().lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text.push_str("Network\n");
        text.push_str(&self.network());
        if !record.tags.is_empty() {
            text.push_str("Tags\n");
            for (key, value) in &record.tags {
                text.push_str(&format!("  {key}={value}\n"));
            }
        }
        text.push_str("On this host\n");
        text.push_str(&self.host());
        text
    }

    fn machine(&self) -> Vec<String> {
        let record = self.record;
        let hardware = &record.hardware;
        let mut lines = vec![line("state", record.state)];
        let mut put = |label, value: &dyn Display| lines.push(line(label, value));
        if let Some(reason) = &record.state_reason {
            put("reason", &reason.message);
        }
        let many = if hardware.vcpus == 1 { "" } else { "s" };
        let memory = Size(hardware.memory_mib.saturating_mul(MIB));
        let kind = &hardware.instance_type;
        put(
            "type",
            &format!("{kind} ({} vCPU{many}, {memory})", hardware.vcpus),
        );
        if let Some(image) = &record.image {
            put(
                "image",
                &format!("{} ({}, {})", image.id, image.name, image.architecture),
            );
        }
        if let Some(direct) = &hardware.direct {
            put("kernel", &direct.kernel.display());
            if let Some(initrd) = &direct.initrd {
                put("initrd", &initrd.display());
            }
            put("cmdline", &direct.cmdline);
        } else if !hardware.extra_cmdline.is_empty() {
            put("cmdline", &format!("… {}", hardware.extra_cmdline));
        }
        if hardware.nested {
            put("nested", &"the guest may run KVM itself");
        }
        let launched = record.launch_time;
        put(
            "launched",
            &format!("{} ({} ago)", timestamp(launched), age(launched)),
        );
        put(
            "by",
            &match &record.place {
                Some(place) => format!("the EC2 API, account {}, {}", place.account, place.zone),
                None if record.keep => "cumulet run --keep".to_owned(),
                None => "cumulet run: it ends with that command".to_owned(),
            },
        );
        if let Some(key) = &record.key {
            put("key", &key.name);
        }
        put("metadata", &metadata(record.metadata));
        if let Some(data) = &record.user_data {
            let bytes = STANDARD.decode(data).map_or(0, |bytes| bytes.len());
            put("user data", &format!("{bytes} bytes"));
        }
        lines
    }

    fn disks(&self) -> String {
        let row = |(disk, used): (&Disk, &Option<u64>)| {
            let kind = match disk.kind {
                DiskKind::Root => "root volume",
                DiskKind::Data => "volume",
                DiskKind::Scratch => "scratch disk",
            };
            vec![
                disk.device.clone(),
                disk.id.clone(),
                kind.to_owned(),
                disk.size.to_string(),
                used.map_or_else(|| "-".to_owned(), |bytes| Size(bytes).to_string()),
            ]
        };
        let rows: Vec<_> = self.record.disks.iter().zip(&self.used).map(row).collect();
        table(&["DEVICE", "ID", "KIND", "SIZE", "ON DISK"], &rows)
    }

    fn network(&self) -> String {
        let record = self.record;
        let network = &record.network;
        let mut text = line(
            "address",
            format!("{} ({})", network.private_ip, record.private_dns_name()),
        );
        let mut put = |label, value: &dyn Display| text.push_str(&line(label, value));
        if let Some(public) = shape::public_address(record) {
            put("public", &public);
        }
        put(
            "interface",
            &format!("{} ({})", network.interface_id, network.mac),
        );
        if let Some(place) = &record.place {
            put(
                "subnet",
                &format!("{} ({})", place.subnet_id, place.subnet_cidr),
            );
            put("VPC", &format!("{} ({})", place.vpc_id, place.vpc_cidr));
            for (id, name) in &place.groups {
                put("group", &format!("{id} ({name})"));
            }
            for one in &place.interfaces {
                let addresses: Vec<String> =
                    one.private_ips.iter().map(ToString::to_string).collect();
                put(
                    "interface",
                    &format!(
                        "{} ({}), {} in {}",
                        one.interface_id,
                        one.mac,
                        addresses.join(", "),
                        one.subnet_id
                    ),
                );
            }
        }
        for port in &network.publish {
            put(
                "port",
                &format!("{}:{} -> {}", port.address, port.host, port.guest),
            );
        }
        put("uplink", &network.uplink);
        text
    }

    fn host(&self) -> String {
        let mut text = String::new();
        let mut put = |label, value: &dyn Display| text.push_str(&line(label, value));
        match self.processes.supervisor {
            Some(pid) => put("supervisor", &format!("pid {pid}")),
            None => put("supervisor", &"none"),
        }
        if let Some(pid) = self.processes.vmm {
            put("VMM", &format!("pid {pid}"));
        }
        put("folder", &self.folder.display());
        text
    }
}

fn line(label: &str, value: impl Display) -> String {
    format!("  {label:<LABEL$}{value}\n")
}

/// As `--metadata-options` takes them.
fn metadata(options: MetadataOptions) -> String {
    let either = |yes: bool, a: &'static str, b: &'static str| if yes { a } else { b };
    format!(
        "http-tokens={},hop-limit={},http-endpoint={},instance-tags={}",
        either(options.tokens_required, "required", "optional"),
        options.hop_limit,
        either(options.enabled, "enabled", "disabled"),
        either(options.instance_tags, "enabled", "disabled"),
    )
}

/// Bytes that a file, or all files of a folder, take on the host's disk.
fn used(path: &Path) -> Option<u64> {
    let meta = fs::symlink_metadata(path).ok()?;
    // Whatever the file system's blocks are, these are of 512 bytes (stat(2)).
    let own = meta.blocks().saturating_mul(512);
    if !meta.is_dir() {
        return Some(own);
    }
    let entries = fs::read_dir(path).ok()?.flatten();
    let inside = entries.filter_map(|entry| used(&entry.path()));
    Some(inside.fold(own, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_file_takes_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(used(&folder.path().join("absent")), None);
        let before = used(folder.path()).unwrap();
        let file = fs::File::create(folder.path().join("disk")).unwrap();
        file.set_len(1 << 30).unwrap();
        assert!(used(folder.path()).unwrap() < before + MIB);
        fs::write(folder.path().join("disk"), vec![1; 3 << 20]).unwrap();
        assert!(used(folder.path()).unwrap() >= before + 3 * MIB);
    }

    #[test]
    fn metadata_options_read_as_they_are_written() {
        use crate::cli::parse::MetadataArg;
        let options = MetadataOptions {
            hop_limit: 7,
            instance_tags: true,
            ..MetadataOptions::default()
        };
        let mut again = MetadataOptions::default();
        for part in metadata(options).split(',') {
            part.parse::<MetadataArg>().unwrap().apply(&mut again);
        }
        assert_eq!(again, options);
    }
}
