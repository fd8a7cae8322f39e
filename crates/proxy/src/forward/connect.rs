//! Makes a connection to an endpoint: address, TLS, and the preface between two proxies.
//!
//! Invariant: an endpoint that is a mesh peer is spoken to over mTLS or not at all; there is no falling back to plaintext.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use leno_identity::HandshakeFailure;
use leno_model::{Endpoint, Port, Tunnel};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::stream::Stream;
use crate::bootstrap::MESH_PORT;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nobody answered in time.
    #[error("connecting to {0} timed out")]
    Timeout(SocketAddr),
    /// TCP failed.
    #[error("{address} cannot be reached")]
    Tcp {
        /// What was dialled.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS failed.
    #[error("the handshake with {address} failed: {cause}")]
    Tls {
        /// What was dialled.
        address: SocketAddr,
        /// Why.
        cause: HandshakeFailure,
    },
    /// A name outside the mesh does not resolve.
    #[error("{host} does not resolve")]
    Dns {
        /// The name.
        host: String,
    },
    /// The destination has no port of this number.
    #[error("the endpoint has no port for service port {0}")]
    NoPort(Port),
    /// The destination's TLS policy forbids plaintext, and the endpoint has no proxy.
    #[error("the endpoint has no proxy, and the DestinationRule asks for mTLS")]
    NoPeer,
    /// There is nothing to verify a server outside the mesh with.
    #[error("{host} cannot be verified: {why}")]
    Unverifiable {
        /// The server's name.
        host: String,
        /// Why.
        why: String,
    },
    /// The handshake's name is not one that TLS can carry.
    #[error("{0} cannot be a server name")]
    BadName(String),
}

/// How an endpoint is to be spoken to.
pub(crate) enum Security {
    /// Plaintext.
    Plain,
    /// Mesh mTLS: configuration, handshake name, and the bytes that open the connection.
    Mesh { config: Arc<ClientConfig>, sni: Arc<str>, preface: Arc<[u8]> },
    /// Ordinary TLS to a server outside.
    Outside { config: Arc<ClientConfig>, sni: Arc<str> },
}

/// The address to dial for an endpoint; names are resolved by [`resolve`].
pub(crate) fn address_of(endpoint: &Endpoint, port: Port, plain: bool) -> Result<SocketAddr, ConnectError> {
    let own_port = endpoint.ports.get(&port).copied().ok_or(ConnectError::NoPort(port));
    match &endpoint.tunnel {
        Tunnel::Mesh if !plain => Ok(SocketAddr::new(endpoint.address, MESH_PORT)),
        Tunnel::Gateway { address, port } => Ok(SocketAddr::new(*address, *port)),
        Tunnel::Mesh | Tunnel::Plain | Tunnel::Dns { .. } => Ok(SocketAddr::new(endpoint.address, own_port?)),
    }
}

/// Resolves a name outside the mesh.
pub(crate) async fn resolve(host: &str, port: Port, within: Duration) -> Result<SocketAddr, ConnectError> {
    let failed = || ConnectError::Dns { host: host.to_owned() };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    let found = tokio::time::timeout(within, tokio::net::lookup_host((host, port))).await;
    found.map_err(|_| failed())?.map_err(|_| failed())?.next().ok_or_else(failed)
}

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within {
    /// Until the address answers at all, which the kernel of a machine does that is there, however busy it is.
    pub(crate) reach: Duration,
    /// Until it can be used, handshake included.
    pub(crate) all: Duration,
}

impl From<Duration> for Within {
    fn from(all: Duration) -> Self {
        Self { reach: all, all }
    }
}

/// Connects within some time.
pub(crate) async fn connect(
    address: SocketAddr,
    security: &Security,
    within: impl Into<Within>,
) -> Result<Stream, ConnectError> {
    let Within { reach, all } = within.into();
    match tokio::time::timeout(all, connect_unbounded(address, security, reach)).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::Timeout(address)),
    }
}

async fn connect_unbounded(
    address: SocketAddr,
    security: &Security,
    reach: Duration,
) -> Result<Stream, ConnectError> {
    let tcp = |source| ConnectError::Tcp { address, source };
    let reached = tokio::time::timeout(reach, TcpStream::connect(address)).await;
    let stream = reached.map_err(|_| ConnectError::Timeout(address))?.map_err(tcp)?;
    stream.set_nodelay(true).map_err(tcp)?;
    let (config, sni) = match security {
        Security::Plain => return Ok(Stream::Plain(stream)),
        Security::Mesh { config, sni, .. } | Security::Outside { config, sni } => (config, sni),
    };
    let name = ServerName::try_from(sni.to_string()).map_err(|_| ConnectError::BadName(sni.to_string()))?;
    let tls = |error: io::Error| ConnectError::Tls { address, cause: HandshakeFailure::from(&error) };
    let mut stream = TlsConnector::from(config.clone()).connect(name, stream).await.map_err(tls)?;
    if let Security::Mesh { preface, .. } = security {
        // In TLS 1.3 a server refuses a client's certificate after the client thinks that it is done; the first read shows it.
        stream.write_all(preface).await.map_err(tls)?;
    }
    Ok(Stream::Client(Box::new(stream)))
}
