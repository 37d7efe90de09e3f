//! Form fields and query strings (`application/x-www-form-urlencoded`), decoded strictly.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::error::ApiError;

/// Most fields that are looked at; the tree of parameters has its own, lower limit.
const MAX_FIELDS: usize = 50_000;

/// All but RFC 3986's unreserved characters, as Signature Version 4 encodes.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Decodes `a=1&b=x%20y`. `+` is a space.
///
/// # Errors
/// `MalformedQueryString` for bytes that are no UTF-8, and for too many fields.
pub fn parse(raw: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let mut fields = Vec::new();
    for field in raw.split(|byte| *byte == b'&') {
        if field.is_empty() {
            continue;
        }
        if fields.len() >= MAX_FIELDS {
            return Err(malformed("it has too many parameters"));
        }
        let mut halves = field.splitn(2, |byte| *byte == b'=');
        let name = halves.next().unwrap_or_default();
        let value = halves.next().unwrap_or_default();
        fields.push((decode(name)?, decode(value)?));
    }
    Ok(fields)
}

fn decode(raw: &[u8]) -> Result<String, ApiError> {
    let spaced: Vec<u8> = raw
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    match percent_decode(&spaced).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(malformed("a parameter is not in UTF-8")),
    }
}

fn malformed(why: &str) -> ApiError {
    ApiError::new(
        "MalformedQueryString",
        format!("The query string contains a syntax error: {why}"),
    )
}

/// Encodes everything but unreserved characters.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A query string of decoded fields as Signature Version 4 wants it: encoded anew, sorted by name, then by value.
#[must_use]
pub fn canonical<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut pairs: Vec<(String, String)> = fields
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn fields_are_decoded() {
        assert_eq!(
            parse(b"a=1&&b=x%20y+z&c&d=%3D%26=&e=%zz").unwrap(),
            [
                pair("a", "1"),
                pair("b", "x y z"),
                pair("c", ""),
                pair("d", "=&="),
                pair("e", "%zz"),
            ]
        );
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn what_is_not_utf8_is_refused() {
        for raw in [&b"a=%ff"[..], b"\xc3=1", b"a=%ed%a0%80"] {
            assert_eq!(parse(raw).unwrap_err().code, "MalformedQueryString");
        }
    }

    #[test]
    fn the_canonical_form_is_sorted_by_the_encoded_names() {
        let fields = parse("b=2&a=%7E+&a=!&ä=1&B=".as_bytes()).unwrap();
        let fields = fields.iter().map(|(name, value)| (&**name, &**value));
        assert_eq!(canonical(fields), "%C3%A4=1&B=&a=%21&a=~%20&b=2");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(name in "\\PC{1,20}", value in "\\PC{0,20}") {
            let raw = format!("{}={}", encode(&name), encode(&value));
            prop_assert_eq!(parse(raw.as_bytes()).unwrap(), [(name, value)]);
        }

        #[test]
        fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&raw);
        }
    }
}
