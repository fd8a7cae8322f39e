//! A connection to one of another cluster's control planes.
//!
//! Invariants: names are resolved anew each time; every address is tried before dialling fails; each step has a deadline.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use leno_identity::CONTROL_PLANE_DNS_NAME;
use leno_model::ControlAddress;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// For one name.
const RESOLVE: Duration = Duration::from_secs(5);
/// For one address, handshake included: it may be a continent away.
const CONNECT: Duration = Duration::from_secs(5);
/// Addresses that are tried in one go; the next begins where this ended.
const MOST_ADDRESSES: usize = 8;

/// Dials the control planes of one cluster, each time beginning with another one.
pub(super) struct Dial {
    addresses: Vec<ControlAddress>,
    config: Arc<ClientConfig>,
    next: AtomicUsize,
}

impl Dial {
    pub(super) fn new(addresses: Vec<ControlAddress>, config: Arc<ClientConfig>) -> Self {
        Self { addresses, config, next: AtomicUsize::new(0) }
    }

    /// The first that answers; what happened to the last when none does.
    pub(super) async fn dial(&self) -> io::Result<TlsStream<TcpStream>> {
        let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "no address is known");
        let mut found = Vec::new();
        for address in &self.addresses {
            match resolve(&address.host, address.port).await {
                Ok(resolved) => found.extend(resolved),
                Err(error) => failed = error,
            }
        }
        let first = self.next.fetch_add(1, Relaxed);
        let count = found.len();
        for turn in 0..count.min(MOST_ADDRESSES) {
            let address = found[first.wrapping_add(turn) % count];
            match timeout(CONNECT, connect(address, &self.config)).await {
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
    let name = ServerName::try_from(CONTROL_PLANE_DNS_NAME).map_err(io::Error::other)?;
    TlsConnector::from(config.clone()).connect(name, stream).await
}

/// The addresses of a host, which may be one itself.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed =
        |kind, why: &dyn std::fmt::Display| io::Error::new(kind, format!("{host} does not resolve: {why}"));
    match timeout(RESOLVE, lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(failed(error.kind(), &error)),
        Err(_) => Err(failed(io::ErrorKind::TimedOut, &format_args!("no answer in {RESOLVE:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use leno_identity::{ExpectedPeers, IdentityStore, Trust, client_config};

    use super::*;

    fn to(addresses: &[&str]) -> Dial {
        let store = IdentityStore::new(Trust::new([]));
        let config = client_config(&store, &ExpectedPeers::new([]), &[b"h2"]);
        Dial::new(addresses.iter().map(|it| it.parse().unwrap()).collect(), config)
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_named_and_the_other_addresses_are_tried() {
        let failure = to(&["leno-control.invalid:15012"]).dial().await.unwrap_err().to_string();
        assert!(failure.contains("leno-control.invalid does not resolve"), "{failure}");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
        // Nobody listens at the second one.
        let last = format!("localhost:{port}");
        to(&["leno-control.invalid:1", "127.0.0.1:1", &last]).dial().await.unwrap_err();
        timeout(Duration::from_secs(20), seen).await.expect("it was dialled").unwrap();
    }
}
