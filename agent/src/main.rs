//! `cumulet`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    cumulet_agent::panics::end_the_process();
    cumulet_agent::cli::main()
}
