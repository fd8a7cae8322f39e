//! Who may open which discovery stream.
//!
//! Invariant: a stream for a workload belongs to the verified identity that the compiler gave that workload; only a
//! control plane's identity may speak for another cluster, and for nothing else.

use std::{collections::BTreeMap, time::Duration};

use leno_identity::SpiffeId;
use leno_model::{ClusterName, WorkloadId};
use leno_xds::{
    NodeInfo,
    transport::{Authorizer, Peer, Unauthorized},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::published::Newest;

/// What a control plane of another cluster calls itself, before its cluster's name.
pub(crate) const CONTROL_PREFIX: &str = "control/";

/// How long a workload may be unknown without a warning: a new one's proxy is faster than the news of it.
const NEWS: Duration = Duration::from_secs(10);
/// One that has not asked for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// Most that are remembered; more are warned of at once.
const NEWCOMERS: usize = 1024;

/// Compares what a peer says with what its certificate proved.
pub(crate) struct Admission {
    newest: Newest,
    cluster: ClusterName,
    control: SpiffeId,
    newcomers: Mutex<Newcomers>,
}

/// Workloads that are not known and ask: when each asked first and last.
#[derive(Default)]
struct Newcomers(BTreeMap<WorkloadId, (Instant, Instant)>);

impl Newcomers {
    /// Whether the news of a workload that asks may still be on its way.
    fn may_come(&mut self, workload: &WorkloadId, now: Instant) -> bool {
        self.0.retain(|_, (_, last)| now.saturating_duration_since(*last) < FORGOTTEN);
        if self.0.len() >= NEWCOMERS && !self.0.contains_key(workload) {
            return false;
        }
        let (first, last) = self.0.entry(workload.clone()).or_insert((now, now));
        *last = now;
        now.saturating_duration_since(*first) < NEWS
    }
}

impl Admission {
    /// For the control plane of `cluster`, where control planes are known by the identity `control`.
    pub(crate) fn new(newest: Newest, cluster: ClusterName, control: SpiffeId) -> Self {
        Self { newest, cluster, control, newcomers: Mutex::default() }
    }

    /// Whether a peer that was refused may be a workload's of which the news is on its way.
    fn may_come(&self, peer: &Peer, node: &NodeInfo) -> bool {
        let of_cluster =
            *node.cluster == *self.cluster.as_str() && !node.workload.starts_with(CONTROL_PREFIX);
        if peer.identity.is_none() || !of_cluster {
            return false;
        }
        let Ok(workload) = node.workload.parse::<WorkloadId>() else { return false };
        let unknown = self.newest.load().is_some_and(|published| published.identity_of(&workload).is_none());
        unknown && self.newcomers.lock().may_come(&workload, Instant::now())
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
            if self.may_come(peer, node) {
                tracing::debug!(node = %node.id, workload = %node.workload, %reason, "discovery refused for the moment");
            } else {
                tracing::warn!(node = %node.id, workload = %node.workload, address = ?peer.address, %reason, "discovery refused");
            }
            Unauthorized { reason }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_news_for_a_while_however_often_it_asks() {
        let (mut newcomers, begin) = (Newcomers::default(), Instant::now());
        let (new, other) = (WorkloadId::new("shop", "cart-2"), WorkloadId::new("shop", "cart-3"));
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert!(newcomers.may_come(&new, after(0)) && newcomers.may_come(&new, after(9)));
        for seconds in (10..1000).step_by(30) {
            assert!(!newcomers.may_come(&new, after(seconds)), "{seconds}");
        }
        assert!(newcomers.may_come(&other, after(1000)), "another one");
        assert!(newcomers.may_come(&new, after(2000)), "the same name, long after");
        assert_eq!(newcomers.0.len(), 1, "what is forgotten takes no room");
    }
}
