//! The command server inside L1: one thread per connection.

use super::proto::{self, Meta, Opening, Request, kind};
use super::{exec, files, forward};
use anyhow::{Context as _, Result, bail};
use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the agent knows of files that were pushed: the sender's stamp, and size and time of the file here.
type Pushed = Mutex<HashMap<PathBuf, (String, u64, i64, i64)>>;

/// Serves until L1 ends.
pub(crate) fn run() -> Result<()> {
    let token: Arc<str> = fs::read_to_string("/mnt/token")
        .context("no token on the seed disk")?
        .into();
    let pushed: Arc<Pushed> = Arc::default();
    let listener =
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, proto::PORT)).context("cannot listen")?;
    for stream in listener.incoming() {
        let stream = stream?;
        let (token, pushed) = (Arc::clone(&token), Arc::clone(&pushed));
        std::thread::spawn(move || {
            let mut last = match stream.try_clone() {
                Ok(last) => last,
                Err(error) => return eprintln!("l1-agent: {error}"),
            };
            if let Err(error) = serve(stream, &token, &pushed) {
                let _ = proto::send(&mut last, kind::FAIL, &[format!("{error:#}").as_bytes()]);
            }
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream, token: &str, pushed: &Pushed) -> Result<()> {
    stream.set_nodelay(true)?;
    let opening: Opening = serde_json::from_slice(&proto::expect(&mut stream, kind::OPEN)?)?;
    if opening.token != token {
        bail!("wrong token");
    }
    if opening.version != proto::VERSION {
        bail!(
            "this emulated host was started by another build of xtask: `cargo xtask host stop`, then try again"
        );
    }
    match opening.request {
        Request::Exec(request) => exec::serve(stream, &request),
        Request::Put {
            path,
            mode,
            size,
            stamp,
        } => {
            if still_there(pushed, &path, &stamp) {
                return proto::send(&mut stream, kind::HAVE, &[]);
            }
            proto::send(&mut stream, kind::NEED, &[])?;
            files::receive(&mut stream, &path, mode, size, kind::END)?;
            remember(pushed, path, stamp)?;
            proto::send(&mut stream, kind::DONE, &[])
        }
        Request::Get { path } => {
            let mut file =
                File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            let meta = file.metadata()?;
            if !meta.is_file() {
                bail!("{} is not a plain file", path.display());
            }
            proto::send_json(
                &mut stream,
                kind::META,
                &Meta {
                    mode: meta.mode() & 0o7777,
                    size: meta.len(),
                },
            )?;
            files::send(&mut file, &mut stream)?;
            proto::send(&mut stream, kind::DONE, &[])
        }
        Request::Dial { port } => forward::serve(stream, port),
        Request::Beat => loop {
            proto::send(&mut stream, kind::BEAT, &[])?;
            std::thread::sleep(Duration::from_secs(1));
        },
    }
}

fn still_there(pushed: &Pushed, path: &Path, stamp: &str) -> bool {
    let Ok(meta) = fs::metadata(path) else {
        return false;
    };
    let pushed = pushed.lock().unwrap_or_else(PoisonError::into_inner);
    pushed.get(path).is_some_and(|known| {
        *known
            == (
                stamp.to_owned(),
                meta.len(),
                meta.mtime(),
                meta.mtime_nsec(),
            )
    })
}

fn remember(pushed: &Pushed, path: PathBuf, stamp: String) -> Result<()> {
    let meta = fs::metadata(&path)?;
    pushed
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(path, (stamp, meta.len(), meta.mtime(), meta.mtime_nsec()));
    Ok(())
}
