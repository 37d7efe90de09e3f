//! Which kernel version is newer.

use std::cmp::Ordering;

/// Compares versions as package managers do: runs of digits by value, runs of letters by alphabet,
/// digits above letters, `~` below everything, separators only separate.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip_separators(a);
        b = skip_separators(b);
        match (a.first(), b.first()) {
            (Some(b'~'), Some(b'~')) => {
                a = &a[1..];
                b = &b[1..];
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(_), Some(_)) => {}
        }
        let (x, rest_a) = run(a);
        let (y, rest_b) = run(b);
        let numbers = (x[0].is_ascii_digit(), y[0].is_ascii_digit());
        let order = match numbers {
            (true, true) => {
                let (x, y) = (strip_zeros(x), strip_zeros(y));
                x.len().cmp(&y.len()).then_with(|| x.cmp(y))
            }
            (false, false) => x.cmp(y),
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
        };
        if order != Ordering::Equal {
            return order;
        }
        a = rest_a;
        b = rest_b;
    }
}

fn skip_separators(text: &[u8]) -> &[u8] {
    let n = text
        .iter()
        .take_while(|c| !c.is_ascii_alphanumeric() && **c != b'~')
        .count();
    &text[n..]
}

/// The longest head of one kind.
fn run(text: &[u8]) -> (&[u8], &[u8]) {
    let digits = text[0].is_ascii_digit();
    let n = text
        .iter()
        .take_while(|c| c.is_ascii_alphanumeric() && c.is_ascii_digit() == digits)
        .count();
    text.split_at(n)
}

fn strip_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&c| c == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn orders_what_distributions_ship() {
        let rising = [
            "0-rescue-1f2e3d",
            "5.10.0-33-cloud-amd64",
            "6.1.0-9-cloud-amd64",
            "6.1.0-13-cloud-amd64",
            "6.8.0-31-generic",
            "6.12.0~rc1",
            "6.12.0",
            "6.12.0-100.fc41.x86_64",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }

    proptest! {
        #[test]
        fn is_an_order(a in "[a-z0-9.~_-]{0,12}", b in "[a-z0-9.~_-]{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }
    }
}
