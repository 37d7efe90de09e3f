//! `cumulet env`: how to point the aws CLI and SDKs at the server of this state folder.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;

use super::output::Output;
use super::serve::{LOCK, RUNNING, Running};
use crate::api::credentials::{self, AccessKey};
use crate::error::{Context as _, Error, Kind, Result};
use crate::state::OwnerLock;

/// Runs `cumulet env`.
pub(super) fn command(root: &Path, output: Output) -> Result<u8> {
    let running = running(root)?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "NotServing",
            format!("nobody serves the state folder {}", root.display()),
        )
        .mend("start `cumulet serve` in another terminal")
    })?;
    let key = key(root, &running)?;
    let variables = [
        ("AWS_ENDPOINT_URL", &running.endpoint),
        ("AWS_ACCESS_KEY_ID", &key.id),
        ("AWS_SECRET_ACCESS_KEY", &key.secret),
        ("AWS_DEFAULT_REGION", &running.region),
    ];
    let value: serde_json::Map<_, _> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    output.result(&value, || {
        let lines = variables.map(|(name, value)| format!("export {name}={}\n", quoted(value)));
        // Of another key, it would make every request fail.
        lines.concat() + "unset AWS_SESSION_TOKEN\n"
    });
    Ok(0)
}

/// The access key that a running server tells.
pub(super) fn key(root: &Path, running: &Running) -> Result<AccessKey> {
    credentials::kept(root, &running.access_key_id)?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "NoAccessKey",
            format!(
                "the secret of the access key {} is not in {}",
                running.access_key_id,
                root.display()
            ),
        )
        .mend("use the secret that the server was started with")
    })
}

/// What the running server says of itself; none when there is none. One that was killed may have left its file.
pub(super) fn running(root: &Path) -> Result<Option<Running>> {
    let lock = root.join(LOCK);
    let holder =
        OwnerLock::holder(&lock).context(|| format!("cannot look at {}", lock.display()))?;
    if holder.is_none() {
        return Ok(None);
    }
    let path = root.join(RUNNING);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .context(|| format!("cannot understand {}", path.display())),
        // It has only just started.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("cannot read {}", path.display())),
    }
}

/// As one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("http://127.0.0.1:1/"), "http://127.0.0.1:1/");
        assert_eq!(quoted("a b$c"), "'a b$c'");
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn what_a_killed_server_left_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        assert!(running(folder.path()).unwrap().is_none());
        fs::write(folder.path().join(RUNNING), "{}").unwrap();
        assert!(running(folder.path()).unwrap().is_none());
        let _lock = OwnerLock::try_take(&folder.path().join(LOCK), "test")
            .unwrap()
            .unwrap();
        assert_eq!(running(folder.path()).unwrap_err().code, "InternalError");
    }
}
