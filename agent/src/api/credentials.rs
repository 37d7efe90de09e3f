//! Access keys: who may call, and with which account.
//!
//! `HOME/credentials.json`, mode 0600, made at the first start:
//!
//! ```json
//! {"access_keys": [{"access_key_id": "AKIA…", "secret_access_key": "…", "account": "123456789012"}]}
//! ```
//!
//! Without an account, a key is of the server's own. More keys may be added by hand.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Kind, Result};
use crate::state::write_atomically;

/// File in the state folder.
const FILE: &str = "credentials.json";
/// As in IAM: `AKIA` and 16 of these.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A key that requests are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// `AKIA…`.
    #[serde(rename = "access_key_id")]
    pub id: String,
    /// Known to the caller and to us.
    #[serde(rename = "secret_access_key")]
    pub secret: String,
    /// The account that calls; the server's own when none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// `ID:SECRET[:ACCOUNT]`, as on the command line.
impl FromStr for AccessKey {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut parts = text.splitn(3, ':').map(str::to_owned);
        let key = Self {
            id: parts.next().unwrap_or_default(),
            secret: parts.next().unwrap_or_default(),
            account: parts.next(),
        };
        key.check()?;
        Ok(key)
    }
}

impl AccessKey {
    fn check(&self) -> std::result::Result<(), String> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !(1..=128).contains(&self.id.len()) || !self.id.bytes().all(word) {
            return Err(format!(
                "`{}` is no access key id: letters, digits and underscores, up to 128",
                self.id
            ));
        }
        if !(1..=128).contains(&self.secret.len())
            || !self.secret.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(format!(
                "the secret of the access key {} must be 1 to 128 visible ASCII characters",
                self.id
            ));
        }
        self.account
            .as_deref()
            .map_or(Ok(()), |text| account(text).map(drop))
    }

    /// A new one, from the system's randomness.
    fn generate() -> Result<Self> {
        let (mut id, mut secret) = ([0; 16], [0; 30]);
        rand::fill(&mut id)
            .and_then(|()| rand::fill(&mut secret))
            .map_err(|_| Error::internal("the system gives no random bytes"))?;
        let letters = id
            .iter()
            .map(|byte| char::from(ID_ALPHABET[usize::from(byte & 31)]));
        Ok(Self {
            id: "AKIA".chars().chain(letters).collect(),
            secret: STANDARD.encode(secret),
            account: None,
        })
    }
}

/// Checks an account id: 12 digits.
///
/// # Errors
/// What is wrong with it.
pub fn account(text: &str) -> std::result::Result<String, String> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no account id: it has 12 digits"))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    access_keys: Vec<AccessKey>,
}

/// All access keys of a server.
#[derive(Debug)]
pub struct Credentials {
    own: AccessKey,
    keys: HashMap<String, AccessKey>,
}

impl Credentials {
    /// Reads the keys of the state folder, making the first one when there is no file, and adds `more`.
    ///
    /// # Errors
    /// When the file cannot be read or written, is readable by others, or says something wrong.
    pub fn open(home: &Path, more: &[AccessKey]) -> Result<Self> {
        let keys = match load(home)? {
            Some(keys) => keys,
            None => {
                let keys = vec![AccessKey::generate()?];
                store(&home.join(FILE), &keys)?;
                keys
            }
        };
        let own = keys
            .first()
            .or(more.first())
            .ok_or_else(|| {
                Error::new(
                    Kind::Usage,
                    "NoAccessKey",
                    format!("{} has no access key", home.join(FILE).display()),
                )
                .mend("remove the file, and a key is made at the next start")
            })?
            .clone();
        let mut all = HashMap::new();
        for key in keys.iter().chain(more) {
            if let Some(other) = all.insert(key.id.clone(), key.clone())
                && other != *key
            {
                return Err(Error::new(
                    Kind::Usage,
                    "InvalidParameterValue",
                    format!(
                        "the access key {} is given twice, with different secrets or accounts",
                        key.id
                    ),
                )
                .mend(format!(
                    "give it once: in {} or with --access-key",
                    home.join(FILE).display()
                )));
            }
        }
        Ok(Self { own, keys: all })
    }

    /// Keys that are kept nowhere, for tests.
    #[must_use]
    pub fn fixed(own: AccessKey, more: &[AccessKey]) -> Self {
        let all = std::iter::once(&own).chain(more);
        let keys = all.map(|key| (key.id.clone(), key.clone())).collect();
        Self { own, keys }
    }

    /// The key that is told to the user.
    #[must_use]
    pub fn own(&self) -> &AccessKey {
        &self.own
    }

    /// The key with this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&AccessKey> {
        self.keys.get(id)
    }
}

/// The key with this id in the state folder's file, if there is such a file and key.
///
/// # Errors
/// As [`Credentials::open`].
pub fn kept(home: &Path, id: &str) -> Result<Option<AccessKey>> {
    let keys = load(home)?.unwrap_or_default();
    Ok(keys.into_iter().find(|key| key.id == id))
}

fn load(home: &Path) -> Result<Option<Vec<AccessKey>>> {
    let path = home.join(FILE);
    let doing = || format!("cannot read {}", path.display());
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.context(doing)?,
    };
    private(&path, &file.metadata().context(doing)?)?;
    let mut text = String::new();
    file.read_to_string(&mut text).context(doing)?;
    let document: Document =
        serde_json::from_str(&text).map_err(|error| wrong(&path, &error.to_string()))?;
    for key in &document.access_keys {
        key.check().map_err(|reason| wrong(&path, &reason))?;
    }
    let mut ids: Vec<&str> = document.access_keys.iter().map(|key| &*key.id).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|two| two[0] == two[1]) {
        let reason = format!("the access key {} is there twice", twice[0]);
        return Err(wrong(&path, &reason));
    }
    Ok(Some(document.access_keys))
}

fn private(path: &Path, meta: &fs::Metadata) -> Result<()> {
    let me = nix::unistd::geteuid().as_raw();
    if meta.uid() == me && meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    let name = path.display();
    let (message, mend) = if meta.uid() == me {
        let mode = meta.mode() & 0o777;
        (
            format!("{name} holds secrets and others may read or write it (mode {mode:03o})"),
            format!("`chmod 600 {name}`; if somebody may have read it, remove it instead"),
        )
    } else {
        (
            format!(
                "{name} belongs to user {} and this is user {me}",
                meta.uid()
            ),
            format!("`chown {me} {name}`, or run as that user"),
        )
    };
    Err(Error::host("CredentialsNotPrivate", message).mend(mend))
}

fn wrong(path: &Path, reason: &str) -> Error {
    let name = path.display();
    Error::new(
        Kind::Usage,
        "InvalidCredentialsFile",
        format!("{name} is not as it should be: {reason}"),
    )
    .mend("mend it by hand, or remove it: then a new access key is made at the next start")
}

fn store(path: &Path, keys: &[AccessKey]) -> Result<()> {
    let document = Document {
        access_keys: keys.to_vec(),
    };
    let doing = || format!("cannot write {}", path.display());
    let mut bytes = serde_json::to_vec_pretty(&document).context(doing)?;
    bytes.push(b'\n');
    write_atomically(path, &bytes).context(doing)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn made_once_and_private() {
        let home = tempfile::tempdir().unwrap();
        let first = Credentials::open(home.path(), &[]).unwrap();
        let own = first.own();
        assert!(own.id.starts_with("AKIA") && own.id.len() == 20);
        assert!(own.id.bytes().all(|byte| ID_ALPHABET.contains(&byte)));
        assert_eq!(own.secret.len(), 40);
        let mode = fs::metadata(home.path().join(FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Credentials::open(home.path(), &[]).unwrap();
        assert_eq!(second.own(), own);
        assert_eq!(kept(home.path(), &own.id).unwrap().as_ref(), Some(own));
        assert_ne!(AccessKey::generate().unwrap().id, own.id);
    }

    #[test]
    fn secrets_are_not_printed() {
        let key: AccessKey = "AKIATEST:verysecret:000000000001".parse().unwrap();
        assert_eq!(key.account.as_deref(), Some("000000000001"));
        let home = tempfile::tempdir().unwrap();
        let keys = Credentials::open(home.path(), &[key]).unwrap();
        assert_eq!(keys.find("AKIATEST").unwrap().secret, "verysecret");
        assert!(!format!("{keys:?}").contains("verysecret"));
        let file = fs::read_to_string(home.path().join(FILE)).unwrap();
        assert!(!file.contains("AKIATEST"), "what is typed is not kept");
    }

    #[test]
    fn a_key_has_one_secret() {
        let home = tempfile::tempdir().unwrap();
        let own = Credentials::open(home.path(), &[]).unwrap().own().clone();
        Credentials::open(home.path(), std::slice::from_ref(&own)).unwrap();
        let other = AccessKey {
            secret: "another".into(),
            ..own
        };
        let error = Credentials::open(home.path(), &[other]).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        Credentials::open(home.path(), &[]).unwrap();
        let path = home.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Credentials::open(home.path(), &[]).unwrap_err();
        assert_eq!(error.code, "CredentialsNotPrivate");
        assert!(error.mend.unwrap().contains("chmod 600"));
    }

    #[test]
    fn wrong_files_and_keys_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(FILE);
        for (text, code) in [
            ("{", "InvalidCredentialsFile"),
            (
                r#"{"access_keys": [], "more": 1}"#,
                "InvalidCredentialsFile",
            ),
            (r#"{"access_keys": []}"#, "NoAccessKey"),
            (
                r#"{"access_keys": [{"access_key_id": "A", "secret_access_key": "s", "account": "1"}]}"#,
                "InvalidCredentialsFile",
            ),
            (
                r#"{"access_keys": [{"access_key_id": "A", "secret_access_key": "s"}, {"access_key_id": "A", "secret_access_key": "t"}]}"#,
                "InvalidCredentialsFile",
            ),
        ] {
            write_atomically(&path, text.as_bytes()).unwrap();
            let error = Credentials::open(home.path(), &[]).unwrap_err();
            assert_eq!(error.code, code, "{text}");
            assert!(error.mend.is_some());
        }
        for text in ["", "A", "A:", "A b:s", "A:s:12", "A:s:12345678901x"] {
            text.parse::<AccessKey>().unwrap_err();
        }
    }
}
