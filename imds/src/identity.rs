//! The key that signs identity documents, and its certificate.
//!
//! EC2 has a DSA, an RSA and an RSA-2048 certificate per region. An installation of ours has one
//! RSA-2048 key for all three files: DSA with SHA-1, which EC2's `pkcs7` still uses, is no longer
//! accepted by current libraries. The certificate follows from the key alone (fixed validity,
//! serial number from the key, PKCS #1 v1.5 is deterministic), so the key is all that has to be
//! kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    Certificate, CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_RSA_SHA256,
    RsaKeySize, SerialNumber, SigningKey as _, date_time_ymd,
};

use crate::document::document;
use crate::pkcs7;
use crate::view::InstanceView;

/// Documents whose signatures are remembered: far more than instances that ask in a short time.
const REMEMBERED: usize = 1024;
/// Characters a line in base64 answers, as in PEM (RFC 7468 §2).
const LINE: usize = 64;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Generation, loading, signing or certificate.
    #[error("RSA key or certificate")]
    Key(#[from] rcgen::Error),
    /// The message could not be encoded.
    #[error("PKCS #7 encoding")]
    Encoding(#[from] cms::cert::x509::der::Error),
}

/// An RSA-2048 key with its self-signed certificate.
pub struct Identity {
    key: KeyPair,
    certificate: Certificate,
    signed: Mutex<HashMap<[u8; 32], Arc<Signed>>>,
}

/// A signed document, in the forms that `instance-identity/` serves.
pub(crate) struct Signed {
    /// `signature`.
    pub(crate) signature: String,
    /// `pkcs7` and `rsa2048`.
    pub(crate) pkcs7: String,
}

impl Identity {
    /// A new key.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn generate() -> Result<Self, IdentityError> {
        Self::with_key(KeyPair::generate_rsa_for(
            &PKCS_RSA_SHA256,
            RsaKeySize::_2048,
        )?)
    }

    /// The key in a PKCS #8 PEM text.
    ///
    /// # Errors
    /// When the text is no RSA key.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        Self::with_key(KeyPair::from_pkcs8_pem_and_sign_algo(
            pem,
            &PKCS_RSA_SHA256,
        )?)
    }

    fn with_key(key: KeyPair) -> Result<Self, IdentityError> {
        let fingerprint = digest(&SHA256, key.public_key_raw());
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "cumulet");
        name.push(DnType::CommonName, "cumulet instance identity");
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2199, 12, 31);
        // 16 bytes, the first without its sign bit and not zero: a positive DER integer.
        let mut serial = fingerprint.as_ref()[..16].to_vec();
        serial[0] = (serial[0] & 0x7f) | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            key,
            certificate,
            signed: Mutex::default(),
        })
    }

    /// The private key as PKCS #8 PEM.
    #[must_use]
    pub fn private_key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The certificate as PEM, for everybody who wants to verify documents.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// Signs the identity document of `view`, or finds the signatures made before.
    pub(crate) fn sign(&self, view: &InstanceView) -> Result<Arc<Signed>, IdentityError> {
        let document = document(view);
        let mut name = [0; 32];
        name.copy_from_slice(digest(&SHA256, document.as_bytes()).as_ref());
        if let Some(signed) = self.remembered().get(&name) {
            return Ok(Arc::clone(signed));
        }
        let message = pkcs7::sign(
            document.as_bytes(),
            view.pending_time,
            self.certificate.der(),
            |m| self.key.sign(m).map_err(IdentityError::from),
        )?;
        let signed = Arc::new(Signed {
            signature: base64_lines(&self.key.sign(document.as_bytes())?),
            pkcs7: base64_lines(&message),
        });
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(name, Arc::clone(&signed));
        Ok(signed)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Signed>>> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Base64 in lines, without a line end after the last one.
fn base64_lines(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut out = String::with_capacity(text.len() + text.len() / LINE);
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out
}
