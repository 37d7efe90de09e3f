//! `cumulet doctor`: can this host run guests, and if not, what exactly mends it.
//!
//! Each check does the thing (opens the device, makes the namespace, runs a small guest) rather
//! than reading a version number, because there are hosts where everything looks right and
//! nothing works.

mod host;
mod kvm;

use std::path::Path;

use serde::Serialize;
use serde_json::json;

pub(crate) use host::available_memory;

use crate::cli::Output;
use crate::error::{Error, Result};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Good.
    Ok,
    /// Guests run, with something missing.
    Warn,
    /// Guests cannot run.
    Fail,
}

/// One line of the doctor.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Check {
    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            found: found.into(),
            mend: None,
        }
    }

    pub(crate) fn warn(
        name: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            name,
            status: Status::Warn,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    pub(crate) fn fail(
        name: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            name,
            status: Status::Fail,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }
}

/// Looks at everything.
fn examine(home: Option<&Path>) -> Vec<Check> {
    let mut checks = vec![host::kernel(), kvm::device(), kvm::guest()];
    checks.extend([host::vmm(), host::tun(), host::namespaces()]);
    checks.extend([host::nft(), host::pasta(), host::ssh(), host::builder()]);
    checks.extend([host::memory(), host::space(home)]);
    checks
}

/// `cumulet doctor`: exit status 0 only when guests can run.
///
/// # Errors
/// None today; the signature is that of every command.
pub fn command(home: Option<&Path>, output: Output) -> Result<u8> {
    let checks = examine(home);
    let fit = checks.iter().all(|check| check.status != Status::Fail);
    output.result(&json!({ "fit": fit, "checks": checks }), || {
        let mut text = String::new();
        for check in &checks {
            let mark = match check.status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            text.push_str(&format!("{mark}  {:<16} {}\n", check.name, check.found));
            if let Some(mend) = &check.mend {
                text.push_str(&format!("      {:<16} -> {mend}\n", ""));
            }
        }
        text.push_str(if fit {
            "\nThis host can run guests.\n"
        } else {
            "\nThis host cannot run guests yet: mend what says FAIL.\n"
        });
        text
    });
    Ok(if fit { 0 } else { 5 })
}

/// What `run` and `start` need to know before they make anything: the doctor's own words when the
/// host cannot run guests.
///
/// # Errors
/// `HostUnfit` with everything that fails.
pub fn require_fit() -> Result<()> {
    let failed: Vec<Check> = [
        kvm::guest(),
        host::vmm(),
        host::tun(),
        host::namespaces(),
        host::nft(),
    ]
    .into_iter()
    .filter(|check| check.status == Status::Fail)
    .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let found: Vec<String> = failed
        .iter()
        .map(|check| format!("{}: {}", check.name, check.found))
        .collect();
    let mends: Vec<&str> = failed
        .iter()
        .filter_map(|check| check.mend.as_deref())
        .collect();
    Err(Error::host(
        "HostUnfit",
        format!("this host cannot run guests: {}", found.join("; ")),
    )
    .mend(format!(
        "{} (`cumulet doctor` shows everything)",
        mends.join("; ")
    )))
}
