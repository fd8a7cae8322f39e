//! Accepted connections of proxies and other control planes, with what TLS proved about each.
//!
//! Invariant: handshakes run beside each other, bounded in number and time; a stranger that says nothing holds up nobody.

use std::{io, sync::Arc, time::Duration};

use leno_identity::peer_identity;
use leno_xds::transport::{Peer, PeerStream};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::connections;

/// Handshakes at a time.
const HANDSHAKES: usize = 256;

/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose peer is known.
pub(crate) type Accepted = io::Result<PeerStream<TlsStream<TcpStream>>>;

/// Accepts until `stop`; what is accepted goes to `accepted`.
pub(crate) async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    accepted: mpsc::Sender<Accepted>,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(config);
    let introduce = |stream: TcpStream| Box::pin(introduce(acceptor.clone(), stream, accepted.clone()));
    connections::each("discovery", HANDSHAKES, listener, stop, introduce).await;
}

/// Shakes hands and passes the connection on; nobody takes it any more when the server stops.
async fn introduce(acceptor: TlsAcceptor, stream: TcpStream, accepted: mpsc::Sender<Accepted>) {
    let address = stream.peer_addr().ok();
    let shaken = timeout(HANDSHAKE_TIMEOUT, shake(acceptor, stream)).await;
    match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((stream, identity)) => {
            let _ = accepted.send(Ok(PeerStream::new(stream, Peer { identity, address }))).await;
        }
        Err(error) => tracing::debug!(?address, %error, "handshake failed"),
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, Option<Arc<str>>)> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let identity = peer_identity(stream.get_ref().1).map(|peer| peer.spiffe_id.as_str().into());
    Ok((stream, identity))
}
