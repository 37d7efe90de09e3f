//! A running service on 127.0.0.1 and a client that sees every byte.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cumulet_imds::server::{Config, serve};
use cumulet_imds::view::InstanceView;
use cumulet_imds::{Identity, Keys};

/// No test waits for this long unless something hangs.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// The keys of all tests of this process.
pub(crate) fn keys() -> Arc<Keys> {
    static KEYS: OnceLock<Arc<Keys>> = OnceLock::new();
    Arc::clone(KEYS.get_or_init(|| {
        let identity = Identity::generate().expect("an RSA key");
        Arc::new(Keys::new([42; 32], identity))
    }))
}

type Views = Arc<Mutex<Vec<(IpAddr, Arc<InstanceView>)>>>;

/// The service, for the instances at 127.0.0.1 and more addresses; stops when dropped.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    views: Views,
    _runtime: tokio::runtime::Runtime,
}

pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Service {
    pub(crate) fn start(view: InstanceView) -> Self {
        Self::with(view, keys(), Config::default())
    }

    pub(crate) fn with(view: InstanceView, keys: Arc<Keys>, config: Config) -> Self {
        Self::on(
            TcpListener::bind((HERE, 0)).expect("a port"),
            view,
            keys,
            config,
        )
    }

    pub(crate) fn on(
        listener: TcpListener,
        view: InstanceView,
        keys: Arc<Keys>,
        config: Config,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let views = Arc::new(Mutex::new(vec![(address.ip(), Arc::new(view))]));
        let shared = Arc::clone(&views);
        let lookup = move |client: IpAddr| {
            let views = shared.lock().expect("views");
            views
                .iter()
                .find(|(ip, _)| *ip == client)
                .map(|(_, view)| Arc::clone(view))
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        listener.set_nonblocking(true).expect("a socket option");
        let inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        drop(inside);
        runtime.spawn(serve(listener, lookup, keys, config));
        Self {
            address,
            views,
            _runtime: runtime,
        }
    }

    /// Replaces the view of `ip`, or takes it away.
    pub(crate) fn set(&self, ip: IpAddr, view: Option<InstanceView>) {
        let mut views = self.views.lock().expect("views");
        views.retain(|(known, _)| *known != ip);
        views.extend(view.map(|view| (ip, Arc::new(view))));
    }

    pub(crate) fn connect(&self) -> TcpStream {
        self.connect_from(self.address.ip())
    }

    /// Connects from another address of the loopback network.
    pub(crate) fn connect_from(&self, source: IpAddr) -> TcpStream {
        let domain = socket2::Domain::for_address(self.address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::new(source, 0).into())
            .expect("a local address");
        socket.connect(&self.address.into()).expect("a connection");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(HANG)).expect("a time limit");
        stream.set_write_timeout(Some(HANG)).expect("a time limit");
        stream
    }

    /// Sends `request` as it is and reads until the service closes.
    pub(crate) fn raw(&self, request: impl AsRef<[u8]>) -> Reply {
        self.raw_from(self.address.ip(), request)
    }

    pub(crate) fn raw_from(&self, source: IpAddr, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.connect_from(source);
        stream.write_all(request.as_ref()).expect("sent");
        Reply::read(stream)
    }

    /// One request without a body; `headers` are whole lines without line ends.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Reply {
        self.raw(request(method, path, headers))
    }

    pub(crate) fn token(&self) -> String {
        let reply = self.ask(
            "PUT",
            "/latest/api/token",
            &["X-aws-ec2-metadata-token-ttl-seconds: 600"],
        );
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text()
    }

    /// A read with a fresh token.
    pub(crate) fn get(&self, path: &str) -> Reply {
        let token = self.token();
        self.ask(
            "GET",
            path,
            &[&format!("X-aws-ec2-metadata-token: {token}")],
        )
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[&str]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n");
    for line in headers {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text + "\r\n"
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// `HTTP/1.1 200 OK`.
    pub(crate) status_line: String,
    /// In order, spelled as sent.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream
            .read_to_end(&mut bytes)
            .expect("an answer and then the end");
        let _ = stream.shutdown(Shutdown::Both);
        Self::parse(&bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head of text");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("a status line").to_owned();
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .expect("a status");
        let headers = lines
            .map(|line| line.split_once(": ").expect("name: value"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            status,
            status_line,
            headers,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.text().split('\n').map(str::to_owned).collect()
    }
}
