//! Accepted connections of proxies and other control planes, with what TLS proved about each.
//!
//! Invariant: handshakes run beside each other, bounded in number and time; a stranger that says nothing holds up nobody.

use std::{io, sync::Arc, time::Duration};

use leno_identity::peer_identity;
use leno_xds::transport::{Peer, PeerStream};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Handshakes at a time.
const HANDSHAKES: usize = 256;

/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long accepting pauses when the system has no more sockets.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

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
    let room = Arc::new(Semaphore::new(HANDSHAKES));
    let handshakes = TaskTracker::new();
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, connection) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let (stream, address) = match connection {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let (acceptor, accepted, stop) = (acceptor.clone(), accepted.clone(), stop.clone());
        handshakes.spawn(async move {
            let _permit = permit;
            let handshake = timeout(HANDSHAKE_TIMEOUT, Box::pin(shake(acceptor, stream)));
            let shaken = tokio::select! {
                () = stop.cancelled() => return,
                shaken = handshake => shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            };
            match shaken {
                Ok((stream, identity)) => {
                    let peer = Peer { identity, address: Some(address) };
                    // Nobody takes it any more when the server stops.
                    let _ = accepted.send(Ok(PeerStream::new(stream, peer))).await;
                }
                Err(error) => tracing::debug!(%address, %error, "handshake failed"),
            }
        });
    }
    handshakes.close();
    handshakes.wait().await;
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
