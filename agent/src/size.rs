//! Sizes as people write them: `8G`, `512M`, `1.5T`, `20GiB`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;

/// A number of bytes. Units are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl Size {
    /// EC2 speaks of volumes in whole GiB; rounded up.
    #[must_use]
    pub fn gib_rounded_up(self) -> u64 {
        self.0.div_ceil(GIB)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a size: write a number and a unit, as 512M or 8G");
        let split = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("`{text}` has no unit: write {text}M or {text}G"))?;
        let (number, unit) = text.split_at(split);
        let scale: u128 = match unit.to_ascii_lowercase().as_str() {
            "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(bad()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
            return Err(bad());
        }
        let whole: u128 = whole.parse().map_err(|_| bad())?;
        let mut bytes = whole.checked_mul(scale).ok_or_else(bad)?;
        if !fraction.is_empty() {
            let places = u32::try_from(fraction.len()).map_err(|_| bad())?;
            let part: u128 = fraction.parse().map_err(|_| bad())?;
            bytes += part * scale / 10_u128.pow(places);
        }
        let bytes = u64::try_from(bytes).map_err(|_| bad())?;
        if bytes == 0 {
            return Err(format!("`{text}` is nothing: a size must be above zero"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("TiB", 1 << 40), ("GiB", GIB), ("MiB", MIB), ("KiB", 1024)];
        for (name, scale) in UNITS {
            if self.0 >= scale {
                let tenths = u128::from(self.0) * 10 / u128::from(scale);
                return if tenths.is_multiple_of(10) {
                    write!(f, "{} {name}", tenths / 10)
                } else {
                    write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn common_forms() {
        for (text, bytes) in [
            ("8G", 8 * GIB),
            ("512M", 512 * MIB),
            ("1.5GiB", GIB * 3 / 2),
            ("2t", 2 << 40),
            ("64kib", 64 << 10),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        assert_eq!(Size(8 * GIB).to_string(), "8 GiB");
        assert_eq!(Size(GIB * 3 / 2).to_string(), "1.5 GiB");
    }

    #[test]
    fn bad_forms_say_what_to_write() {
        for text in [
            "",
            "8",
            "G",
            "-1G",
            "8X",
            "0G",
            "1..5G",
            "99999999999999999999T",
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(!error.is_empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            let _ = text.parse::<Size>();
        }
    }
}
