//! `MaxResults` and `NextToken`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::ApiError;

/// One page of results.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Names the next page; none on the last one.
    pub next: Option<String>,
}

/// Cuts the page out of `items`, which are sorted by `key`. The token holds the key of the page's last item, so that
/// what comes and goes between two requests neither doubles nor hides others.
///
/// # Errors
/// `InvalidParameterValue` for a token that is not one of ours or a number of results outside `limits`.
pub fn page<T>(
    items: Vec<T>,
    key: impl Fn(&T) -> String,
    (max, token): (Option<i32>, Option<&str>),
    limits: std::ops::RangeInclusive<i32>,
) -> Result<Page<T>, ApiError> {
    let size = match max {
        Some(max) if !limits.contains(&max) => {
            return Err(ApiError::value(
                "maxResults",
                &max.to_string(),
                &format!(
                    "Expecting a value from {} to {}",
                    limits.start(),
                    limits.end()
                ),
            ));
        }
        Some(max) => usize::try_from(max).unwrap_or(1),
        None => usize::MAX,
    };
    let after = token.map(open).transpose()?;
    let mut rest = items
        .into_iter()
        .filter(|item| after.as_ref().is_none_or(|after| key(item) > *after));
    let items: Vec<T> = rest.by_ref().take(size).collect();
    let next = match (rest.next(), items.last()) {
        (Some(_), Some(last)) => Some(seal(&key(last))),
        _ => None,
    };
    Ok(Page { items, next })
}

const MARK: &str = "cumulet:";

fn seal(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{MARK}{key}"))
}

fn open(token: &str) -> Result<String, ApiError> {
    let bad = || ApiError::value("nextToken", token, "It is no token of this service");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    text.strip_prefix(MARK).map(str::to_owned).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(max: Option<i32>, token: Option<&str>) -> Result<Page<i32>, ApiError> {
        page(
            vec![1, 2, 3, 4, 5],
            ToString::to_string,
            (max, token),
            2..=1000,
        )
    }

    #[test]
    fn pages_follow_each_other() {
        let first = cut(Some(2), None).unwrap();
        assert_eq!(first.items, [1, 2]);
        let second = cut(Some(2), first.next.as_deref()).unwrap();
        assert_eq!(second.items, [3, 4]);
        let third = cut(Some(2), second.next.as_deref()).unwrap();
        assert_eq!((third.items, third.next), (vec![5], None));
        assert_eq!(cut(None, None).unwrap().next, None);
    }

    #[test]
    fn wrong_tokens_and_sizes_are_refused() {
        assert!(cut(Some(2), Some("x")).is_err());
        assert!(cut(Some(1), None).is_err());
    }
}
