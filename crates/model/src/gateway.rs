//! A gateway: listeners on real ports, for clients outside the mesh or for other networks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    identity::SpiffeId,
    names::WorkloadId,
    origin::Origin,
    route::{HttpRoutes, TcpEntry},
    units::Port,
};

/// A gateway's configuration. Only its own proxies receive it, and its secrets.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Gateway {
    /// The workload that serves it: `namespace/name` of the Gateway object (Gateway API) or of the selected workload (Istio).
    pub id: WorkloadId,
    /// Its identity.
    pub identity: SpiffeId,
    /// Its listeners; of several with one port, the most specific host wins.
    pub listeners: Vec<Listener>,
    /// The object.
    pub origin: Origin,
}

/// One listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// The port that clients see.
    pub port: Port,
    /// What it speaks.
    pub protocol: GatewayProtocol,
    /// Hosts that it serves; a request for another one is 404, or 421 when it came over a TLS connection for this one.
    pub host: HostPattern,
    /// HTTP routes by host, most specific host first.
    pub routes: Vec<HostRoutes>,
    /// TCP and TLS passthrough routes, in order.
    pub tcp: Vec<TcpEntry>,
    /// Answer everything with a redirect to https (Istio `httpsRedirect`).
    pub https_redirect: bool,
    /// The listener in the user's YAML.
    pub origin: Origin,
}

/// What a listener speaks.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayProtocol {
    /// HTTP/1.1 and HTTP/2 by prior knowledge.
    Http,
    /// HTTP over TLS that ends here.
    Https(GatewayTls),
    /// TLS that ends here, opaque inside.
    Tls(GatewayTls),
    /// TLS that goes through, routed by SNI.
    TlsPassthrough,
    /// Mesh mTLS that goes through to another network's peers, by SNI (`AUTO_PASSTHROUGH`).
    MeshPassthrough,
    /// Opaque bytes.
    Tcp,
}

/// How TLS ends at a listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct GatewayTls {
    /// Ids of [`TlsSecret`]s; empty means that none resolves: handshakes are refused.
    pub certificates: Vec<Arc<str>>,
    /// Id of the secret whose `ca` client certificates are verified against (MUTUAL).
    pub client_ca: Option<Arc<str>>,
    /// Whether TLS 1.2 is allowed (the default minimum of Istio and Gateway API).
    pub allow_tls12: bool,
}

/// Routes of one host of a listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct HostRoutes {
    /// The host.
    pub host: HostPattern,
    /// Its routes.
    pub routes: HttpRoutes,
}

/// `*`, `*.example.com` or a host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPattern {
    /// This host, lower case.
    Exact(Arc<str>),
    /// Any host that ends with this (stored with its leading dot) and has a label or more before it.
    Suffix(Arc<str>),
    /// Any host.
    Any,
}

impl HostPattern {
    /// Parses `*`, `*.suffix` or a host; lower-cases it.
    pub fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some("") => Self::Any,
            Some(suffix) => Self::Suffix(suffix.into()),
            None => Self::Exact(text.into()),
        }
    }

    /// Whether a lower-case host without port is one of these.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
            Self::Any => true,
        }
    }

    /// Larger is more specific: exact, then longer suffixes, then any.
    pub fn specificity(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Suffix(suffix) => suffix.len(),
            Self::Any => 0,
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// A certificate for a gateway. Goes only to that gateway's identity; `Debug` hides the key.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TlsSecret {
    /// `namespace/name`.
    pub id: Arc<str>,
    /// PEM chain, leaf first.
    pub certificate: Arc<[u8]>,
    /// PEM key.
    pub key: Arc<[u8]>,
    /// PEM authorities for client certificates; empty when none.
    pub ca: Arc<[u8]>,
}

impl std::fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_needs_a_label_before_its_suffix() {
        let pattern = HostPattern::parse("*.Example.com");
        assert!(pattern.matches("a.example.com"));
        assert!(pattern.matches("a.b.example.com"));
        assert!(!pattern.matches("example.com"));
        assert!(!pattern.matches(".example.com"));
        assert!(!pattern.matches("badexample.com"));
    }
}
