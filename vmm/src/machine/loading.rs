//! Loading what is booted into guest RAM.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{MachineError, host};
use crate::arch;
use crate::arch::regs::Entry;
use crate::boot::BootSource;
use crate::memory::{GuestMemory, GuestRam};
use crate::vcpu::OnStart;

/// Finds kernel and initial RAM disk and puts them into RAM.
pub(super) fn load(
    boot: &BootSource,
    memory: &GuestMemory,
    ram: u64,
) -> Result<Entry, MachineError> {
    let mut payload = boot.payload()?;
    Ok(arch::boot::load(memory, ram, &mut payload)?)
}

/// The first [`load`], on a confined thread of its own: meanwhile KVM makes the machine, and
/// sleeps for milliseconds over it until all of the host's processors have noticed.
pub(super) struct Loading(JoinHandle<Result<Entry, MachineError>>);

impl Loading {
    pub(super) fn begin(
        boot: &Arc<BootSource>,
        ram: &GuestRam,
        ram_bytes: u64,
        on_load: &OnStart,
    ) -> io::Result<Self> {
        let (boot, memory) = (Arc::clone(boot), ram.memory.clone());
        let on_load = Arc::clone(on_load);
        std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || {
                on_load().map_err(|message| host("a sandbox")(io::Error::other(message)))?;
                load(&boot, &memory, ram_bytes)
            })
            .map(Self)
    }

    /// Waits for it.
    pub(super) fn end(self) -> Result<Entry, MachineError> {
        self.0
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
