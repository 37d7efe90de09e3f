//! What a request says beside its parameters.

use super::error::ApiError;

/// One authenticated request.
#[derive(Debug, Clone)]
pub struct Call {
    /// Region of the signature's scope.
    pub region: String,
    /// Account of the access key, 12 digits.
    pub account: String,
    /// Access key id.
    pub access_key: String,
    /// Told in the answer, and in every error.
    pub request_id: String,
    /// `DryRun=true`: check everything, do nothing.
    pub dry_run: bool,
}

impl Call {
    /// To be called when everything is checked and before anything is changed.
    ///
    /// # Errors
    /// `DryRunOperation` when the caller only wanted to know.
    pub fn go(&self) -> Result<(), ApiError> {
        if self.dry_run {
            return Err(ApiError::new(
                "DryRunOperation",
                "Request would have succeeded, but DryRun flag is set.",
            ));
        }
        Ok(())
    }
}
