//! The secrets of one installation: what signs tokens and identity documents.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;

use crate::identity::{Identity, IdentityError};

const SECRET_FILE: &str = "token-secret";
const KEY_FILE: &str = "identity-key.pem";
const CERTIFICATE_FILE: &str = "identity-certificate.pem";

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file system refused.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// `read`, `write` …
        action: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else may read a secret.
    #[error(
        "{path} is a secret but its mode is {mode:o}: run `chmod 600 {path}` if nobody else can \
         have read it, else delete it to get a new one",
        path = path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold what it should.
    #[error("{path} is damaged: restore it, or delete it to get a new one", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong, when there is more to say.
        #[source]
        source: Option<IdentityError>,
    },
    /// No key could be made.
    #[error("cannot make a new identity key")]
    Generate(#[source] IdentityError),
    /// The system's random numbers failed.
    #[error("the system gives no random bytes")]
    Random,
}

/// The token secret and the identity key of an installation.
pub struct Keys {
    token_secret: [u8; 32],
    identity: Identity,
}

impl Keys {
    /// Keys from a caller that stores them itself. Tokens stay valid as long as `token_secret`
    /// stays the same.
    #[must_use]
    pub fn new(token_secret: [u8; 32], identity: Identity) -> Self {
        Self {
            token_secret,
            identity,
        }
    }

    /// The keys kept in `folder`, made on the first call: `token-secret` and `identity-key.pem`
    /// (mode 0600), and `identity-certificate.pem` for everybody. The folder itself is made with
    /// mode 0700 when missing. Calls of several processes at once end up with the same keys.
    ///
    /// # Errors
    /// When a file cannot be read or written, is damaged, or a secret is readable by others.
    pub fn open(folder: &Path) -> Result<Self, KeysError> {
        make_folder(folder)?;
        let path = folder.join(SECRET_FILE);
        let token_secret = secret(&path, || {
            let mut bytes = vec![0; 32];
            rand::fill(&mut bytes).map_err(|_| KeysError::Random)?;
            Ok(bytes)
        })?;
        let token_secret = token_secret
            .try_into()
            .map_err(|_| KeysError::Damaged { path, source: None })?;

        let path = folder.join(KEY_FILE);
        let pem = secret(&path, || {
            let identity = Identity::generate().map_err(KeysError::Generate)?;
            Ok(identity.private_key_pem().into_bytes())
        })?;
        let damaged = |source| KeysError::Damaged {
            path: path.clone(),
            source,
        };
        let pem = String::from_utf8(pem).map_err(|_| damaged(None))?;
        let identity = Identity::from_pem(&pem).map_err(|source| damaged(Some(source)))?;
        publish(
            &folder.join(CERTIFICATE_FILE),
            identity.certificate_pem().as_bytes(),
        )?;
        Ok(Self {
            token_secret,
            identity,
        })
    }

    pub(crate) fn token_secret(&self) -> &[u8; 32] {
        &self.token_secret
    }

    /// What signs identity documents; its certificate is public.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl std::fmt::Debug for Keys {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

fn make_folder(folder: &Path) -> Result<(), KeysError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|source| KeysError::File {
        action: "make the folder",
        path: folder.into(),
        source,
    })
}

/// Reads the secret at `path`, after writing what `make` gives if there is none.
fn secret(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, KeysError>,
) -> Result<Vec<u8>, KeysError> {
    if !path
        .try_exists()
        .map_err(|source| file("look for", path, source))?
    {
        write(path, &make()?, 0o600, Existing::Keep)?;
    }
    let metadata = fs::metadata(path).map_err(|source| file("read", path, source))?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Exposed {
            path: path.into(),
            mode,
        });
    }
    fs::read(path).map_err(|source| file("read", path, source))
}

/// Writes a public file unless it already says the same.
fn publish(path: &Path, content: &[u8]) -> Result<(), KeysError> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    write(path, content, 0o644, Existing::Replace)
}

/// What to do with a file that is already there.
#[derive(PartialEq)]
enum Existing {
    /// Somebody was faster: theirs counts.
    Keep,
    Replace,
}

/// Writes a whole file or nothing, and returns only when it will survive a power cut.
fn write(path: &Path, content: &[u8], mode: u32, existing: Existing) -> Result<(), KeysError> {
    let fail = |source| file("write", path, source);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(folder)
        .map_err(fail)?;
    new.write_all(content).map_err(fail)?;
    new.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(fail)?;
    new.as_file().sync_all().map_err(fail)?;
    let placed = match existing {
        Existing::Replace => new.persist(path),
        Existing::Keep => new.persist_noclobber(path),
    };
    match placed {
        Err(failure)
            if existing == Existing::Keep
                && failure.error.kind() == io::ErrorKind::AlreadyExists => {}
        other => drop(other.map_err(|failure| fail(failure.error))?),
    }
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(fail)
}

fn file(action: &'static str, path: &Path, source: io::Error) -> KeysError {
    KeysError::File {
        action,
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn made_once_and_found_again() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("imds");
        let first = Keys::open(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(SECRET_FILE)), 0o600);
        assert_eq!(mode(&folder.join(KEY_FILE)), 0o600);
        assert_eq!(mode(&folder.join(CERTIFICATE_FILE)), 0o644);

        // A lost certificate comes back the same: it follows from the key.
        fs::remove_file(folder.join(CERTIFICATE_FILE)).unwrap();
        let second = Keys::open(&folder).unwrap();
        assert_eq!(first.token_secret(), second.token_secret());
        assert_eq!(
            first.identity().certificate_pem(),
            second.identity().certificate_pem()
        );
        let written = fs::read_to_string(folder.join(CERTIFICATE_FILE)).unwrap();
        assert_eq!(written, first.identity().certificate_pem());
        let left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[test]
    fn several_first_starts_agree() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Keys::open(folder.path()).unwrap();
        let (a, b) = std::thread::scope(|scope| {
            let other = scope.spawn(open);
            (open(), other.join().unwrap())
        });
        assert_eq!(a.token_secret(), b.token_secret());
        assert_eq!(
            a.identity().certificate_pem(),
            b.identity().certificate_pem()
        );
    }

    #[test]
    fn refuses_exposed_and_damaged_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join(SECRET_FILE);
        let key = folder.path().join(KEY_FILE);
        Keys::open(folder.path()).unwrap();

        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        let text = Keys::open(folder.path()).unwrap_err().to_string();
        assert!(
            text.contains("mode is 640") && text.contains("chmod 600"),
            "{text}"
        );
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();

        fs::write(&secret, b"short").unwrap();
        let text = Keys::open(folder.path()).unwrap_err().to_string();
        assert!(text.contains("token-secret is damaged"), "{text}");
        fs::write(&secret, [1; 32]).unwrap();

        fs::write(
            &key,
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        let text = Keys::open(folder.path()).unwrap_err().to_string();
        assert!(text.contains("identity-key.pem is damaged"), "{text}");
    }
}
