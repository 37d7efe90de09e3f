//! Keys themselves: made, read, fingerprinted (EC2 user guide, "Verify the fingerprint of your key pair").
//!
//! | key              | fingerprint                                                    |
//! |------------------|----------------------------------------------------------------|
//! | RSA, made here   | SHA-1 of the private key in PKCS #8 DER, hexadecimal, colons   |
//! | RSA, imported    | MD5 of the public key in X.509 DER, hexadecimal, colons        |
//! | ED25519          | SHA-256 of the OpenSSH public key, base64                      |

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::{digest, rsa, signature::KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use pkcs1::UintRef;
use pkcs1::der::Encode as _;
use pkcs1::der::asn1::BitStringRef;
use pkcs1::der::pem;
use pkcs8::PrivateKeyInfo;
use pkcs8::spki::SubjectPublicKeyInfo;
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey};
use ssh_key::public::{Ed25519PublicKey, KeyData, RsaPublicKey};
use ssh_key::{HashAlg, LineEnding, Mpint, PrivateKey, PublicKey};

use crate::api::ApiError;

/// Longest blob that is looked at.
const MAX_BLOB: usize = 16 * 1024;
/// Bits of RSA keys that may be imported.
const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=16384;

/// A public key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Public {
    /// `rsa` or `ed25519`.
    pub(super) key_type: &'static str,
    pub(super) fingerprint: String,
    /// OpenSSH line without a comment.
    pub(super) line: String,
}

/// A key pair just made.
pub(super) struct Made {
    pub(super) public: Public,
    /// PEM.
    pub(super) private: String,
}

fn failed(error: impl std::fmt::Display) -> ApiError {
    ApiError::internal(format!("cannot make a key pair: {error}"))
}

fn colons(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// Makes an RSA key of 2048 bits, as EC2 does.
pub(super) fn rsa() -> Result<Made, ApiError> {
    let key = rsa::KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
    let pkcs8 = key.as_der().map_err(failed)?;
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, pkcs8.as_ref());
    // PKCS #8 is a wrapping of PKCS #1, which is what EC2 hands out.
    let info = PrivateKeyInfo::try_from(pkcs8.as_ref()).map_err(failed)?;
    let label = "RSA PRIVATE KEY";
    let private = pem::encode_string(label, LineEnding::LF, info.private_key).map_err(failed)?;
    let parts = pkcs1::RsaPrivateKey::try_from(info.private_key).map_err(failed)?;
    let data = KeyData::Rsa(RsaPublicKey {
        e: positive(parts.public_exponent.as_bytes())?,
        n: positive(parts.modulus.as_bytes())?,
    });
    let public = Public {
        key_type: "rsa",
        fingerprint: colons(sha1.as_ref()),
        line: line(data)?,
    };
    Ok(Made { public, private })
}

/// Makes an ED25519 key.
pub(super) fn ed25519() -> Result<Made, ApiError> {
    let key = aws_lc_rs::signature::Ed25519KeyPair::generate().map_err(failed)?;
    let seed = key.seed().map_err(failed)?;
    let seed = seed.as_be_bytes().map_err(failed)?;
    let pair = Ed25519Keypair {
        public: Ed25519PublicKey::try_from(key.public_key().as_ref()).map_err(failed)?,
        private: Ed25519PrivateKey::try_from(seed.as_ref()).map_err(failed)?,
    };
    let public = ed25519_public(pair.public)?;
    let key = PrivateKey::from(pair);
    let private = key.to_openssh(LineEnding::LF).map_err(failed)?.to_string();
    Ok(Made { public, private })
}

fn ed25519_public(key: Ed25519PublicKey) -> Result<Public, ApiError> {
    let data = KeyData::Ed25519(key);
    Ok(Public {
        key_type: "ed25519",
        fingerprint: STANDARD.encode(data.fingerprint(HashAlg::Sha256).as_bytes()),
        line: line(data)?,
    })
}

fn line(data: KeyData) -> Result<String, ApiError> {
    PublicKey::from(data).to_openssh().map_err(failed)
}

fn positive(bytes: impl AsRef<[u8]>) -> Result<Mpint, ApiError> {
    Mpint::from_positive_bytes(bytes.as_ref()).map_err(failed)
}

/// Reads a public key: an OpenSSH line, an SSH2 file (RFC 4716), or base64 of DER.
///
/// # Errors
/// `InvalidKey.Format`.
pub(super) fn import(blob: &[u8]) -> Result<Public, ApiError> {
    let text = std::str::from_utf8(blob).ok().map(str::trim);
    let data = text
        .filter(|text| text.len() <= MAX_BLOB)
        .and_then(|text| openssh(text).or_else(|| ssh2(text)).or_else(|| der(text)))
        .ok_or_else(|| wrong("Key is not in valid OpenSSH public key format"))?;
    match data {
        KeyData::Ed25519(key) => ed25519_public(key),
        KeyData::Rsa(key) => rsa_public(key),
        other => Err(wrong(&format!(
            "Keys of the type {} are not supported; use RSA or ED25519",
            other.algorithm()
        ))),
    }
}

fn wrong(message: &str) -> ApiError {
    ApiError::new("InvalidKey.Format", message)
}

fn openssh(text: &str) -> Option<KeyData> {
    let key = PublicKey::from_openssh(text).ok()?;
    Some(key.key_data().clone())
}

/// Between its marks: headers, whose lines may go on after a `\`, then base64.
fn ssh2(text: &str) -> Option<KeyData> {
    let text = text.strip_prefix("---- BEGIN SSH2 PUBLIC KEY ----")?;
    let text = text.strip_suffix("---- END SSH2 PUBLIC KEY ----")?;
    let mut base64 = String::new();
    let mut header = false;
    for line in text.lines().map(str::trim_end) {
        if header || line.contains(':') {
            header = line.ends_with('\\');
        } else {
            base64.push_str(line);
        }
    }
    let bytes = STANDARD.decode(base64).ok()?;
    let key = PublicKey::from_bytes(&bytes).ok()?;
    Some(key.key_data().clone())
}

/// Base64 of an RSA key's SubjectPublicKeyInfo.
fn der(text: &str) -> Option<KeyData> {
    let bytes = STANDARD
        .decode(text.split_ascii_whitespace().collect::<String>())
        .ok()?;
    let info = pkcs8::SubjectPublicKeyInfoRef::try_from(&*bytes).ok()?;
    if info.algorithm != pkcs1::ALGORITHM_ID {
        return None;
    }
    let key = pkcs1::RsaPublicKey::try_from(info.subject_public_key.as_bytes()?).ok()?;
    Some(KeyData::Rsa(RsaPublicKey {
        e: positive(key.public_exponent.as_bytes()).ok()?,
        n: positive(key.modulus.as_bytes()).ok()?,
    }))
}

fn rsa_public(key: RsaPublicKey) -> Result<Public, ApiError> {
    let bad = || wrong("Key is not in valid OpenSSH public key format");
    let modulus = key.n.as_positive_bytes().ok_or_else(bad)?;
    let exponent = key.e.as_positive_bytes().ok_or_else(bad)?;
    let first = modulus.first().map_or(0, |byte| byte.leading_zeros());
    let bits = modulus.len() * 8 - usize::try_from(first).unwrap_or_default();
    if !RSA_BITS.contains(&bits) {
        return Err(wrong(&format!(
            "Key has {bits} bits; use 1024, 2048 or 4096"
        )));
    }
    let public = pkcs1::RsaPublicKey {
        modulus: UintRef::new(modulus).map_err(|_| bad())?,
        public_exponent: UintRef::new(exponent).map_err(|_| bad())?,
    };
    let public = public.to_der().map_err(|_| bad())?;
    let info = SubjectPublicKeyInfo {
        algorithm: pkcs1::ALGORITHM_ID,
        subject_public_key: BitStringRef::from_bytes(&public).map_err(|_| bad())?,
    };
    let info = info.to_der().map_err(|_| bad())?;
    Ok(Public {
        key_type: "rsa",
        fingerprint: colons(&Md5::digest(info)),
        line: line(KeyData::Rsa(key))?,
    })
}
