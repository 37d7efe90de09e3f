//! A guest that means harm: root in user space takes the devices from their drivers and writes
//! garbage to whatever the machine has. The seed makes a run repeatable.
//!
//! The guest may well die of it; the question is what becomes of the machine around it.

mod function;
mod ports;
mod registers;
mod rings;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::command::Args;
use cumulet_tests::pattern::Rng;
use function::Function;

/// `{"stage", "seed", "rounds", "slot"}`. Stages: `registers` (virtio BARs but for the MSI-X
/// tables), `msix` (those tables), `config` (configuration space of every function), `rings`
/// (queues that point at garbage), `ports` (I/O ports), `uart` (the console's own registers: the
/// answer may not arrive). `slot` is a PCI address; without it all virtio functions are meant.
pub(crate) fn run(args: &Args) -> Result<Value> {
    let mut rng = Rng::new(args.number("seed")?);
    let rounds = args.number("rounds")?;
    let slot = args.get("slot").as_str();
    match args.text("stage")? {
        "registers" => registers::bars(&mut rng, rounds, &virtio(slot)?, false),
        "msix" => registers::bars(&mut rng, rounds, &virtio(slot)?, true),
        "config" => registers::config(&mut rng, rounds, slot),
        "rings" => rings::run(&mut rng, rounds, &virtio(slot)?),
        "ports" => ports::sweep(&mut rng, rounds),
        "uart" => ports::uart(&mut rng, rounds),
        "rebind" => rebind(&virtio(slot)?),
        other => bail!("no stage {other:?}"),
    }
}

/// The virtio functions, without their drivers.
fn virtio(slot: Option<&str>) -> Result<Vec<Function>> {
    let mut found = Vec::new();
    for dir in crate::system::pci_functions()? {
        let function = Function::new(dir);
        if function.is_virtio() && slot.is_none_or(|slot| function.slot() == slot) {
            function.take()?;
            found.push(function);
        }
    }
    Ok(found)
}

/// Gives the functions back to the kernel's driver.
fn rebind(functions: &[Function]) -> Result<Value> {
    for function in functions {
        function.give_back()?;
    }
    Ok(json!({ "functions": functions.len() }))
}
