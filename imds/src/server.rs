//! The server around [`crate::respond`]: connections, limits, IP TTL.
//!
//! The other side of every connection is a guest that may be hostile. It gets a bounded number of
//! connections, each for a bounded time, with bounded headers and body; what it sends more is not
//! read. Guests cannot starve each other: the bounds count per instance, and the fabric drops
//! packets whose source address is not the sender's.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::keys::Keys;
use crate::limits::{Limits, Permit};
use crate::respond::{Moment, respond};
use crate::stream::{Ttl, TtlStream, USUAL_TTL};
use crate::view::InstanceView;

/// Finds the instance behind a source address. Asked again for every request, so a changed view
/// counts at once.
pub trait Lookup: Send + Sync + 'static {
    /// The instance that owns `client` now, if one does.
    fn view(&self, client: IpAddr) -> Option<Arc<InstanceView>>;
}

impl<F> Lookup for F
where
    F: Fn(IpAddr) -> Option<Arc<InstanceView>> + Send + Sync + 'static,
{
    fn view(&self, client: IpAddr) -> Option<Arc<InstanceView>> {
        self(client)
    }
}

/// Bounds of the service. The defaults are generous for slow (emulated) guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Connections that one instance may have open; more are closed at once.
    pub connections_per_instance: usize,
    /// Connections open in all.
    pub connections: usize,
    /// Connections a second that one instance may make on average, with a burst of ten
    /// seconds' worth; more wait.
    pub rate_per_instance: u32,
    /// How long a request's head may take to arrive.
    pub head_time: Duration,
    /// How long a connection may last.
    pub connection_time: Duration,
    /// Bytes of request head.
    pub head_bytes: usize,
    /// Header fields of a request.
    pub head_fields: usize,
    /// Bytes of request body, which is read and forgotten.
    pub body_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_per_instance: 32,
            connections: 1024,
            rate_per_instance: 200,
            head_time: Duration::from_secs(20),
            connection_time: Duration::from_secs(60),
            head_bytes: 16 * 1024,
            head_fields: 64,
            body_bytes: 64 * 1024,
        }
    }
}

/// Serves the metadata on `listener` until the returned future is dropped; that closes the
/// listener and every connection. Failures are logged and cost one connection.
///
/// The listener may have been made in another network namespace: connections stay in the
/// namespace of their listener.
pub async fn serve(
    listener: TcpListener,
    lookup: impl Lookup,
    keys: Arc<Keys>,
    config: Config,
) -> Infallible {
    let service = Arc::new(Service {
        lookup,
        keys,
        config,
    });
    let limits = Limits::new(config);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (tcp, client) = match accepted {
            Ok((tcp, address)) => (tcp, address.ip().to_canonical()),
            Err(failure) => {
                tracing::warn!(error = &failure as &dyn std::error::Error, "accept failed");
                // Out of descriptors or memory: waiting is what helps.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(view) = service.view(client) else {
            tracing::debug!(%client, "no instance has this address");
            continue;
        };
        let Some(permit) = limits.admit(&view.instance_id) else {
            tracing::debug!(instance = view.instance_id, "too many connections");
            continue;
        };
        let service = Arc::clone(&service);
        connections.spawn(async move { service.connection(tcp, client, permit).await });
    }
}

struct Service<L> {
    lookup: L,
    keys: Arc<Keys>,
    config: Config,
}

impl<L: Lookup> Service<L> {
    /// The instance at `client`, unless it may not use the service over this protocol.
    fn view(&self, client: IpAddr) -> Option<Arc<InstanceView>> {
        self.lookup
            .view(client)
            .filter(|view| client.is_ipv4() || view.options.ipv6)
    }

    async fn connection(&self, tcp: TcpStream, client: IpAddr, permit: Permit) {
        permit.wait_for_turn().await;
        let served = tokio::time::timeout(self.config.connection_time, self.http(tcp, client));
        match served.await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => tracing::debug!(%client, %failure, "connection failed"),
            Err(_) => tracing::debug!(%client, "connection took too long"),
        }
    }

    async fn http(
        &self,
        tcp: TcpStream,
        client: IpAddr,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        tcp.set_nodelay(true)?;
        let (stream, ttl) = TtlStream::new(tcp)?;
        let handle = service_fn(|request| self.request(request, client, &ttl));
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.head_time)
            .max_buf_size(self.config.head_bytes)
            .max_headers(self.config.head_fields)
            .title_case_headers(true)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), handle)
            .await?;
        Ok(())
    }

    async fn request(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
        ttl: &Ttl,
    ) -> Result<Response<Full<Bytes>>, RequestError> {
        let (head, body) = request.into_parts();
        let view = self.view(client).ok_or(RequestError::Gone)?;
        let put = head.method == Method::PUT;
        ttl.set(if put {
            view.options.hop_limit.max(1)
        } else {
            USUAL_TTL
        });
        // An unread body would turn the close into a reset, which can eat the answer.
        Limited::new(body, self.config.body_bytes)
            .collect()
            .await
            .map_err(RequestError::Body)?;
        let mut nonce = [0; 6];
        rand::fill(&mut nonce).map_err(|_| RequestError::Random)?;
        let at = Moment {
            now: SystemTime::now(),
            nonce,
        };
        let mut response = respond(&head, &view, &self.keys, at);
        tracing::debug!(
            instance = view.instance_id,
            method = %head.method,
            path = head.uri.path(),
            status = response.status().as_u16(),
            "request"
        );
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            // EC2's own words.
            response
                .extensions_mut()
                .insert(ReasonPhrase::from_static(b"Not Allowed"));
        }
        Ok(response.map(Full::new))
    }
}

/// Why a request gets no answer but a closed connection.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("no instance has this address any more")]
    Gone,
    #[error("body too large or broken")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the system gives no random bytes")]
    Random,
}
