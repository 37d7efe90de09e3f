//! One error type for everything a user meets: what is wrong, how to mend it, EC2's own code
//! where EC2 has one, and the exit status.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// What sort of failure it is; it decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something that should work did not.
    Internal,
    /// A bad argument or a bad input file.
    Usage,
    /// The thing named does not exist.
    NotFound,
    /// The thing exists but is in the wrong state, or someone else holds it.
    Conflict,
    /// This host cannot do it (KVM, permissions, space, a missing program).
    Host,
    /// The instance itself failed.
    Instance,
    /// The user pressed Ctrl-C.
    Interrupted,
}

impl Kind {
    /// The process's exit status.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Host => 5,
            Self::Instance => 6,
            // As a shell says of a program that ended by SIGINT: 128 + 2.
            Self::Interrupted => 130,
        }
    }
}

/// A failure as the user sees it. It can travel from the supervisor to the command line, so its
/// causes are text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Error {
    /// What sort.
    pub kind: Kind,
    /// EC2's error code, or one of ours in the same style.
    pub code: String,
    /// What is wrong, naming the thing.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// Why, from the outermost cause inwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of this kind with this code.
    pub fn new(kind: Kind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            mend: None,
            causes: Vec::new(),
        }
    }

    /// EC2's `InvalidParameterValue`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, "InvalidParameterValue", message)
    }

    /// EC2's `InvalidParameterCombination`.
    pub fn combination(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, "InvalidParameterCombination", message)
    }

    /// EC2's `IncorrectInstanceState`.
    pub fn wrong_state(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, "IncorrectInstanceState", message)
    }

    /// Something that should work did not.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, "InternalError", message)
    }

    /// This host cannot do it.
    pub fn host(code: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::Host, code, message)
    }

    /// Says how to mend it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// Adds a cause with all causes behind it. A cause whose text the line before already holds
    /// is left out.
    #[must_use]
    pub fn because(mut self, cause: &dyn std::error::Error) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            let said = self.causes.last().unwrap_or(&self.message);
            if !said.contains(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Turns any error into an [`Error`] that says what was being done.
pub trait Context<T> {
    /// On failure: [`Kind::Internal`], or [`Kind::Host`] for a full disk, with `doing` as the
    /// message and the error as its cause.
    ///
    /// # Errors
    /// The failure, with its context.
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: std::error::Error + 'static> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| {
            let full = disk_full(&error);
            let wrapped = if full {
                Error::host("InsufficientHostStorage", doing())
                    .mend("free space on that file system, or move the state folder with --home")
            } else {
                Error::internal(doing())
            };
            wrapped.because(&error)
        })
    }
}

/// Whether "no space left" is anywhere in the chain.
fn disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(
                io.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_hosts_fault_and_has_a_mend() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Err::<(), _>(full).context(|| "cannot write x").unwrap_err();
        assert_eq!(error.kind, Kind::Host);
        assert!(error.mend.is_some());
    }

    #[test]
    fn causes_are_printed_once() {
        let inner = Error::internal("b");
        let error = Error::internal("a: b").because(&inner);
        assert_eq!(error.to_string(), "a: b");
    }
}
