//! Instance types: how many vCPUs and how much memory each name stands for.
//!
//! Public facts, in our own form: a family names its processor, its sizes and tables by size (module `data`). What a type
//! means on EC2 beyond vCPUs and memory is told by [`details`]; this host promises of it what the documentation says.

mod data;
mod details;

use cumulet_images::store::Ami;

use data::{FAMILIES, Family, Sizes};
pub use details::{Details, Disk, DiskMedium, EbsLimits, Interfaces, Link, details};

use crate::error::{Error, Kind, Result};

/// The architecture of a type, in EC2's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `x86_64`.
    X86_64,
    /// `arm64`.
    Arm64,
}

impl Architecture {
    /// EC2's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// What this host is; guests of another architecture cannot run under KVM.
    #[must_use]
    pub fn host() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Arm64
        } else {
            Self::X86_64
        }
    }
}

/// One instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceType {
    /// `t3.micro`.
    pub name: String,
    /// What its guests are built for.
    pub architecture: Architecture,
    /// Number of vCPUs.
    pub vcpus: u16,
    /// Guest RAM in MiB.
    pub memory_mib: u64,
}

/// EC2's word for what an AMI is built for; one without a kernel counts as the host's.
#[must_use]
pub fn architecture_of(ami: &Ami) -> String {
    ami.architecture.as_ref().map_or_else(
        || Architecture::host().name().to_owned(),
        ToString::to_string,
    )
}

/// The type when none is asked for.
pub const DEFAULT: &str = "t3.micro";
/// The most vCPUs a guest of ours may have.
pub const MAX_VCPUS: u16 = 32;
/// The least memory a guest of ours may have.
pub const MIN_MEMORY_MIB: u64 = 64;

/// Every type, in the table's order.
pub fn all() -> impl Iterator<Item = InstanceType> {
    FAMILIES.iter().flat_map(of_family)
}

fn of_family(family: &Family) -> Vec<InstanceType> {
    let sizes: Vec<(&str, u16, u64)> = match family.sizes {
        Sizes::Even(mib, steps) => steps
            .iter()
            .map(|(size, vcpus)| (*size, *vcpus, mib * u64::from(*vcpus)))
            .collect(),
        Sizes::Uneven(rows) => rows.to_vec(),
    };
    sizes
        .into_iter()
        .map(|(size, vcpus, memory_mib)| InstanceType {
            name: format!("{}.{size}", family.name),
            architecture: family.cpu.architecture,
            vcpus,
            memory_mib,
        })
        .collect()
}

/// The type of this name.
#[must_use]
pub fn get(name: &str) -> Option<InstanceType> {
    let (family, _) = name.split_once('.')?;
    let family = FAMILIES.iter().find(|known| known.name == family)?;
    of_family(family)
        .into_iter()
        .find(|known| known.name == name)
}

/// Looks a type up.
///
/// # Errors
/// `InvalidInstanceType` naming the nearest types that exist.
pub fn find(name: &str) -> Result<InstanceType> {
    if let Some(found) = get(name) {
        return Ok(found);
    }
    let family = name.split('.').next().unwrap_or_default();
    let near: Vec<String> = all()
        .filter(|known| known.name.split('.').next() == Some(family))
        .map(|known| known.name)
        .collect();
    let error = Error::new(
        Kind::Usage,
        "InvalidInstanceType",
        format!("unknown instance type `{name}`"),
    );
    Err(if near.is_empty() {
        let families: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        error.mend(format!(
            "use a type of the families {}, or give --vcpus and --memory",
            families.join(", ")
        ))
    } else {
        error.mend(format!("the family {family} has {}", near.join(", ")))
    })
}

/// Refuses more network interfaces than the type may have.
///
/// # Errors
/// `AttachmentLimitExceeded`.
pub fn check_interfaces(name: &str, count: usize) -> Result<()> {
    match details(name) {
        Some(details) if count > usize::from(details.interfaces.most) => Err(Error::new(
            Kind::Conflict,
            "AttachmentLimitExceeded",
            format!("Interface count {count} exceeds the limit for {name}"),
        )),
        _ => Ok(()),
    }
}

/// A machine of the user's own measure. Its name says what it is.
#[must_use]
pub fn custom(vcpus: u16, memory_mib: u64) -> InstanceType {
    InstanceType {
        name: format!("custom.{vcpus}x{memory_mib}"),
        architecture: Architecture::host(),
        vcpus,
        memory_mib,
    }
}

/// Whether our VMM on this host can be such a machine.
///
/// # Errors
/// `InvalidParameterValue` for a size out of range, `Unsupported` for another architecture.
pub fn check(wanted: &InstanceType) -> Result<()> {
    if wanted.vcpus == 0 || wanted.vcpus > MAX_VCPUS {
        return Err(Error::invalid(format!(
            "{} has {} vCPUs; a guest can have 1 to {MAX_VCPUS}",
            wanted.name, wanted.vcpus
        )));
    }
    if wanted.memory_mib < MIN_MEMORY_MIB {
        return Err(Error::invalid(format!(
            "{} has {} MiB of memory; a guest needs at least {MIN_MEMORY_MIB} MiB",
            wanted.name, wanted.memory_mib
        )));
    }
    let host = Architecture::host();
    if wanted.architecture != host {
        return Err(Error::new(
            Kind::Usage,
            "Unsupported",
            format!(
                "{} is an {} type and this host is {}: KVM runs only the host's own architecture",
                wanted.name,
                wanted.architecture.name(),
                host.name()
            ),
        )
        .mend(format!("choose a type such as {DEFAULT}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    use super::Architecture::{Arm64, X86_64};

    #[test]
    fn names_are_unique_and_sizes_sane() {
        let mut seen = HashSet::new();
        for known in all() {
            assert!(seen.insert(known.name.clone()), "{} twice", known.name);
            assert!(
                known.vcpus >= 1 && known.memory_mib >= 512,
                "{}",
                known.name
            );
        }
        let micro = find(DEFAULT).unwrap();
        assert_eq!((micro.vcpus, micro.memory_mib), (2, 1024));
    }

    #[test]
    fn known_sizes() {
        for (name, architecture, vcpus, memory) in [
            ("t1.micro", X86_64, 1, 627),
            ("t2.micro", X86_64, 1, 1024),
            ("t4g.large", Arm64, 2, 8192),
            ("m3.large", X86_64, 2, 7680),
            ("m4.10xlarge", X86_64, 40, 163_840),
            ("m5.24xlarge", X86_64, 96, 393_216),
            ("m6i.32xlarge", X86_64, 128, 524_288),
            ("m7i.48xlarge", X86_64, 192, 786_432),
            ("m7a.medium", X86_64, 1, 4096),
            ("c4.8xlarge", X86_64, 36, 61_440),
            ("c5.18xlarge", X86_64, 72, 147_456),
            ("c7g.medium", Arm64, 1, 2048),
            ("r4.large", X86_64, 2, 15_616),
            ("r6g.16xlarge", Arm64, 64, 524_288),
            ("i3.16xlarge", X86_64, 64, 499_712),
            ("i4i.large", X86_64, 2, 16_384),
            ("d3.8xlarge", X86_64, 32, 262_144),
        ] {
            let found = find(name).unwrap();
            assert_eq!(
                (found.architecture, found.vcpus, found.memory_mib),
                (architecture, vcpus, memory),
                "{name}"
            );
        }
        for gone in ["m6g.24xlarge", "m5.32xlarge", "m7i.32xlarge", "t3", "", "."] {
            assert!(find(gone).is_err(), "{gone}");
        }
    }

    #[test]
    fn unknown_types_name_their_neighbours() {
        let error = find("t3.huge").unwrap_err();
        assert_eq!(error.code, "InvalidInstanceType");
        assert!(error.mend.unwrap().contains("t3.micro"));
        assert!(find("nonsense").unwrap_err().mend.unwrap().contains("m5"));
    }

    #[test]
    fn too_big_too_small_and_foreign_are_refused() {
        assert!(check(&custom(0, 512)).is_err());
        assert!(check(&custom(33, 512)).is_err());
        assert!(check(&custom(1, 63)).is_err());
        assert!(check(&custom(32, 64)).is_ok());
        let foreign = match Architecture::host() {
            X86_64 => "t4g.micro",
            Arm64 => "t3.micro",
        };
        assert_eq!(
            check(&find(foreign).unwrap()).unwrap_err().code,
            "Unsupported"
        );
    }
}
