//! EC2's errors: a code that programs look at, a message for people, an HTTP status.

use super::wire::Xml;

/// An error as EC2 answers it (EC2 API reference, "Error codes").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// EC2's code, such as `InvalidInstanceID.NotFound`.
    pub code: String,
    /// In words, as EC2 words it where it does.
    pub message: String,
}

impl ApiError {
    /// An error with this code.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// A required parameter is not there.
    #[must_use]
    pub fn missing(parameter: &str) -> Self {
        Self::new(
            "MissingParameter",
            format!("The request must contain the parameter {parameter}"),
        )
    }

    /// A parameter that EC2 does not know here.
    #[must_use]
    pub fn unknown(parameter: &str) -> Self {
        Self::new(
            "UnknownParameter",
            format!("The parameter {parameter} is not recognized"),
        )
    }

    /// A parameter's value is wrong.
    #[must_use]
    pub fn value(parameter: &str, value: &str, why: &str) -> Self {
        Self::new(
            "InvalidParameterValue",
            format!("Value ({value}) for parameter {parameter} is invalid. {why}"),
        )
    }

    /// Parameters that do not go together.
    #[must_use]
    pub fn combination(message: &str) -> Self {
        Self::new("InvalidParameterCombination", message)
    }

    /// Something that EC2 does and this program does not.
    #[must_use]
    pub fn unsupported(message: &str) -> Self {
        Self::new("UnsupportedOperation", message)
    }

    /// Something that should have worked did not.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new("InternalError", message)
    }

    /// HTTP status (EC2 API reference, "Error codes": most are 400).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.code.as_str() {
            "AuthFailure" => 401,
            "SignatureDoesNotMatch" | "MissingAuthenticationToken" | "UnauthorizedOperation" => 403,
            "DryRunOperation" => 412,
            "RequestEntityTooLarge" => 413,
            "InternalError" | "InternalFailure" | "InsufficientInstanceCapacity" => 500,
            "Unavailable" | "ServiceUnavailable" | "RequestLimitExceeded" => 503,
            _ => 400,
        }
    }

    /// The answer document.
    #[must_use]
    pub fn document(&self, request_id: &str) -> String {
        let mut xml = Xml::bare("Response");
        xml.open("Errors");
        xml.open("Error");
        xml.text("Code", &self.code);
        xml.text("Message", &self.message);
        xml.close("Error");
        xml.close("Errors");
        xml.text("RequestID", request_id);
        xml.finish("Response")
    }
}

impl From<crate::error::Error> for ApiError {
    fn from(error: crate::error::Error) -> Self {
        let mut message = error.to_string();
        if let Some(mend) = &error.mend {
            message.push_str(". To mend it: ");
            message.push_str(mend);
        }
        Self {
            code: error.code,
            message,
        }
    }
}
