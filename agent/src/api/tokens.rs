//! Client tokens: a request that is repeated with its token makes nothing a second time (EC2 API reference, "Ensuring
//! idempotency").
//!
//! What was made keeps the token and a digest of all parameters that came with it. So the token lives as long as what it
//! made, and a request with other parameters is told from a repeated one whatever the action looks at.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::ApiError;
use crate::cloud::table::{Resource, Table};

/// EC2's limit on a token.
const LONGEST: usize = 64;

/// A token and the digest of the request that it came with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub struct Stamp {
    /// As the client chose it.
    pub token: String,
    /// Digest of the parameters; empty for a record of before, which had the token alone.
    pub digest: String,
}

/// A stamp as records have it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Kept {
    Stamp { token: String, digest: String },
    Token(String),
}

impl From<Kept> for Stamp {
    fn from(kept: Kept) -> Self {
        let (token, digest) = match kept {
            Kept::Stamp { token, digest } => (token, digest),
            Kept::Token(token) => (token, String::new()),
        };
        Self { token, digest }
    }
}

impl Stamp {
    /// The stamp of a request, if it has a token.
    ///
    /// # Errors
    /// `InvalidParameterValue` for what is no token.
    pub fn of(request: &impl Serialize, token: Option<&String>) -> Result<Option<Self>, ApiError> {
        let Some(token) = token else {
            return Ok(None);
        };
        if token.len() > LONGEST || !token.is_ascii() {
            let why = format!("use at most {LONGEST} ASCII characters");
            return Err(ApiError::value("ClientToken", token, &why));
        }
        let bytes = serde_json::to_vec(request)
            .map_err(|error| ApiError::internal(format!("cannot digest the request: {error}")))?;
        Ok(Some(Self {
            token: token.clone(),
            digest: STANDARD.encode(Sha256::digest(bytes)),
        }))
    }

    /// Whether a request with the same token has other parameters, as far as is known.
    fn differs(&self, request: &Self) -> bool {
        !self.digest.is_empty() && self.digest != request.digest
    }
}

/// A resource whose request may have a client token.
pub trait Stamped: Resource {
    /// The stamp of the request that made it.
    fn stamp(&self) -> Option<&Stamp>;
}

/// What an earlier request with this stamp has made.
///
/// # Errors
/// `IdempotentParameterMismatch` when the earlier request had the token and other parameters.
pub fn repeated<'a, T: Stamped>(
    table: &'a Table<T>,
    stamp: Option<&Stamp>,
) -> Result<Option<&'a T>, ApiError> {
    let Some(stamp) = stamp else {
        return Ok(None);
    };
    let same = |row: &&T| row.stamp().is_some_and(|made| made.token == stamp.token);
    match table.iter().find(same) {
        Some(row) if row.stamp().is_some_and(|made| made.differs(stamp)) => Err(ApiError::new(
            "IdempotentParameterMismatch",
            format!(
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s) with the ClientToken '{}'.",
                stamp.token
            ),
        )),
        found => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::net::RouteTable;

    /// A route table as it was recorded with this.
    fn table(stamp: &str) -> Table<RouteTable> {
        let empty = serde_json::to_value(RouteTable::default()).unwrap();
        let mut fields = empty.as_object().unwrap().clone();
        fields.remove("stamp");
        let more: serde_json::Map<_, _> = serde_json::from_str(stamp).unwrap();
        fields.extend(more);
        let mut table = Table::default();
        table.insert(serde_json::from_value(fields.into()).unwrap());
        table
    }

    #[test]
    fn tokens_of_older_records_still_count() {
        let stamp = |token: &str, digest: &str| Stamp {
            token: token.to_owned(),
            digest: digest.to_owned(),
        };
        let again = |table: &Table<RouteTable>, request: &Stamp| {
            let made = repeated(table, Some(request));
            made.map(|made| made.is_some()).map_err(|error| error.code)
        };
        let old = table(r#"{"client_token": "t"}"#);
        assert_eq!(again(&old, &stamp("t", "any")), Ok(true));
        assert_eq!(again(&old, &stamp("u", "any")), Ok(false));
        let none = table(r#"{"client_token": null}"#);
        assert_eq!(again(&none, &stamp("t", "any")), Ok(false));
        let new = table(r#"{"stamp": {"token": "t", "digest": "d"}}"#);
        assert_eq!(again(&new, &stamp("t", "d")), Ok(true));
        let other = "IdempotentParameterMismatch".to_owned();
        assert_eq!(again(&new, &stamp("t", "e")), Err(other));
    }
}
