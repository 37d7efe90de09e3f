//! The Python environment and the JavaScript modules of the API's tests, in the user's cache folder.

use crate::{cache, setup, sh, workspace};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder of the API's test scripts.
pub(crate) fn scripts() -> Result<PathBuf> {
    Ok(workspace::root()?.join("tests/api"))
}

/// The interpreter of the API tests' environment.
pub(crate) fn interpreter() -> Result<PathBuf> {
    environment("python/requirements.txt")
}

/// The interpreter of an environment with everything in this list under `tests/api`.
///
/// Programs of the environment are to be run as modules (`python -m awscli`): their start lines name the folder that it
/// was made in, which is not the one it ends up in.
pub(crate) fn environment(list: &str) -> Result<PathBuf> {
    let list = scripts()?.join(list);
    let requirements =
        fs::read(&list).with_context(|| format!("cannot read {}", list.display()))?;
    setup::ensure_program("python3", &["python3", "python3-venv"])?;
    // An environment belongs to the interpreter that made it.
    let version = sh::output(
        Command::new("python3").args(["-c", "import sys; print(sys.version, sys.base_prefix)"]),
    )?;
    let key = cache::key(&[requirements, version.into_bytes()]);
    let entry = cache::entry("python", &key, true, |folder| make(folder, &list))?;
    Ok(entry.join("bin/python"))
}

fn make(folder: &Path, list: &Path) -> Result<()> {
    eprintln!("xtask: making a Python environment");
    sh::output(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    // What is listed and nothing else, so that the key says all.
    sh::output(
        Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--no-deps"])
            .arg("--requirement")
            .arg(list),
    )?;
    sh::output(Command::new(folder.join("bin/python")).args(["-m", "pip", "check"]))?;
    Ok(())
}

/// A folder that has the `node_modules` of `tests/api/js/package-lock.json`.
pub(crate) fn node_modules() -> Result<PathBuf> {
    let source = scripts()?.join("js");
    let mut parts = Vec::new();
    for name in ["package.json", "package-lock.json"] {
        let file = source.join(name);
        parts.push(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    setup::ensure_program("node", &["nodejs"])?;
    setup::ensure_program("npm", &["npm"])?;
    cache::entry("node", &cache::key(&parts), true, |folder| {
        eprintln!("xtask: installing the JavaScript modules of the API's tests");
        for name in ["package.json", "package-lock.json"] {
            fs::copy(source.join(name), folder.join(name))?;
        }
        sh::output(
            Command::new("npm")
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(folder),
        )?;
        Ok(())
    })
}
