//! What this cluster tells the others: its services and their mesh endpoints.
//!
//! Invariant: only services that every namespace may see, and only endpoints with an identity, since nothing else can be
//! reached from another network.

use leno_model::{Endpoint, EndpointSet, Exposure, IndexPort, ServiceId, Tunnel};

use serde::{Deserialize, Serialize};

use crate::{
    services::{Declared, Registered},
    settings::MeshSettings,
};

/// A service as one cluster tells the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedService {
    /// The service.
    pub service: ServiceId,
    /// Its ports.
    pub ports: Vec<IndexPort>,
    /// Its endpoints in the exporting cluster.
    pub endpoints: Vec<Endpoint>,
}

/// Namespaces of the cluster itself, whose services mean another thing in every cluster; so do those of the control plane's namespace.
const CLUSTER_LOCAL: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What is told of a service; `None` when it is this cluster's own business.
pub(crate) fn export(
    settings: &MeshSettings,
    service: &Registered<'_>,
    local: &EndpointSet,
) -> Option<ExportedService> {
    let Declared::Service(object) = &service.declared else { return None };
    let is_api_server = object.namespace() == "default" && object.name() == "kubernetes";
    if service.external
        || service.exposure != Exposure::Everywhere
        || is_api_server
        || CLUSTER_LOCAL.contains(&object.namespace())
        || settings.root_namespace.as_str() == object.namespace()
    {
        return None;
    }
    let reachable = local.endpoints.iter().filter(|endpoint| endpoint.tunnel == Tunnel::Mesh);
    Some(ExportedService {
        service: service.id.clone(),
        ports: service.index_ports(),
        endpoints: reachable.cloned().collect(),
    })
}
