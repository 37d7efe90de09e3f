//! From a request and a view to the answer, without any I/O.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderName,
    HeaderValue, LAST_MODIFIED, SERVER,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::identity::IdentityError;
use crate::keys::Keys;
use crate::path::{self, BadPath};
use crate::token::{MAX_TTL_SECONDS, Nonce, TokenKey};
use crate::tree::{self, Found, Leaf};
use crate::view::InstanceView;

/// The header that carries a token.
pub const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
/// The header that says how long a token lives.
pub const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const TEXT: &str = "text/plain";
const HTML: &str = "text/html";
const BINARY: &str = "application/octet-stream";

/// What an answer depends on besides request, view and keys.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time now.
    pub now: SystemTime,
    /// Fresh random bytes, used when the answer is a token.
    pub nonce: Nonce,
}

/// Answers one request of the instance that `view` describes.
///
/// The request's body never matters; the caller has read it. Every answer is complete: status,
/// headers in EC2's order, body (which the server leaves out for HEAD).
#[must_use]
pub fn respond(head: &Parts, view: &InstanceView, keys: &Keys, at: Moment) -> Response<Bytes> {
    if !view.options.enabled {
        return error(StatusCode::FORBIDDEN, at);
    }
    let names = path::split(head.uri.path());
    let place = match &names {
        Ok(names) => Place::of(names),
        Err(_) => Place::Data,
    };
    let tokens = TokenKey::new(keys.token_secret(), &view.instance_id);
    match (&head.method, place) {
        (&Method::PUT, Place::Token) => issue(&head.headers, &tokens, at),
        (&Method::PUT, Place::VersionedToken) => error(StatusCode::FORBIDDEN, at),
        (&Method::OPTIONS, Place::Token) => Answer::new(StatusCode::OK, TEXT)
            .with(ALLOW, HeaderValue::from_static("OPTIONS, PUT"))
            .finish(Bytes::new(), at),
        (_, Place::Token) => not_allowed("OPTIONS, PUT", at),
        (&(Method::GET | Method::HEAD), _) => {
            let remaining = match admit(&head.headers, view, &tokens, at) {
                Admission::Version1 => None,
                Admission::Version2(seconds) => Some(seconds),
                Admission::Refused => {
                    return Answer::new(StatusCode::UNAUTHORIZED, TEXT).finish(Bytes::new(), at);
                }
            };
            match names {
                Ok(names) => read(&names, view, keys, remaining, at),
                Err(BadPath::Malformed) => error(StatusCode::BAD_REQUEST, at),
                Err(BadPath::NoSuchName) => error(StatusCode::NOT_FOUND, at),
            }
        }
        _ => not_allowed("GET, HEAD", at),
    }
}

/// Which part of the service a path belongs to.
#[derive(Clone, Copy)]
enum Place {
    /// `/latest/api/token`.
    Token,
    /// `/VERSION/api/token`, which EC2 refuses to be asked for tokens.
    VersionedToken,
    Data,
}

impl Place {
    fn of(names: &[String]) -> Self {
        match names {
            [version, api, token] if api == "api" && token == "token" => {
                if version == "latest" {
                    Self::Token
                } else {
                    Self::VersionedToken
                }
            }
            _ => Self::Data,
        }
    }
}

fn issue(headers: &HeaderMap, tokens: &TokenKey, at: Moment) -> Response<Bytes> {
    // A proxy that was talked into a PUT usually adds this header: no token for it.
    if headers.contains_key(FORWARDED_FOR) {
        return error(StatusCode::FORBIDDEN, at);
    }
    let Some(seconds) = only(headers, &TOKEN_TTL).and_then(ttl) else {
        return error(StatusCode::BAD_REQUEST, at);
    };
    let token = tokens.issue(at.now, seconds, at.nonce);
    Answer::token_ttl(seconds)
        .with_type(TEXT)
        .finish(Bytes::from(token), at)
}

/// The token's life in seconds: decimal digits, 1 to 21600, spaces around allowed.
fn ttl(value: &HeaderValue) -> Option<u32> {
    let text = value.to_str().ok()?.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse()
        .ok()
        .filter(|seconds| (1..=MAX_TTL_SECONDS).contains(seconds))
}

enum Admission {
    /// Without a token, where that is allowed.
    Version1,
    /// With a token that still lives so many seconds.
    Version2(u32),
    Refused,
}

fn admit(headers: &HeaderMap, view: &InstanceView, tokens: &TokenKey, at: Moment) -> Admission {
    if !headers.contains_key(&TOKEN) && !view.options.tokens_required {
        return Admission::Version1;
    }
    only(headers, &TOKEN)
        .and_then(|value| tokens.check(at.now, value.as_bytes()))
        .map_or(Admission::Refused, Admission::Version2)
}

fn read(
    names: &[String],
    view: &InstanceView,
    keys: &Keys,
    remaining: Option<u32>,
    at: Moment,
) -> Response<Bytes> {
    let (kind, body) = match tree::find(view, names) {
        None => return error(StatusCode::NOT_FOUND, at),
        Some(Found::Listing(text)) => (TEXT, Bytes::from(text)),
        Some(Found::Leaf(leaf)) => match content(leaf, view, keys) {
            Ok(content) => content,
            Err(failure) => {
                tracing::error!(
                    instance = view.instance_id,
                    error = &failure as &dyn std::error::Error,
                    "the identity document cannot be signed"
                );
                return error(StatusCode::INTERNAL_SERVER_ERROR, at);
            }
        },
    };
    let answer = match remaining {
        Some(seconds) => Answer::token_ttl(seconds).with_type(kind),
        None => Answer::new(StatusCode::OK, kind),
    };
    answer
        .with(ACCEPT_RANGES, HeaderValue::from_static("none"))
        .with(LAST_MODIFIED, http_date(view.pending_time))
        .finish(body, at)
}

fn content(
    leaf: Leaf,
    view: &InstanceView,
    keys: &Keys,
) -> Result<(&'static str, Bytes), IdentityError> {
    Ok(match leaf {
        Leaf::Text(text) => (TEXT, Bytes::from(text)),
        Leaf::UserData => (
            BINARY,
            Bytes::from(view.user_data.clone().unwrap_or_default()),
        ),
        Leaf::Document => (TEXT, Bytes::from(crate::document::document(view))),
        Leaf::Signature => (
            TEXT,
            Bytes::from(keys.identity().sign(view)?.signature.clone()),
        ),
        Leaf::Pkcs7 => (TEXT, Bytes::from(keys.identity().sign(view)?.pkcs7.clone())),
    })
}

fn not_allowed(allow: &'static str, at: Moment) -> Response<Bytes> {
    Answer::new(StatusCode::METHOD_NOT_ALLOWED, TEXT)
        .with(ALLOW, HeaderValue::from_static(allow))
        .finish(Bytes::new(), at)
}

fn error(status: StatusCode, at: Moment) -> Response<Bytes> {
    let title = format!(
        "{} - {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error")
    );
    let page = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
         <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
         \x20        \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n\
         \x20<head>\n  <title>{title}</title>\n </head>\n\
         \x20<body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
    );
    Answer::new(status, HTML).finish(Bytes::from(page), at)
}

/// The one value of a header, unless it is missing or given more than once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn http_date(time: SystemTime) -> HeaderValue {
    // Outside the years that HTTP dates can say, `httpdate` would panic.
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let latest = std::time::Duration::from_secs(253_402_300_799);
    let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since.min(latest));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// An answer whose headers come out in the order they are added, as EC2 orders them.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
}

impl Answer {
    fn new(status: StatusCode, kind: &'static str) -> Self {
        Self {
            status,
            headers: HeaderMap::with_capacity(8),
        }
        .with_type(kind)
    }

    fn token_ttl(seconds: u32) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::with_capacity(8),
        }
        .with(TOKEN_TTL, HeaderValue::from(seconds))
    }

    fn with_type(self, kind: &'static str) -> Self {
        self.with(CONTENT_TYPE, HeaderValue::from_static(kind))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    fn finish(self, body: Bytes, at: Moment) -> Response<Bytes> {
        let done = self
            .with(CONTENT_LENGTH, HeaderValue::from(body.len()))
            .with(DATE, http_date(at.now))
            .with(SERVER, HeaderValue::from_static("EC2ws"))
            .with(CONNECTION, HeaderValue::from_static("close"));
        let mut response = Response::new(body);
        *response.status_mut() = done.status;
        *response.headers_mut() = done.headers;
        response
    }
}
