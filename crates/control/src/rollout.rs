//! How far the mesh is: what each proxy has acknowledged, and what it could not use.
//!
//! Invariant: a proxy counts as behind until it has acknowledged the newest generation; one that is not connected is
//! listed, since its workload is in the mesh.

mod attendance;

use std::{collections::BTreeSet, sync::Arc};

use leno_model::ResourceKind;
use leno_xds::{
    ResourceKey,
    server::{Refused, RejectedResource, SessionStatus, WithheldResource},
    transport::Sessions,
};
use serde::Serialize;

pub(crate) use self::attendance::{Attendance, Reach};
use crate::{authorize::CONTROL_PREFIX, publish::model_key, published::Published};

/// How far one proxy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ProxyState {
    /// Its own name; absent when it is not connected.
    pub(crate) id: Option<Arc<str>>,
    /// `namespace/name` of its workload or gateway.
    pub(crate) workload: Arc<str>,
    /// Whether it is a gateway's.
    pub(crate) gateway: bool,
    /// Its program's version.
    pub(crate) version: Option<Arc<str>>,
    /// Whether its stream is open.
    pub(crate) connected: bool,
    /// The newest generation that it has acknowledged.
    pub(crate) acknowledged: Option<u64>,
    /// How many generations it is behind; absent when it has acknowledged none.
    pub(crate) lag: Option<u64>,
    /// How many scopes it is subscribed to.
    pub(crate) scopes: usize,
    /// How many resources it has.
    pub(crate) resources: usize,
    /// What it could not use.
    pub(crate) rejected: Vec<Objection>,
    /// What it was not given.
    pub(crate) withheld: Vec<Objection>,
    /// Why it took nothing of its last generation.
    pub(crate) refused: Option<Arc<str>>,
}

/// A resource that does not get through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Objection {
    /// Its kind and name.
    pub(crate) resource: String,
    /// Why.
    pub(crate) reason: String,
}

/// How many of those that are connected have acknowledged the newest generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rollout {
    /// Those that have.
    pub(crate) acknowledged: usize,
    /// All that are connected.
    pub(crate) connected: usize,
    /// All that the mesh has.
    pub(crate) expected: usize,
}

/// Every proxy of the mesh, by workload: the connected ones, and those whose workload has none.
pub(crate) fn proxies(sessions: &Sessions, published: &Published) -> Vec<ProxyState> {
    let all = sessions.all();
    let connected = all.iter().filter(|status| is_proxy(status));
    let mut proxies: Vec<ProxyState> = connected.map(|status| of_session(status, published)).collect();
    let seen: BTreeSet<Arc<str>> = proxies.iter().map(|proxy| proxy.workload.clone()).collect();
    for key in published.compiled.resources.keys() {
        let gateway = match key.kind {
            ResourceKind::Workload => false,
            ResourceKind::Gateway => true,
            ResourceKind::Index
            | ResourceKind::Policy
            | ResourceKind::Destination
            | ResourceKind::Routes
            | ResourceKind::Endpoints
            | ResourceKind::Secret => continue,
        };
        if !seen.contains(&key.name) {
            proxies.push(absent(key.name.clone(), gateway));
        }
    }
    proxies.sort_by(|a, b| (&a.workload, &a.id).cmp(&(&b.workload, &b.id)));
    proxies.dedup_by(|a, b| !a.connected && !b.connected && a.workload == b.workload);
    proxies
}

/// The sum of it.
pub(crate) fn rollout(proxies: &[ProxyState]) -> Rollout {
    let connected = || proxies.iter().filter(|proxy| proxy.connected);
    Rollout {
        acknowledged: connected().filter(|proxy| proxy.lag == Some(0)).count(),
        connected: connected().count(),
        expected: proxies.len(),
    }
}

fn is_proxy(status: &SessionStatus) -> bool {
    !status.node.workload.starts_with(CONTROL_PREFIX)
}

fn of_session(status: &SessionStatus, published: &Published) -> ProxyState {
    let SessionStatus {
        node,
        publication: _,
        acked_publication,
        in_flight: _,
        scopes,
        resources,
        rejected,
        withheld,
        refused,
    } = status;
    let gateway = node
        .workload
        .parse()
        .is_ok_and(|id| published.compiled.resources.contains_key(&leno_model::ResourceKey::gateway(&id)));
    ProxyState {
        id: Some(node.id.clone()),
        workload: node.workload.clone(),
        gateway,
        version: Some(node.version.clone()),
        connected: true,
        acknowledged: *acked_publication,
        lag: acked_publication.map(|acked| published.generation.saturating_sub(acked)),
        scopes: *scopes,
        resources: *resources,
        rejected: rejected.iter().map(of_rejected).collect(),
        withheld: withheld.iter().map(of_withheld).collect(),
        refused: refused.as_ref().map(|Refused { error, .. }| error.clone()),
    }
}

fn absent(workload: Arc<str>, gateway: bool) -> ProxyState {
    ProxyState {
        id: None,
        workload,
        gateway,
        version: None,
        connected: false,
        acknowledged: None,
        lag: None,
        scopes: 0,
        resources: 0,
        rejected: Vec::new(),
        withheld: Vec::new(),
        refused: None,
    }
}

fn of_rejected(rejected: &RejectedResource) -> Objection {
    let RejectedResource { key, version: _, reason } = rejected;
    Objection { resource: name(key), reason: reason.to_string() }
}

fn of_withheld(withheld: &WithheldResource) -> Objection {
    let WithheldResource { key, features_missing } = withheld;
    let reason = if features_missing.is_empty() {
        "it is too large to be sent".to_owned()
    } else {
        format!("the proxy's version does not know {}", features_missing.join(", "))
    };
    Objection { resource: name(key), reason }
}

fn name(key: &ResourceKey) -> String {
    model_key(key).map_or_else(|| key.to_string(), |key| key.to_string())
}
