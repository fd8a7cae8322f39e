//! What a mesh's configuration and its other clusters add to the objects.
//!
//! Invariant: plain data; everything that decides an outcome of compiling is here or in the world.

use std::net::IpAddr;

use leno_model::{ClusterName, Locality, Namespace, NetworkName, Port, TrustDomain};

use crate::exports::ExportedService;

/// The settings of a mesh, as one cluster's control plane has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    /// The trust domain of identities.
    pub trust_domain: TrustDomain,
    /// Policies and DestinationRules of this namespace apply to the whole mesh, as those of `istio-system` do.
    pub root_namespace: Namespace,
    /// This cluster.
    pub cluster: ClusterName,
    /// Its network.
    pub network: NetworkName,
    /// Where workloads run whose node (or labels) does not say.
    pub locality: Locality,
    /// Retries of routes that do not say.
    pub retries: RetryProfile,
    /// What happens to connections to addresses that no service has; read by proxies, carried here with its siblings.
    pub outbound: OutboundMode,
    /// Whether nearest endpoints come first where no DestinationRule says (PAINS P12).
    pub locality_first: bool,
    /// Whether gateways of Istio's classes, and of classes that nobody wrote down, are ours too. Not beside a live Istio.
    pub istio_classes: bool,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            root_namespace: "leno-system".into(),
            cluster: "local".into(),
            network: "".into(),
            locality: Locality::default(),
            retries: RetryProfile::Safe,
            outbound: OutboundMode::AllowAny,
            locality_first: true,
            istio_classes: true,
        }
    }
}

impl MeshSettings {
    /// The namespaces whose policies apply to the whole mesh: our own and Istio's.
    pub(crate) fn roots(&self) -> [&str; 2] {
        [self.root_namespace.as_str(), "istio-system"]
    }

    /// Whether policies of a namespace apply to the whole mesh.
    pub(crate) fn is_root(&self, namespace: &str) -> bool {
        self.roots().contains(&namespace)
    }
}

/// Retries of routes that do not say (PAINS P7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryProfile {
    /// Only what certainly was not processed, or is idempotent.
    Safe,
    /// Istio's: also requests whose method is not idempotent.
    Compat,
}

/// What happens to connections to unknown addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundMode {
    /// They pass through.
    AllowAny,
    /// They are refused.
    RegistryOnly,
}

/// Another cluster of the mesh, as its control plane describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCluster {
    /// Its name.
    pub cluster: ClusterName,
    /// Its network.
    pub network: NetworkName,
    /// Its east-west gateways, for callers of other networks.
    pub gateways: Vec<(IpAddr, Port)>,
    /// Whether it cannot be seen at present, so that this is the last that was known.
    pub stale: bool,
    /// What it exports.
    pub exports: Vec<ExportedService>,
}
