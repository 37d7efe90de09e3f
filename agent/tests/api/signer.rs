//! A signer of the tests' own, written from the description of Signature Version 4 and not from the verifier.

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

/// With what, as whom and when to sign.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) region: String,
    pub(crate) service: String,
    pub(crate) at: OffsetDateTime,
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

impl Signer {
    /// Headers to add to a request with this host; `query` is in canonical form.
    pub(crate) fn headers(
        &self,
        method: &str,
        host: &str,
        query: &str,
        body: &str,
    ) -> Vec<(String, String)> {
        let (date, scope) = self.date_and_scope();
        let digest = hex::encode(Sha256::digest(body));
        let canonical = format!(
            "{method}\n/\n{query}\nhost:{host}\nx-amz-date:{date}\n\nhost;x-amz-date\n{digest}"
        );
        let signature = self.signature(&canonical, &date, &scope);
        let id = &self.id;
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders=host;x-amz-date, Signature={signature}"
        );
        vec![
            ("X-Amz-Date".to_owned(), date),
            ("Authorization".to_owned(), authorization),
        ]
    }

    pub(crate) fn date_and_scope(&self) -> (String, String) {
        let form = format_description!("[year][month][day]T[hour][minute][second]Z");
        let date = self.at.format(&form).unwrap();
        let (region, service) = (&self.region, &self.service);
        let scope = format!("{}/{region}/{service}/aws4_request", &date[..8]);
        (date, scope)
    }

    pub(crate) fn signature(&self, canonical: &str, date: &str, scope: &str) -> String {
        let digest = hex::encode(Sha256::digest(canonical));
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}");
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part);
        }
        hex::encode(mac(&key, &to_sign))
    }
}
