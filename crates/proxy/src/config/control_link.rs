//! Connections to the control plane: TLS, with the control plane's identity verified and our own shown once we have one.
//!
//! Invariants: names are resolved anew each time, so that a control plane that moved is found; every address is tried before
//! dialling fails; each step has a deadline.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use leno_identity::{ExpectedPeers, IdentityStore, Trust, client_config};
use leno_model::SpiffeId;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::bootstrap::ControlAddress;

/// For one name.
const RESOLVE: Duration = Duration::from_secs(3);
/// For one address, handshake included.
const CONNECT: Duration = Duration::from_secs(3);
/// Addresses that are tried in one go; the next begins where this ended.
const MOST_ADDRESSES: usize = 16;

/// Dials control planes, one after the other.
pub(crate) struct ControlLink {
    control: Vec<ControlAddress>,
    next: AtomicUsize,
    expected: ExpectedPeers,
    config: Arc<ClientConfig>,
}

impl ControlLink {
    /// To any of these, which must prove `identity`.
    pub(crate) fn new(control: Vec<ControlAddress>, identity: SpiffeId, store: &Arc<IdentityStore>) -> Self {
        let expected = ExpectedPeers::new([identity]);
        let config = client_config(store, &expected, &[b"h2"]);
        Self { control, next: AtomicUsize::new(0), expected, config }
    }

    /// A connection to a control plane; each call begins with another one.
    ///
    /// # Errors
    /// When none can be resolved, or TCP or the handshake fails with all of them; says what happened to the last.
    pub(crate) async fn dial(&self) -> io::Result<TlsStream<TcpStream>> {
        self.dial_with(&self.config).await
    }

    /// The same without showing a certificate: one that has run out would be refused before a token can be shown.
    ///
    /// # Errors
    /// As [`ControlLink::dial`].
    pub(crate) async fn dial_unnamed(&self, trust: Trust) -> io::Result<TlsStream<TcpStream>> {
        let config = client_config(&IdentityStore::new(trust), &self.expected, &[b"h2"]);
        self.dial_with(&config).await
    }

    async fn dial_with(&self, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "no control plane address is known");
        let mut addresses = Vec::new();
        for control in &self.control {
            match resolve(control).await {
                Ok(found) => addresses.extend(found),
                Err(error) => failed = error,
            }
        }
        let first = self.next.fetch_add(1, Relaxed);
        let count = addresses.len();
        for turn in 0..count.min(MOST_ADDRESSES) {
            let address = addresses[first.wrapping_add(turn) % count];
            match tokio::time::timeout(CONNECT, connect(address, config)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = io::Error::new(error.kind(), format!("{address}: {error}")),
                Err(_) => {
                    let text = format!("{address} did not answer in {CONNECT:?}");
                    failed = io::Error::new(io::ErrorKind::TimedOut, text);
                }
            }
        }
        Err(failed)
    }
}

async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(leno_identity::CONTROL_PLANE_DNS_NAME).map_err(io::Error::other)?;
    TlsConnector::from(config.clone()).connect(name, stream).await
}

async fn resolve(control: &ControlAddress) -> io::Result<Vec<SocketAddr>> {
    let ControlAddress { host, port } = control;
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, *port)]);
    }
    let found = tokio::time::timeout(RESOLVE, lookup_host((&**host, *port))).await;
    let failed =
        |kind, why: &dyn std::fmt::Display| io::Error::new(kind, format!("{host} does not resolve: {why}"));
    match found {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(failed(error.kind(), &error)),
        Err(_) => Err(failed(io::ErrorKind::TimedOut, &format_args!("no answer in {RESOLVE:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use leno_identity::{Trust, control_plane_identity};
    use leno_model::TrustDomain;

    use super::*;

    async fn failure(control: &[&str]) -> String {
        let control = control.iter().map(|it| it.parse().unwrap()).collect();
        let store = IdentityStore::new(Trust::new([]));
        let link = ControlLink::new(control, control_plane_identity(&TrustDomain::default()), &store);
        link.dial().await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_named_and_the_other_addresses_are_tried() {
        assert!(
            failure(&["leno-control.invalid:15012"]).await.contains("leno-control.invalid does not resolve")
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
        // Nobody listens at the first address of the second name's list.
        failure(&["leno-control.invalid:1", "127.0.0.1:1", &format!("localhost:{port}")]).await;
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("it was dialled").unwrap();
    }
}
