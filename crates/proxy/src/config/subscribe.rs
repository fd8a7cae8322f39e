//! Resources as they land: decoded, applied whole, swapped in, acknowledged.
//!
//! Invariant: tables change by whole generations; what cannot be decoded keeps its last good form under its name. A policy
//! that is withheld from us is absent from the tables, and a workload whose policy is absent denies.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leno_decide::{Change, Tables};
use leno_model::{Resource, ResourceKey, ResourceKind, ServiceId, resource::parse_scope};
use leno_xds::transport::client::Landing;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::persist::StateDir;
use crate::shared::Shared;

/// Between two savings of the configuration; the last state is always saved within this time.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Between two looks for scopes that nobody uses.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What the proxy holds, besides what its tables make of it.
pub(crate) struct Subscription {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Option<Arc<StateDir>>,
    pub(crate) held: BTreeMap<ResourceKey, Resource>,
}

impl Subscription {
    /// Applies what lands until `stop`.
    pub(crate) async fn run(mut self, mut landings: mpsc::Receiver<Landing>, stop: CancellationToken) {
        let mut save = tokio::time::interval(SAVE_EVERY);
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let mut unsaved = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                landing = landings.recv() => {
                    let Some(landing) = landing else { break };
                    self.land(landing);
                    unsaved = true;
                }
                _ = save.tick(), if unsaved => {
                    unsaved = false;
                    self.save().await;
                }
                _ = sweep.tick() => self.drop_unused(),
            }
        }
        if unsaved {
            self.save().await;
        }
    }

    fn land(&mut self, landing: Landing) {
        let (landed, judge) = landing.split();
        let mut changes = Vec::with_capacity(landed.resources.len() + landed.removed.len());
        let mut rejected = Vec::new();
        for resource in &landed.resources {
            match leno_wire::decode(resource.key.kind, &resource.key.name, &resource.payload) {
                Ok(decoded) => {
                    self.held.insert(decoded.key(), decoded.clone());
                    changes.push(Change::Upsert(decoded));
                }
                Err(error) => rejected.push((resource.key.clone(), error.to_string())),
            }
        }
        let void = landed.withheld.iter().map(|(key, _)| key);
        for key in landed.removed.iter().chain(void).filter_map(to_model) {
            self.held.remove(&key);
            changes.push(Change::Remove(key));
        }
        let scope = |name: &Arc<str>| parse_scope(name).map(|(_, service)| service);
        changes.extend(landed.answered.iter().filter_map(scope).map(|service| Change::Scope(service, true)));
        changes
            .extend(landed.not_found.iter().filter_map(scope).map(|service| Change::Scope(service, false)));
        let tables = self.shared.tables.load().apply(changes);
        for resource in &landed.resources {
            let key = to_model(&resource.key);
            if let Some(reason) = key.and_then(|key| tables.rejected().get(&key).cloned()) {
                rejected.push((resource.key.clone(), reason));
            }
        }
        self.shared.swap(tables, landed.publication);
        for (key, reason) in &rejected {
            tracing::warn!(resource = %key, reason, "resource not taken; its last good form stays");
        }
        if rejected.is_empty() { judge.accept() } else { judge.accept_except(rejected) }
    }

    /// A scope that is dropped is not kept up to date any more, so the next request must ask again.
    fn drop_unused(&self) {
        let dropped = self.shared.demand.sweep();
        if !dropped.is_empty() {
            let changes = dropped.into_iter().map(|service: ServiceId| Change::Scope(service, false));
            let tables = self.shared.tables.load().apply(changes);
            let publication = *self.shared.changed.borrow();
            self.shared.swap(tables, publication);
        }
        let tables = self.shared.tables.load();
        self.shared.health.retain(|service| tables.is_loaded(service) || tables.endpoints(service).is_some());
    }

    async fn save(&self) {
        let Some(state) = self.state.clone() else { return };
        let scopes = self.shared.demand.scopes();
        let held = self.held.clone();
        let saved = tokio::task::spawn_blocking(move || state.save_snapshot(&scopes, held.values())).await;
        match saved {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the configuration is not kept for a restart"),
            Err(error) => tracing::warn!(%error, "saving the configuration failed"),
        }
    }
}

/// The tables of a snapshot that was kept, and the versions to resume by.
pub(crate) fn restore(
    tables: &Tables,
    scopes: &[String],
    resources: &[Resource],
) -> (Tables, Vec<(leno_xds::ResourceKey, leno_xds::Version)>) {
    let mut versions = Vec::with_capacity(resources.len());
    for resource in resources {
        let key = resource.key();
        let features: Vec<Arc<str>> =
            leno_wire::required_features(resource).iter().map(|name| (*name).into()).collect();
        if let Ok(bytes) = leno_wire::encode(resource) {
            let version = leno_xds::Version::of(&bytes, &features);
            versions.push((leno_xds::ResourceKey::new(key.kind as u32, key.name), version));
        }
    }
    let loaded =
        scopes.iter().filter_map(|name| parse_scope(name)).map(|(_, service)| Change::Scope(service, true));
    let changes = resources.iter().cloned().map(Change::Upsert).chain(loaded);
    (tables.apply(changes), versions)
}

fn to_model(key: &leno_xds::ResourceKey) -> Option<ResourceKey> {
    Some(ResourceKey { kind: ResourceKind::from_number(key.kind)?, name: key.name.clone() })
}
