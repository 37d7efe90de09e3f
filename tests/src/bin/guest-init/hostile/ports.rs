//! Garbage into I/O ports.

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use serde_json::{Value, json};

use super::registers::value;
use cumulet_tests::pattern::Rng;

/// Ports that end the machine when written: keyboard controller reset, PM1 control (S5 lives in
/// one bit there), PCI reset, and the console, which has a stage of its own.
const FATAL: [std::ops::RangeInclusive<u16>; 5] = [
    0x60..=0x64,
    0x92..=0x92,
    0x3f8..=0x3ff,
    0x600..=0x607,
    0xcf9..=0xcf9,
];
/// Where machines of this kind have their devices.
const DENSE: [std::ops::RangeInclusive<u16>; 4] =
    [0x00..=0xff, 0x3f0..=0x3ff, 0x600..=0x63f, 0xcf0..=0xcff];

fn permit() -> Result<()> {
    // SAFETY: changes nothing but this thread's right to use I/O instructions.
    Errno::result(unsafe { libc::iopl(3) }).context("iopl")?;
    Ok(())
}

/// Reads and writes random ports, half of them where devices are.
pub(super) fn sweep(rng: &mut Rng, rounds: u64) -> Result<Value> {
    permit()?;
    let (mut reads, mut writes) = (0_u64, 0_u64);
    for _ in 0..rounds {
        let port = if rng.below(2) == 0 {
            let range = &DENSE[usize::try_from(rng.below(DENSE.len() as u64))?];
            let span = u64::from(range.end() - range.start()) + 1;
            range.start() + u16::try_from(rng.below(span))?
        } else {
            u16::try_from(rng.below(0x1_0000))?
        };
        let width = 1_u16 << rng.below(3);
        let last = port.saturating_add(width - 1);
        let fatal = FATAL
            .iter()
            .any(|range| port <= *range.end() && last >= *range.start());
        if fatal || rng.below(2) == 0 {
            // SAFETY: permitted above; reading a port changes nothing of this process.
            unsafe { input(port, width) };
            reads += 1;
        } else {
            let word = u32::try_from(value(rng) & 0xffff_ffff)?;
            // SAFETY: permitted above; the guest's own devices are all that can suffer.
            unsafe { output(port, width, word) };
            writes += 1;
        }
    }
    Ok(json!({ "reads": reads, "writes": writes }))
}

/// The console's registers.
pub(super) fn uart(rng: &mut Rng, rounds: u64) -> Result<Value> {
    permit()?;
    for _ in 0..rounds {
        let port = 0x3f8 + u16::try_from(rng.below(8))?;
        let word = u32::try_from(value(rng) & 0xff)?;
        // SAFETY: as in `sweep`.
        unsafe {
            if rng.below(3) == 0 {
                input(port, 1);
            } else {
                output(port, 1, word);
            }
        }
    }
    Ok(json!({ "rounds": rounds }))
}

/// # Safety
/// The thread must have the right to use I/O ports.
unsafe fn input(port: u16, width: u16) {
    // SAFETY: `in` changes only the register named as output.
    unsafe {
        match width {
            1 => std::arch::asm!("in al, dx", in("dx") port, out("al") _),
            2 => std::arch::asm!("in ax, dx", in("dx") port, out("ax") _),
            _ => std::arch::asm!("in eax, dx", in("dx") port, out("eax") _),
        }
    }
}

/// # Safety
/// The thread must have the right to use I/O ports.
unsafe fn output(port: u16, width: u16, value: u32) {
    let [low, high, ..] = value.to_le_bytes();
    // SAFETY: `out` changes nothing of this process.
    unsafe {
        match width {
            1 => std::arch::asm!("out dx, al", in("dx") port, in("al") low),
            2 => {
                let word = u16::from_le_bytes([low, high]);
                std::arch::asm!("out dx, ax", in("dx") port, in("ax") word);
            }
            _ => std::arch::asm!("out dx, eax", in("dx") port, in("eax") value),
        }
    }
}
