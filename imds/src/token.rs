//! Session tokens without a session store.
//!
//! A token carries its own expiry and a MAC under a key that belongs to one instance, so nothing
//! is kept between requests and a token outlives a restart of the service:
//!
//! ```text
//!  byte 0      4            10          16                                    40
//!       +------+------------+-----------+-------------------------------------+
//!       | mark | expiry     | nonce     | HMAC-SHA256(instance key, 0..16)    |
//!       |      | ms, 48 bit |           | first 24 bytes                      |
//!       +------+------------+-----------+-------------------------------------+
//! ```
//!
//! In base64url (with padding, as on EC2) that is 56 characters beginning `AQAEA`.

use std::time::{Duration, SystemTime};

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

/// The longest life of a token, in seconds (EC2 user guide, "Use IMDSv2": six hours).
pub const MAX_TTL_SECONDS: u32 = 21_600;

/// Random bytes that make two tokens of the same millisecond differ.
pub type Nonce = [u8; 6];

const MARK: [u8; 4] = [1, 0, 4, 0];
const SIGNED: usize = 16;
const TAG: usize = 24;
const TOKEN: usize = SIGNED + TAG;

/// Makes and checks the tokens of one instance.
pub(crate) struct TokenKey(hmac::Key);

impl TokenKey {
    /// The key of `instance_id` under the installation's `secret`.
    pub(crate) fn new(secret: &[u8; 32], instance_id: &str) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut context = hmac::Context::with_key(&root);
        context.update(b"cumulet imds token 1\0");
        context.update(instance_id.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref()))
    }

    /// A token that lives `ttl_seconds` from `now`.
    pub(crate) fn issue(&self, now: SystemTime, ttl_seconds: u32, nonce: Nonce) -> String {
        let expiry = millis(now).saturating_add(u64::from(ttl_seconds) * 1000);
        let mut token = [0; TOKEN];
        token[..4].copy_from_slice(&MARK);
        token[4..10].copy_from_slice(&expiry.to_be_bytes()[2..]);
        token[10..SIGNED].copy_from_slice(&nonce);
        let tag = hmac::sign(&self.0, &token[..SIGNED]);
        token[SIGNED..].copy_from_slice(&tag.as_ref()[..TAG]);
        URL_SAFE.encode(token)
    }

    /// The seconds that `token` still lives, rounded up, or `None` when it is not a live token
    /// of this instance.
    pub(crate) fn check(&self, now: SystemTime, token: &[u8]) -> Option<u32> {
        let mut buffer = [0; TOKEN + 3];
        let length = URL_SAFE.decode_slice(token, &mut buffer).ok()?;
        let token = buffer[..length]
            .first_chunk::<TOKEN>()
            .filter(|_| length == TOKEN)?;
        let tag = hmac::sign(&self.0, &token[..SIGNED]);
        constant_time::verify_slices_are_equal(&tag.as_ref()[..TAG], &token[SIGNED..]).ok()?;
        let mut expiry = [0; 8];
        expiry[2..].copy_from_slice(&token[4..10]);
        let left = u64::from_be_bytes(expiry)
            .checked_sub(millis(now))
            .filter(|&ms| ms > 0)?;
        u32::try_from(left.div_ceil(1000)).ok()
    }
}

/// Milliseconds since 1970; they fit 48 bits until the year 10889.
fn millis(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn key(instance: &str) -> TokenKey {
        TokenKey::new(&[7; 32], instance)
    }

    #[test]
    fn looks_like_ec2s() {
        let token = key("i-1").issue(NOW, 21_600, [9; 6]);
        assert_eq!(token.len(), 56);
        assert!(
            token.starts_with("AQAEA") && token.ends_with("=="),
            "{token}"
        );
    }

    #[test]
    fn lives_exactly_its_time() {
        let key = key("i-1");
        let token = key.issue(NOW, 1, [0; 6]);
        assert_eq!(key.check(NOW, token.as_bytes()), Some(1));
        assert_eq!(
            key.check(NOW + Duration::from_millis(999), token.as_bytes()),
            Some(1)
        );
        assert_eq!(
            key.check(NOW + Duration::from_secs(1), token.as_bytes()),
            None
        );
        let token = key.issue(NOW, MAX_TTL_SECONDS, [0; 6]);
        assert_eq!(
            key.check(NOW + Duration::from_secs(82), token.as_bytes()),
            Some(21_518)
        );
    }

    #[test]
    fn belongs_to_one_instance_and_one_secret() {
        let token = key("i-1").issue(NOW, 60, [0; 6]);
        assert_eq!(key("i-2").check(NOW, token.as_bytes()), None);
        assert_eq!(
            TokenKey::new(&[8; 32], "i-1").check(NOW, token.as_bytes()),
            None
        );
        assert_eq!(key("i-1").check(NOW, token.as_bytes()), Some(60));
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_refused(at in 0usize..40, flip in 1u8..) {
            let key = key("i-1");
            let token = key.issue(NOW, 60, [3; 6]);
            let mut raw = URL_SAFE.decode(&token).unwrap();
            raw[at] ^= flip;
            prop_assert_eq!(key.check(NOW, URL_SAFE.encode(raw).as_bytes()), None);
        }

        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(key("i-1").check(NOW, &bytes), None);
        }
    }
}
