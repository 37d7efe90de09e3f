//! A server in this process, and requests to it over plain TCP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use cumulet_agent::api::credentials::{AccessKey, Credentials};
use cumulet_agent::api::server::{ServerConfig, State, serve};
use cumulet_agent::cloud::{Cloud, Identity};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::signer::Signer;

pub(crate) const ID: &str = "AKIATESTTESTTESTTEST";
const SECRET: &str = "a secret of the tests/+";

/// A running server; dropped, it ends.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) end: Option<oneshot::Sender<()>>,
    pub(crate) runtime: Runtime,
    pub(crate) serving: Option<tokio::task::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The text of the first element of this name.
    pub(crate) fn text(&self, name: &str) -> &str {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let from = self
            .body
            .find(&open)
            .unwrap_or_else(|| panic!("{name} in {self:?}"));
        let rest = &self.body[from + open.len()..];
        &rest[..rest.find(&close).unwrap()]
    }

    pub(crate) fn error(&self) -> (u16, &str) {
        (self.status, self.text("Code"))
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(ServerConfig::default())
    }

    pub(crate) fn with(config: ServerConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::open(folder.path(), Identity::default()).unwrap();
        let own = AccessKey {
            id: ID.into(),
            secret: SECRET.into(),
            account: None,
        };
        let other: AccessKey = "OTHER:s:999999999999".parse().unwrap();
        let credentials = Credentials::fixed(own, &[other]);
        let state = Arc::new(State::new(Arc::new(cloud), credentials, config));
        let runtime = Runtime::new().unwrap();
        let listen = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(listen).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        let serving = runtime.spawn(serve(listener, state, async move {
            let _ = ended.await;
        }));
        Self {
            address,
            end: Some(end),
            runtime,
            serving: Some(serving),
            _folder: folder,
        }
    }

    pub(crate) fn signer() -> Signer {
        Signer {
            id: ID.into(),
            secret: SECRET.into(),
            region: "us-east-1".into(),
            service: "ec2".into(),
            at: OffsetDateTime::now_utc(),
        }
    }

    /// Signed by the usual key, posted as a form.
    pub(crate) fn post(&self, form: &str) -> Reply {
        self.post_as(&Self::signer(), form)
    }

    pub(crate) fn post_as(&self, signer: &Signer, form: &str) -> Reply {
        post(self.address, signer, form)
    }

    /// `query` is in canonical form: sorted and encoded.
    pub(crate) fn get(&self, query: &str) -> Reply {
        let host = self.address.to_string();
        let headers = Self::signer().headers("GET", &host, query, "");
        self.send("GET", &format!("/?{query}"), &headers, "")
    }

    pub(crate) fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(String, String)],
        body: &str,
    ) -> Reply {
        send(self.address, method, target, headers, body)
    }
}

impl Signer {
    /// A query string that needs no header; `query` is in canonical form and sorts before `X-Amz-`.
    pub(crate) fn presigned(&self, host: &str, query: &str, seconds: u32) -> String {
        let (date, scope) = self.date_and_scope();
        let credential = format!("{}/{scope}", self.id).replace('/', "%2F");
        let query = format!(
            "{query}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}\
             &X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host"
        );
        let digest = hex::encode(Sha256::digest(""));
        let canonical = format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{digest}");
        let signature = self.signature(&canonical, &date, &scope);
        format!("{query}&X-Amz-Signature={signature}")
    }
}

pub(crate) fn post(address: SocketAddr, signer: &Signer, form: &str) -> Reply {
    let headers = signer.headers("POST", &address.to_string(), "", form);
    send(address, "POST", "/", &headers, form)
}

fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(String, String)],
    body: &str,
) -> Reply {
    let mut request =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!(
            "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\nContent-Length: {}\r\n",
            body.len()
        ));
    }
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    tcp.write_all(request.as_bytes()).unwrap();
    tcp.write_all(b"\r\n").unwrap();
    // A server that does not want the body may close before it has read it.
    let _ = tcp.write_all(body.as_bytes());
    let mut reply = Vec::new();
    let _ = tcp.read_to_end(&mut reply);
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}
