//! `cargo xtask api-lint`: whatever the API declares is compared with EC2's public model. See docs/api.md.
//!
//! The model comes with botocore (`tests/api/python/requirements.txt`) and stays out of the tree. SDKs drop what they do
//! not know without a word, so a misspelt field looks like a missing one to users and like nothing to tests.

mod compare;
mod model;
mod ours;
#[cfg(test)]
mod tests;

use crate::{setup, sh, workspace};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::process::Command;

#[derive(Args, Default)]
pub(crate) struct LintArgs {
    /// Also list the fields of served actions that EC2 has and we do not.
    #[arg(long)]
    coverage: bool,
}

/// Prints every difference; one is enough to fail.
pub(crate) fn run(args: &LintArgs) -> Result<()> {
    setup::ensure()?;
    workspace::build_packages("dev", &["cumulet-agent"])?;
    let program = workspace::profile_dir("dev")?.join("cumulet");
    let schema = sh::output(Command::new(program).arg("__api-schema"))?;
    let schema = serde_json::from_str(&schema).context("cannot read our own schema")?;
    let report = compare::compare(&schema, &model::Model::load()?)?;
    if args.coverage {
        for (action, path) in &report.lacking {
            println!("{action} {path}: not here");
        }
    }
    for difference in &report.differences {
        println!("{difference}");
    }
    println!(
        "{} actions and {} fields compared with EC2's model, {} differences",
        report.actions,
        report.fields,
        report.differences.len()
    );
    if args.coverage {
        println!(
            "{} fields of these actions are not here",
            report.lacking.len()
        );
    }
    if report.actions == 0 {
        bail!("no action was compared");
    }
    if !report.differences.is_empty() {
        bail!("the API differs from EC2's model");
    }
    Ok(())
}
