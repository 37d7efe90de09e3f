//! The supervisor's socket: requests of later commands.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::network::{Net, translate};
use super::protocol::{Reply, Request, SOCKET};
use crate::error::{Context, Error, Kind, Result};
use crate::state::record::State;
use crate::state::{Held, bind_socket};

/// Longest request line in bytes.
const LINE_LIMIT: u64 = 128 * 1024;
/// How long a guest's port may take to answer a connection.
const DIAL_LIMIT: Duration = Duration::from_secs(30);

/// A request that the instance's life has to decide on.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// Listens on the supervisor's socket.
pub(super) fn listen(held: &Held, net: Arc<Net>) -> Result<mpsc::Receiver<Incoming>> {
    let doing = || format!("cannot listen for commands about {}", held.dir.id());
    let listener = bind_socket(held.dir.path(), SOCKET).context(doing)?;
    listener.set_nonblocking(true).context(doing)?;
    let listener = UnixListener::from_std(listener).context(doing)?;
    let guest = held.record.network.private_ip;
    let (sender, inbox) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (sender, net) = (sender.clone(), Arc::clone(&net));
                    tokio::spawn(async move {
                        let port = |port| SocketAddrV4::new(guest, port);
                        if let Err(error) = serve(stream, &sender, &net, port).await {
                            tracing::debug!(%error, "a command went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a command");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(inbox)
}

async fn serve(
    stream: UnixStream,
    sender: &mpsc::Sender<Incoming>,
    net: &Net,
    guest: impl Fn(u16) -> SocketAddrV4,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LINE_LIMIT).read_line(&mut line).await?;
    let refused = |error: Error| Reply::Refused { error };
    let request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let error = Error::internal("this request is not understood").because(&error);
            return answer(&mut stream, &refused(error)).await;
        }
    };
    if let Request::Dial { port } = request {
        return match dial(net, guest(port)).await {
            Ok(mut inner) => {
                let accepted = Reply::Accepted {
                    previous: State::Running,
                    current: State::Running,
                };
                answer(&mut stream, &accepted).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut inner).await?;
                Ok(())
            }
            Err(error) => answer(&mut stream, &refused(error)).await,
        };
    }
    let (reply, decided) = oneshot::channel();
    let ending = || refused(Error::wrong_state("the instance is ending"));
    let reply = match sender.send(Incoming { request, reply }).await {
        Ok(()) => decided.await.unwrap_or_else(|_| ending()),
        Err(_) => ending(),
    };
    answer(&mut stream, &reply).await?;
    // Stays open until the client has heard enough, or we end.
    let mut rest = [0; 64];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

async fn answer(stream: &mut BufReader<UnixStream>, reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn dial(net: &Net, address: SocketAddrV4) -> Result<tokio::net::TcpStream> {
    match tokio::time::timeout(DIAL_LIMIT, net.dial(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(translate(&error)),
        Err(_) => Err(Error::new(
            Kind::Instance,
            "GuestUnreachable",
            format!("{address} does not answer"),
        )),
    }
}
