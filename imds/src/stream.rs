//! A TCP stream whose IP TTL follows the answer that is being written.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The TTL of every answer but a token's: what Linux uses by default.
pub(crate) const USUAL_TTL: u8 = 64;

/// The IP TTL (IPv6: hop limit) that the next packets shall have; shared by a connection's stream
/// and its request handler.
#[derive(Clone)]
pub(crate) struct Ttl(Arc<AtomicU8>);

impl Ttl {
    pub(crate) fn set(&self, ttl: u8) {
        self.0.store(ttl, Ordering::Release);
    }
}

/// Applies [`Ttl`] to the socket before it writes or closes. A socket option counts for every
/// packet sent after it, so also for retransmissions and for the FIN.
pub(crate) struct TtlStream {
    tcp: TcpStream,
    wanted: Ttl,
    /// What the socket has.
    applied: u8,
}

impl TtlStream {
    pub(crate) fn new(tcp: TcpStream) -> io::Result<(Self, Ttl)> {
        let wanted = Ttl(Arc::new(AtomicU8::new(USUAL_TTL)));
        let stream = Self {
            tcp,
            wanted: wanted.clone(),
            applied: USUAL_TTL,
        };
        stream.apply(USUAL_TTL)?;
        Ok((stream, wanted))
    }

    fn follow(&mut self) -> io::Result<()> {
        let wanted = self.wanted.0.load(Ordering::Acquire);
        if wanted != self.applied {
            self.apply(wanted)?;
            self.applied = wanted;
        }
        Ok(())
    }

    fn apply(&self, ttl: u8) -> io::Result<()> {
        let socket = SockRef::from(&self.tcp);
        if self.tcp.local_addr()?.is_ipv4() {
            socket.set_ttl_v4(u32::from(ttl))
        } else {
            socket.set_unicast_hops_v6(u32::from(ttl))
        }
    }
}

impl AsyncRead for TtlStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for TtlStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.follow()?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.follow()?;
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.follow()?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
