//! What an installation on Kubernetes tells its control plane: the ConfigMap that `leno install` and the chart make.
//!
//! Invariant: every key is used; a key that nobody knows is an error at the start.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use leno_inject::InjectionConfig;
use leno_model::{ControlAddress, TrustDomain};
use serde::{Deserialize, Serialize};

use super::{ControlConfig, Lifetimes, PeerConfig, REFERENCE_PATIENCE, Settings};

/// Discovery and identity.
const DISCOVERY_PORT: u16 = 15012;
/// The JSON API, on the pod's loopback interface.
const API_PORT: u16 = 15013;
/// Readiness, metrics and version.
const MONITORING_PORT: u16 = 15014;
/// The injector.
const WEBHOOK_PORT: u16 = 15017;

/// How a control plane runs on Kubernetes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KubernetesConfig {
    /// The cluster's name.
    pub cluster: String,
    /// Whose names and labels are used beside our own.
    pub compat: Compat,
    /// What is done for Gateways.
    pub gateways: Gateways,
    /// What pods look like that get a proxy.
    pub injection: InjectionConfig,
    /// The control plane's namespace.
    pub namespace: String,
    /// The cluster's network; empty where there is only one.
    pub network: String,
    /// The other clusters of the mesh.
    pub peers: Vec<Peer>,
    /// Where nodes are that do not say.
    pub region: String,
    /// The control plane's revision; namespaces choose one by label.
    pub revision: String,
    /// More names of it.
    pub tags: Vec<String>,
    /// The mesh's trust domain.
    pub trust_domain: String,
}

/// Whose names and labels are used beside our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// Nobody's.
    None,
    /// Istio's: its labels enrol, and its GatewayClass is served. Not beside a live Istio.
    Istio,
}

/// What is done for Gateways.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Gateways {
    /// Whether the GatewayClass `leno` is installed.
    pub class: bool,
    /// Whether proxies and Services are made for them.
    pub deploy: bool,
    /// Namespaces whose TLS Secrets may be read; `*` is all.
    pub secret_namespaces: Vec<String>,
}

/// Another cluster of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name, as its own installation has it.
    pub cluster: String,
    /// Where its control planes are reached: `HOST` or `HOST:PORT`, without a port 15012.
    pub addresses: Vec<String>,
}

impl Peer {
    fn config(&self) -> Result<PeerConfig, String> {
        let Self { cluster, addresses } = self;
        let address = |text: &String| {
            let with_port = || format!("{text}:{DISCOVERY_PORT}").parse::<ControlAddress>();
            text.parse().or_else(|_| with_port()).map_err(|_| {
                format!("peers: {cluster}: {text:?} is no address or name of a host, alone or with `:PORT`")
            })
        };
        let addresses = addresses.iter().map(address).collect::<Result<_, _>>()?;
        Ok(PeerConfig { cluster: cluster.as_str().into(), addresses })
    }
}

impl KubernetesConfig {
    /// Deployment, Service and Lease.
    #[must_use]
    pub fn control(&self) -> String {
        self.revisioned("leno-control")
    }

    /// The MutatingWebhookConfiguration whose certificate bundle is ours to keep.
    #[must_use]
    pub fn webhook(&self) -> String {
        format!("{}-{}", self.revisioned("leno-sidecar-injector"), self.namespace)
    }

    fn revisioned(&self, name: &str) -> String {
        if self.revision == "default" { name.to_owned() } else { format!("{name}-{}", self.revision) }
    }

    /// Where the injector listens.
    #[must_use]
    pub fn webhook_address(&self) -> SocketAddr {
        any(WEBHOOK_PORT)
    }

    /// Where kubelet and Prometheus ask.
    #[must_use]
    pub fn monitoring_address(&self) -> SocketAddr {
        any(MONITORING_PORT)
    }
}

impl ControlConfig {
    /// A control plane as it is installed on Kubernetes.
    ///
    /// # Errors
    /// When the trust domain, or where another cluster's control planes are, is none.
    pub fn on_kubernetes(kubernetes: KubernetesConfig) -> Result<Self, String> {
        let trust_domain = TrustDomain::parse(&kubernetes.trust_domain)
            .map_err(|error| format!("trustDomain {:?}: {error}", kubernetes.trust_domain))?;
        let peers = kubernetes.peers.iter().map(Peer::config).collect::<Result<_, _>>()?;
        Ok(Self {
            cluster: kubernetes.cluster.as_str().into(),
            region: kubernetes.region.as_str().into(),
            zone: "".into(),
            network: kubernetes.network.as_str().into(),
            trust_domain,
            root_namespace: kubernetes.namespace.as_str().into(),
            listen: any(DISCOVERY_PORT),
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, API_PORT)),
            paths: Vec::new(),
            overlay: None,
            ca_dir: Default::default(),
            tokens: None,
            state_dir: Some("/var/lib/leno".into()),
            peers,
            gateways: Vec::new(),
            exported: None,
            settings: Settings::default(),
            certificates: Lifetimes::default(),
            reference_patience: REFERENCE_PATIENCE,
            kubernetes: Some(kubernetes),
        })
    }
}

/// Every address of the pod, of both families.
fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(given: &[&str]) -> Result<Vec<String>, String> {
        let addresses = given.iter().map(|&text| text.to_owned()).collect();
        let config = Peer { cluster: "east".to_owned(), addresses }.config()?;
        Ok(config.addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn another_clusters_control_planes_are_hosts_with_or_without_a_port() {
        let given = ["peers.east.example.com", "198.18.2.100", "10.0.0.1:443", "fd00::1", "[fd00::1]:99"];
        let expected = [
            "peers.east.example.com:15012",
            "198.18.2.100:15012",
            "10.0.0.1:443",
            "[fd00::1]:15012",
            "[fd00::1]:99",
        ];
        assert_eq!(addresses(&given).unwrap(), expected);
        let refused = addresses(&["https://east.example.com"]).unwrap_err();
        assert!(refused.contains("east") && refused.contains("https://"), "{refused}");
    }
}
