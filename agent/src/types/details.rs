//! What EC2 says of a type beyond its vCPUs and memory.

use super::data::{Credits, DiskKind, FAMILIES, INTERFACES, LINK_WORDS};
use super::{InstanceType, get};

/// EC2 hibernates Linux guests with less memory than this.
const HIBERNATION_MIB: u64 = 150 * 1024;

/// What EC2's DescribeInstanceTypes tells of a type. What is not public is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// Whether EC2 counts it among its current ones.
    pub current_generation: bool,
    /// `nitro` or `xen`, as EC2 runs it.
    pub hypervisor: &'static str,
    /// `Intel`, `AMD` or `AWS`.
    pub manufacturer: &'static str,
    /// Sustained clock.
    pub clock_mhz: Option<u16>,
    /// Cores.
    pub cores: u16,
    /// Threads of each.
    pub threads_per_core: u16,
    /// EC2's words for its network: `Up to 5 Gigabit`.
    pub network: String,
    /// The same in numbers.
    pub link: Option<Link>,
    /// How many interfaces and addresses it may have.
    pub interfaces: Interfaces,
    /// `unsupported`, `supported` or `default`.
    pub ebs_optimized: &'static str,
    /// What its volumes can do together, when they are EBS-optimized.
    pub ebs: Option<EbsLimits>,
    /// Instance store.
    pub disks: Option<Disk>,
    /// Whether EC2 can hibernate it.
    pub hibernation: bool,
    /// For burstable types: whether they are `unlimited` rather than `standard` unless told otherwise.
    pub unlimited: Option<bool>,
    /// For burstable types: tenths of a CPU credit earned an hour.
    pub credits_per_hour_tenths: Option<u16>,
}

/// Network bandwidth in Mbit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// What it has always.
    pub baseline: u32,
    /// What it has for a while.
    pub peak: u32,
}

/// Network interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interfaces {
    /// How many.
    pub most: u8,
    /// IPv4 addresses of each.
    pub addresses: u8,
}

/// What an instance's EBS volumes can do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EbsLimits {
    /// Mbit/s, always.
    pub baseline_mbps: u32,
    /// Mbit/s, for a while.
    pub maximum_mbps: u32,
    /// Operations a second, always.
    pub baseline_iops: u32,
    /// Operations a second, for a while.
    pub maximum_iops: u32,
}

/// Instance store: `count` disks alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// How many.
    pub count: u16,
    /// GB (10^9 bytes) of each.
    pub size_gb: u32,
    /// What they are made of.
    pub medium: DiskMedium,
    /// Whether they are NVMe devices.
    pub nvme: bool,
}

/// What a disk is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskMedium {
    /// Flash.
    Ssd,
    /// Turning.
    Hdd,
}

impl DiskMedium {
    /// EC2's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssd => "ssd",
            Self::Hdd => "hdd",
        }
    }
}

impl Details {
    /// Whether it lives on CPU credits.
    #[must_use]
    pub fn burstable(&self) -> bool {
        self.unlimited.is_some()
    }
}

/// What EC2 says of the type of this name; `None` for a name that is not in the table, as that of a machine of the
/// user's own measure.
#[must_use]
pub fn details(name: &str) -> Option<Details> {
    let InstanceType {
        vcpus, memory_mib, ..
    } = get(name)?;
    let (family, size) = name.split_once('.')?;
    let family = FAMILIES.iter().find(|known| known.name == family)?;
    let link = family
        .links
        .iter()
        .find(|row| row.0 == size)
        .map(|&(_, baseline, peak)| Link { baseline, peak });
    let words = LINK_WORDS.iter().find(|row| row.0 == name);
    let network = match (words, link) {
        (Some((_, words)), _) => (*words).to_owned(),
        (None, Some(link)) => in_words(link),
        (None, None) => String::new(),
    };
    let mut interfaces = family.interfaces.iter().chain(INTERFACES);
    let interfaces = interfaces
        .find(|row| row.0 == size)
        .map(|&(_, most, addresses)| Interfaces { most, addresses })?;
    let ebs = family.ebs.iter().find(|row| row.0 == size).map(
        |&(_, baseline_mbps, maximum_mbps, baseline_iops, maximum_iops)| EbsLimits {
            baseline_mbps,
            maximum_mbps,
            baseline_iops,
            maximum_iops,
        },
    );
    let threads_per_core = family.cpu.threads_per_core.min(vcpus);
    Some(Details {
        current_generation: family.current,
        hypervisor: if family.xen { "xen" } else { "nitro" },
        manufacturer: family.cpu.maker,
        clock_mhz: family.cpu.mhz,
        cores: vcpus / threads_per_core,
        threads_per_core,
        network,
        link,
        interfaces,
        ebs_optimized: match ebs {
            None => "unsupported",
            Some(_) if family.current => "default",
            Some(_) => "supported",
        },
        ebs,
        disks: family.disk.and_then(|kind| {
            let &(_, count, size_gb) = family.disks.iter().find(|row| row.0 == size)?;
            Some(Disk {
                count,
                size_gb,
                medium: match kind {
                    DiskKind::HddNvme => DiskMedium::Hdd,
                    DiskKind::Ssd | DiskKind::SsdNvme => DiskMedium::Ssd,
                },
                nvme: kind != DiskKind::Ssd,
            })
        }),
        hibernation: family.hibernation && memory_mib < HIBERNATION_MIB,
        unlimited: family.credits.map(|credits| credits.unlimited),
        credits_per_hour_tenths: family.credits.and_then(|credits| earned(credits, size)),
    })
}

fn earned(credits: Credits, size: &str) -> Option<u16> {
    let row = credits.earned.iter().find(|row| row.0 == size)?;
    Some(row.1)
}

/// As EC2 words bandwidth: at most two digits behind the point.
fn in_words(link: Link) -> String {
    let (whole, part) = (link.peak / 1000, link.peak % 1000 / 10);
    let number = match part {
        0 => whole.to_string(),
        part => format!("{whole}.{part:02}")
            .trim_end_matches('0')
            .to_owned(),
    };
    let up_to = if link.baseline < link.peak {
        "Up to "
    } else {
        ""
    };
    format!("{up_to}{number} Gigabit")
}

#[cfg(test)]
mod tests {
    use super::super::all;
    use super::*;

    #[test]
    fn every_type_is_told_and_sane() {
        for known in all() {
            let name = &known.name;
            let told = details(name).unwrap_or_else(|| panic!("{name} has no details"));
            assert_eq!(told.cores * told.threads_per_core, known.vcpus, "{name}");
            assert!(!told.network.is_empty(), "{name} has no network");
            assert!(
                told.interfaces.most >= 2 && told.interfaces.addresses >= 2,
                "{name}"
            );
            assert_eq!(
                told.burstable(),
                told.credits_per_hour_tenths.is_some(),
                "{name}"
            );
            assert!(["Intel", "AMD", "AWS"].contains(&told.manufacturer));
            if let Some(link) = told.link {
                assert!(0 < link.baseline && link.baseline <= link.peak, "{name}");
            }
            if let Some(ebs) = told.ebs {
                assert!(ebs.baseline_mbps <= ebs.maximum_mbps, "{name}");
                assert!(ebs.baseline_iops <= ebs.maximum_iops, "{name}");
            }
            // Nitro types are all EBS-optimized, and the bandwidth of all is public.
            if told.hypervisor == "nitro" {
                assert!(told.ebs.is_some() && told.link.is_some(), "{name}");
            }
            let (family, _) = name.split_once('.').unwrap();
            assert_eq!(
                told.disks.is_some(),
                ["m3", "i3", "i4i", "d3"].contains(&family),
                "{name}"
            );
        }
    }

    #[test]
    fn no_table_has_a_row_for_a_size_that_there_is_not() {
        for family in FAMILIES {
            let has = |size: &str| get(&format!("{}.{size}", family.name)).is_some();
            for (size, ..) in family.disks {
                assert!(has(size), "{} {size}", family.name);
            }
            for (size, ..) in family.interfaces {
                assert!(has(size), "{} {size}", family.name);
            }
        }
        for (name, _) in LINK_WORDS {
            assert!(get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn known_details() {
        let micro = details("t3.micro").unwrap();
        assert_eq!((micro.cores, micro.threads_per_core), (1, 2));
        assert_eq!(micro.network, "Up to 5 Gigabit");
        assert_eq!(micro.credits_per_hour_tenths, Some(120));
        assert_eq!(micro.unlimited, Some(true));
        assert_eq!(micro.interfaces.most, 2);
        assert_eq!(details("t2.micro").unwrap().unlimited, Some(false));
        assert_eq!(details("t2.micro").unwrap().ebs_optimized, "unsupported");
        assert_eq!(details("m5.large").unwrap().network, "Up to 10 Gigabit");
        assert_eq!(details("m6i.12xlarge").unwrap().network, "18.75 Gigabit");
        assert_eq!(details("m6i.large").unwrap().network, "Up to 12.5 Gigabit");
        assert_eq!(details("i4i.12xlarge").unwrap().network, "28.12 Gigabit");
        assert_eq!(details("m3.xlarge").unwrap().ebs_optimized, "supported");
        let i3 = details("i3.4xlarge").unwrap();
        let disk = i3.disks.unwrap();
        assert_eq!((disk.count, disk.size_gb, disk.nvme), (2, 1900, true));
        assert_eq!(
            details("d3.xlarge").unwrap().disks.unwrap().medium,
            DiskMedium::Hdd
        );
        assert!(details("m5.8xlarge").unwrap().hibernation);
        assert!(!details("m5.24xlarge").unwrap().hibernation);
        assert_eq!(details("m7g.large").unwrap().threads_per_core, 1);
        assert_eq!(details("custom.2x512"), None);
    }
}
