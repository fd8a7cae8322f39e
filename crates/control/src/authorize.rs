//! Who may open which discovery stream.
//!
//! Invariant: a stream for a workload belongs to the verified identity that the compiler gave that workload; only a
//! control plane's identity may speak for another cluster, and for nothing else.

use leno_identity::{SpiffeId, TrustDomain, control_plane_identity};
use leno_model::{ClusterName, WorkloadId};
use leno_xds::{
    NodeInfo,
    transport::{Authorizer, Peer, Unauthorized},
};

use crate::published::Newest;

/// What a control plane of another cluster calls itself, before its cluster's name.
pub(crate) const CONTROL_PREFIX: &str = "control/";

/// Compares what a peer says with what its certificate proved.
pub(crate) struct Admission {
    newest: Newest,
    cluster: ClusterName,
    control: SpiffeId,
}

impl Admission {
    /// For the control plane of `cluster`.
    pub(crate) fn new(newest: Newest, cluster: ClusterName, domain: &TrustDomain) -> Self {
        Self { newest, cluster, control: control_plane_identity(domain) }
    }

    fn check(&self, peer: &Peer, node: &NodeInfo) -> Result<(), String> {
        let identity =
            peer.identity.as_deref().ok_or("a certificate is needed: ask for one with a join token")?;
        if let Some(cluster) = node.workload.strip_prefix(CONTROL_PREFIX) {
            return if identity != self.control.as_str() {
                Err(format!(
                    "{identity} is not a control plane, so it cannot speak for the cluster {cluster}"
                ))
            } else if cluster != &*node.cluster || cluster == self.cluster.as_str() {
                Err(format!("a control plane of {} cannot speak for the cluster {cluster}", node.cluster))
            } else {
                Ok(())
            };
        }
        if *node.cluster != *self.cluster.as_str() {
            return Err(format!("this is the control plane of {}, not of {}", self.cluster, node.cluster));
        }
        let workload: WorkloadId = node.workload.parse().map_err(|error| format!("{error}"))?;
        let published = self.newest.load().ok_or("the control plane has not read its sources yet")?;
        match published.identity_of(&workload) {
            Some(expected) if expected.as_str() == identity => Ok(()),
            Some(expected) => Err(format!("{workload} is {expected}, and you are {identity}")),
            None => Err(format!("there is no workload {workload} in the mesh of {}", self.cluster)),
        }
    }
}

impl Authorizer for Admission {
    fn authorize(&self, peer: &Peer, node: &NodeInfo) -> Result<(), Unauthorized> {
        self.check(peer, node).map_err(|reason| {
            tracing::warn!(node = %node.id, workload = %node.workload, address = ?peer.address, %reason, "discovery refused");
            Unauthorized { reason }
        })
    }
}
