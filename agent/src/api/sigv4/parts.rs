//! The parts of a signature, found in the header or in the query string.

use time::Duration;

use super::{ALGORITHM, Signed, incomplete, is_presigned, mismatch};
use crate::api::error::ApiError;

/// Longest that a presigned request may live (AWS: seven days).
const MAX_LIFETIME: i64 = 7 * 24 * 60 * 60;

/// A signature, taken apart and not yet believed.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) credential: &'a str,
    pub(super) signed_headers: &'a str,
    pub(super) signature: &'a str,
    /// `X-Amz-Date`.
    pub(super) date: Option<&'a str>,
    /// Of a presigned request.
    pub(super) expires: Option<Duration>,
    pub(super) session_token: bool,
}

impl<'a> Parts<'a> {
    pub(super) fn find(request: &Signed<'a>) -> Result<Self, ApiError> {
        let presigned = request.query.iter().any(|(name, _)| is_presigned(name));
        let mut headers = request.headers.get_all("authorization").iter();
        let parts = match (headers.next(), presigned) {
            (Some(_), _) if headers.next().is_some() => {
                return Err(incomplete("The request has two Authorization headers."));
            }
            (Some(_), true) => {
                return Err(incomplete(
                    "The request is signed both in its query string and in its Authorization header.",
                ));
            }
            (Some(value), false) => {
                let text = value.to_str().map_err(|_| {
                    incomplete("The Authorization header has characters that are not ASCII.")
                })?;
                Self::header(request, text)?
            }
            (None, true) => Self::query(request.query)?,
            (None, false) => {
                return Err(ApiError::new(
                    "MissingAuthenticationToken",
                    "Request is missing Authentication Token",
                ));
            }
        };
        parts.check_headers()?;
        Ok(parts)
    }

    fn header(request: &Signed<'a>, text: &'a str) -> Result<Self, ApiError> {
        let Some(fields) = text.strip_prefix(ALGORITHM) else {
            return Err(incomplete(&format!(
                "Unsupported AWS 'algorithm': the Authorization header must begin with {ALGORITHM}."
            )));
        };
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in fields.split(',').map(str::trim) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => {
                    return Err(incomplete(&format!(
                        "'{field}' is not a valid key=value pair in the Authorization header."
                    )));
                }
            };
            if place.replace(value).is_some() {
                return Err(incomplete(&format!(
                    "The Authorization header has two '{name}' parameters."
                )));
            }
        }
        let need = |part: Option<&'a str>, name: &str| {
            part.filter(|value| !value.is_empty()).ok_or_else(|| {
                incomplete(&format!(
                    "Authorization header requires '{name}' parameter."
                ))
            })
        };
        let date = request.headers.get("x-amz-date");
        Ok(Self {
            credential: need(credential, "Credential")?,
            signed_headers: need(signed_headers, "SignedHeaders")?,
            signature: need(signature, "Signature")?,
            // What is no text is no date either.
            date: date.map(|value| value.to_str().unwrap_or_default()),
            expires: None,
            session_token: request.headers.contains_key("x-amz-security-token"),
        })
    }

    fn query(fields: &'a [(String, String)]) -> Result<Self, ApiError> {
        let get = |wanted: &str| -> Result<Option<&'a str>, ApiError> {
            let mut found = fields.iter().filter(|(name, _)| name == wanted);
            let first = found.next().map(|(_, value)| value.as_str());
            if found.next().is_some() {
                return Err(incomplete(&format!(
                    "The query string has two '{wanted}' parameters."
                )));
            }
            Ok(first)
        };
        let need = |name: &str| {
            get(name)?.filter(|value| !value.is_empty()).ok_or_else(|| {
                incomplete(&format!(
                    "AWS query-string parameters must include '{name}'."
                ))
            })
        };
        if need("X-Amz-Algorithm")? != ALGORITHM {
            return Err(incomplete(&format!(
                "Unsupported AWS 'algorithm': X-Amz-Algorithm must be {ALGORITHM}."
            )));
        }
        let expires = need("X-Amz-Expires")?;
        let seconds: i64 = expires.parse().unwrap_or_default();
        if !(1..=MAX_LIFETIME).contains(&seconds) {
            return Err(incomplete(&format!(
                "X-Amz-Expires must be a number of seconds from 1 to {MAX_LIFETIME}."
            )));
        }
        Ok(Self {
            credential: need("X-Amz-Credential")?,
            signed_headers: need("X-Amz-SignedHeaders")?,
            signature: need("X-Amz-Signature")?,
            date: Some(need("X-Amz-Date")?),
            expires: Some(Duration::seconds(seconds)),
            session_token: get("X-Amz-Security-Token")?.is_some(),
        })
    }

    fn check_headers(&self) -> Result<(), ApiError> {
        let names: Vec<&str> = self.signed_headers.split(';').collect();
        let plain = |name: &&str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        if !names.iter().all(plain) || !names.is_sorted_by(|a, b| a < b) {
            return Err(incomplete(
                "SignedHeaders must be names in lower case, each once, sorted and separated by ';'.",
            ));
        }
        if !names.contains(&"host") {
            return Err(incomplete(
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
            ));
        }
        Ok(())
    }
}

/// For what a signing key is good.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) access_key: &'a str,
    pub(super) day: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) term: &'a str,
}

impl<'a> Scope<'a> {
    pub(super) fn parse(credential: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = credential.split('/').collect();
        let [access_key, day, region, service, term] = parts[..] else {
            return Err(incomplete(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.",
            ));
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(incomplete("An element of the Credential is empty."));
        }
        Ok(Self {
            access_key,
            day,
            region,
            service,
            term,
        })
    }

    /// Whether it is good for this service, on this day.
    pub(super) fn check(&self, day: &str) -> Result<(), ApiError> {
        if !matches!(self.service, "ec2" | "sts") {
            return Err(mismatch(
                "Credential should be scoped to correct service: 'ec2'.",
            ));
        }
        if self.term != "aws4_request" {
            return Err(mismatch(
                "Credential should be scoped with a valid terminator: 'aws4_request'.",
            ));
        }
        if !crate::api::ops::regions::exists(self.region) {
            return Err(mismatch("Credential should be scoped to a valid region."));
        }
        if self.day != day {
            return Err(mismatch(&format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{day}'.",
                self.day
            )));
        }
        Ok(())
    }

    /// `20261121/us-east-1/ec2/aws4_request`.
    pub(super) fn text(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.day, self.region, self.service, self.term
        )
    }
}
