//! Connections to the control plane: TLS, with the control plane's identity verified and our own shown once we have one.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use leno_identity::{ExpectedPeers, IdentityStore, client_config};
use leno_model::SpiffeId;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Dials control planes, one after the other.
pub(crate) struct ControlLink {
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
    config: Arc<ClientConfig>,
}

impl ControlLink {
    /// To any of these addresses, which must prove `identity`.
    pub(crate) fn new(addresses: Vec<SocketAddr>, identity: SpiffeId, store: &Arc<IdentityStore>) -> Self {
        let expected = ExpectedPeers::new([identity]);
        Self { addresses, next: AtomicUsize::new(0), config: client_config(store, &expected, &[b"h2"]) }
    }

    /// A connection to the next control plane.
    ///
    /// # Errors
    /// When TCP or the handshake fails; the next call tries the next address.
    pub(crate) async fn dial(&self) -> io::Result<TlsStream<TcpStream>> {
        let count = self.addresses.len();
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no control plane address is known"));
        }
        let address = self.addresses[self.next.fetch_add(1, Relaxed) % count];
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(leno_identity::CONTROL_PLANE_DNS_NAME).map_err(io::Error::other)?;
        TlsConnector::from(self.config.clone()).connect(name, stream).await
    }
}
