//! Writes what the compiler has to say to each object's author into the object's status.
//!
//! Invariants: a status is written only when it differs from what is there; other controllers' entries are kept; a transition
//! time changes only with its condition. Whether a Gateway that we run is programmed, those say who run it.

mod render;

use std::{borrow::Cow, collections::BTreeMap};

use futures_util::{StreamExt as _, stream};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use leno_compile::{
    ObjectKey, ObjectStatus,
    status::{ACCEPTED, PROGRAMMED},
};
use serde_json::{Value, json};

pub(super) use self::render::CONTROLLER;
use self::render::{Acknowledged, Context, render};
use super::{
    Cluster, KubernetesError, MANAGER, failed,
    gateways::{Gateways, Programmed},
    is_status,
};
use crate::{api::Api as Views, published::Published, rollout};

/// Writes under way at a time.
const AT_A_TIME: usize = 8;
/// Writes of one round; the rest waits for the next.
const A_ROUND: usize = 200;

/// The groups whose objects have a status that is ours to write.
const GROUPS: [&str; 3] = ["gateway.networking.k8s.io", "networking.istio.io", "security.istio.io"];

/// What was written last.
#[derive(Default)]
pub(crate) struct Statuses {
    written: BTreeMap<ObjectKey, Written>,
}

/// One object's status as it was written.
struct Written {
    /// Of the object: another one of the same name has nothing of it.
    uid: Option<String>,
    status: ObjectStatus,
    /// The object's generation that it speaks of.
    observed: Option<i64>,
    /// The publication since which that generation is in force.
    since: u64,
    acknowledged: bool,
}

/// A status that has to be written.
struct Due {
    key: ObjectKey,
    written: Written,
    acknowledged: Acknowledged,
}

impl Statuses {
    /// Writes what differs from what was written before.
    pub(crate) async fn write(
        &mut self,
        cluster: &Cluster,
        views: &Views,
        published: &Published,
        gateways: &Gateways,
    ) -> Result<(), KubernetesError> {
        self.written.retain(|key, _| published.compiled.statuses.contains_key(key));
        let proxies = rollout::proxies(&views.sessions, published);
        let rollout = rollout::rollout(&proxies);
        let connected = proxies.iter().filter(|proxy| proxy.connected);
        let oldest =
            connected.map(|proxy| proxy.acknowledged.unwrap_or(0)).min().unwrap_or(published.generation);
        let count = (rollout.connected, rollout.connected);
        let due: Vec<Due> = self.due(published, gateways, oldest, count).take(A_ROUND).collect();
        let results: Vec<_> = stream::iter(due)
            .map(|due| async move { (write_one(cluster, published, &due).await, due) })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        let mut problem = Ok(());
        for (result, due) in results {
            match result {
                Ok(()) => {
                    self.written.insert(due.key, due.written);
                }
                Err(error) => problem = Err(error),
            }
        }
        problem
    }

    fn due<'a>(
        &'a self,
        published: &'a Published,
        gateways: &'a Gateways,
        oldest: u64,
        count: (usize, usize),
    ) -> impl Iterator<Item = Due> + 'a {
        published.compiled.statuses.iter().filter_map(move |(key, status)| {
            if !GROUPS.contains(&key.kind.info().group) {
                return None;
            }
            let status = told(gateways, key, status)?;
            let metadata = published.world.get(key)?.metadata();
            let (uid, observed) = (metadata.uid.clone(), metadata.generation);
            let before = self.written.get(key).filter(|before| before.uid == uid);
            let same_object = before.filter(|before| before.observed == observed && before.status == *status);
            let since = same_object.map_or(published.generation, |before| before.since);
            let acknowledged = oldest >= since;
            if same_object.is_some_and(|before| before.acknowledged == acknowledged) {
                return None;
            }
            let written = Written { uid, status: status.into_owned(), observed, since, acknowledged };
            let acknowledged = Acknowledged { all: acknowledged, count };
            Some(Due { key: key.clone(), written, acknowledged })
        })
    }
}

/// What an object's author is told, with what running it has shown; nothing as long as that is not known.
fn told<'s>(gateways: &Gateways, key: &ObjectKey, status: &'s ObjectStatus) -> Option<Cow<'s, ObjectStatus>> {
    let programmed = match gateways.programmed(key) {
        Programmed::AsCompiled => return Some(Cow::Borrowed(status)),
        Programmed::Unknown => return None,
        Programmed::Is(condition) => condition,
    };
    let mut status = status.clone();
    // What the compiler refuses is not programmed, whatever runs.
    if status.conditions.get(PROGRAMMED).is_none_or(|compiled| compiled.status) {
        status.conditions.insert(PROGRAMMED, programmed);
    }
    if let Some(rejected) = gateways.rejected(key) {
        status.conditions.insert(ACCEPTED, rejected);
    }
    Some(Cow::Owned(status))
}

async fn write_one(cluster: &Cluster, published: &Published, due: &Due) -> Result<(), KubernetesError> {
    let Some(object) = published.world.get(&due.key) else { return Ok(()) };
    let info = due.key.kind.info();
    let version = object.api_version().rsplit('/').next().unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(info.group, version, info.name));
    let api: Api<DynamicObject> = if due.key.namespace.is_empty() {
        Api::all_with(cluster.client.clone(), &resource)
    } else {
        Api::namespaced_with(cluster.client.clone(), &due.key.namespace, &resource)
    };
    let what = format!("the status of {} cannot be written", due.key);
    let Some(found) = api.get_opt(&due.key.name).await.map_err(failed(what.clone()))? else { return Ok(()) };
    let before = found.data.get("status").cloned().unwrap_or(Value::Null);
    let context = Context {
        before: &before,
        generation: due.written.observed,
        now: k8s_openapi::jiff::Timestamp::now().to_string(),
        acknowledged: due.acknowledged,
    };
    let Some(after) = render(info.group, &due.written.status, &context) else { return Ok(()) };
    let patch = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"resourceVersion": found.metadata.resource_version}, "status": after,
    });
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_status(&due.key.name, &parameters, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        // Gone, or changed in between: its next state brings its next status.
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => Err(failed(what)(error)),
    }
}

#[cfg(test)]
mod tests;
