//! The families of instance types: public facts, in tables of our own.
//!
//! Source: the EC2 user guide's pages of instance types ("Specifications"), network bandwidth, EBS-optimized instances
//! and credits of burstable types. What is not said publicly, or differs between sizes in ways not listed there, is not
//! in the tables.

use super::Architecture::{self, Arm64, X86_64};

/// (size, vCPUs).
type Steps = &'static [(&'static str, u16)];
/// (size, vCPUs, memory in MiB).
type Rows = &'static [(&'static str, u16, u64)];
/// (size, baseline and peak in Mbit/s).
type Links = &'static [(&'static str, u32, u32)];
/// (size, baseline and most Mbit/s, baseline and most operations a second).
type Ebs = &'static [(&'static str, u32, u32, u32, u32)];
/// (size, how many, GB of each).
type Disks = &'static [(&'static str, u16, u32)];
/// (size, most interfaces, addresses of each).
type Interfaces = &'static [(&'static str, u8, u8)];

/// What the sizes of a family have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sizes {
    /// So many MiB for every vCPU.
    Even(u64, Steps),
    /// Each its own.
    Uneven(Rows),
}

/// One family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) cpu: Cpu,
    pub(super) sizes: Sizes,
    pub(super) links: Links,
    pub(super) ebs: Ebs,
    pub(super) disks: Disks,
    pub(super) disk: Option<DiskKind>,
    /// Where they are other than [`INTERFACES`].
    pub(super) interfaces: Interfaces,
    pub(super) xen: bool,
    pub(super) current: bool,
    pub(super) hibernation: bool,
    pub(super) credits: Option<Credits>,
}

/// A family's processor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    pub(super) architecture: Architecture,
    pub(super) maker: &'static str,
    pub(super) mhz: Option<u16>,
    pub(super) threads_per_core: u16,
}

/// What kind of instance store a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskKind {
    SsdNvme,
    HddNvme,
    Ssd,
}

/// CPU credits of a burstable family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credits {
    pub(super) unlimited: bool,
    /// (size, tenths of a credit an hour).
    pub(super) earned: &'static [(&'static str, u16)],
}

const fn intel(mhz: u16) -> Cpu {
    cpu(X86_64, "Intel", mhz, 2)
}

const fn amd(mhz: u16) -> Cpu {
    cpu(X86_64, "AMD", mhz, 2)
}

/// Graviton: a vCPU is a core.
const fn graviton(mhz: u16) -> Cpu {
    cpu(Arm64, "AWS", mhz, 1)
}

const fn cpu(architecture: Architecture, maker: &'static str, mhz: u16, threads: u16) -> Cpu {
    Cpu {
        architecture,
        maker,
        mhz: if mhz == 0 { None } else { Some(mhz) },
        threads_per_core: threads,
    }
}

/// The clock is not public, or not the same for all sizes.
const UNKNOWN: u16 = 0;

impl Family {
    const fn new(name: &'static str, cpu: Cpu, sizes: Sizes, links: Links, ebs: Ebs) -> Self {
        Self {
            name,
            cpu,
            sizes,
            links,
            ebs,
            disks: &[],
            disk: None,
            interfaces: &[],
            xen: false,
            current: true,
            hibernation: true,
            credits: None,
        }
    }

    const fn xen(self) -> Self {
        Self { xen: true, ..self }
    }

    const fn previous(self) -> Self {
        Self {
            current: false,
            ..self
        }
    }

    const fn no_hibernation(self) -> Self {
        Self {
            hibernation: false,
            ..self
        }
    }

    /// One thread a core.
    const fn single_threaded(self) -> Self {
        Self {
            cpu: Cpu {
                threads_per_core: 1,
                ..self.cpu
            },
            ..self
        }
    }

    const fn disks(self, disk: DiskKind, disks: Disks) -> Self {
        Self {
            disks,
            disk: Some(disk),
            ..self
        }
    }

    const fn interfaces(self, interfaces: Interfaces) -> Self {
        Self { interfaces, ..self }
    }

    const fn burstable(self, unlimited: bool, earned: &'static [(&'static str, u16)]) -> Self {
        Self {
            credits: Some(Credits { unlimited, earned }),
            ..self
        }
    }
}

use DiskKind::{HddNvme, Ssd, SsdNvme};
use Sizes::{Even, Uneven};

/// Every family, in the order in which they are shown.
#[rustfmt::skip]
pub(super) const FAMILIES: &[Family] = &[
    Family::new("t1", intel(UNKNOWN), Uneven(T1), &[], &[])
        .xen().previous().no_hibernation().single_threaded().interfaces(SMALL_INTERFACES),
    Family::new("t2", intel(UNKNOWN), Uneven(T2), &[], &[])
        .xen().single_threaded().interfaces(T2_INTERFACES).burstable(false, T2_CREDITS),
    Family::new("t3", intel(2500), Uneven(T3), T3_LINKS, T3_EBS).interfaces(T3_INTERFACES).burstable(true, T3_CREDITS),
    Family::new("t3a", amd(2200), Uneven(T3), T3_LINKS, T3A_EBS).interfaces(T3A_INTERFACES).burstable(true, T3_CREDITS),
    Family::new("t4g", graviton(2500), Uneven(T3), T3_LINKS, T3_EBS)
        .interfaces(T3_INTERFACES).burstable(true, T3_CREDITS),
    Family::new("m3", intel(2500), Even(3840, M3), &[], M3_EBS)
        .xen().previous().disks(Ssd, M3_DISKS).interfaces(M3_INTERFACES),
    Family::new("m4", intel(UNKNOWN), Even(GENERAL, M4), &[], M4_EBS).xen().interfaces(M4_INTERFACES),
    Family::new("m5", intel(3100), Even(GENERAL, TO_24), M5_LINKS, M5_EBS),
    Family::new("m5a", amd(2500), Even(GENERAL, TO_24), M5A_LINKS, M5A_EBS),
    Family::new("m6i", intel(3500), Even(GENERAL, TO_32), M6I_LINKS, M6I_EBS),
    Family::new("m6a", amd(3600), Even(GENERAL, TO_48), M6I_LINKS, M6I_EBS),
    Family::new("m7i", intel(3200), Even(GENERAL, M7I), M6I_LINKS, M6I_EBS),
    Family::new("m7a", amd(3700), Even(GENERAL, FROM_MEDIUM_TO_48), M6I_LINKS, M6I_EBS).single_threaded(),
    Family::new("m6g", graviton(2500), Even(GENERAL, ARM), M6G_LINKS, M6G_EBS),
    Family::new("m7g", graviton(2600), Even(GENERAL, ARM), M7G_LINKS, M7G_EBS),
    Family::new("c4", intel(2900), Uneven(C4), &[], C4_EBS).xen(),
    Family::new("c5", intel(UNKNOWN), Even(COMPUTE, C5), C5_LINKS, C5_EBS),
    Family::new("c5a", amd(3300), Even(COMPUTE, TO_24), C5A_LINKS, C5A_EBS).no_hibernation(),
    Family::new("c6i", intel(3500), Even(COMPUTE, TO_32), M6I_LINKS, M6I_EBS),
    Family::new("c6a", amd(3600), Even(COMPUTE, TO_48), M6I_LINKS, M6I_EBS),
    Family::new("c7i", intel(3200), Even(COMPUTE, M7I), M6I_LINKS, M6I_EBS),
    Family::new("c7a", amd(3700), Even(COMPUTE, FROM_MEDIUM_TO_48), M6I_LINKS, M6I_EBS).single_threaded(),
    Family::new("c6g", graviton(2500), Even(COMPUTE, ARM), M6G_LINKS, M6G_EBS),
    Family::new("c7g", graviton(2600), Even(COMPUTE, ARM), M7G_LINKS, M7G_EBS),
    Family::new("r4", intel(2300), Even(7808, R4), M5_LINKS_TO_25, R4_EBS).xen(),
    Family::new("r5", intel(3100), Even(MEMORY, TO_24), M5_LINKS, M5_EBS),
    Family::new("r5a", amd(2500), Even(MEMORY, TO_24), M5A_LINKS, M5A_EBS),
    Family::new("r6i", intel(3500), Even(MEMORY, TO_32), M6I_LINKS, M6I_EBS),
    Family::new("r6a", amd(3600), Even(MEMORY, TO_48), M6I_LINKS, M6I_EBS),
    Family::new("r7i", intel(3200), Even(MEMORY, M7I), M6I_LINKS, M6I_EBS),
    Family::new("r6g", graviton(2500), Even(MEMORY, ARM), M6G_LINKS, M6G_EBS),
    Family::new("r7g", graviton(2600), Even(MEMORY, ARM), M7G_LINKS, M7G_EBS),
    Family::new("i3", intel(2300), Even(7808, R4), M5_LINKS_TO_25, I3_EBS).xen().disks(SsdNvme, I3_DISKS),
    Family::new("i4i", intel(3500), Even(MEMORY, TO_32), I4I_LINKS, I4I_EBS).disks(SsdNvme, I4I_DISKS),
    Family::new("d3", intel(3100), Even(MEMORY, D3), D3_LINKS, D3_EBS)
        .no_hibernation().disks(HddNvme, D3_DISKS).interfaces(D3_INTERFACES),
];

/// MiB a vCPU.
const COMPUTE: u64 = 2048;
const GENERAL: u64 = 4096;
const MEMORY: u64 = 8192;

#[rustfmt::skip]
const TO_48: Steps = &[
    ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32), ("12xlarge", 48),
    ("16xlarge", 64), ("24xlarge", 96), ("32xlarge", 128), ("48xlarge", 192),
];
const TO_32: Steps = TO_48.split_at(9).0;
const TO_24: Steps = TO_48.split_at(8).0;
#[rustfmt::skip]
const M7I: Steps = &[
    ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32), ("12xlarge", 48),
    ("16xlarge", 64), ("24xlarge", 96), ("48xlarge", 192),
];
#[rustfmt::skip]
const FROM_MEDIUM_TO_48: Steps = &[
    ("medium", 1), ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32), ("12xlarge", 48),
    ("16xlarge", 64), ("24xlarge", 96), ("32xlarge", 128), ("48xlarge", 192),
];
const ARM: Steps = FROM_MEDIUM_TO_48.split_at(8).0;
#[rustfmt::skip]
const C5: Steps = &[
    ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("9xlarge", 36), ("12xlarge", 48),
    ("18xlarge", 72), ("24xlarge", 96),
];
#[rustfmt::skip]
const R4: Steps = &[
    ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32), ("16xlarge", 64),
];
#[rustfmt::skip]
const M3: Steps = &[("medium", 1), ("large", 2), ("xlarge", 4), ("2xlarge", 8)];
#[rustfmt::skip]
const M4: Steps = &[
    ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("10xlarge", 40), ("16xlarge", 64),
];
#[rustfmt::skip]
const D3: Steps = &[("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32)];

const T1: Rows = &[("micro", 1, 627)];
#[rustfmt::skip]
const T2: Rows = &[
    ("nano", 1, 512), ("micro", 1, 1024), ("small", 1, 2048), ("medium", 2, 4096), ("large", 2, 8192),
    ("xlarge", 4, 16_384), ("2xlarge", 8, 32_768),
];
#[rustfmt::skip]
const T3: Rows = &[
    ("nano", 2, 512), ("micro", 2, 1024), ("small", 2, 2048), ("medium", 2, 4096), ("large", 2, 8192),
    ("xlarge", 4, 16_384), ("2xlarge", 8, 32_768),
];
#[rustfmt::skip]
const C4: Rows = &[
    ("large", 2, 3840), ("xlarge", 4, 7680), ("2xlarge", 8, 15_360), ("4xlarge", 16, 30_720), ("8xlarge", 36, 61_440),
];

#[rustfmt::skip]
const T2_CREDITS: &[(&str, u16)] = &[
    ("nano", 30), ("micro", 60), ("small", 120), ("medium", 240), ("large", 360), ("xlarge", 540), ("2xlarge", 816),
];
#[rustfmt::skip]
const T3_CREDITS: &[(&str, u16)] = &[
    ("nano", 60), ("micro", 120), ("small", 240), ("medium", 240), ("large", 360), ("xlarge", 960), ("2xlarge", 1920),
];

/// Most interfaces by size, for the families that name no others.
#[rustfmt::skip]
pub(super) const INTERFACES: Interfaces = &[
    ("medium", 2, 4), ("large", 3, 10), ("xlarge", 4, 15), ("2xlarge", 4, 15), ("4xlarge", 8, 30), ("8xlarge", 8, 30),
    ("9xlarge", 8, 30), ("12xlarge", 8, 30), ("16xlarge", 15, 50), ("18xlarge", 15, 50), ("24xlarge", 15, 50),
    ("32xlarge", 15, 50), ("48xlarge", 15, 50),
];
const SMALL_INTERFACES: Interfaces = &[("micro", 2, 2)];
#[rustfmt::skip]
const T2_INTERFACES: Interfaces = &[
    ("nano", 2, 2), ("micro", 2, 2), ("small", 3, 4), ("medium", 3, 6), ("large", 3, 12), ("xlarge", 3, 15),
    ("2xlarge", 3, 15),
];
#[rustfmt::skip]
const T3_INTERFACES: Interfaces = &[
    ("nano", 2, 2), ("micro", 2, 2), ("small", 3, 4), ("medium", 3, 6), ("large", 3, 12),
];
#[rustfmt::skip]
const T3A_INTERFACES: Interfaces = &[
    ("nano", 2, 2), ("micro", 2, 2), ("small", 2, 4), ("medium", 3, 6), ("large", 3, 12),
];
const M3_INTERFACES: Interfaces = &[("medium", 2, 6), ("2xlarge", 4, 30)];
const M4_INTERFACES: Interfaces = &[("large", 2, 10), ("10xlarge", 8, 30), ("16xlarge", 8, 30)];
#[rustfmt::skip]
const D3_INTERFACES: Interfaces = &[("xlarge", 4, 3), ("2xlarge", 4, 5), ("4xlarge", 4, 10), ("8xlarge", 3, 20)];

#[rustfmt::skip]
const T3_LINKS: Links = &[
    ("nano", 32, 5000), ("micro", 64, 5000), ("small", 128, 5000), ("medium", 256, 5000), ("large", 512, 5000),
    ("xlarge", 1024, 5000), ("2xlarge", 2048, 5000),
];
#[rustfmt::skip]
const M5_LINKS: Links = &[
    ("large", 750, 10_000), ("xlarge", 1250, 10_000), ("2xlarge", 2500, 10_000), ("4xlarge", 5000, 10_000),
    ("8xlarge", 10_000, 10_000), ("12xlarge", 12_000, 12_000), ("16xlarge", 20_000, 20_000),
    ("24xlarge", 25_000, 25_000),
];
#[rustfmt::skip]
const M5_LINKS_TO_25: Links = &[
    ("large", 750, 10_000), ("xlarge", 1250, 10_000), ("2xlarge", 2500, 10_000), ("4xlarge", 5000, 10_000),
    ("8xlarge", 10_000, 10_000), ("16xlarge", 25_000, 25_000),
];
#[rustfmt::skip]
const M5A_LINKS: Links = &[
    ("large", 750, 10_000), ("xlarge", 1250, 10_000), ("2xlarge", 2500, 10_000), ("4xlarge", 5000, 10_000),
    ("8xlarge", 7500, 10_000), ("12xlarge", 10_000, 10_000), ("16xlarge", 12_000, 12_000),
    ("24xlarge", 20_000, 20_000),
];
#[rustfmt::skip]
const C5_LINKS: Links = &[
    ("large", 750, 10_000), ("xlarge", 1250, 10_000), ("2xlarge", 2500, 10_000), ("4xlarge", 5000, 10_000),
    ("9xlarge", 12_000, 12_000), ("12xlarge", 12_000, 12_000), ("18xlarge", 25_000, 25_000),
    ("24xlarge", 25_000, 25_000),
];
#[rustfmt::skip]
const C5A_LINKS: Links = &[
    ("large", 750, 10_000), ("xlarge", 1250, 10_000), ("2xlarge", 2500, 10_000), ("4xlarge", 5000, 10_000),
    ("8xlarge", 10_000, 10_000), ("12xlarge", 12_000, 12_000), ("16xlarge", 20_000, 20_000),
    ("24xlarge", 20_000, 20_000),
];
#[rustfmt::skip]
const M6I_LINKS: Links = &[
    ("medium", 390, 12_500), ("large", 781, 12_500), ("xlarge", 1562, 12_500), ("2xlarge", 3125, 12_500),
    ("4xlarge", 6250, 12_500), ("8xlarge", 12_500, 12_500), ("12xlarge", 18_750, 18_750),
    ("16xlarge", 25_000, 25_000), ("24xlarge", 37_500, 37_500), ("32xlarge", 50_000, 50_000),
    ("48xlarge", 50_000, 50_000),
];
#[rustfmt::skip]
const M6G_LINKS: Links = &[
    ("medium", 500, 10_000), ("large", 750, 10_000), ("xlarge", 1250, 10_000), ("2xlarge", 2500, 10_000),
    ("4xlarge", 5000, 10_000), ("8xlarge", 12_000, 12_000), ("12xlarge", 20_000, 20_000),
    ("16xlarge", 25_000, 25_000),
];
#[rustfmt::skip]
const M7G_LINKS: Links = &[
    ("medium", 520, 12_500), ("large", 937, 12_500), ("xlarge", 1876, 12_500), ("2xlarge", 3750, 15_000),
    ("4xlarge", 7500, 15_000), ("8xlarge", 15_000, 15_000), ("12xlarge", 22_500, 22_500),
    ("16xlarge", 30_000, 30_000),
];
#[rustfmt::skip]
const I4I_LINKS: Links = &[
    ("large", 781, 10_000), ("xlarge", 1875, 10_000), ("2xlarge", 4687, 12_000), ("4xlarge", 9375, 25_000),
    ("8xlarge", 18_750, 18_750), ("12xlarge", 28_125, 28_125), ("16xlarge", 37_500, 37_500),
    ("24xlarge", 56_250, 56_250), ("32xlarge", 75_000, 75_000),
];
#[rustfmt::skip]
const D3_LINKS: Links = &[
    ("xlarge", 3000, 15_000), ("2xlarge", 6000, 15_000), ("4xlarge", 12_500, 15_000), ("8xlarge", 25_000, 25_000),
];

/// EC2's words for the network of types whose bandwidth it does not put in numbers.
#[rustfmt::skip]
pub(super) const LINK_WORDS: &[(&str, &str)] = &[
    ("t1.micro", "Very Low"),
    ("t2.nano", "Low to Moderate"), ("t2.micro", "Low to Moderate"), ("t2.small", "Low to Moderate"),
    ("t2.medium", "Low to Moderate"), ("t2.large", "Low to Moderate"), ("t2.xlarge", "Moderate"),
    ("t2.2xlarge", "Moderate"),
    ("m3.medium", "Moderate"), ("m3.large", "Moderate"), ("m3.xlarge", "High"), ("m3.2xlarge", "High"),
    ("m4.large", "Moderate"), ("m4.xlarge", "High"), ("m4.2xlarge", "High"), ("m4.4xlarge", "High"),
    ("m4.10xlarge", "10 Gigabit"), ("m4.16xlarge", "25 Gigabit"),
    ("c4.large", "Moderate"), ("c4.xlarge", "High"), ("c4.2xlarge", "High"), ("c4.4xlarge", "High"),
    ("c4.8xlarge", "10 Gigabit"),
];

#[rustfmt::skip]
const T3_EBS: Ebs = &[
    ("nano", 43, 2085, 250, 11_800), ("micro", 87, 2085, 500, 11_800), ("small", 174, 2085, 1000, 11_800),
    ("medium", 347, 2085, 2000, 11_800), ("large", 695, 2780, 4000, 15_700), ("xlarge", 695, 2780, 4000, 15_700),
    ("2xlarge", 695, 2780, 4000, 15_700),
];
#[rustfmt::skip]
const T3A_EBS: Ebs = &[
    ("nano", 45, 2085, 250, 11_800), ("micro", 90, 2085, 500, 11_800), ("small", 175, 2085, 1000, 11_800),
    ("medium", 350, 2085, 2000, 11_800), ("large", 695, 2780, 4000, 15_700), ("xlarge", 695, 2780, 4000, 15_700),
    ("2xlarge", 695, 2780, 4000, 15_700),
];
const M3_EBS: Ebs = &[
    ("xlarge", 500, 500, 4000, 4000),
    ("2xlarge", 1000, 1000, 8000, 8000),
];
#[rustfmt::skip]
const M4_EBS: Ebs = &[
    ("large", 450, 450, 3600, 3600), ("xlarge", 750, 750, 6000, 6000), ("2xlarge", 1000, 1000, 8000, 8000),
    ("4xlarge", 2000, 2000, 16_000, 16_000), ("10xlarge", 4000, 4000, 32_000, 32_000),
    ("16xlarge", 10_000, 10_000, 65_000, 65_000),
];
#[rustfmt::skip]
const M5_EBS: Ebs = &[
    ("large", 650, 4750, 3600, 18_750), ("xlarge", 1150, 4750, 6000, 18_750), ("2xlarge", 2300, 4750, 12_000, 18_750),
    ("4xlarge", 4750, 4750, 18_750, 18_750), ("8xlarge", 6800, 6800, 30_000, 30_000),
    ("12xlarge", 9500, 9500, 40_000, 40_000), ("16xlarge", 13_600, 13_600, 60_000, 60_000),
    ("24xlarge", 19_000, 19_000, 80_000, 80_000),
];
#[rustfmt::skip]
const M5A_EBS: Ebs = &[
    ("large", 650, 2880, 3600, 16_000), ("xlarge", 1085, 2880, 6000, 16_000), ("2xlarge", 1580, 2880, 8333, 16_000),
    ("4xlarge", 2880, 2880, 16_000, 16_000), ("8xlarge", 4750, 4750, 20_000, 20_000),
    ("12xlarge", 6780, 6780, 30_000, 30_000), ("16xlarge", 9500, 9500, 40_000, 40_000),
    ("24xlarge", 13_750, 13_750, 60_000, 60_000),
];
#[rustfmt::skip]
const M6I_EBS: Ebs = &[
    ("medium", 325, 10_000, 2500, 40_000), ("large", 650, 10_000, 3600, 40_000), ("xlarge", 1250, 10_000, 6000, 40_000),
    ("2xlarge", 2500, 10_000, 12_000, 40_000), ("4xlarge", 5000, 10_000, 20_000, 40_000),
    ("8xlarge", 10_000, 10_000, 40_000, 40_000), ("12xlarge", 15_000, 15_000, 60_000, 60_000),
    ("16xlarge", 20_000, 20_000, 80_000, 80_000), ("24xlarge", 30_000, 30_000, 120_000, 120_000),
    ("32xlarge", 40_000, 40_000, 160_000, 160_000), ("48xlarge", 40_000, 40_000, 240_000, 240_000),
];
#[rustfmt::skip]
const M6G_EBS: Ebs = &[
    ("medium", 315, 4750, 2500, 20_000), ("large", 630, 4750, 3600, 20_000), ("xlarge", 1188, 4750, 6000, 20_000),
    ("2xlarge", 2375, 4750, 12_000, 20_000), ("4xlarge", 4750, 4750, 20_000, 20_000),
    ("8xlarge", 9500, 9500, 40_000, 40_000), ("12xlarge", 14_250, 14_250, 50_000, 50_000),
    ("16xlarge", 19_000, 19_000, 80_000, 80_000),
];
#[rustfmt::skip]
const M7G_EBS: Ebs = &[
    ("medium", 315, 10_000, 2500, 40_000), ("large", 630, 10_000, 3600, 40_000), ("xlarge", 1250, 10_000, 6000, 40_000),
    ("2xlarge", 2500, 10_000, 12_000, 40_000), ("4xlarge", 5000, 10_000, 20_000, 40_000),
    ("8xlarge", 10_000, 10_000, 40_000, 40_000), ("12xlarge", 15_000, 15_000, 60_000, 60_000),
    ("16xlarge", 20_000, 20_000, 80_000, 80_000),
];
#[rustfmt::skip]
const C4_EBS: Ebs = &[
    ("large", 500, 500, 4000, 4000), ("xlarge", 750, 750, 6000, 6000), ("2xlarge", 1000, 1000, 8000, 8000),
    ("4xlarge", 2000, 2000, 16_000, 16_000), ("8xlarge", 4000, 4000, 32_000, 32_000),
];
#[rustfmt::skip]
const C5_EBS: Ebs = &[
    ("large", 650, 4750, 4000, 20_000), ("xlarge", 1150, 4750, 6000, 20_000), ("2xlarge", 2300, 4750, 10_000, 20_000),
    ("4xlarge", 4750, 4750, 20_000, 20_000), ("9xlarge", 9500, 9500, 40_000, 40_000),
    ("12xlarge", 9500, 9500, 40_000, 40_000), ("18xlarge", 19_000, 19_000, 80_000, 80_000),
    ("24xlarge", 19_000, 19_000, 80_000, 80_000),
];
#[rustfmt::skip]
const C5A_EBS: Ebs = &[
    ("large", 200, 3170, 800, 13_300), ("xlarge", 400, 3170, 1600, 13_300), ("2xlarge", 800, 3170, 3200, 13_300),
    ("4xlarge", 1580, 3170, 6600, 13_300), ("8xlarge", 3170, 3170, 13_300, 13_300),
    ("12xlarge", 4750, 4750, 20_000, 20_000), ("16xlarge", 6300, 6300, 26_700, 26_700),
    ("24xlarge", 9500, 9500, 40_000, 40_000),
];
#[rustfmt::skip]
const R4_EBS: Ebs = &[
    ("large", 425, 425, 3000, 3000), ("xlarge", 850, 850, 6000, 6000), ("2xlarge", 1700, 1700, 12_000, 12_000),
    ("4xlarge", 3500, 3500, 18_750, 18_750), ("8xlarge", 7000, 7000, 37_500, 37_500),
    ("16xlarge", 14_000, 14_000, 75_000, 75_000),
];
#[rustfmt::skip]
const I3_EBS: Ebs = &[
    ("large", 425, 425, 3000, 3000), ("xlarge", 850, 850, 6000, 6000), ("2xlarge", 1700, 1700, 12_000, 12_000),
    ("4xlarge", 3500, 3500, 16_000, 16_000), ("8xlarge", 7000, 7000, 32_500, 32_500),
    ("16xlarge", 14_000, 14_000, 65_000, 65_000),
];
#[rustfmt::skip]
const I4I_EBS: Ebs = &[
    ("large", 625, 10_000, 2500, 40_000), ("xlarge", 1250, 10_000, 5000, 40_000),
    ("2xlarge", 2500, 10_000, 10_000, 40_000), ("4xlarge", 5000, 10_000, 20_000, 40_000),
    ("8xlarge", 10_000, 10_000, 40_000, 40_000), ("12xlarge", 15_000, 15_000, 60_000, 60_000),
    ("16xlarge", 20_000, 20_000, 80_000, 80_000), ("24xlarge", 30_000, 30_000, 120_000, 120_000),
    ("32xlarge", 40_000, 40_000, 160_000, 160_000),
];
#[rustfmt::skip]
const D3_EBS: Ebs = &[
    ("xlarge", 850, 2800, 5000, 15_000), ("2xlarge", 1700, 2800, 10_000, 15_000),
    ("4xlarge", 2800, 2800, 15_000, 15_000), ("8xlarge", 5000, 5000, 30_000, 30_000),
];

#[rustfmt::skip]
const M3_DISKS: Disks = &[("medium", 1, 4), ("large", 1, 32), ("xlarge", 2, 40), ("2xlarge", 2, 80)];
#[rustfmt::skip]
const I3_DISKS: Disks = &[
    ("large", 1, 475), ("xlarge", 1, 950), ("2xlarge", 1, 1900), ("4xlarge", 2, 1900), ("8xlarge", 4, 1900),
    ("16xlarge", 8, 1900),
];
#[rustfmt::skip]
const I4I_DISKS: Disks = &[
    ("large", 1, 468), ("xlarge", 1, 937), ("2xlarge", 1, 1875), ("4xlarge", 1, 3750), ("8xlarge", 2, 3750),
    ("12xlarge", 3, 3750), ("16xlarge", 4, 3750), ("24xlarge", 6, 3750), ("32xlarge", 8, 3750),
];
#[rustfmt::skip]
const D3_DISKS: Disks = &[("xlarge", 3, 1980), ("2xlarge", 6, 1980), ("4xlarge", 12, 1980), ("8xlarge", 24, 1980)];
