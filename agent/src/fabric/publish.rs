//! Published ports: connections to a host address are carried to a guest's port.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::config::Publish;
use super::enter::Listening;
use super::error::{FabricError, Result};

/// Most connections at once through one published port.
const CONNECTIONS_MAX: usize = 512;
/// Pause after a failed accept (no descriptors left), so that it is not tried in a tight loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Carries connections until the task set is dropped.
pub(super) fn spawn(tasks: &mut JoinSet<()>, listening: Listening) -> Result<()> {
    let Listening { socket, publish } = listening;
    socket
        .set_nonblocking(true)
        .map_err(FabricError::io("make a socket non-blocking"))?;
    let listener = TcpListener::from_std(socket).map_err(FabricError::io("poll a socket"))?;
    tasks.spawn(accept(listener, publish));
    Ok(())
}

async fn accept(listener: TcpListener, publish: Publish) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                connections.spawn(async move {
                    carry(client, publish).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%publish, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Copies both ways; an end of one direction is passed on while the other still flows.
async fn carry(mut client: TcpStream, publish: Publish) {
    let mut guest = match TcpStream::connect(publish.guest).await {
        Ok(guest) => guest,
        Err(error) => {
            // Dropping the client closes it, as a refused connection looks through any proxy.
            tracing::debug!(%publish, %error, "guest does not answer");
            return;
        }
    };
    for stream in [&client, &guest] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%publish, %error, "cannot set TCP_NODELAY");
        }
    }
    if let Err(error) = copy_bidirectional(&mut client, &mut guest).await {
        tracing::debug!(%publish, %error, "connection broke");
    }
}
