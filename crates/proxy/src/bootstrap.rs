//! What a proxy is told before it knows anything: who it is, where its control plane is, which addresses it may use.
//!
//! In an embedded mesh it is a JSON file, because a supervisor writes it; in a pod it is made of the environment. Everything
//! else comes by discovery. A token is not in it (see [`crate::JoinToken`]).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

pub use leno_capture::ports::{
    ADMIN_PORT, HEALTH_PORT, INBOUND_PORT, MESH_PORT, METRICS_PORT, OUTBOUND_PORT, PROMETHEUS_PORT,
};
use leno_model::{ClusterName, Millis, SpiffeId, TrustDomain, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::app_health::Probe;

pub use leno_model::ControlAddress;

/// Outbound requests in absolute form (`HTTP_PROXY`), for programs under `leno run`.
pub const HTTP_PROXY_PORT: u16 = 15002;

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
    /// Control planes, tried in turn.
    pub control: Vec<ControlAddress>,
    /// The identity that a control plane must prove.
    pub control_identity: SpiffeId,
    /// Roots to start with; later ones come with certificates.
    pub roots: Roots,
    /// Lifetime to ask for its certificates.
    #[serde(default = "default_certificate_ttl")]
    pub certificate_ttl: Millis,
    /// Where snapshot, key and chain are kept across restarts (memory-backed, mode 0700). `None`: nowhere.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// How connections come to it.
    #[serde(default)]
    pub capture: Capture,
    /// The address that this proxy owns, where peers dial [`MESH_PORT`]: its own, or the pod's.
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
    /// The probes of the workload's containers that are asked for here, by `CONTAINER/livez`, `readyz` or `startupz`.
    #[serde(default)]
    pub probes: BTreeMap<String, Probe>,
}

/// How connections come to a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capture {
    /// Its application dials it and says with PROXY protocol what it meant; outsiders dial the application's ports on the proxy's own
    /// address (an embedded mesh).
    #[default]
    ProxyProtocol,
    /// It has a network namespace with its application, whose connections the kernel redirects (`leno_capture`). A gateway, which
    /// has no application, listens on all addresses.
    Captured,
}

/// Roots to start with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Roots {
    /// PEM.
    Pem(String),
    /// A PEM file that others keep up to date; read each time a certificate is asked for.
    File {
        /// Its path.
        file: PathBuf,
    },
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
    /// Where the application listens on its declared `port`; `dialled` is the workload's address that the client used.
    pub fn app_socket(&self, dialled: IpAddr, port: u16) -> SocketAddr {
        match self.capture {
            Capture::ProxyProtocol => {
                self.app_ports.get(&port).copied().unwrap_or_else(|| SocketAddr::new(self.app_address, port))
            }
            // Of a pod's addresses the one that was dialled, so that an application may listen on one family only.
            Capture::Captured => SocketAddr::new(dialled, port),
        }
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
    fn roots_are_text_or_a_file() {
        let pem: Roots = serde_json::from_str("\"-----BEGIN\"").unwrap();
        assert_eq!(pem, Roots::Pem("-----BEGIN".into()));
        let file: Roots = serde_json::from_str("{\"file\": \"/a/b\"}").unwrap();
        assert_eq!(file, Roots::File { file: "/a/b".into() });
    }

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
            roots: Roots::Pem(String::new()),
            certificate_ttl: default_certificate_ttl(),
            state_dir: None,
            capture: Capture::ProxyProtocol,
            address: "10.1.0.7".parse().unwrap(),
            app_ports: BTreeMap::new(),
            app_address: "10.1.0.8".parse().unwrap(),
            low_port_offset: 0,
            cores: 1,
            drain: default_drain(),
            allow_unknown: true,
            access_log: AccessLog::Off,
            tracing: None,
            probes: BTreeMap::new(),
        };
        for own in ["127.0.0.1", "127.16.0.9", "::1", "10.1.0.7", "10.1.0.8", "::ffff:10.1.0.7"] {
            assert!(bootstrap.is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["10.1.0.9", "192.0.2.1", "fe80::1", "0.0.0.0"] {
            assert!(!bootstrap.is_own(other.parse().unwrap()), "{other}");
        }
    }
}
