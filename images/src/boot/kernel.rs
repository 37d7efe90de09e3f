//! What a kernel file is, by its first bytes.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};

use crate::slice::le;

/// A processor architecture, in EC2's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 32-bit x86.
    #[serde(rename = "i386")]
    I386,
    /// 64-bit ARM.
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    /// The one this program runs on, if it is one of ours.
    #[must_use]
    pub fn of_host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::I386 => "i386",
            Self::Arm64 => "arm64",
        })
    }
}

/// Container of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFormat {
    /// Linux/x86 boot protocol (Linux Documentation/arch/x86/boot.rst).
    BzImage,
    /// ELF executable.
    Elf,
    /// Linux/arm64 Image (Linux Documentation/arch/arm64/booting.rst).
    Arm64Image,
    /// A PE executable that is neither of the above (EFI zboot, unified kernel image).
    Pe,
    /// gzip around something.
    Gzip,
    /// None of these.
    Unknown,
}

/// Format and architecture of the kernel in `file`; the position is left at the beginning.
///
/// # Errors
/// When the file cannot be read.
pub fn identify(file: &mut (impl Read + Seek)) -> io::Result<(KernelFormat, Option<Architecture>)> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.by_ref().take(0x1000).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(identify_bytes(&head))
}

fn identify_bytes(head: &[u8]) -> (KernelFormat, Option<Architecture>) {
    let at = |at: usize, want: &[u8]| head.get(at..at + want.len()) == Some(want);
    if at(0x202, b"HdrS") && at(0x1fe, &[0x55, 0xaa]) {
        // xloadflags bit 0: has a 64-bit entry point (protocol 2.12).
        let wide = le(head, 0x206, 2) >= 0x20c && le(head, 0x236, 2) & 1 == 1;
        let arch = if wide {
            Architecture::X86_64
        } else {
            Architecture::I386
        };
        return (KernelFormat::BzImage, Some(arch));
    }
    if at(0x38, b"ARM\x64") {
        return (KernelFormat::Arm64Image, Some(Architecture::Arm64));
    }
    if at(0, b"\x7fELF") {
        return (KernelFormat::Elf, machine_of_elf(le(head, 18, 2)));
    }
    if at(0, b"MZ") {
        let pe = crate::io::index(le(head, 0x3c, 4));
        let machine = if pe < head.len() && at(pe, b"PE\0\0") {
            le(head, pe + 4, 2)
        } else {
            0
        };
        let arch = match machine {
            0x8664 => Some(Architecture::X86_64),
            0x14c => Some(Architecture::I386),
            0xaa64 => Some(Architecture::Arm64),
            _ => None,
        };
        return (KernelFormat::Pe, arch);
    }
    if at(0, &[0x1f, 0x8b]) {
        return (KernelFormat::Gzip, None);
    }
    (KernelFormat::Unknown, None)
}

/// Architecture of an ELF `e_machine`.
fn machine_of_elf(machine: u64) -> Option<Architecture> {
    match machine {
        62 => Some(Architecture::X86_64),
        3 => Some(Architecture::I386),
        183 => Some(Architecture::Arm64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_the_usual_ones() {
        let mut bz = vec![0; 0x1000];
        bz[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bz[0x202..0x206].copy_from_slice(b"HdrS");
        bz[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        assert_eq!(
            identify_bytes(&bz),
            (KernelFormat::BzImage, Some(Architecture::I386))
        );
        bz[0x236] = 0x3f;
        assert_eq!(
            identify_bytes(&bz),
            (KernelFormat::BzImage, Some(Architecture::X86_64))
        );
        let mut arm = vec![0; 0x100];
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(
            identify_bytes(&arm),
            (KernelFormat::Arm64Image, Some(Architecture::Arm64))
        );
        assert_eq!(identify_bytes(b"text"), (KernelFormat::Unknown, None));
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..0x300)) {
            identify_bytes(&bytes);
            let mut mz = b"MZ".to_vec();
            mz.extend(&bytes);
            identify_bytes(&mz);
        }
    }
}
