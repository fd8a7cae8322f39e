//! Opens TCP connections to the addresses that applications know: cluster names and virtual addresses.
//!
//! Invariant: through a proxy, the first bytes of a connection are a PROXY protocol v2 header whose destination is the
//! virtual address, so that the proxy learns it as it would from the kernel's original destination.
//! Must not know: what is spoken on the connection.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// Looks a host and port up, as cluster DNS would for the asking workload: the address to dial, or no such name.
pub type Resolver = Arc<dyn Fn(&str, u16) -> Option<SocketAddr> + Send + Sync>;

/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PROXY_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Who turns names into addresses.
#[derive(Clone)]
enum Names {
    Given(Resolver),
    System,
}

/// How a workload reaches others.
#[derive(Clone)]
pub struct Dialer {
    names: Names,
    proxy: Option<SocketAddr>,
    source: Option<IpAddr>,
}

/// Why no connection could be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Cluster DNS knows no such name.
    #[error("no such service: {host}")]
    NoSuchName {
        /// The name.
        host: String,
    },
    /// The system's resolver gives no address.
    #[error("{host} cannot be looked up: {why}")]
    LookUp {
        /// The name.
        host: String,
        /// What it says.
        why: String,
    },
    /// The other side could not be reached.
    #[error("cannot connect to {address}")]
    Connect {
        /// What was dialled: the proxy, or the target itself.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

async fn look_up(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let mut found = found.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "without an address".to_owned())
}

impl Dialer {
    /// Dials what the resolver says.
    #[must_use]
    pub fn direct(resolver: Resolver) -> Self {
        Self { names: Names::Given(resolver), proxy: None, source: None }
    }

    /// Dials what the system's resolver says, as programs in a container do.
    #[must_use]
    pub fn by_system() -> Self {
        Self { names: Names::System, proxy: None, source: None }
    }

    /// Dials what an IP address and port says; names are unknown, except `localhost`.
    #[must_use]
    pub fn to_addresses() -> Self {
        Self::direct(Arc::new(|host, port| {
            (host == "localhost").then(|| SocketAddr::from(([127, 0, 0, 1], port)))
        }))
    }

    /// Dials the outbound listener of the workload's proxy and tells it the virtual address.
    #[must_use]
    pub fn through_proxy(proxy: SocketAddr, resolver: Resolver) -> Self {
        Self { names: Names::Given(resolver), proxy: Some(proxy), source: None }
    }

    /// The same, with connections that come from `source`, the workload's own address.
    #[must_use]
    pub fn from_source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Opens a connection to a host (a name or an IP address) and port.
    pub async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let target = self.resolve(host, port).await?;
        let address = self.proxy.unwrap_or(target);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(address, target)).await;
        connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| DialError::Connect { address, source })
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, DialError> {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        match (literal, &self.names) {
            (Some(ip), _) => Ok(SocketAddr::new(ip, port)),
            (None, Names::Given(resolver)) => {
                resolver(host, port).ok_or_else(|| DialError::NoSuchName { host: host.to_owned() })
            }
            (None, Names::System) => {
                look_up(host, port).await.map_err(|why| DialError::LookUp { host: host.to_owned(), why })
            }
        }
    }

    async fn connect(&self, address: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let mut stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        if self.proxy.is_some() {
            let header = proxy_header(stream.local_addr()?, target);
            stream.write_all(&header).await?;
        }
        Ok(stream)
    }
}

/// A PROXY protocol v2 header: version 2, command PROXY, TCP (section 2.2 of the specification).
#[must_use]
pub fn proxy_header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = PROXY_SIGNATURE.to_vec();
    header.push(0x21);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend([0x11, 0, 12]);
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (from, to) => {
            header.extend([0x21, 0, 36]);
            header.extend(as_v6(from));
            header.extend(as_v6(to));
        }
    }
    header.extend(source.port().to_be_bytes());
    header.extend(destination.port().to_be_bytes());
    header
}

fn as_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The names of a cluster's services, as its DNS would answer.
#[derive(Clone, Debug)]
pub struct ClusterNames {
    domain: String,
    // `name.namespace` to the virtual address.
    services: BTreeMap<String, IpAddr>,
}

impl ClusterNames {
    /// No names yet; `domain` is usually `cluster.local`.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self { domain: domain.to_owned(), services: BTreeMap::new() }
    }

    /// Adds a service.
    pub fn insert(&mut self, name: &str, namespace: &str, address: IpAddr) {
        self.services.insert(format!("{name}.{namespace}"), address);
    }

    /// Looks a name up from a namespace: `name`, `name.ns`, `name.ns.svc`, `name.ns.svc.cluster.local`.
    #[must_use]
    pub fn resolve(&self, host: &str, from_namespace: &str) -> Option<IpAddr> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let host = host.strip_suffix(&format!(".{}", self.domain)).unwrap_or(&host);
        let host = host.strip_suffix(".svc").unwrap_or(host);
        let near = || self.services.get(&format!("{host}.{from_namespace}"));
        self.services.get(host).or_else(near).copied()
    }

    /// The resolver of a workload in a namespace.
    #[must_use]
    pub fn resolver(self: &Arc<Self>, namespace: &str) -> Resolver {
        let (names, namespace) = (Arc::clone(self), namespace.to_owned());
        Arc::new(move |host, port| names.resolve(host, &namespace).map(|ip| SocketAddr::new(ip, port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_as_in_cluster_dns() {
        let mut names = ClusterNames::new("cluster.local");
        let ip = IpAddr::from([10, 0, 0, 1]);
        names.insert("cart", "shop", ip);
        for host in [
            "cart",
            "cart.shop",
            "cart.shop.svc",
            "cart.shop.svc.cluster.local",
            "cart.shop.svc.cluster.local.",
        ] {
            assert_eq!(names.resolve(host, "shop"), Some(ip), "{host}");
        }
        assert_eq!(names.resolve("cart", "other"), None);
        assert_eq!(names.resolve("cart.shop", "other"), Some(ip));
    }

    #[test]
    fn proxy_header_names_source_and_destination() {
        let header = proxy_header("127.0.0.1:1".parse().unwrap(), "10.0.0.9:80".parse().unwrap());
        assert_eq!(header[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
        assert_eq!(header[16..], [127, 0, 0, 1, 10, 0, 0, 9, 0, 1, 0, 80]);
    }
}
