//! A workload's own configuration: who it is and what it accepts.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    endpoint::Locality,
    identity::SpiffeId,
    names::{ClusterName, NetworkName, ServiceId, WorkloadId},
    origin::Origin,
    protocol::{MtlsMode, Protocol},
    units::Port,
};

/// One replica's inbound configuration. Only that replica's proxy receives it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// The replica.
    pub id: WorkloadId,
    /// Its identity.
    pub identity: SpiffeId,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its network.
    pub network: NetworkName,
    /// Where it runs.
    pub locality: Locality,
    /// Pod labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// The workload that owns it (Deployment name).
    pub owner: Arc<str>,
    /// Canonical service name (CONTRACTS section 2).
    pub canonical_name: Arc<str>,
    /// Canonical revision; `latest` when nothing says.
    pub canonical_revision: Arc<str>,
    /// Ports that services or the pod declare.
    pub ports: Vec<InboundPort>,
    /// mTLS mode of ports not in `ports`.
    pub mtls: MtlsMode,
    /// Where `mtls` comes from.
    pub mtls_origin: Origin,
    /// Ids of the policies that select it, ordered.
    pub policies: Vec<Arc<str>>,
}

/// A port that the workload serves.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct InboundPort {
    /// The application's port.
    pub port: Port,
    /// What is spoken there.
    pub protocol: Protocol,
    /// What is accepted there.
    pub mtls: MtlsMode,
    /// The PeerAuthentication (or default) that says so.
    pub mtls_origin: Origin,
    /// The services that lead here.
    pub services: Vec<InboundService>,
}

/// A service port that leads to a workload's port.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct InboundService {
    /// The service.
    pub service: ServiceId,
    /// Its port.
    pub port: Port,
}
