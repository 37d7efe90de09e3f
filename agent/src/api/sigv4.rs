//! Who signed a request: Signature Version 4 (AWS general reference, "Signature Version 4 signing process").
//!
//! The signature may be in the `Authorization` header or in the query string ("presigned"). Either way it covers the
//! method, path, query, the headers that it lists (`host` among them) and the body as it came; it is computed anew
//! from them and compared in constant time.

mod parts;

use hmac::{Hmac, Mac as _};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use time::format_description::well_known::Rfc2822;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use self::parts::{Parts, Scope};
use super::credentials::Credentials;
use super::error::ApiError;
use super::form;

/// Name of the algorithm in headers, queries and strings to sign.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the caller's clock may be from ours.
const SKEW: Duration = Duration::minutes(5);
/// Query parameters of presigned requests begin so.
const PRESIGNED: &str = "X-Amz-";

/// What of a request is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `POST`.
    pub method: &'a str,
    /// As it came, still encoded.
    pub path: &'a str,
    /// Decoded fields of the query string.
    pub query: &'a [(String, String)],
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The bytes that came.
    pub body: &'a [u8],
}

/// The caller, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Access key id.
    pub access_key: String,
    /// Account of the key, unless it is the server's own.
    pub account: Option<String>,
    /// Region of the scope.
    pub region: String,
    /// `ec2` or `sts`.
    pub service: String,
}

/// Whether this query parameter is part of a signature and not of the action.
#[must_use]
pub fn is_presigned(name: &str) -> bool {
    name.starts_with(PRESIGNED)
}

/// Finds out who signed a request.
///
/// # Errors
/// * `MissingAuthenticationToken`: nobody.
/// * `IncompleteSignature`: the signature lacks a part, or one has not the form that it should have.
/// * `AuthFailure`: unknown access key, session token, Signature Version 2.
/// * `RequestExpired`: it was signed too long ago, or in the future.
/// * `SignatureDoesNotMatch`: another secret, another request, another scope.
pub fn verify(
    request: &Signed<'_>,
    form: &[(String, String)],
    credentials: &Credentials,
    now: OffsetDateTime,
) -> Result<Caller, ApiError> {
    refuse_version_2(request, form)?;
    let parts = Parts::find(request)?;
    let scope = Scope::parse(parts.credential)?;
    let Some(key) = credentials.find(scope.access_key) else {
        return Err(auth_failure(""));
    };
    if parts.session_token {
        return Err(auth_failure(
            " (the request has a session token and its access key has none)",
        ));
    }
    let date = signing_date(request.headers, parts.date)?;
    expired(date, parts.expires, now)?;
    scope.check(&basic_day(date))?;
    let payload = hex::encode(Sha256::digest(request.body));
    // EC2 takes no unsigned payloads: whatever the header says, the body as it came counts.
    if let Some(claimed) = request.headers.get("x-amz-content-sha256")
        && claimed.as_bytes() != payload.as_bytes()
    {
        return Err(mismatch(
            "The value of x-amz-content-sha256 is not the SHA-256 of the body.",
        ));
    }
    let canonical = canonical_request(request, &parts, &payload)?;
    let to_sign = format!(
        "{ALGORITHM}\n{}\n{}\n{}",
        basic_time(date),
        scope.text(),
        hex::encode(Sha256::digest(canonical))
    );
    // Lower case, as AWS wants it: there is one way to write a signature.
    let lower = parts
        .signature
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let given = hex::decode(parts.signature).unwrap_or_default();
    let verified =
        keyed(&signing_key(&key.secret, &scope)?, to_sign.as_bytes())?.verify_slice(&given);
    if !lower || verified.is_err() {
        return Err(mismatch(
            "Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(Caller {
        access_key: key.id.clone(),
        account: key.account.clone(),
        region: scope.region.to_owned(),
        service: scope.service.to_owned(),
    })
}

fn auth_failure(why: &str) -> ApiError {
    ApiError::new(
        "AuthFailure",
        format!("AWS was not able to validate the provided access credentials{why}"),
    )
}

fn incomplete(why: &str) -> ApiError {
    ApiError::new("IncompleteSignature", why)
}

fn mismatch(why: &str) -> ApiError {
    ApiError::new(
        "SignatureDoesNotMatch",
        format!(
            "The request signature we calculated does not match the signature you provided. {why}"
        ),
    )
}

fn refuse_version_2(request: &Signed<'_>, form: &[(String, String)]) -> Result<(), ApiError> {
    let header = request
        .headers
        .get("authorization")
        .is_some_and(|value| value.as_bytes().starts_with(b"AWS "));
    let mut fields = request.query.iter().chain(form);
    if header || fields.any(|(name, _)| name == "SignatureVersion") {
        return Err(auth_failure(&format!(
            ": Signature Version 2 is not supported; please use Signature Version 4 ({ALGORITHM})"
        )));
    }
    Ok(())
}

/// The date that is signed: `X-Amz-Date`, else `Date`.
fn signing_date(headers: &HeaderMap, named: Option<&str>) -> Result<OffsetDateTime, ApiError> {
    if let Some(text) = named {
        let form = format_description!("[year][month][day]T[hour][minute][second]Z");
        return PrimitiveDateTime::parse(text, &form)
            .map(PrimitiveDateTime::assume_utc)
            .map_err(|_| {
                incomplete(&format!(
                    "Date must be in ISO-8601 'basic format'. Got '{text}'. See http://en.wikipedia.org/wiki/ISO_8601"
                ))
            });
    }
    let text = headers.get("date").and_then(|value| value.to_str().ok());
    let date = text.and_then(|text| OffsetDateTime::parse(text, &Rfc2822).ok());
    date.map(|date| date.to_offset(time::UtcOffset::UTC))
        .ok_or_else(|| {
            incomplete(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
            )
        })
}

fn expired(
    date: OffsetDateTime,
    lifetime: Option<Duration>,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    // A presigned request lives as long as it says, any other one as long as clocks may differ.
    let age = now - date;
    if age > lifetime.unwrap_or(SKEW) || -age > SKEW {
        let message = format!(
            "Request has expired. It was signed at {} and it is {} here",
            basic_time(date),
            basic_time(now)
        );
        return Err(ApiError::new("RequestExpired", message));
    }
    Ok(())
}

pub(crate) fn basic_time(date: OffsetDateTime) -> String {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    date.format(&form).unwrap_or_default()
}

fn basic_day(date: OffsetDateTime) -> String {
    date.format(format_description!("[year][month][day]"))
        .unwrap_or_default()
}

fn canonical_request(
    request: &Signed<'_>,
    parts: &Parts<'_>,
    payload: &str,
) -> Result<String, ApiError> {
    let query = request
        .query
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .filter(|(name, _)| *name != "X-Amz-Signature");
    let mut headers = String::new();
    for name in parts.signed_headers.split(';') {
        headers.push_str(name);
        headers.push(':');
        headers.push_str(&header(request.headers, name)?);
        headers.push('\n');
    }
    Ok(format!(
        "{}\n{}\n{}\n{headers}\n{}\n{payload}",
        request.method,
        canonical_path(request.path),
        form::canonical(query),
        parts.signed_headers,
    ))
}

/// Encoded once more, as for all services but S3.
fn canonical_path(path: &str) -> String {
    let segments: Vec<String> = path.split('/').map(form::encode).collect();
    match segments.join("/") {
        path if path.is_empty() => "/".to_owned(),
        path => path,
    }
}

/// All values of a header, trimmed, with single spaces, joined by commas.
fn header(headers: &HeaderMap, name: &str) -> Result<String, ApiError> {
    let mut values = Vec::new();
    for value in headers.get_all(name) {
        let Ok(text) = std::str::from_utf8(value.as_bytes()) else {
            return Err(incomplete(&format!("The header '{name}' is not in UTF-8.")));
        };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        values.push(words.join(" "));
    }
    if values.is_empty() {
        return Err(incomplete(&format!(
            "The header '{name}' is listed as signed and the request does not have it."
        )));
    }
    Ok(values.join(","))
}

pub(crate) fn keyed(key: &[u8], message: &[u8]) -> Result<Hmac<Sha256>, ApiError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key)
        .map_err(|error| ApiError::internal(format!("cannot compute a signature: {error}")))?;
    mac.update(message);
    Ok(mac)
}

fn signing_key(secret: &str, scope: &Scope<'_>) -> Result<Vec<u8>, ApiError> {
    let first = format!("AWS4{secret}").into_bytes();
    let parts = [scope.day, scope.region, scope.service, scope.term];
    let mut key = first;
    for part in parts {
        key = keyed(&key, part.as_bytes())?
            .finalize()
            .into_bytes()
            .to_vec();
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
