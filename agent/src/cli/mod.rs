//! The command line: what can be typed, and one function a command.

mod args;
mod complete;
mod console;
mod describe;
mod env;
mod forward;
mod images;
mod instances;
mod keys;
mod launch;
mod logs;
mod output;
mod parse;
mod processes;
mod run;
mod serve;
mod server;
mod shape;
mod show;
mod ssh;

use std::process::ExitCode;

use clap::Parser;

pub use args::{Cli, Command};
pub use output::Output;

use crate::error::Result;
use crate::state::Home;
use crate::{doctor, router, supervise};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    complete::answer();
    let cli = Cli::parse();
    let output = Output::new(cli.output);
    match dispatch(cli, output) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.kind.exit_status())
        }
    }
}

/// Runs one command; gives the exit status.
fn dispatch(cli: Cli, output: Output) -> Result<u8> {
    let home = || Home::open(cli.home.as_deref());
    match cli.command {
        Command::Run(args) => run::run(&home()?, output, *args),
        Command::Images(args) => images::images(&home()?, output, args.command),
        Command::Ps(args) => show::ps(&home()?, output, args),
        Command::List => show::ps(&home()?, output, args::PsArgs::ALL),
        Command::Describe(args) => show::describe(&home()?, output, &args.instances),
        Command::Types => show::types(output),
        Command::Ssh(args) => ssh::command(&home()?, output, args),
        Command::Console(args) => console::command(&home()?, output, &args),
        Command::Logs(args) => logs::command(&home()?, output, &args),
        Command::Forward(args) => forward::command(&home()?, output, &args),
        Command::Stop(args) => instances::stop(&home()?, output, &args),
        Command::Start(args) => instances::start(&home()?, output, &args),
        Command::Reboot(args) => instances::reboot(&home()?, output, &args),
        Command::Terminate(args) => instances::terminate(&home()?, output, &args),
        Command::Serve(args) => serve::command(&home()?, output, &args),
        Command::Env => env::command(&Home::root_for(cli.home.as_deref())?, output),
        Command::Doctor => doctor::command(cli.home.as_deref(), output),
        Command::Completions(args) => complete::command(output, &args),
        Command::Dial(args) => ssh::dial(&home()?, &args),
        Command::Supervise(args) => supervise::main(cli.home.as_deref(), &args),
        Command::Router(args) => router::main(cli.home.as_deref(), &args),
        Command::ApiSchema => {
            println!("{}", crate::api::actions::Actions::all().schema());
            Ok(0)
        }
    }
}
