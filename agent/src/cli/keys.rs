//! Key pairs: the one the user names, or cumulet's own.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::args::RunArgs;
use super::output::Output;
use crate::error::{Context, Error, Kind, Result};
use crate::state::Home;
use crate::state::record::KeyPair;

const OWN: &str = "cumulet";

/// The key pair for a launch: `--key`, else cumulet's own, else none with `--no-key`.
pub(super) fn for_launch(home: &Home, output: Output, args: &RunArgs) -> Result<Option<KeyPair>> {
    if let Some(path) = &args.key {
        return named(path).map(Some);
    }
    if args.no_key || args.image.is_none() {
        return Ok(None);
    }
    match own(home) {
        Ok(key) => Ok(Some(key)),
        Err(error) if args.ssh => Err(error),
        Err(error) => {
            output.warn(&format!("nobody can log in with a key: {error}"));
            Ok(None)
        }
    }
}

/// The public key in this file.
fn named(path: &Path) -> Result<KeyPair> {
    let bad = |message: String| Error::new(Kind::Usage, "InvalidKey.Format", message);
    let text = fs::read_to_string(path).map_err(|error| {
        bad(format!("cannot read the public key {}", path.display())).because(&error)
    })?;
    if text.contains("PRIVATE KEY") {
        return Err(bad(format!("{} is a private key", path.display()))
            .mend(format!("give its public half: {}.pub", path.display())));
    }
    let openssh = public_line(&text).ok_or_else(|| {
        bad(format!(
            "{} is not in OpenSSH public key format",
            path.display()
        ))
        .mend("it should be one line such as `ssh-ed25519 AAAA… comment`")
    })?;
    let stem = path.file_stem().map_or_else(
        || OWN.to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    let private = path.with_extension("");
    let identity = (path.extension().is_some_and(|end| end == "pub") && private.is_file())
        .then(|| std::path::absolute(&private))
        .transpose()
        .context(|| format!("cannot find {}", private.display()))?;
    Ok(KeyPair {
        name: stem,
        openssh,
        identity,
    })
}

/// The first line that is a public key: its base64 part begins with the length and the name of
/// its own type (RFC 4253 §6.6).
fn public_line(text: &str) -> Option<String> {
    text.lines().map(str::trim).find_map(|line| {
        let mut words = line.split_whitespace();
        let (kind, blob) = (words.next()?, words.next()?);
        let bytes = STANDARD.decode(blob).ok()?;
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let known = ["ssh-", "ecdsa-", "sk-"]
            .iter()
            .any(|p| kind.starts_with(p));
        (known && rest.get(..length)? == kind.as_bytes()).then(|| line.to_owned())
    })
}

/// cumulet's own key pair, made on first use.
fn own(home: &Home) -> Result<KeyPair> {
    let folder = home.keys();
    let private = folder.join(OWN);
    let public = folder.join("cumulet.pub");
    if !public.is_file() || !private.is_file() {
        let _guard = home.guard()?;
        if !public.is_file() || !private.is_file() {
            generate(&folder, &private)?;
        }
    }
    let mut key = named(&public)?;
    key.identity = Some(private);
    Ok(key)
}

/// Makes the pair in a temporary folder and moves it in, the public half last: a kill in between
/// leaves no half that is taken for a whole.
fn generate(folder: &Path, private: &Path) -> Result<()> {
    let doing = || format!("cannot make a key pair in {}", folder.display());
    let making = folder.join(".new");
    match fs::remove_dir_all(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context(doing);
        }
        _ => {}
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&making)
        .context(doing)?;
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "cumulet", "-f"])
        .arg(making.join(OWN))
        .stdin(Stdio::null())
        .status()
        .map_err(|error| {
            Error::host("MissingTool", doing())
                .because(&error)
                .mend("`sudo apt-get install openssh-client`, or name a key with --key")
        })?;
    if !status.success() {
        return Err(Error::internal(format!("ssh-keygen failed ({status})")));
    }
    fs::rename(making.join(OWN), private).context(doing)?;
    fs::rename(making.join("cumulet.pub"), folder.join("cumulet.pub")).context(doing)?;
    fs::remove_dir(&making).context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me";

    #[test]
    fn a_public_key_is_known_by_its_own_type() {
        assert_eq!(public_line(&format!("\n{KEY}\n")).as_deref(), Some(KEY));
        assert_eq!(public_line("ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA me"), None);
        assert_eq!(public_line("hello"), None);
        assert_eq!(public_line("ssh-ed25519 AAAA"), None);
    }

    #[test]
    fn a_private_key_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id");
        fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        let error = named(&path).unwrap_err();
        assert_eq!(error.code, "InvalidKey.Format");
        assert!(error.mend.unwrap().ends_with("id.pub"));
    }

    #[test]
    fn the_private_half_beside_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("me.pub");
        fs::write(&path, KEY).unwrap();
        assert_eq!(named(&path).unwrap().identity, None);
        fs::write(folder.path().join("me"), "x").unwrap();
        let key = named(&path).unwrap();
        assert_eq!(key.name, "me");
        assert_eq!(key.identity.unwrap(), folder.path().join("me"));
    }
}
