//! What a proxy is told before it knows anything: who it is, where its control plane is, which addresses it may use.
//!
//! It is a JSON file (or standard input), because a supervisor writes it; everything else comes by discovery. The join
//! token is not in it: it comes over a file descriptor, so that it is in no file and no argument list.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use leno_model::{ClusterName, Millis, SpiffeId, TrustDomain, WorkloadId};
use serde::{Deserialize, Serialize};

/// The mesh's port on every workload (DESIGN: between two proxies).
pub const MESH_PORT: u16 = 15008;
/// Outbound capture.
pub const OUTBOUND_PORT: u16 = 15001;
/// Outbound requests in absolute form (`HTTP_PROXY`), for programs under `leno run`.
pub const HTTP_PROXY_PORT: u16 = 15002;
/// Administration, on the proxy's own address.
pub const ADMIN_PORT: u16 = 15000;
/// Health and merged metrics.
pub const METRICS_PORT: u16 = 15020;

/// What a proxy is told at its start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// The workload it serves: for a gateway, the gateway's.
    pub workload: WorkloadId,
    /// Unique among running proxies: the pod's uid.
    pub uid: Arc<str>,
    /// Sidecar or gateway.
    pub role: Role,
    /// Its cluster.
    pub cluster: ClusterName,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Control plane addresses, tried in turn.
    pub control: Vec<SocketAddr>,
    /// The identity that a control plane must prove.
    pub control_identity: SpiffeId,
    /// PEM roots to start with; later ones come by discovery.
    pub roots: String,
    /// Lifetime to ask for its certificates.
    #[serde(default = "default_certificate_ttl")]
    pub certificate_ttl: Millis,
    /// Where snapshot, key and chain are kept across restarts (memory-backed, mode 0700). `None`: nowhere.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// The address that this proxy owns: peers dial it at [`MESH_PORT`], its application at [`OUTBOUND_PORT`].
    pub address: IpAddr,
    /// Where the application answers, by its declared port. Ports not named are on `app_address`.
    #[serde(default)]
    pub app_ports: BTreeMap<u16, SocketAddr>,
    /// The application's own address.
    pub app_address: IpAddr,
    /// For listeners on ports below 1024 that may not be bound: added to the port.
    #[serde(default)]
    pub low_port_offset: u16,
    /// Threads for traffic.
    #[serde(default = "default_cores")]
    pub cores: usize,
    /// How long requests may go on once the proxy is told to stop.
    #[serde(default = "default_drain")]
    pub drain: Millis,
    /// Names outside the mesh: allow (`ALLOW_ANY`) or refuse (`REGISTRY_ONLY`).
    #[serde(default = "default_true")]
    pub allow_unknown: bool,
    /// Access log.
    #[serde(default)]
    pub access_log: AccessLog,
    /// OTLP/gRPC collector for spans, and the share of traces to start, in 0..=1.
    #[serde(default)]
    pub tracing: Option<Tracing>,
}

/// What a proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Beside one workload.
    Sidecar,
    /// At an edge.
    Gateway,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output, Istio's text format.
    Text,
    /// Standard output, JSON.
    Json,
    /// A file, JSON.
    File(PathBuf),
}

/// Where spans go.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// `http://HOST:PORT` of an OTLP/gRPC collector.
    pub endpoint: String,
    /// Share of traces that this proxy starts, in 0..=1.
    pub sampling: f64,
}

impl Bootstrap {
    /// Where the application listens on its declared `port`.
    pub fn app_socket(&self, port: u16) -> SocketAddr {
        self.app_ports.get(&port).copied().unwrap_or_else(|| SocketAddr::new(self.app_address, port))
    }

    /// Whether an address is of this proxy's own machine or pod.
    pub(crate) fn is_own(&self, remote: IpAddr) -> bool {
        let remote = remote.to_canonical();
        remote.is_loopback() || remote == self.address || remote == self.app_address
    }

    /// A socket on the proxy's own address.
    pub fn own_socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
}

fn default_certificate_ttl() -> Millis {
    Millis(24 * 3600 * 1000)
}

fn default_cores() -> usize {
    1
}

fn default_drain() -> Millis {
    Millis(45_000)
}

fn default_true() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_machine_or_pod_may_speak_with_a_workloads_identity() {
        let bootstrap = Bootstrap {
            workload: WorkloadId::new("default", "a"),
            uid: "a".into(),
            role: Role::Sidecar,
            cluster: "west".into(),
            trust_domain: TrustDomain::default(),
            control: Vec::new(),
            control_identity: SpiffeId::workload(&TrustDomain::default(), "default", "control").unwrap(),
            roots: String::new(),
            certificate_ttl: default_certificate_ttl(),
            state_dir: None,
            address: "10.1.0.7".parse().unwrap(),
            app_ports: BTreeMap::new(),
            app_address: "10.1.0.8".parse().unwrap(),
            low_port_offset: 0,
            cores: 1,
            drain: default_drain(),
            allow_unknown: true,
            access_log: AccessLog::Off,
            tracing: None,
        };
        for own in ["127.0.0.1", "127.16.0.9", "::1", "10.1.0.7", "10.1.0.8", "::ffff:10.1.0.7"] {
            assert!(bootstrap.is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["10.1.0.9", "192.0.2.1", "fe80::1", "0.0.0.0"] {
            assert!(!bootstrap.is_own(other.parse().unwrap()), "{other}");
        }
    }
}
