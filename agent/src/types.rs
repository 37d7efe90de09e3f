//! Instance types: how many vCPUs and how much memory each name stands for.
//!
//! Public facts, in our own form: a family names its architecture and its row of sizes. What a
//! type means on EC2 beyond that (CPU model, credits, network) is not promised here.

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

/// (size, vCPUs, memory in MiB).
type Row = (&'static str, u16, u64);

const T1: &[Row] = &[("micro", 1, 627)];
const T2: &[Row] = &[
    ("nano", 1, 512),
    ("micro", 1, 1024),
    ("small", 1, 2048),
    ("medium", 2, 4096),
    ("large", 2, 8192),
    ("xlarge", 4, 16_384),
    ("2xlarge", 8, 32_768),
];
const T3: &[Row] = &[
    ("nano", 2, 512),
    ("micro", 2, 1024),
    ("small", 2, 2048),
    ("medium", 2, 4096),
    ("large", 2, 8192),
    ("xlarge", 4, 16_384),
    ("2xlarge", 8, 32_768),
];
const M3: &[Row] = &[
    ("medium", 1, 3840),
    ("large", 2, 7680),
    ("xlarge", 4, 15_360),
    ("2xlarge", 8, 30_720),
];
const M4: &[Row] = &[
    ("large", 2, 8192),
    ("xlarge", 4, 16_384),
    ("2xlarge", 8, 32_768),
    ("4xlarge", 16, 65_536),
    ("10xlarge", 40, 163_840),
    ("16xlarge", 64, 262_144),
];
/// 4 GiB a vCPU, from `large`.
const GENERAL: &[Row] = &[
    ("large", 2, 8192),
    ("xlarge", 4, 16_384),
    ("2xlarge", 8, 32_768),
    ("4xlarge", 16, 65_536),
    ("8xlarge", 32, 131_072),
    ("12xlarge", 48, 196_608),
    ("16xlarge", 64, 262_144),
    ("24xlarge", 96, 393_216),
];
/// 4 GiB a vCPU, from `medium`, on Arm.
const GENERAL_ARM: &[Row] = &[
    ("medium", 1, 4096),
    ("large", 2, 8192),
    ("xlarge", 4, 16_384),
    ("2xlarge", 8, 32_768),
    ("4xlarge", 16, 65_536),
    ("8xlarge", 32, 131_072),
    ("12xlarge", 48, 196_608),
    ("16xlarge", 64, 262_144),
];
const C4: &[Row] = &[
    ("large", 2, 3840),
    ("xlarge", 4, 7680),
    ("2xlarge", 8, 15_360),
    ("4xlarge", 16, 30_720),
    ("8xlarge", 36, 61_440),
];
const C5: &[Row] = &[
    ("large", 2, 4096),
    ("xlarge", 4, 8192),
    ("2xlarge", 8, 16_384),
    ("4xlarge", 16, 32_768),
    ("9xlarge", 36, 73_728),
    ("12xlarge", 48, 98_304),
    ("18xlarge", 72, 147_456),
    ("24xlarge", 96, 196_608),
];
/// 2 GiB a vCPU, from `large`.
const COMPUTE: &[Row] = &[
    ("large", 2, 4096),
    ("xlarge", 4, 8192),
    ("2xlarge", 8, 16_384),
    ("4xlarge", 16, 32_768),
    ("8xlarge", 32, 65_536),
    ("12xlarge", 48, 98_304),
    ("16xlarge", 64, 131_072),
    ("24xlarge", 96, 196_608),
];
/// 2 GiB a vCPU, from `medium`, on Arm.
const COMPUTE_ARM: &[Row] = &[
    ("medium", 1, 2048),
    ("large", 2, 4096),
    ("xlarge", 4, 8192),
    ("2xlarge", 8, 16_384),
    ("4xlarge", 16, 32_768),
    ("8xlarge", 32, 65_536),
    ("12xlarge", 48, 98_304),
    ("16xlarge", 64, 131_072),
];
const R4: &[Row] = &[
    ("large", 2, 15_616),
    ("xlarge", 4, 31_232),
    ("2xlarge", 8, 62_464),
    ("4xlarge", 16, 124_928),
    ("8xlarge", 32, 249_856),
    ("16xlarge", 64, 499_712),
];
/// 8 GiB a vCPU, from `large`.
const MEMORY: &[Row] = &[
    ("large", 2, 16_384),
    ("xlarge", 4, 32_768),
    ("2xlarge", 8, 65_536),
    ("4xlarge", 16, 131_072),
    ("8xlarge", 32, 262_144),
    ("12xlarge", 48, 393_216),
    ("16xlarge", 64, 524_288),
    ("24xlarge", 96, 786_432),
];
/// 8 GiB a vCPU, from `medium`, on Arm.
const MEMORY_ARM: &[Row] = &[
    ("medium", 1, 8192),
    ("large", 2, 16_384),
    ("xlarge", 4, 32_768),
    ("2xlarge", 8, 65_536),
    ("4xlarge", 16, 131_072),
    ("8xlarge", 32, 262_144),
    ("12xlarge", 48, 393_216),
    ("16xlarge", 64, 524_288),
];

use Architecture::{Arm64, X86_64};

const FAMILIES: &[(&str, Architecture, &[Row])] = &[
    ("t1", X86_64, T1),
    ("t2", X86_64, T2),
    ("t3", X86_64, T3),
    ("t3a", X86_64, T3),
    ("t4g", Arm64, T3),
    ("m3", X86_64, M3),
    ("m4", X86_64, M4),
    ("m5", X86_64, GENERAL),
    ("m5a", X86_64, GENERAL),
    ("m6i", X86_64, GENERAL),
    ("m6a", X86_64, GENERAL),
    ("m7i", X86_64, GENERAL),
    ("m7a", X86_64, GENERAL),
    ("m6g", Arm64, GENERAL_ARM),
    ("m7g", Arm64, GENERAL_ARM),
    ("c4", X86_64, C4),
    ("c5", X86_64, C5),
    ("c5a", X86_64, COMPUTE),
    ("c6i", X86_64, COMPUTE),
    ("c6a", X86_64, COMPUTE),
    ("c7i", X86_64, COMPUTE),
    ("c7a", X86_64, COMPUTE),
    ("c6g", Arm64, COMPUTE_ARM),
    ("c7g", Arm64, COMPUTE_ARM),
    ("r4", X86_64, R4),
    ("r5", X86_64, MEMORY),
    ("r5a", X86_64, MEMORY),
    ("r6i", X86_64, MEMORY),
    ("r6a", X86_64, MEMORY),
    ("r7i", X86_64, MEMORY),
    ("r6g", Arm64, MEMORY_ARM),
    ("r7g", Arm64, MEMORY_ARM),
];

/// The type when none is asked for.
pub const DEFAULT: &str = "t3.micro";
/// The most vCPUs a guest of ours may have.
pub const MAX_VCPUS: u16 = 32;
/// The least memory a guest of ours may have.
pub const MIN_MEMORY_MIB: u64 = 64;

/// Every type, in the table's order.
pub fn all() -> impl Iterator<Item = InstanceType> {
    FAMILIES.iter().flat_map(|(family, architecture, rows)| {
        rows.iter()
            .map(move |(size, vcpus, memory_mib)| InstanceType {
                name: format!("{family}.{size}"),
                architecture: *architecture,
                vcpus: *vcpus,
                memory_mib: *memory_mib,
            })
    })
}

/// Looks a type up.
///
/// # Errors
/// `InvalidInstanceType` naming the nearest types that exist.
pub fn find(name: &str) -> Result<InstanceType> {
    if let Some(found) = all().find(|known| known.name == name) {
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
        let families: Vec<&str> = FAMILIES.iter().map(|(family, ..)| *family).collect();
        error.mend(format!(
            "use a type of the families {}, or give --vcpus and --memory",
            families.join(", ")
        ))
    } else {
        error.mend(format!("the family {family} has {}", near.join(", ")))
    })
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
