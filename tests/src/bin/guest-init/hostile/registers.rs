//! Garbage into BARs and configuration space.

use std::os::unix::fs::FileExt as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::function::Function;
use cumulet_tests::pattern::Rng;

/// Values that hurt more often than random ones.
const NASTY: [u64; 10] = [
    0,
    1,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];

pub(super) fn value(rng: &mut Rng) -> u64 {
    match rng.below(3) {
        0 => NASTY[usize::try_from(rng.below(NASTY.len() as u64)).unwrap_or(0)],
        1 => rng.below(256),
        _ => rng.next_u64(),
    }
}

pub(super) fn width(rng: &mut Rng) -> usize {
    1 << rng.below(4)
}

/// Random reads and writes in the BARs of the functions: those with the MSI-X tables, or the rest.
pub(super) fn bars(
    rng: &mut Rng,
    rounds: u64,
    functions: &[Function],
    msix: bool,
) -> Result<Value> {
    let mut touched = 0;
    for function in functions {
        let msix_bar = function.msix_bar()?;
        let common = function.virtio_structure(1)?;
        for (bar, mapping) in function.bars() {
            if (Some(bar) == msix_bar) != msix && mapping.len() <= 0x1000 {
                continue;
            }
            touched += 1;
            for _ in 0..rounds {
                // Half of the accesses go where most registers are.
                let base = common
                    .filter(|place| place.bar == bar && rng.below(2) == 0)
                    .map(|place| place.offset);
                let offset = match base {
                    Some(base) => base + usize::try_from(rng.below(64))?,
                    None => usize::try_from(rng.below(mapping.len() as u64))?,
                };
                let width = width(rng);
                // One access in eight is not aligned.
                let offset = if rng.below(8) == 0 {
                    offset
                } else {
                    offset & !(width - 1)
                };
                if rng.below(4) == 0 {
                    mapping.read(offset, width.min(4));
                } else {
                    mapping.write(offset, width, value(rng));
                }
            }
        }
    }
    Ok(json!({ "functions": functions.len(), "bars": touched }))
}

/// Random writes to the configuration space of every function of the bus: BARs land on RAM and on
/// each other, capabilities are switched on and off.
pub(super) fn config(rng: &mut Rng, rounds: u64, slot: Option<&str>) -> Result<Value> {
    let mut touched = 0;
    for dir in crate::system::pci_functions()? {
        let function = Function::new(dir);
        if slot.is_some_and(|slot| function.slot() != slot) {
            continue;
        }
        touched += 1;
        let config = function.config()?;
        for _ in 0..rounds {
            let bytes = value(rng).to_le_bytes();
            let len = usize::try_from(1 + rng.below(4))?;
            // Most writes hit the header and the capabilities.
            let reach = if rng.below(4) == 0 { 256 } else { 128 };
            let offset = rng.below(reach);
            // The end of the space cuts a write short: that is an error here, not there.
            let _ = config.write_at(&bytes[..len], offset);
            let mut back = [0; 4];
            let _ = config.read_at(&mut back, offset);
        }
    }
    Ok(json!({ "functions": touched }))
}
