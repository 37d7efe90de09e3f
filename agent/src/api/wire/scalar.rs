//! Values without parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::{Described, Input, Kind, Node, Output, Xml};
use crate::api::error::ApiError;

/// A point in time, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(#[serde(with = "time::serde::rfc3339")] pub OffsetDateTime);

impl Timestamp {
    /// Now, in whole milliseconds as it is written.
    #[must_use]
    pub fn now() -> Self {
        let now = OffsetDateTime::now_utc();
        Self(now.replace_millisecond(now.millisecond()).unwrap_or(now))
    }

    /// `2026-11-21T18:27:33.000Z`.
    #[must_use]
    pub fn text(self) -> String {
        let form = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        self.0
            .to_offset(time::UtcOffset::UTC)
            .format(&form)
            .unwrap_or_default()
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self(OffsetDateTime::UNIX_EPOCH)
    }
}

/// Bytes, base64 on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob(pub Vec<u8>);

fn present<'a>(node: Option<&'a Node>, at: &str) -> Result<&'a str, ApiError> {
    node.ok_or_else(|| ApiError::missing(at))?.scalar(at)
}

impl Described for String {
    fn kind() -> Kind {
        Kind::String
    }
}

impl Input for String {
    fn read(node: Option<&Node>, at: &str) -> Result<Self, ApiError> {
        present(node, at).map(str::to_owned)
    }
}

impl Output for String {
    fn write(&self, xml: &mut Xml, name: &str) {
        xml.text(name, self);
    }
}

impl Described for &'static str {
    fn kind() -> Kind {
        Kind::String
    }
}

impl Output for &'static str {
    fn write(&self, xml: &mut Xml, name: &str) {
        xml.text(name, self);
    }
}

impl Described for bool {
    fn kind() -> Kind {
        Kind::Boolean
    }
}

impl Input for bool {
    fn read(node: Option<&Node>, at: &str) -> Result<Self, ApiError> {
        let text = present(node, at)?;
        // EC2 takes any case; libcloud and old scripts send `True`.
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(ApiError::value(at, text, "use true or false")),
        }
    }
}

impl Output for bool {
    fn write(&self, xml: &mut Xml, name: &str) {
        xml.text(name, if *self { "true" } else { "false" });
    }
}

macro_rules! numbers {
    ($($type:ty => $kind:ident, $what:literal;)*) => {$(
        impl Described for $type {
            fn kind() -> Kind {
                Kind::$kind
            }
        }

        impl Input for $type {
            fn read(node: Option<&Node>, at: &str) -> Result<Self, ApiError> {
                let text = present(node, at)?;
                text.parse().map_err(|_| ApiError::value(at, text, $what))
            }
        }

        impl Output for $type {
            fn write(&self, xml: &mut Xml, name: &str) {
                xml.text(name, &self.to_string());
            }
        }
    )*};
}

numbers! {
    i32 => Integer, "a whole number is expected";
    i64 => Integer, "a whole number is expected";
    f64 => Double, "a number is expected";
}

impl Described for Timestamp {
    fn kind() -> Kind {
        Kind::Timestamp
    }
}

impl Input for Timestamp {
    fn read(node: Option<&Node>, at: &str) -> Result<Self, ApiError> {
        let text = present(node, at)?;
        OffsetDateTime::parse(text, &Rfc3339)
            .map(Self)
            .map_err(|_| ApiError::value(at, text, "use a time such as 2026-01-31T12:00:00Z"))
    }
}

impl Output for Timestamp {
    fn write(&self, xml: &mut Xml, name: &str) {
        xml.text(name, &Timestamp::text(*self));
    }
}

impl Described for Blob {
    fn kind() -> Kind {
        Kind::Blob
    }
}

impl Input for Blob {
    fn read(node: Option<&Node>, at: &str) -> Result<Self, ApiError> {
        let text = present(node, at)?;
        STANDARD
            .decode(text.trim())
            .map(Self)
            .map_err(|_| ApiError::value(at, text, "base64 is expected"))
    }
}

impl Output for Blob {
    fn write(&self, xml: &mut Xml, name: &str) {
        xml.text(name, &STANDARD.encode(&self.0));
    }
}
