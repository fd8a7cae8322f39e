//! The compact index that every proxy always has: which address or host and port is which service.
//!
//! A service costs a proxy that does not use it one entry here and nothing else. Because the index is always
//! complete, a known service that is not loaded is held and then answered 503, never passed through in plaintext.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    names::{Namespace, ServiceId},
    protocol::Protocol,
    units::Port,
};

/// One service in the index.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The service; its host is what an `HTTP_PROXY` client or a gateway names.
    pub service: ServiceId,
    /// Virtual addresses (ClusterIPs, ServiceEntry addresses) and, for headless services, the pods' own addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<IndexPort>,
    /// Which namespaces may see it.
    pub exposure: Exposure,
    /// Outside the mesh (ServiceEntry `MESH_EXTERNAL`, `ExternalName`).
    pub external: bool,
    /// The namespaces whose own routes or destination rules change how they call this service. A consumer in one of them
    /// uses the variant of that namespace; all others use the common one.
    pub variants: Vec<Namespace>,
}

/// A port of a service in the index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IndexPort {
    /// The service port's number.
    pub port: Port,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// Who may see a service or rule (`exportTo`, `networking.istio.io/exportTo`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exposure {
    /// Every namespace.
    #[default]
    Everywhere,
    /// Only these; an empty list is nobody.
    Only(Vec<Namespace>),
}

impl Exposure {
    /// Whether workloads of `namespace` may see it.
    pub fn includes(&self, namespace: &Namespace) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Only(namespaces) => namespaces.contains(namespace),
        }
    }
}
