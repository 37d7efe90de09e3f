//! The server: connections and their limits around [`State::respond`], which serves one request.
//!
//! Whoever may connect gets a bounded number of connections, a bounded time for each request's head and body, and a
//! bounded body. Nothing of a request is looked at before its signature but what the signature covers.

mod http1;
mod metadata;
mod respond;

use std::sync::Arc;
use std::time::Duration;

use cumulet_imds::Keys;
use time::OffsetDateTime;

pub use http1::serve;
pub use respond::Answer;

use super::actions::Actions;
use super::credentials::Credentials;
use crate::cloud::Cloud;

/// Bounds of the server, and its clock.
#[derive(Debug, Clone, Copy)]
pub struct ServerConfig {
    /// Connections open at once; more are closed.
    pub connections: usize,
    /// How long a request's head may take, and how long a connection may stay without a request.
    pub head_time: Duration,
    /// How long a request's body may take.
    pub body_time: Duration,
    /// How long requests under way may take when the server ends.
    pub end_time: Duration,
    /// Bytes of request head; a GET has its parameters there.
    pub head_bytes: usize,
    /// Header fields.
    pub head_fields: usize,
    /// Bytes of body.
    pub body_bytes: usize,
    /// What time it is.
    pub clock: fn() -> OffsetDateTime,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections: 1024,
            head_time: Duration::from_secs(60),
            body_time: Duration::from_secs(60),
            end_time: Duration::from_secs(10),
            head_bytes: 256 * 1024,
            head_fields: 100,
            body_bytes: 1024 * 1024,
            clock: OffsetDateTime::now_utc,
        }
    }
}

/// What all requests share.
#[derive(Debug)]
pub struct State {
    cloud: Arc<Cloud>,
    actions: Actions,
    credentials: Credentials,
    config: ServerConfig,
    /// Keys of the metadata service of simulated instances.
    metadata: Option<Keys>,
}

impl State {
    /// A server of this cloud for these keys.
    #[must_use]
    pub fn new(cloud: Arc<Cloud>, credentials: Credentials, config: ServerConfig) -> Self {
        Self {
            cloud,
            actions: Actions::all(),
            credentials,
            config,
            metadata: None,
        }
    }
}
