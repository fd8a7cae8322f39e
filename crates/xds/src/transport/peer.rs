//! An accepted connection together with what its TLS handshake proved about the peer.
//!
//! Invariant: the identity comes from whoever accepted the connection, never from what the peer says in messages.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::resource::NodeInfo;

/// What is known about the other end of a connection. tonic services find it in the extensions of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The verified SPIFFE id; `None`: the peer showed no certificate.
    pub identity: Option<Arc<str>>,
    /// Where it connected from.
    pub address: Option<SocketAddr>,
}

/// Decides whether a peer is the client that it says it is: it may only claim the workload of its SPIFFE id.
pub trait Authorizer: Send + Sync + 'static {
    /// Refuses with a reason that the peer is told.
    fn authorize(&self, peer: &Peer, node: &NodeInfo) -> Result<(), Unauthorized>;
}

/// The peer may not be the client that it says it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unauthorized {
    /// Why, for the peer.
    pub reason: String,
}

/// A connection whose peer is known.
#[derive(Debug)]
pub struct PeerStream<S> {
    stream: S,
    peer: Peer,
}

impl<S> PeerStream<S> {
    /// The accepted connection and what its handshake proved.
    pub fn new(stream: S, peer: Peer) -> Self {
        Self { stream, peer }
    }
}

impl<S> Connected for PeerStream<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
