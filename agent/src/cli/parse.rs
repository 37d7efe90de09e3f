//! Parsers of single arguments.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use crate::size::Size;
use crate::state::record::{MetadataOptions, Published};

/// `--disk [DEVICE=]SIZE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskArg {
    /// `/dev/sdg`, when the user chose.
    pub device: Option<String>,
    /// Size.
    pub size: Size,
}

impl FromStr for DiskArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((device, size)) = text.split_once('=') else {
            return Ok(Self {
                device: None,
                size: text.parse()?,
            });
        };
        let device = if device.starts_with("/dev/") {
            device.to_owned()
        } else {
            format!("/dev/{device}")
        };
        let letter = device.strip_prefix("/dev/sd").unwrap_or_default();
        if letter.len() != 1 || !letter.bytes().all(|byte| (b'f'..=b'p').contains(&byte)) {
            return Err(format!(
                "`{device}` is not a device for a volume: use /dev/sdf to /dev/sdp"
            ));
        }
        Ok(Self {
            device: Some(device),
            size: size.parse()?,
        })
    }
}

/// `--tag KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagArg {
    /// 1 to 127 characters.
    pub key: String,
    /// Up to 255 characters.
    pub value: String,
}

impl FromStr for TagArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() || key.chars().count() > 127 {
            return Err("a tag key has 1 to 127 characters".into());
        }
        if value.chars().count() > 255 {
            return Err("a tag value has at most 255 characters".into());
        }
        if key.starts_with("aws:") {
            return Err(format!(
                "`{key}`: tag keys starting with 'aws:' are reserved"
            ));
        }
        if key.chars().chain(value.chars()).any(char::is_control) {
            return Err("a tag has no control characters".into());
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// One of `--metadata-options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataArg {
    /// `http-tokens=required`.
    TokensRequired(bool),
    /// `hop-limit=2`.
    HopLimit(u8),
    /// `http-endpoint=disabled`.
    Enabled(bool),
    /// `instance-tags=enabled`.
    InstanceTags(bool),
}

impl MetadataArg {
    /// Changes one option.
    pub fn apply(self, options: &mut MetadataOptions) {
        match self {
            Self::TokensRequired(value) => options.tokens_required = value,
            Self::HopLimit(value) => options.hop_limit = value,
            Self::Enabled(value) => options.enabled = value,
            Self::InstanceTags(value) => options.instance_tags = value,
        }
    }
}

impl FromStr for MetadataArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` has no value: write {text}=…"))?;
        let either = |yes: &str, no: &str| match value {
            v if v == yes => Ok(true),
            v if v == no => Ok(false),
            _ => Err(format!("{key} is {yes} or {no}, not `{value}`")),
        };
        match key {
            "http-tokens" => either("required", "optional").map(Self::TokensRequired),
            "http-endpoint" => either("enabled", "disabled").map(Self::Enabled),
            "instance-tags" | "instance-metadata-tags" => {
                either("enabled", "disabled").map(Self::InstanceTags)
            }
            "hop-limit" | "http-put-response-hop-limit" => value
                .parse()
                .ok()
                .filter(|hops| (1..=64).contains(hops))
                .map(Self::HopLimit)
                .ok_or_else(|| format!("{key} is 1 to 64, not `{value}`")),
            _ => Err(format!(
                "unknown metadata option `{key}`: there are http-tokens, hop-limit, http-endpoint and instance-tags"
            )),
        }
    }
}

/// `--publish [ADDRESS:]HOST:GUEST`; without an address on 127.0.0.1 only.
pub(super) fn published(text: &str) -> Result<Published, String> {
    let bad = || format!("`{text}` is not [ADDRESS:]HOST:GUEST, as 8080:80 or 0.0.0.0:8080:80");
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let mut parts = text.rsplitn(3, ':');
    let guest = parts.next().and_then(port).ok_or_else(bad)?;
    let host = parts.next().and_then(port).ok_or_else(bad)?;
    let address = match parts.next() {
        None => Ipv4Addr::LOCALHOST,
        Some(address) => address.parse().map_err(|_| bad())?,
    };
    Ok(Published {
        address,
        host,
        guest,
    })
}

/// `90s`, `10m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is not a time ({error}): write 90s or 10m"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn disks() {
        let plain: DiskArg = "8G".parse().unwrap();
        assert_eq!(plain.device, None);
        let placed: DiskArg = "sdg=8G".parse().unwrap();
        assert_eq!(placed.device.as_deref(), Some("/dev/sdg"));
        assert!("/dev/sda1=8G".parse::<DiskArg>().is_err());
        assert!("/dev/sd/../x=8G".parse::<DiskArg>().is_err());
    }

    #[test]
    fn ports() {
        let plain = published("8080:80").unwrap();
        assert_eq!(
            (plain.address, plain.host, plain.guest),
            (Ipv4Addr::LOCALHOST, 8080, 80)
        );
        assert_eq!(
            published("0.0.0.0:1:2").unwrap().address,
            Ipv4Addr::UNSPECIFIED
        );
        for bad in ["80", "0:80", "80:0", "x:1:2", "1:2:3:4", "70000:80"] {
            assert!(published(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_options() {
        let mut options = MetadataOptions::default();
        for text in [
            "http-tokens=optional",
            "hop-limit=1",
            "instance-tags=enabled",
        ] {
            text.parse::<MetadataArg>().unwrap().apply(&mut options);
        }
        assert!(!options.tokens_required && options.hop_limit == 1 && options.instance_tags);
        for bad in [
            "http-tokens=maybe",
            "hop-limit=65",
            "hop-limit=0",
            "x=y",
            "http-tokens",
        ] {
            assert!(bad.parse::<MetadataArg>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<DiskArg>();
            let _ = text.parse::<TagArg>();
            let _ = text.parse::<MetadataArg>();
            let _ = published(&text);
            let _ = duration(&text);
        }
    }
}
