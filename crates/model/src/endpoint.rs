//! The addresses behind a service: the part that changes most, so it is a resource of its own.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    identity::SpiffeId,
    names::{ClusterName, NetworkName, ServiceId, WorkloadId},
    units::{Port, Weight},
};

/// All endpoints of one service, of all clusters, ordered by workload.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct EndpointSet {
    /// The service.
    pub service: ServiceId,
    /// Its endpoints. Empty means "known to have none"; a source that cannot see sends nothing instead.
    pub endpoints: Vec<Endpoint>,
    /// Clusters whose part of this set is the last known one, because they cannot be seen at present.
    pub stale: Vec<ClusterName>,
}

/// One replica of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The replica.
    pub workload: WorkloadId,
    /// Its uid, so that a reused address is not taken for the same instance (PAINS P2).
    pub uid: Arc<str>,
    /// Its address; for another network, its address there, reached through [`Tunnel::Gateway`].
    pub address: IpAddr,
    /// Service port -> port of this replica.
    pub ports: BTreeMap<Port, Port>,
    /// How to reach it.
    pub tunnel: Tunnel,
    /// Its identity; `None` outside the mesh.
    pub identity: Option<SpiffeId>,
    /// Whether it takes new work.
    pub state: EndpointState,
    /// Where it runs.
    pub locality: Locality,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its network.
    pub network: NetworkName,
    /// Pod labels, for subsets and telemetry.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// The workload that owns it (Deployment name), for telemetry.
    pub owner: Arc<str>,
    /// Relative weight within its locality.
    pub weight: Weight,
}

/// How an endpoint is reached.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tunnel {
    /// A mesh peer: mTLS to its address, port 15008.
    Mesh,
    /// No proxy there: plaintext to the endpoint's own port.
    Plain,
    /// A mesh peer in another network: mTLS end to end through a gateway that forwards by SNI.
    Gateway {
        /// The gateway's address.
        address: IpAddr,
        /// Its port.
        port: Port,
    },
    /// A name outside the mesh, resolved by the proxy.
    Dns {
        /// The name to resolve.
        host: Arc<str>,
    },
}

/// Whether an endpoint takes new work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Ready.
    Ready,
    /// Told to go: finishes what it has, gets nothing new.
    Draining,
    /// Known, not ready.
    NotReady,
}

/// Region, zone and subzone; each may be empty. Matching is by prefix: region, then zone, then subzone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Locality {
    /// For example `us-west-2`.
    pub region: Arc<str>,
    /// For example `us-west-2a`.
    pub zone: Arc<str>,
    /// Istio's third level.
    pub subzone: Arc<str>,
}

impl std::fmt::Display for Locality {
    /// `region/zone/subzone` without empty tails.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.subzone.is_empty() {
            write!(f, "/{}", self.subzone)?;
        }
        Ok(())
    }
}
