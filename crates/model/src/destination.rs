//! How consumers call a service: its ports and identities, balancing, limits, ejection and subsets.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    endpoint::Locality,
    identity::SpiffeId,
    index::IndexPort,
    names::{Namespace, ServiceId},
    origin::Origin,
    units::{Millis, Percent, Port},
};

/// A service as one variant of consumers calls it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Destination {
    /// The service.
    pub service: ServiceId,
    /// The consumer namespace this variant is for; `None` is the common one.
    pub variant: Option<Namespace>,
    /// Its ports.
    pub ports: Vec<IndexPort>,
    /// The identities that its endpoints may have; a mesh peer with another one is refused.
    pub identities: Vec<SpiffeId>,
    /// Outside the mesh.
    pub external: bool,
    /// Policy of the whole service.
    pub policy: TrafficPolicy,
    /// Policies that replace it on a port.
    pub port_policies: BTreeMap<Port, TrafficPolicy>,
    /// Named subsets.
    pub subsets: Vec<Subset>,
    /// The DestinationRule, if there is one.
    pub origin: Origin,
}

impl Destination {
    /// The policy for a port of the service or of one of its subsets.
    pub fn policy_for(&self, port: Port, subset: Option<&str>) -> &TrafficPolicy {
        let of_subset = subset
            .and_then(|name| self.subsets.iter().find(|subset| &*subset.name == name))
            .and_then(|subset| subset.port_policies.get(&port).or(subset.policy.as_ref()));
        of_subset.or_else(|| self.port_policies.get(&port)).unwrap_or(&self.policy)
    }
}

/// Endpoints with certain labels.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Subset {
    /// Its name.
    pub name: Arc<str>,
    /// Labels that an endpoint must have.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Its own policy, complete (the service's is already merged in).
    pub policy: Option<TrafficPolicy>,
    /// Its own policies by port, complete.
    pub port_policies: BTreeMap<Port, TrafficPolicy>,
    /// The subset in the user's YAML.
    pub origin: Origin,
}

/// Everything a consumer's proxy decides about a call besides its route.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct TrafficPolicy {
    /// Which endpoint.
    pub balancer: LoadBalancer,
    /// How much at once.
    pub limits: ConnectionLimits,
    /// When an endpoint is taken out.
    pub outlier: Option<OutlierDetection>,
    /// Which places first.
    pub locality: LocalityPolicy,
    /// TLS towards the endpoint.
    pub tls: ClientTls,
}

/// Which endpoint gets a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancer {
    /// The less busy of two at random (the default, as Istio's).
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// At random.
    Random,
    /// The address that the caller dialled.
    Passthrough,
    /// The same key, the same endpoint: ring hash.
    Hash {
        /// What is hashed.
        key: HashKey,
        /// Least number of points on the ring.
        minimum_ring_size: u32,
    },
}

/// What is hashed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// A request header, lower-case name.
    Header(Arc<str>),
    /// A cookie; made with this lifetime when absent and a lifetime is given.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Its path attribute.
        path: Arc<str>,
        /// Its lifetime; `Some(0)` is a session cookie; `None` never makes one.
        ttl: Option<Millis>,
    },
    /// The caller's address.
    SourceIp,
    /// A query parameter.
    Query(Arc<str>),
}

/// Limits towards one destination, per proxy. `None`: the mesh's bounded default.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ConnectionLimits {
    /// Open connections (`tcp.maxConnections`).
    pub max_connections: Option<u32>,
    /// Time to connect; default 10 s.
    pub connect_timeout: Option<Millis>,
    /// A TCP connection without bytes for this long is closed (`tcp.idleTimeout`).
    pub tcp_idle_timeout: Option<Millis>,
    /// A TCP or HTTP connection older than this is closed (`tcp.maxConnectionDuration`).
    pub max_connection_duration: Option<Millis>,
    /// Requests waiting for a connection (`http.http1MaxPendingRequests`).
    pub max_pending_requests: Option<u32>,
    /// Requests at once (`http.http2MaxRequests`).
    pub max_requests: Option<u32>,
    /// Requests on one connection (`http.maxRequestsPerConnection`).
    pub max_requests_per_connection: Option<u32>,
    /// Retries at once (`http.maxRetries`); the retry budget also holds.
    pub max_retries: Option<u32>,
    /// An HTTP connection without requests for this long is closed (`http.idleTimeout`).
    pub http_idle_timeout: Option<Millis>,
}

/// When an endpoint is taken out for a while (Istio `outlierDetection`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct OutlierDetection {
    /// 5xx answers (and failed connections) in a row. 0: not counted.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 and failed connections in a row. 0: not counted.
    pub consecutive_gateway_errors: u32,
    /// Failed connections in a row, when told apart (`splitExternalLocalOriginErrors`). `None`: they count as the above.
    pub consecutive_local_failures: Option<u32>,
    /// Between sweeps.
    pub interval: Millis,
    /// First time out; multiplied by the number of ejections so far.
    pub base_ejection: Millis,
    /// At most this share of the endpoints is out at once: a hard bound, and never the last one (PAINS P16).
    pub max_ejected: Percent,
    /// Below this share of healthy endpoints, ejections are ignored (panic). Zero: never.
    pub min_health: Percent,
}

/// Which places first. Independent of outlier detection (PAINS P12).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct LocalityPolicy {
    /// Whether nearer endpoints come first.
    pub enabled: bool,
    /// Fixed shares by the caller's place, instead of nearest first.
    pub distribute: Vec<LocalityRule>,
    /// Where a region's traffic goes when the region has none left: (from, to).
    pub failover: Vec<(Arc<str>, Arc<str>)>,
    /// Labels whose equality orders endpoints, most important first, before place.
    pub failover_priority: Vec<Arc<str>>,
}

/// Shares for callers of one place.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LocalityRule {
    /// The callers' place; empty parts match all.
    pub from: Locality,
    /// Shares by place, in percent, summing to 100.
    pub to: Vec<(Locality, u32)>,
}

/// TLS towards an endpoint.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientTls {
    /// Mesh mTLS where the endpoint has a proxy, plaintext where it has none (Istio auto mTLS).
    #[default]
    Auto,
    /// Plaintext always.
    Disable,
    /// Mesh mTLS always; an endpoint without a proxy is not called.
    Mesh,
    /// Ordinary TLS that this proxy originates.
    Simple {
        /// Name to send and to verify; the host when empty.
        sni: Arc<str>,
        /// Names that the server's certificate may have; empty: the SNI.
        subject_alt_names: Vec<Arc<str>>,
        /// Do not verify (Istio `insecureSkipVerify`).
        insecure: bool,
    },
}
