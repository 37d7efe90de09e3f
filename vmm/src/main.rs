//! `cumulet-vmm`: one process, one virtual machine.

mod cli;
mod log;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use cumulet_vmm::control::EndReason;
use cumulet_vmm::resources::Resources;
use cumulet_vmm::run;
use cumulet_vmm::trace::Timeline;
use tracing::Level;

use crate::cli::{Action, Cli};

fn main() -> ExitCode {
    #[cfg(panic = "unwind")]
    end_at_a_panic();
    let timeline = Arc::new(Timeline::default());
    Timeline::mark(&timeline.main);
    let reason = match execute(&timeline) {
        Ok(Some(reason)) => reason,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cumulet-vmm: {error:#}");
            EndReason::InternalError {
                message: format!("{error:#}"),
            }
        }
    };
    if let EndReason::VcpuError { registers, .. } = &reason {
        eprint!("{registers}");
    }
    // The last line, for programs.
    if let Ok(line) = serde_json::to_string(&reason) {
        eprintln!("{line}");
    }
    reason.exit_code().into()
}

/// A machine without one of its threads is none: a panic ends the process, also where the build would unwind.
#[cfg(panic = "unwind")]
fn end_at_a_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tell(info);
        std::process::abort();
    }));
}

fn execute(timeline: &Arc<Timeline>) -> Result<Option<EndReason>> {
    let cli = Cli::parse();
    let level = if cli.verbose {
        Level::DEBUG
    } else {
        Level::WARN
    };
    // Fails only if there is one already.
    let _ = tracing::subscriber::set_global_default(log::Stderr(level));
    if cli.die_with_parent {
        // Not SIGTERM: a machine that hangs or is stopped would not heed it. What the guest has
        // flushed is durable in any case.
        // SAFETY: asks the kernel for a signal.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    }
    let config = match cli.action()? {
        Action::Print(text) => {
            println!("{text}");
            return Ok(None);
        }
        Action::Check(config) => {
            config.validate()?;
            println!("the configuration is valid");
            return Ok(None);
        }
        Action::Run(config) => config,
    };
    config
        .validate()
        .context("the configuration is not valid")?;
    if config.trace {
        timeline.mark_exec();
    }
    let resources = Resources::open(&config)?;
    Ok(Some(run::run(&config, resources, timeline)?))
}
