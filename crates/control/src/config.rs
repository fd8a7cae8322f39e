//! What a control plane is told at its start.
//!
//! Invariant: everything that is not an object of the user's and yet decides an outcome is here.

mod kubernetes;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use leno_compile::{MeshSettings, OutboundMode, RetryProfile};
use leno_identity::{CONTROL_PLANE_NAMESPACE, SpiffeId, SpiffeIdError, control_plane_identity_in};
use leno_model::{ClusterName, ControlAddress, Locality, Millis, Namespace, NetworkName, Port, TrustDomain};
use serde::{Deserialize, Serialize};

use self::kubernetes::Compat;
pub use self::kubernetes::KubernetesConfig;

/// What a control plane is told at its start; a JSON file for the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// The cluster it serves.
    pub cluster: ClusterName,
    /// Where workloads run whose node does not say.
    #[serde(default)]
    pub region: Arc<str>,
    /// The same, one level below.
    #[serde(default)]
    pub zone: Arc<str>,
    /// The cluster's network; empty where there is only one.
    #[serde(default = "no_network")]
    pub network: NetworkName,
    /// The mesh's trust domain.
    #[serde(default)]
    pub trust_domain: TrustDomain,
    /// The namespace whose policies apply to the whole mesh.
    #[serde(default = "root_namespace")]
    pub root_namespace: Namespace,
    /// Discovery and identity, gRPC over mTLS.
    pub listen: SocketAddr,
    /// The JSON API, plain HTTP; a loopback address.
    pub api: SocketAddr,
    /// The user's manifests, where there is no Kubernetes.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
    /// What a supervisor adds to them (a mesh without Kubernetes).
    #[serde(default)]
    pub overlay: Option<PathBuf>,
    /// Kubernetes: objects, authority and proofs of identity come from its API server.
    #[serde(default)]
    pub kubernetes: Option<KubernetesConfig>,
    /// The issuing authority, in Istio's `cacerts` layout; not needed on Kubernetes.
    #[serde(default)]
    pub ca_dir: PathBuf,
    /// Join tokens, by the SHA-256 of each.
    #[serde(default)]
    pub tokens: Option<PathBuf>,
    /// Where the last known exports of other clusters are kept across restarts. `None`: nowhere.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// The control planes of the other clusters.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
    /// This cluster's east-west gateways, for callers in other networks.
    #[serde(default)]
    pub gateways: Vec<(IpAddr, Port)>,
    /// What other clusters are told: `NAMESPACE/NAME` or `NAMESPACE/*`. `None`: every service that all namespaces may see.
    #[serde(default)]
    pub exported: Option<Vec<String>>,
    /// The mesh's defaults.
    #[serde(default)]
    pub settings: Settings,
    /// Lifetimes of certificates.
    #[serde(default)]
    pub certificates: Lifetimes,
    /// How long what worked stays while a route's subset is not defined (ADR 0018), in milliseconds; 0: not at all.
    #[serde(default = "reference_patience")]
    pub reference_patience: Millis,
}

/// Another cluster's control planes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Where they listen: each is a way to the same cluster.
    pub addresses: Vec<ControlAddress>,
}

/// The mesh's defaults.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Retries of routes that do not say.
    pub retries: Retries,
    /// Connections to addresses that no service has.
    pub outbound: Outbound,
    /// Whether nearest endpoints come first where no DestinationRule says.
    pub locality_first: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { retries: Retries::Safe, outbound: Outbound::AllowAny, locality_first: true }
    }
}

/// Retries of routes that do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retries {
    /// Only what certainly was not processed, or is idempotent.
    Safe,
    /// Istio's.
    Compat,
}

/// Connections to addresses that no service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outbound {
    /// They pass through.
    AllowAny,
    /// They are refused.
    RegistryOnly,
}

/// Lifetimes of certificates, in seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lifetimes {
    /// Given to who names none, and to the control plane itself.
    pub default_seconds: u64,
    /// The longest that is given.
    pub longest_seconds: u64,
    /// The shortest that is given.
    pub shortest_seconds: u64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { default_seconds: 24 * 3600, longest_seconds: 24 * 3600, shortest_seconds: 10 }
    }
}

impl Lifetimes {
    /// What is given to who wishes for `wished` seconds; 0 is no wish.
    pub(crate) fn granted(&self, wished: u64) -> Duration {
        let wished = if wished == 0 { self.default_seconds } else { wished };
        Duration::from_secs(wished.min(self.longest_seconds).max(self.shortest_seconds))
    }
}

impl ControlConfig {
    /// Who the mesh's control planes are, in this cluster and in the others: on Kubernetes of the namespace that they are
    /// installed in, so that a namespace of the usual name is nobody where they are elsewhere.
    pub(crate) fn control_identity(&self) -> Result<SpiffeId, SpiffeIdError> {
        let namespace = self.kubernetes.as_ref().map_or(CONTROL_PLANE_NAMESPACE, |it| it.namespace.as_str());
        control_plane_identity_in(&self.trust_domain, namespace)
    }

    /// The part of it that decides what objects mean.
    pub(crate) fn mesh(&self) -> MeshSettings {
        MeshSettings {
            trust_domain: self.trust_domain.clone(),
            root_namespace: self.root_namespace.clone(),
            cluster: self.cluster.clone(),
            network: self.network.clone(),
            locality: Locality { region: self.region.clone(), zone: self.zone.clone(), subzone: "".into() },
            retries: match self.settings.retries {
                Retries::Safe => RetryProfile::Safe,
                Retries::Compat => RetryProfile::Compat,
            },
            outbound: match self.settings.outbound {
                Outbound::AllowAny => OutboundMode::AllowAny,
                Outbound::RegistryOnly => OutboundMode::RegistryOnly,
            },
            locality_first: self.settings.locality_first,
            istio_classes: self.kubernetes.as_ref().is_none_or(|it| it.compat == Compat::Istio),
        }
    }
}

fn no_network() -> NetworkName {
    "".into()
}

/// How long what worked stays while a route's subset is not defined, unless it is said.
pub const REFERENCE_PATIENCE: Millis = Millis(10_000);

fn reference_patience() -> Millis {
    REFERENCE_PATIENCE
}

fn root_namespace() -> Namespace {
    "leno-system".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_configuration_has_the_meshs_defaults_and_a_misspelt_one_is_refused() {
        let text = r#"{"cluster": "west", "listen": "127.0.0.1:0", "api": "127.0.0.1:0", "paths": ["m"], "ca_dir": "ca"}"#;
        let config: ControlConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.mesh().trust_domain.as_str(), "cluster.local");
        assert_eq!(config.root_namespace.as_str(), "leno-system");
        assert!(serde_json::from_str::<ControlConfig>(&text.replace("paths", "pahts")).is_err());
    }

    fn on_kubernetes(compat: &str, namespace: &str) -> ControlConfig {
        let kubernetes = serde_json::json!({
            "cluster": "west", "compat": compat, "injection": {}, "namespace": namespace, "network": "", "peers": [], "region": "",
            "gateways": {"class": true, "deploy": true, "secretNamespaces": ["*"]},
            "revision": "default", "tags": [], "trustDomain": "cluster.local",
        });
        ControlConfig::on_kubernetes(serde_json::from_value(kubernetes).unwrap()).unwrap()
    }

    #[test]
    fn on_kubernetes_gateways_of_istios_classes_are_ours_only_in_place_of_istio() {
        assert!(!on_kubernetes("none", "leno-system").mesh().istio_classes, "istiod writes their statuses");
        assert!(on_kubernetes("istio", "leno-system").mesh().istio_classes);
    }

    /// In a cluster of the IPv6 family nobody has another address; in the others `::1` may not even be there.
    #[tokio::test]
    async fn on_kubernetes_both_families_are_listened_on() {
        let mut address = on_kubernetes("none", "leno-system").listen;
        address.set_port(0);
        let listener = crate::control::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let loopbacks = ["127.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().unwrap());
        for loopback in loopbacks {
            if tokio::net::TcpListener::bind((loopback, 0)).await.is_ok() {
                tokio::net::TcpStream::connect((loopback, port)).await.unwrap();
            }
        }
    }

    #[test]
    fn control_planes_are_of_the_namespace_that_they_are_installed_in() {
        let control = on_kubernetes("none", "mesh").control_identity().unwrap();
        assert_eq!(control.as_str(), "spiffe://cluster.local/ns/mesh/sa/leno-control");
    }

    #[test]
    fn lifetimes_are_kept_within_their_bounds() {
        let lifetimes = Lifetimes { default_seconds: 3600, longest_seconds: 7200, shortest_seconds: 10 };
        let granted = [0, 1, 20, 100_000].map(|wished| lifetimes.granted(wished).as_secs());
        assert_eq!(granted, [3600, 10, 20, 7200]);
    }
}
