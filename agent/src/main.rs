//! `cumulet`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    cumulet_agent::cli::main()
}
