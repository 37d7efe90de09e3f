//! Request paths, which a guest chooses.

/// A longer path than any that can name something.
const LONGEST: usize = 2048;

/// A path cut into its decoded names, without the empty name that one trailing slash leaves.
pub(crate) type Names = Vec<String>;

/// Why a path cannot name anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadPath {
    /// Not a path at all: too long, not absolute, broken percent encoding, control characters.
    Malformed,
    /// A path, but one that no name of ours can match: `//`, `.`, `..`, an encoded `/`.
    NoSuchName,
}

/// Cuts `raw` (still percent-encoded, without query) at its slashes and decodes every name once.
///
/// Cutting comes first: an encoded slash can then never move a request to another directory.
pub(crate) fn split(raw: &str) -> Result<Names, BadPath> {
    if raw.len() > LONGEST {
        return Err(BadPath::Malformed);
    }
    let rest = raw.strip_prefix('/').ok_or(BadPath::Malformed)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return if raw == "/" {
            Ok(Vec::new())
        } else {
            Err(BadPath::NoSuchName)
        };
    }
    rest.split('/').map(name).collect()
}

fn name(encoded: &str) -> Result<String, BadPath> {
    let name = decode(encoded).ok_or(BadPath::Malformed)?;
    if name.chars().any(char::is_control) {
        return Err(BadPath::Malformed);
    }
    if matches!(name.as_str(), "" | "." | "..") || name.contains('/') {
        return Err(BadPath::NoSuchName);
    }
    Ok(name)
}

fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => (hex(rest.next()?)? << 4) | hex(rest.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cuts_and_decodes() {
        assert_eq!(split("/").unwrap(), Names::new());
        assert_eq!(split("/latest").unwrap(), ["latest"]);
        assert_eq!(
            split("/latest/meta-data/").unwrap(),
            ["latest", "meta-data"]
        );
        assert_eq!(split("/a/b%3Ac%40").unwrap(), ["a", "b:c@"]);
        // Once only: what was encoded twice stays encoded.
        assert_eq!(split("/a/%252e%252e").unwrap(), ["a", "%2e%2e"]);
    }

    #[test]
    fn refuses_what_could_mean_another_place() {
        for path in [
            "//",
            "/a//b",
            "//a",
            "/a//",
            "/a/..",
            "/./a",
            "/a/%2e%2e/b",
            "/%2E",
            "/a%2Fb",
        ] {
            assert_eq!(split(path), Err(BadPath::NoSuchName), "{path}");
        }
        for path in [
            "", "a", "*", "/%", "/%4", "/%zz", "/a%00b", "/%0a", "/%ff", "/%c2%85",
        ] {
            assert_eq!(split(path), Err(BadPath::Malformed), "{path}");
        }
        assert_eq!(
            split(&format!("/{}", "a".repeat(LONGEST))),
            Err(BadPath::Malformed)
        );
    }

    proptest! {
        #[test]
        fn never_panics_and_never_lets_a_separator_through(raw in "\\PC{0,80}|/[%./a-f0-9]{0,60}") {
            if let Ok(names) = split(&raw) {
                for name in names {
                    prop_assert!(!name.contains('/') && !name.is_empty() && name != "..");
                    prop_assert!(!name.chars().any(char::is_control));
                }
            }
        }
    }
}
